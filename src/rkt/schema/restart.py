# SPDX-License-Identifier: Apache-2.0
"""When an app is started again: the value of ``--restart`` and of the app's annotation; imported when there is one."""

from __future__ import annotations

from rkt.errors import InvalidManifest, quoted
from rkt.schema.record import Record
from rkt.values import is_number

NO = "no"
ON_FAILURE = "on-failure"
ALWAYS = "always"
_MOST = 1_000_000


class Policy(Record):
    """A policy.

    Attributes:
        kind: one of the words above.
        limit: of ``on-failure``, how often at most; ``None`` for without end.
    """

    kind: str
    limit: int | None = None


def parse_policy(text: str) -> Policy:
    """``no``, ``always``, ``on-failure`` or ``on-failure:N``.

    Raises:
        InvalidManifest: it is something else.
    """
    kind, colon, number = text.partition(":")
    if kind in {NO, ALWAYS, ON_FAILURE} and not colon:
        return Policy(kind=kind)
    if kind == ON_FAILURE and is_number(number, most_digits=7):
        limit = int(number)
        if 1 <= limit <= _MOST:
            return Policy(kind=kind, limit=limit)
    raise InvalidManifest(
        f"invalid restart policy {quoted(text)}", hint="no, on-failure, on-failure:N or always"
    )

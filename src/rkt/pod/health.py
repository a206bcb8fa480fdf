# SPDX-License-Identifier: Apache-2.0
"""What the probes of an app have found: ``rkt/status/APP-health``, a JSON object that stage1 replaces with each news."""

from __future__ import annotations

from rkt.errors import InvalidManifest
from rkt.schema import jsontext
from rkt.schema.record import Record
from rkt.stage0 import contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.pod.lifecycle import Pod

_LIMIT_BYTES = 64 << 10
_PREFIX = "coreos.com/rkt/"


class Health(Record):
    """The findings.

    Attributes:
        ready: ``None`` without a readiness probe.
        alive: ``None`` without a liveness probe, and before its first answer.
        ready_ns, unready_ns, unhealthy_ns: when that was found last, since the epoch; 0 for never.
        message: what the probe that failed, or the app, said; it may hold anything.
    """

    ready: bool | None = None
    alive: bool | None = None
    ready_ns: int = 0
    unready_ns: int = 0
    unhealthy_ns: int = 0
    message: str = ""


def has_probes(app: dict[str, Any]) -> tuple[bool, bool]:
    """Whether an app of a pod manifest has a readiness probe and a liveness probe."""
    names = {annotation.get("name") for annotation in app.get("annotations") or []}
    return f"{_PREFIX}readiness" in names, f"{_PREFIX}liveness" in names


def read(pod: Pod, base: str, app: str) -> Health:
    """What is known now.

    Args:
        pod: an open pod.
        base: stage1's writable root.
        app: its name.
    """
    data = pod.read(f"{base}/{contract.STATUS_DIR}/{app}-health", _LIMIT_BYTES)
    if data is None:
        return Health()
    try:
        members = jsontext.parse(data, what="health of an app")
    except InvalidManifest:
        return Health()
    if not isinstance(members, dict):
        return Health()

    def number(name: str) -> int:
        value = members.get(name)
        return value if isinstance(value, int) else 0

    return Health(
        ready=members.get("ready") if isinstance(members.get("ready"), bool) else None,
        alive=members.get("alive") if isinstance(members.get("alive"), bool) else None,
        ready_ns=number("ready_ns"),
        unready_ns=number("unready_ns"),
        unhealthy_ns=number("unhealthy_ns"),
        message=str(members.get("message", "")),
    )

# SPDX-License-Identifier: Apache-2.0
"""Kind ``privateUsers`` of ``users.d``: which ids of the host pods with ``--private-users`` may lease."""

from __future__ import annotations

from rkt.config.files import read_directory
from rkt.schema.record import Record
from rkt.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.files import ConfigFile
    from rkt.config.settings import Settings

#: Ids up to here belong to people and services of the host, by every distribution's convention.
_LOWEST = 65536
_HIGHEST = 0xFFFFFFFE


class UsersConfig(Record):
    """Ranges of ids; empty when not configured.

    Attributes:
        ranges: first id and how many follow, in the order of the file.
    """

    ranges: list[tuple[int, int]] = []


def load_users(settings: Settings) -> UsersConfig:
    """The ranges of the last directory that names any: later directories win."""
    ranges: list[tuple[int, int]] = []
    for directory in settings.config_dirs:
        own: list[tuple[int, int]] = []
        for file in read_directory(f"{directory}/users.d", ("privateUsers",)):
            own += [_parse(file, text) for text in file.texts("ranges")]
        ranges = own or ranges
    return UsersConfig(ranges=ranges)


def _parse(file: ConfigFile, text: str) -> tuple[int, int]:
    first, _, count = text.partition(":")
    if not all(is_number(word, most_digits=10) for word in (first, count)):
        raise file.error(f'"{text}" is not a range of ids, FIRST:COUNT')
    if int(first) < _LOWEST or int(first) + int(count) - 1 > _HIGHEST:
        raise file.error(f'the range "{text}" is not within {_LOWEST} to {_HIGHEST}')
    return int(first), int(count)

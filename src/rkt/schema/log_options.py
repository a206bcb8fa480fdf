# SPDX-License-Identifier: Apache-2.0
"""How an app's log is kept, as annotations of the pod manifest say; the flags are called like these.

==============================  ================================================================================
``coreos.com/rkt/log-size``     a quantity such as ``16M``: a file that would become larger is rotated
``coreos.com/rkt/log-files``    how many files there are at most, the current one included
``coreos.com/rkt/log-rate``     how many lines a second are kept
``coreos.com/rkt/log-driver``   ``auto``: the journal too, where there is one; ``file``: not; ``journald``: it must be
==============================  ================================================================================
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, quoted
from rkt.schema.quantity import to_units
from rkt.schema.record import Record
from rkt.values import is_number

PREFIX = "coreos.com/rkt/"
#: Names of all annotations, without the prefix; names of flags too.
NAMES = ("log-driver", "log-files", "log-rate", "log-size")
AUTO, FILE, JOURNALD = "auto", "file", "journald"
DRIVERS = (AUTO, FILE, JOURNALD)
DEFAULT_SIZE_BYTES = 16 << 20
DEFAULT_FILES = 2
_LEAST_BYTES, _MOST_BYTES = 64 << 10, 64 << 30
#: Without an older file a rotation would throw away what somebody may be reading.
_FILES = (2, 100)
_RATE = (1, 1_000_000)


class LogOptions(Record):
    """All of it.

    Attributes:
        rate: lines a second, 0 for no limit.
    """

    size_bytes: int = DEFAULT_SIZE_BYTES
    files: int = DEFAULT_FILES
    rate: int = 0
    driver: str = AUTO


def parse_log_options(annotations: dict[str, str]) -> LogOptions:
    """The options of an app.

    Args:
        annotations: of the app in the pod manifest.
    Raises:
        InvalidManifest: one of them is not well-formed.
    """
    given = {
        _FIELDS[name]: parse_value(name, annotations[PREFIX + name])
        for name in NAMES
        if PREFIX + name in annotations
    }
    return LogOptions(**given)  # type: ignore[arg-type]


_FIELDS = {"log-driver": "driver", "log-files": "files", "log-rate": "rate", "log-size": "size_bytes"}


def parse_value(name: str, text: str) -> int | str:
    """One annotation, whose name is one of ``NAMES``.

    Raises:
        InvalidManifest: it is not well-formed.
    """
    if name == "log-driver":
        if text not in DRIVERS:
            raise InvalidManifest(f"{name}: {quoted(text)} is none of {', '.join(DRIVERS)}")
        return text
    if name == "log-size":
        size_bytes = to_units(text, name)
        if not _LEAST_BYTES <= size_bytes <= _MOST_BYTES:
            raise InvalidManifest(f"{name}: {quoted(text)} is not between 64Ki and 64Gi")
        return size_bytes
    low, high = _FILES if name == "log-files" else _RATE
    if not is_number(text, most_digits=7) or not low <= int(text) <= high:
        raise InvalidManifest(f"{name}: {quoted(text)} is not a number from {low} to {high}")
    return int(text)

# SPDX-License-Identifier: Apache-2.0
"""Readiness and liveness probes of an app, as annotations of the pod manifest say; the flags are called like these.

======================================  ==========================================================================
``coreos.com/rkt/readiness``            ``exec:WORDS``, ``exec:["WORD", …]``, ``tcp:PORT``, ``http:PORT[/PATH]``, ``notify``
``coreos.com/rkt/liveness``             the same without ``notify``
``…-interval``, ``…-timeout``           durations such as ``10s``: from one probe to the next, and for one probe
``…-retries``                           how many failures in a row count
``coreos.com/rkt/liveness-start-period``  failures before this age of the app do not count, unless a probe has succeeded
======================================  ==========================================================================
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, UsageError, quoted
from rkt.schema import jsontext
from rkt.schema.duration import parse_duration
from rkt.schema.record import Record
from rkt.values import is_number

PREFIX = "coreos.com/rkt/"
READINESS = "readiness"
LIVENESS = "liveness"
EXEC, TCP, HTTP, NOTIFY = "exec", "tcp", "http", "notify"
#: Names of all annotations, without the prefix; names of flags too.
NAMES = (
    "liveness",
    "liveness-interval",
    "liveness-retries",
    "liveness-start-period",
    "liveness-timeout",
    "readiness",
    "readiness-interval",
    "readiness-retries",
    "readiness-timeout",
)
DEFAULT_INTERVAL_SECONDS = 10.0
DEFAULT_TIMEOUT_SECONDS = 5.0
DEFAULT_RETRIES = 3
_LONGEST_SECONDS = 86400.0
_SHORTEST_SECONDS = 0.1
_MAX_PATH = 1024


class Probe(Record):
    """One probe.

    Attributes:
        kind: ``readiness`` or ``liveness``.
        method: ``exec``, ``tcp``, ``http`` or ``notify``.
        words: of ``exec``.
        port, path: of the others; the path begins with a slash.
        retries: failures in a row.
    """

    kind: str
    method: str
    words: list[str] = []
    port: int = 0
    path: str = ""
    interval_seconds: float = DEFAULT_INTERVAL_SECONDS
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    retries: int = DEFAULT_RETRIES
    start_period_seconds: float = 0.0


def has_probes(annotations: dict[str, str]) -> bool:
    """Whether an app has any."""
    return f"{PREFIX}{READINESS}" in annotations or f"{PREFIX}{LIVENESS}" in annotations


def parse_probes(annotations: dict[str, str]) -> list[Probe]:
    """The probes of an app.

    Args:
        annotations: of the app in the pod manifest.
    Raises:
        InvalidManifest: one of them is not well-formed, or says something of a probe that is not there.
    """
    found = []
    for kind in (READINESS, LIVENESS):
        given = {
            name: annotations[PREFIX + name]
            for name in NAMES
            if name.startswith(kind) and PREFIX + name in annotations
        }
        if not given:
            continue
        if kind not in given:
            raise InvalidManifest(f"{next(iter(given))} without {kind}", hint=f"--{kind}=exec:PROGRAM")
        probe = _parse_probe(kind, given.pop(kind))
        more = {
            _FIELDS[name.removeprefix(f"{kind}-")]: _parse_number(name, text) for name, text in given.items()
        }
        found.append(probe.replace(**more))
    return found


_FIELDS = {
    "interval": "interval_seconds",
    "timeout": "timeout_seconds",
    "retries": "retries",
    "start-period": "start_period_seconds",
}


def check_value(name: str, text: str) -> None:
    """Hold one annotation, whose name is one of ``NAMES``, against its form.

    Raises:
        InvalidManifest: it is not well-formed.
    """
    if name in {READINESS, LIVENESS}:
        _parse_probe(name, text)
    else:
        _parse_number(name, text)


def _parse_number(name: str, text: str) -> float:
    """How often, or how many seconds."""
    if name.endswith("-retries"):
        if not is_number(text, most_digits=4) or not 1 <= int(text) <= 1000:
            raise InvalidManifest(f"{name}: {quoted(text)} is not a number from 1 to 1000")
        return int(text)
    try:
        seconds = parse_duration(text)
    except UsageError as e:
        raise InvalidManifest(f"{name}: {e.message}") from None
    lowest = 0.0 if name.endswith("-start-period") else _SHORTEST_SECONDS
    if not lowest <= seconds <= _LONGEST_SECONDS:
        raise InvalidManifest(f"{name}: {quoted(text)} is not between {lowest:g}s and 24h")
    return seconds


def _parse_probe(kind: str, text: str) -> Probe:
    method, colon, rest = text.partition(":")
    if text == NOTIFY and kind == READINESS:
        return Probe(kind=kind, method=NOTIFY)
    if method == EXEC and colon:
        return Probe(kind=kind, method=EXEC, words=_words(kind, rest))
    if method == TCP and colon:
        return Probe(kind=kind, method=TCP, port=_port(kind, rest))
    if method == HTTP and colon:
        port, _, path = rest.partition("/")
        if len(path) > _MAX_PATH or not path.isascii() or not path.isprintable() or " " in path:
            raise InvalidManifest(
                f"{kind}: the path of {quoted(text[:80])} must be printable ASCII without spaces"
            )
        return Probe(kind=kind, method=HTTP, port=_port(kind, port), path=f"/{path}")
    forms = "exec:PROGRAM, tcp:PORT, http:PORT/PATH"
    raise InvalidManifest(
        f"{kind}: {quoted(text[:80])} is none of {forms}{' or notify' if kind == READINESS else ''}",
        hint=f"--{kind}=http:8080/health",
    )


def _words(kind: str, text: str) -> list[str]:
    """Words at spaces, nothing quoted; or JSON's list of them."""
    if not text.startswith("["):
        words = text.split()
    else:
        words = jsontext.parse(text, what=f"{kind} probe")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise InvalidManifest(f'{kind}: exec:["PROGRAM", "WORD"] is a list of texts')
    if not words or not words[0] or any("\0" in word for word in words):
        raise InvalidManifest(f"{kind}: exec names no program", hint=f"--{kind}=exec:/bin/check")
    return words


def _port(kind: str, text: str) -> int:
    if not is_number(text, most_digits=5) or not 1 <= int(text) <= 65535:
        raise InvalidManifest(f"{kind}: {quoted(text[:80])} is not a port from 1 to 65535")
    return int(text)

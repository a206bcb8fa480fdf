# SPDX-License-Identifier: Apache-2.0
"""Durations as Go writes them, ``1h30m``, in flags and annotations: text to seconds and back."""

from __future__ import annotations

from rkt.errors import UsageError, quoted

#: Seconds of each unit, longer spellings first.
_UNITS = (
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),  # U+00B5 micro sign
    ("μs", 1e-6),
    ("ms", 1e-3),
    ("h", 3600.0),
    ("m", 60.0),
    ("s", 1.0),
)
_DIGITS = frozenset("0123456789")
_MOST_CHARACTERS = 64
#: What Go's own type holds: nanoseconds in 63 bits, which the kernel's and Python's clocks take too.
_MOST_SECONDS = (2**63 - 1) / 1e9


def parse_duration(text: str) -> float:
    """Seconds of ``1h30m``, ``1.5h``, ``300ms`` or ``0``; none that is negative means anything here.

    Raises:
        UsageError: not a duration, or one of more than 292 years.
    """
    error = UsageError(f"{quoted(text)} is no duration such as 30m, 1h30m or 10s")
    rest = text.removeprefix("+")
    if rest == "0":
        return 0.0
    if not rest or len(rest) > _MOST_CHARACTERS:
        raise error
    seconds = 0.0
    while rest:
        length = 0
        while length < len(rest) and (rest[length] in _DIGITS or rest[length] == "."):
            length += 1
        number = rest[:length]
        if number.count(".") > 1 or not _DIGITS.intersection(number):
            raise error
        rest = rest[length:]
        for unit, factor in _UNITS:
            if rest.startswith(unit):
                seconds += float(number) * factor
                rest = rest[len(unit) :]
                break
        else:
            raise error
    if seconds > _MOST_SECONDS:
        raise UsageError(f"{quoted(text)} is longer than any duration can be")
    return seconds


def render_duration(seconds: float) -> str:
    """The shortest form, for people: ``30m``, ``1h30m``, ``24h``, ``2m1.5s``, ``0s``."""
    hours, minutes, rest = _parts(seconds)
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "")
    return f"{text}{rest}s" if rest != "0" or not text else text


def render_go_duration(seconds: float) -> str:
    """As Go prints it, for texts that are rkt's: ``30m0s``, ``1h0m0s``."""
    hours, minutes, rest = _parts(seconds)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _parts(seconds: float) -> tuple[int, int, str]:
    """Hours, minutes, and seconds as decimal text."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return hours, minutes, f"{rest:.9f}".rstrip("0").rstrip(".")

# SPDX-License-Identifier: Apache-2.0
"""Durations of flags and annotations."""

from __future__ import annotations

import pytest

from rkt.errors import UsageError
from rkt.schema.duration import parse_duration, render_duration, render_go_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("30m", 1800.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("300ms", 0.3),
        ("+10s", 10.0),
        ("2us", 2e-6),
        ("2µs", 2e-6),
        (".5s", 0.5),
        ("24h", 86400.0),
    ],
)
def test_durations_are_those_of_go(text: str, seconds: float) -> None:
    """Go's syntax for durations is read."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "10", "s", "1d", "1h 30m", ".s", "1..5s", "--1s", "-10s", "-0", "1e3s", "٣s", "9" * 70 + "s"]
)
def test_other_durations_are_refused(text: str) -> None:
    """Anything else is no duration: a number needs a unit, and gc with a negative grace period must not delete everything."""
    with pytest.raises(UsageError, match="no duration such as"):
        parse_duration(text)


def test_a_duration_can_be_waited_for() -> None:
    """The longest one that is read is one that the kernel can sleep for; a longer one is refused here, not there."""
    assert parse_duration("2562047h47m16.8s") * 1e9 < 2**63
    with pytest.raises(UsageError, match="longer than any duration"):
        parse_duration("2562047h48m")


@pytest.mark.parametrize("text", ["30m", "1h30m", "24h", "0s", "10s", "1h1s", "2m1.5s", "0.05s"])
def test_a_rendered_duration_reads_back(text: str) -> None:
    """What help shows as a default can be typed."""
    assert render_duration(parse_duration(text)) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (1.5, "1.5s"), (1800, "30m0s"), (3600, "1h0m0s"), (86461, "24h1m1s")]
)
def test_go_prints_every_unit_below_the_largest(seconds: float, text: str) -> None:
    """Texts that scripts know from rkt have its form of durations."""
    assert render_go_duration(seconds) == text

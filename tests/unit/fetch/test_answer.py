# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.fetch.answer import parse_max_age, parse_retry_after


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("", 0),
        ("max-age=86400", 86400),
        ("public, Max-Age=10", 10),
        ("max-age=10, no-store", 0),
        ("no-cache, max-age=5", 5),
        ("max-age=-5", 0),
        ("max-age=010", 0),
        ("max-age=1e3", 0),
        ("max-age=99999999999999999999", 0),
    ],
)
def test_max_age(header: str, seconds: int) -> None:
    """Cache-Control is read as the specification says: the last word wins, odd numbers are ignored."""
    assert parse_max_age(header) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0),
        ("7", 7),
        ("-7", 0),
        ("soon", 0),
        ("Thu, 01 Jan 1970 00:16:50 GMT", 10),
        ("Thu, 01 Jan 1970 00:16:30 GMT", 0),
        ("9" * 70, 0),
    ],
)
def test_retry_after(text: str, seconds: float) -> None:
    """Seconds or a date; anything else is no wish."""
    assert parse_retry_after(text, 1000.0) == seconds

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from rkt.cli.output import escape_json, human_size, human_time, long_time, table
from rkt.errors import printable
from rkt.schema import jsontext

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = 86400


def test_columns_line_up_on_tab_stops() -> None:
    """Cells are padded with tabs to the widest cell of the column, the last cell is not."""
    assert table([["UUID", "APP", "STATE"], ["12345678", "a", "running"], ["", "bb", "x"]]) == (
        "UUID\t\tAPP\tSTATE\n12345678\ta\trunning\n\t\tbb\tx\n"
    )


def test_a_cell_cannot_make_a_second_line_or_column() -> None:
    """Tabs, line feeds and escape sequences inside a cell are written as escapes."""
    text = table([["a\tb\nc\x1b[31m", "x"]])
    assert text.rstrip("\n").split("\t")[0] == "a\\tb\\nc\\x1b[31m"
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 名", "plain é 名"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\rb", "a\\rb".replace("\\r", "\\x0d")),
        ("abc\u202egpj", "abc\\u202egpj"),
        ("\udcff", "\\xff"),
        ("\x9b31m", "\\x9b31m"),
        ("two\nlines\tand", "two\nlines\tand"),
    ],
)
def test_nothing_moves_the_cursor(text: str, shown: str) -> None:
    """Control characters, bidirectional overrides and undecodable bytes are visible."""
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (0, "now"),
        (1, "1 second ago"),
        (2, "2 seconds ago"),
        (59, "59 seconds ago"),
        (60, "1 minute ago"),
        (119, "1 minute ago"),
        (120, "2 minutes ago"),
        (3599, "59 minutes ago"),
        (3600, "1 hour ago"),
        (7200, "2 hours ago"),
        (DAY, "1 day ago"),
        (2 * DAY, "2 days ago"),
        (7 * DAY, "1 week ago"),
        (14 * DAY, "2 weeks ago"),
        (29 * DAY, "4 weeks ago"),
        (30 * DAY, "1 month ago"),
        (60 * DAY, "2 months ago"),
        (359 * DAY, "11 months ago"),
        (360 * DAY, "1 year ago"),
        (539 * DAY, "1 year ago"),
        (540 * DAY, "2 years ago"),
        (719 * DAY, "2 years ago"),
        (720 * DAY, "2 years ago"),
        (1080 * DAY, "3 years ago"),
        (37 * 360 * DAY, "a long while ago"),
        (-90, "1 minute from now"),
    ],
)
def test_ages_read_as_rkt_words_them(age: int, words: str) -> None:
    """Every step of the table of the specification."""
    now = 1_700_000_000
    assert human_time((now - age) * 10**9, now * 10**9) == words


def test_long_times_drop_trailing_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Local time with at most three digits of a second and the zone."""
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    try:
        assert long_time(1_456_790_400_120_000_000) == "2016-03-01 01:00:00.12 +0100 CET"
        assert long_time(1_456_790_400_000_000_000) == "2016-03-01 01:00:00 +0100 CET"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.0KiB"),
        (17 << 20, "17MiB"),
        (2469606195, "2.3GiB"),
        ((1 << 20) - 1, "1.0MiB"),
        (10 * 1024 - 1, "10KiB"),
        (3 << 70, "3072EiB"),
    ],
)
def test_sizes_have_one_decimal_below_ten(size: int, shown: str) -> None:
    """IEC units as image list shows them."""
    assert human_size(size) == shown


@pytest.mark.parametrize("dump", [jsontext.dump, jsontext.dump_pretty])
def test_json_moves_no_cursor(dump: Callable[[object], str]) -> None:
    """Characters that are not printable are escapes in JSON, and mean the same (LG3)."""
    text = dump({"text": "\x1b[1m\x9b\u202e\U000e0001\n\t \u00fc"})
    escaped = escape_json(text)
    assert all(line.isprintable() for line in escaped.replace("\t", "").split("\n"))
    assert "\u00fc" in escaped
    assert json.loads(escaped) == json.loads(text)

# SPDX-License-Identifier: Apache-2.0
"""What people and scripts see: messages, tables, times, JSON (spec cli §1.4, §1.5)."""

from __future__ import annotations

import sys

from rkt.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rkt.config.settings import Settings

_TAB_WIDTH = 8
_NS = 1_000_000_000


def message(settings: Settings, text: str) -> None:
    """Words for people on stderr; each line starts with the name of the command."""
    prefixed(settings.command, text)


def prefixed(prefix: str, text: str) -> None:
    """Each line of ``text`` on stderr after ``PREFIX: ``."""
    lines = printable(text).rstrip("\n").split("\n")
    _to_stderr("".join(f"{prefix}: {line}\n" for line in lines))


def _to_stderr(text: str) -> None:
    # One write for one message: concurrent writers do not mix inside it.
    if sys.stderr is not None:
        sys.stderr.write(text)
        sys.stderr.flush()


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines whose columns line up on 8-column tab stops, at least one tab between two cells.

    Scripts split on tabs; the last cell of a row is not padded.
    """
    clean = (
        rows if "".join(map("".join, rows)).isprintable() else [[cell(text) for text in row] for row in rows]
    )
    if len(set(map(len, clean))) == 1:
        widths = [max(map(len, column)) for column in zip(*clean, strict=True)][:-1]
    else:
        widths = _ragged_widths(clean)
    # Tabs behind a cell, by column and by how many tab stops its text fills.
    pads = [["\t" * n for n in range(width // _TAB_WIDTH + 1, 0, -1)] for width in widths]
    return "".join(
        [
            "".join([text + pad[len(text) // _TAB_WIDTH] for text, pad in zip(row[:-1], pads, strict=False)])
            + "".join(row[-1:])
            + "\n"
            for row in clean
        ]
    )


def _ragged_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    widths: list[int] = []
    for row in rows:
        for i, text in enumerate(row[:-1]):
            if i == len(widths):
                widths.append(0)
            widths[i] = max(widths[i], len(text))
    return widths


def cell(text: str) -> str:
    """What stands in a table for a text: nothing that a terminal would act on, one line, no tab."""
    if text.isprintable():
        return text
    return printable(text).replace("\t", "\\t").replace("\n", "\\n")


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout."""
    write(table(rows))


def write(text: str) -> None:
    """A result on stdout, without a prefix."""
    sys.stdout.write(text)


def print_json(value: Any, *, pretty: bool = False) -> None:
    """JSON on stdout, on one line or indented by tabs, and nothing in it that a terminal would act on (invariant LG3)."""
    from rkt.schema import jsontext

    text = jsontext.dump_pretty(value) if pretty else jsontext.dump(value)
    write(escape_json(text) + "\n")


def write_document(text: str) -> None:
    """JSON as it is on stdout; a terminal gets it without what would act on it."""
    write(escape_json(text) if sys.stdout.isatty() else text)


def escape_json(text: str) -> str:
    r"""JSON whose characters that are not printable are written ``\uNNNN``: it means the same, and moves no cursor."""
    if text.isprintable():
        return text
    # Inside of strings JSON itself escapes line feeds and tabs: those that are left are the layout's.
    return "".join(c if c.isprintable() or c in "\n\t" else _json_escape(ord(c)) for c in text)


def _json_escape(number: int) -> str:
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"


#: (below this age in seconds, seconds per unit, unit) of human times.
_AGES = (
    (1, 0, "now"),
    (60, 1, "second"),
    (3600, 60, "minute"),
    (86400, 3600, "hour"),
    (604800, 86400, "day"),
    (2592000, 604800, "week"),
    (31104000, 2592000, "month"),
)
_YEAR = 31104000


def human_time(then_ns: int, now_ns: int) -> str:
    """Age in words: ``now``, ``1 minute ago``, ``3 weeks ago`` (spec cli §1.5)."""
    age = (now_ns - then_ns) // _NS if now_ns >= then_ns else (then_ns - now_ns) // _NS
    ending = "ago" if now_ns >= then_ns else "from now"
    for limit, size, unit in _AGES:
        if age < limit:
            if not size:
                return unit
            count = age // size
            return f"{count} {unit}{'' if count == 1 else 's'} {ending}"
    if age < _YEAR * 3 // 2:
        return f"1 year {ending}"
    if age < _YEAR * 2:
        return f"2 years {ending}"
    if age < _YEAR * 37:
        return f"{age // _YEAR} years {ending}"
    return f"a long while {ending}"


def long_time(then_ns: int) -> str:
    """``YYYY-MM-DD HH:MM:SS.mmm +ZZZZ ZONE`` in the local time zone, trailing zeros of the fraction dropped."""
    import time

    seconds, fraction_ns = divmod(then_ns, _NS)
    local = time.localtime(seconds)
    fraction = f".{fraction_ns // 1_000_000:03d}".rstrip("0").rstrip(".")
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', local)}{fraction} {time.strftime('%z %Z', local)}"


def human_size(size_bytes: int) -> str:
    """IEC units as ``image list`` shows them: ``512B``, ``2.3GiB``, ``17MiB``."""
    if size_bytes < 1024:
        return f"{size_bytes}B"
    size = float(size_bytes)
    units = iter(("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))
    unit = ""
    while not unit or (size >= 1023.5 and unit != "EiB"):
        size /= 1024
        unit = next(units)
    return f"{size:.1f}{unit}" if size < 9.95 else f"{size:.0f}{unit}"

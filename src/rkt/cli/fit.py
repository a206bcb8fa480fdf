# SPDX-License-Identifier: Apache-2.0
"""Tables as wide as the terminal: what nobody would miss goes first. Loaded only when a person looks."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_GAP = 2
_ELLIPSIS = "\u2026"
#: No column is made narrower than this, so that what is left can still be told apart.
_LEAST = 12


def fit(rows: Sequence[Sequence[str]], columns: int, shrinkable: Sequence[str]) -> list[list[str]]:
    """The rows of a table, padded by spaces, in at most as many columns, if that can be.

    Args:
        rows: with the names of the columns first; all of one length, and printable.
        columns: of the terminal.
        shrinkable: names of columns that may be cut, the first to be cut first. Of names with slashes the end stays.
    """
    heads = rows[0]
    # A column of which nothing is known says nothing.
    kept = [index for index in range(len(heads)) if any(row[index] for row in rows[1:]) or len(rows) == 1]
    table = [[row[index] for index in kept] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    excess = sum(widths) + _GAP * (len(widths) - 1) - columns
    for name in shrinkable:
        if excess <= 0 or name not in table[0]:
            continue
        index = table[0].index(name)
        width = max(min(widths[index], max(_LEAST, len(name))), widths[index] - excess)
        excess -= widths[index] - width
        widths[index] = width
        for row in table:
            row[index] = _cut(row[index], width)
    return [
        [text.ljust(width + _GAP) for text, width in zip(row[:-1], widths[:-1], strict=True)] + row[-1:]
        for row in table
    ]


def _cut(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    return _ELLIPSIS + text[1 - width :] if "/" in text else text[: width - 1] + _ELLIPSIS

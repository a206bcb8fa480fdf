# SPDX-License-Identifier: Apache-2.0
"""The terminal that standard output is, if it is one."""

from __future__ import annotations

import os

USUAL_COLUMNS = 80
_USUAL_LINES = 24
_LEAST_COLUMNS = 40


def columns() -> int:
    """Its width; 0 when there is none, or one that does not say."""
    return _size()[0]


def size() -> tuple[int, int]:
    """Columns and lines; the usual numbers for those that nobody says."""
    width, height = _size()
    return width or USUAL_COLUMNS, height or _USUAL_LINES


def text_width() -> int:
    """Columns to fill with text."""
    return max(_LEAST_COLUMNS, size()[0])


def _size() -> tuple[int, int]:
    try:
        found = os.get_terminal_size(1)
    except OSError:
        return 0, 0
    return found.columns, found.lines

# SPDX-License-Identifier: Apache-2.0
"""Every source file says under which licence it is."""

from __future__ import annotations

import ast

import pytest

from tests.lib.tree import read_text, tracked_files

TAG = "# SPDX-License-Identifier: Apache-2.0"
SOURCES = [
    path for path in tracked_files() if path.endswith((".py", ".sh", ".in", ".service", ".timer", "Makefile"))
]


@pytest.mark.parametrize("path", SOURCES)
def test_first_line_is_the_tag(path: str) -> None:
    """The SPDX tag is the first line, or the second after ``#!``."""
    lines = read_text(path).splitlines()
    first = 1 if lines and lines[0].startswith("#!") else 0
    assert lines[first : first + 1] == [TAG]


@pytest.mark.parametrize("path", [path for path in SOURCES if path.endswith(".py") and "/test_" not in path])
def test_module_has_a_docstring_at_once(path: str) -> None:
    """The docstring follows the tag directly: no banner, no author block, no date between them.

    Test files are named for what they test, and need none.
    """
    text = read_text(path)
    body = ast.parse(text).body
    if not body and text.strip() == TAG:
        return
    assert body, "nothing in it"
    assert isinstance(body[0], ast.Expr)
    assert body[0].lineno == (3 if text.startswith("#!") else 2)

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.cli.fit import fit

ROWS = [
    ["UUID", "APP", "IMAGE NAME", "STATE", "NETWORKS", "NAME"],
    ["5bc080ca", "web", "example.com/shop/with/a/long/name/frontend", "running", "", "shop"],
    ["", "worker-with-a-long-name", "example.com/b", "", "", ""],
]


def lines(columns: int) -> list[str]:
    """The table for a terminal."""
    return ["".join(row).rstrip() for row in fit(ROWS, columns, ("IMAGE NAME", "APP"))]


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_a_table_fits_the_terminal(columns: int) -> None:
    """No line is wider than the terminal, columns line up, the first to be cut are those that may be, and an empty column is left out."""
    table = lines(columns)
    assert max(map(len, table)) <= columns
    assert "NETWORKS" not in table[0]
    assert table[0].index("STATE") == table[1].index("running")
    assert table[1].startswith("5bc080ca  web  ")
    assert "frontend  " in table[1]


def test_what_is_cut_can_be_told_apart() -> None:
    """Of an image's name the end stays, of other names the beginning; on a wide terminal all of both is there."""
    narrow = lines(40)
    assert "…me/frontend" in narrow[1]
    assert "worker-with…" in narrow[2]
    wide = "".join(lines(200))
    assert ROWS[1][2] in wide
    assert ROWS[2][1] in wide
    assert "…" not in wide


def test_a_terminal_that_is_too_narrow() -> None:
    """Where nothing more can be cut the rest stays readable."""
    assert lines(20) == lines(10)


def test_a_table_without_rows() -> None:
    """Without anything to list the names of the columns are there."""
    assert fit(ROWS[:1], 80, ()) == [["UUID  ", "APP  ", "IMAGE NAME  ", "STATE  ", "NETWORKS  ", "NAME"]]

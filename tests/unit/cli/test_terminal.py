# SPDX-License-Identifier: Apache-2.0
"""What a terminal gets."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

import pytest

from rkt.cli import terminal
from rkt.cli.output import write_document
from rkt.cli.stats import _check_place, _cut
from rkt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


class Stdout(io.StringIO):
    """Standard output that is a terminal, or none."""

    def __init__(self, *, tty: bool) -> None:
        super().__init__()
        self._tty = tty

    def isatty(self) -> bool:
        """As it was made."""
        return self._tty


def test_a_terminal_that_does_not_say_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of no columns and lines, as programs that drive one have it, is given text and not nothing."""
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((0, 0)))
    assert terminal.columns() == 0
    assert _cut("POD\tCPU\nshop\t1%\n") == "POD     CPU\nshop    1%\n"
    assert terminal.text_width() == 80


def test_a_table_is_drawn_over_on_one_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """More lines or columns than the terminal has would scroll."""
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((5, 3)))
    assert _cut("1234567\n2\n3\n4\n") == "12345\n2\n"


@pytest.mark.parametrize("tty", [False, True])
def test_a_document_as_it_is(monkeypatch: pytest.MonkeyPatch, *, tty: bool) -> None:
    """A manifest is passed on byte for byte, but moves no cursor of a terminal (LG3)."""
    stdout = Stdout(tty=tty)
    monkeypatch.setattr(sys, "stdout", stdout)
    write_document('{"a":"\x9b2J é"}\n')
    assert stdout.getvalue() == ('{"a":"\\u009b2J é"}\n' if tty else '{"a":"\x9b2J é"}\n')


def test_a_picture_needs_a_place(tmp_path: Path) -> None:
    """Where no picture can be written is said before anything is sampled for it."""
    for path in (tmp_path, tmp_path / "none" / "x.svg"):
        with pytest.raises(UsageError, match="cannot be written"):
            _check_place(str(path))
    _check_place(str(tmp_path / "x.svg"))
    assert os.listdir(tmp_path) == []

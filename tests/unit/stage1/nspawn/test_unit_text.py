# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.errors import Stage1Error
from rkt.stage1.nspawn import unit_text

#: Each would be something else than a value where it is not escaped.
HOSTILE = (
    b"a\n[Service]\nExecStart=/bin/sh",
    b"%n %H %%",
    b"$HOME ${HOME} $$",
    b'"; ExecStart=/bin/sh "',
    b"back\\slash\\",
    b"\\n\\x41 \\",
    b"; # comment",
    b"'single' \"double\" `back`",
    b"\x01\x1b[0m\x7f\r\t",
    b"",
    b" leading and trailing ",
    "\u2028 \u00e9 \U0001f600".encode(),
)


@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
def test_a_word_is_one_word_on_one_line(value: bytes) -> None:
    """Whatever an argument is, it stays between its quotes, on its line, and expands to nothing (RN21)."""
    word = unit_text.word(value, "argument")
    assert word[:1] == word[-1:] == b'"'
    inside = word[1:-1]
    assert not any(byte < 0x20 or byte == 0x7F for byte in inside)
    assert b"%" not in inside.replace(b"%%", b"")
    plain = inside.replace(b"\\\\", b"").replace(b'\\"', b"")
    assert b'"' not in plain
    assert not plain.endswith(b"\\")


@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
def test_what_has_no_escape_is_refused(value: bytes) -> None:
    """A directive that takes the rest of its line takes no value that would end the line, join the next, or be cut."""
    if any(byte < 0x20 or byte == 0x7F for byte in value):
        with pytest.raises(Stage1Error, match="working directory"):
            unit_text.directory(b"/" + value, "working directory")
        return
    line = unit_text.line("WorkingDirectory", unit_text.directory(b"/" + value, "working directory"))
    assert line.count(b"\n") == 1
    assert not line.endswith(b"\\\n")
    assert b"%" not in line.replace(b"%%", b"")


def test_a_directory_keeps_its_ends() -> None:
    """A directory whose name ends by a space or a backslash is the one that is meant."""
    assert unit_text.directory(b"/a ", "directory") == b"/a /."
    assert unit_text.directory(b"/a\\", "directory") == b"/a\\/."
    with pytest.raises(Stage1Error, match="not absolute"):
        unit_text.directory(b"a", "directory")


@pytest.mark.parametrize("function", [unit_text.word, unit_text.plain], ids=["word", "plain"])
def test_bytes_that_are_no_text_are_refused_by_name(function: object) -> None:
    """Systemd takes UTF-8 alone, and would leave out a line that is none: so it is an error here."""
    for value in (b"\xff", b"a\0b"):
        with pytest.raises(Stage1Error, match="argument"):
            function(value, "argument")  # type: ignore[operator]


def test_an_environment_file_says_what_is_meant() -> None:
    """Quotes, dollars, backticks and backslashes are escaped, line feeds stay; names that systemd refuses are left out."""
    file = unit_text.environment_file(
        {b"A": b'a"b\\c$d`e\nf %n', b"B": b"", b"with.dot": b"x", b"with-dash": b"x"}
    )
    assert file == b'A="a\\"b\\\\c\\$d\\`e\nf %n"\nB=""\n'
    assert [unit_text.is_variable(name) for name in (b"_1", b"1A", b"", b"A.B", b"A-B")] == [
        True,
        False,
        False,
        False,
        False,
    ]


def test_a_line_too_long_for_systemd_is_refused() -> None:
    """A command line longer than systemd reads is an error here, not a unit that does something else."""
    with pytest.raises(Stage1Error, match="ExecStart takes 1048587 bytes"):
        unit_text.line("ExecStart", b"x" * (1 << 20) + b"y")

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.errors import PodError
from rkt.pod import lifecycle, log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rkt.pod.lifecycle import Pod

HEAD = b"2026-01-02T03:04:05.%09dZ "


@pytest.fixture
def pod(tmp_path: object) -> Iterator[Pod]:
    """A pod with a log directory."""
    with lifecycle.create(f"{tmp_path}/data") as made:
        made.make_directory("logs")
        yield made


def lines(*texts: bytes, start: int = 0) -> bytes:
    """Log lines with ascending times."""
    return b"".join(HEAD % (start + i) + text + b"\n" for i, text in enumerate(texts))


def texts(pod: Pod, *apps: str, tail: int | None = None) -> list[bytes]:
    """What reading gives."""
    return [entry.text for _, entry in log.read_all(pod, list(apps), tail)]


def test_streams_and_parts(pod: Pod) -> None:
    """Each entry keeps its stream and text, and knows whether a line begins or ends with it."""
    pod.write("logs/a.log", lines(b"stdout F one", b"stderr P two", b"stdout F ", b"stderr F three"))
    entries = [entry for _, entry in log.read_all(pod, ["a"], None)]
    assert [(e.stream, e.text, e.begins, e.partial) for e in entries] == [
        ("stdout", b"one", True, False),
        ("stderr", b"two", True, True),
        ("stdout", b"", True, False),
        ("stderr", b"three", False, False),
    ]


@pytest.mark.parametrize(
    "line",
    [b"", b"x", b"T stdin F x", b"T stdout", b"T stdout X x", b"stdout F x", b"T  F x"],
)
def test_malformed_lines_are_passed_over(pod: Pod, line: bytes) -> None:
    """A line of another form does not end the reading."""
    pod.write("logs/a.log", line + b"\n" + lines(b"stdout F good"))
    assert texts(pod, "a") == [b"good"]


def test_a_line_being_written_is_left(pod: Pod) -> None:
    """A last line without line feed is not printed."""
    pod.write("logs/a.log", lines(b"stdout F done") + HEAD % 9 + b"stdout F half")
    assert texts(pod, "a") == [b"done"]


def test_tags_may_have_more_parts(pod: Pod) -> None:
    """Tags after a colon are allowed by the form and ignored."""
    pod.write("logs/a.log", lines(b"stdout P:x one", b"stdout F:y two"))
    assert texts(pod, "a") == [b"one", b"two"]


@pytest.mark.parametrize("size", [10, 1 << 16, (1 << 16) + 1, 1 << 18])
def test_a_huge_line_is_bounded(pod: Pod, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line over the limit comes once, cut, and what follows is read on."""
    monkeypatch.setattr(log, "_MAX_LINE_BYTES", 1 << 17)
    pod.write("logs/a.log", lines(b"stdout F " + b"x" * size, b"stdout F after"))
    first, last = texts(pod, "a")
    assert set(first) == {ord("x")}
    assert len(first) <= max(size, (1 << 17) + (1 << 16))
    assert last == b"after"


def test_several_apps_in_the_order_of_time(pod: Pod) -> None:
    """Lines of several apps are merged by their times."""
    pod.write("logs/a.log", lines(b"stdout F a1") + lines(b"stdout F a2", start=5))
    pod.write("logs/b.log", lines(b"stdout F b1", start=3) + lines(b"stdout F b2", start=7))
    assert texts(pod, "a", "b", "none") == [b"a1", b"b1", b"a2", b"b2"]


@pytest.mark.parametrize("tail", range(9))
def test_tail_over_a_rotation(pod: Pod, tail: int) -> None:
    """The last lines are the last lines, also where they begin in the rotated file."""
    every = [b"l%d" % i for i in range(7)]
    pod.write("logs/a.log.1", lines(*(b"stdout F " + text for text in every[:4])))
    pod.write("logs/a.log", lines(*(b"stdout F " + text for text in every[4:]), start=4))
    assert texts(pod, "a") == every
    assert texts(pod, "a", tail=tail) == (every[-tail:] if tail else [])


def test_tail_of_a_large_file(pod: Pod) -> None:
    """Counting lines from the end works over the bounds of what is read at once."""
    every = [b"%d " % i + b"x" * 997 for i in range(500)]
    pod.write("logs/a.log", lines(*(b"stdout F " + text for text in every)))
    for tail in (1, 64, 65, 66, 130, 499, 500, 501):
        assert texts(pod, "a", tail=tail) == every[-tail:]


def test_only_regular_files_are_read(pod: Pod, tmp_path: object) -> None:
    """A link or a pipe in place of a log is refused, not followed and not waited for (LG1)."""
    os.mkfifo("logs/pipe.log", dir_fd=pod.fd)
    with pytest.raises(PodError, match="not a regular file"):
        texts(pod, "pipe")
    with open(f"{tmp_path}/secret", "wb") as stream:
        stream.write(lines(b"stdout F secret"))
    os.symlink(f"{tmp_path}/secret", "logs/link.log", dir_fd=pod.fd)
    with pytest.raises(OSError, match="symbolic links"):
        texts(pod, "link")


def test_control_characters_are_made_visible() -> None:
    """Nothing that moves a cursor or retitles a terminal is left, text and tabs are (LG3)."""
    assert log.escape_controls(b"\x1b]0;x\x07a\tb\r\xc2\x9b\xff\xc3\xbc\x7f") == (
        b"\\x1b]0;x\\x07a\tb\\x0d\\x9b\\xff\xc3\xbc\\x7f"
    )

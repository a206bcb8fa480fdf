# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.errors import PodError
from rkt.pod import lifecycle, log
from rkt.pod.log import Reader
from rkt.stage1.common import log as stage1_log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rkt.pod.lifecycle import Pod
    from rkt.pod.log import Entry

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


def read_all(pod: Pod, apps: list[str], tail: int | None) -> Iterator[tuple[str, Entry]]:
    """What several apps wrote so far, in the order of time; of each the last ``tail`` lines."""
    with Reader(pod, apps, tail=tail) as reader:
        for turn in reader.turns():
            yield from turn


def texts(pod: Pod, *apps: str, tail: int | None = None) -> list[bytes]:
    """What reading gives."""
    return [entry.text for _, entry in read_all(pod, list(apps), tail)]


def test_streams_and_parts(pod: Pod) -> None:
    """Each entry keeps its stream and text; the parts of a line are put together, whatever is between them."""
    pod.write("logs/a.log.1", lines(b"stdout F one", b"stderr P two", b"stdout F "))
    pod.write("logs/a.log", lines(b"stderr F three", b"stdout P end", start=3))
    entries = [entry for _, entry in read_all(pod, ["a"], None)]
    assert [(e.stream, e.text, e.begins, e.partial) for e in entries] == [
        ("stdout", b"one", True, False),
        ("stdout", b"", True, False),
        ("stderr", b"twothree", True, False),
        ("stdout", b"end", True, True),
    ]


def test_parts_without_an_end_are_bounded(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that never ends comes in pieces of the longest line, which say that they go on (LG2)."""
    monkeypatch.setattr(log, "_MAX_LINE_BYTES", 1000)
    pod.write("logs/a.log", lines(*[b"stdout P " + b"x" * 100] * 50, b"stdout F end", b"stdout F next"))
    entries = [entry for _, entry in read_all(pod, ["a"], None)]
    assert b"".join(e.text for e in entries[:-1]) == b"x" * 5000 + b"end"
    assert max(len(e.text) for e in entries) <= 1100
    assert [e.begins for e in entries] == [True, *[False] * (len(entries) - 2), True]
    assert [e.partial for e in entries] == [*[True] * (len(entries) - 2), False, False]


def test_tail_counts_lines_not_their_parts(pod: Pod) -> None:
    """The last lines are whole, also when parts of another stream are between theirs."""
    pod.write(
        "logs/a.log",
        lines(b"stdout F 1", b"stdout P 2", b"stderr F 3", b"stderr P 4", b"stdout F 2", b"stderr F 4"),
    )
    assert texts(pod, "a", tail=1) == [b"44"]
    assert texts(pod, "a", tail=2) == [b"22", b"44"]
    assert texts(pod, "a", tail=3) == [b"3", b"22", b"44"]


@pytest.mark.parametrize(
    ("since", "until", "tail", "expected"),
    [
        (2, 0, None, "2345"),
        (0, 3, None, "012"),
        (2, 4, None, "23"),
        (2, 4, 1, "3"),
        (2, 0, 3, "345"),
        (0, 3, 2, "12"),
    ],
)
def test_since_and_until(pod: Pod, since: int, until: int, tail: int | None, expected: str) -> None:
    """Lines from a time on and before another; the last lines are the last of those."""
    pod.write("logs/a.log", lines(*(b"stdout F %d" % i for i in range(6))))

    def moment(i: int) -> bytes:
        return HEAD[:-1] % i if i else b""

    with log.Reader(pod, ["a"], tail=tail, since=moment(since), until=moment(until)) as reader:
        (turn,) = reader.turns()
        assert b"".join(entry.text for _, entry in turn).decode() == expected


class Following:
    """A reader that follows one app, and what it has read."""

    def __init__(self, pod: Pod) -> None:
        self.log = log.AppLog(pod, "a", follow=True)
        self.texts: list[bytes] = []

    def turn(self) -> None:
        self.log.refresh()
        self.texts += [entry.text for entry in self.log.entries()]


@pytest.mark.parametrize("files", [2, 3, 7])
@pytest.mark.parametrize("every", [1, 7, 100, 1900])
def test_following_over_rotations(pod: Pod, every: int, files: int) -> None:
    """However often the log rotates between two looks, and into however many files, 10,000 lines come once each and in order."""
    file = stage1_log.LogFile(f"{pod.path}/logs/a.log")
    file.limit(50_000, files, 0)
    following = Following(pod)
    largest = 0
    for number in range(10_000):
        file.write(b"stdout", b"line %d\n" % number)
        if number % every == 0:
            following.turn()
            largest = max(largest, os.stat("logs/a.log", dir_fd=pod.fd).st_size)
    file.finish()
    following.turn()
    following.log.close()
    assert following.texts == [b"line %d" % number for number in range(10_000)]
    assert not following.log.missed
    assert largest <= 50_000 * stage1_log.PATIENCE
    names = ["a.log", *(f"a.log.{number}" for number in range(1, files))]
    assert sorted(os.listdir(f"{pod.path}/logs")) == names
    assert log.file_names(pod, "a") == names[:0:-1] + names[:1]
    assert log.log_names(pod) == ["a"]
    with log.Reader(pod, None) as reader:
        kept = [entry.text for turn in reader.turns() for _, entry in turn]
    assert kept == [b"line %d" % number for number in range(10_000 - len(kept), 10_000)]
    assert len(kept) > 1000 * (files - 1)


def test_a_reader_that_sleeps_costs_a_bounded_log(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is held and not read grows to its limits and no further, and the reader knows that it missed lines."""
    monkeypatch.setattr(stage1_log, "MAX_FILE_BYTES", 10_000)
    file = stage1_log.LogFile(f"{pod.path}/logs/a.log")
    file.write(b"stdout", b"first\n")
    following = Following(pod)
    sizes = []
    for number in range(3_000):
        file.write(b"stdout", b"line %d\n" % number)
        sizes.append(
            sum(os.path.getsize(f"{pod.path}/logs/{name}") for name in os.listdir(f"{pod.path}/logs"))
        )
    file.finish()
    following.turn()
    following.log.close()
    assert max(sizes) <= 10_000 * (1 + stage1_log.PATIENCE)
    assert following.log.missed
    assert following.texts[0] == b"first"
    assert following.texts[-1] == b"line 2999"
    assert len(set(following.texts)) == len(following.texts)


def test_a_log_that_begins_later_is_followed(pod: Pod) -> None:
    """Lines of an app that had no log yet are read from the first on, and a line is read when it is complete."""
    following = Following(pod)
    following.turn()
    assert following.texts == []
    pod.write("logs/a.log", lines(b"stdout F one") + HEAD % 1 + b"stdout F t")
    following.turn()
    assert following.texts == [b"one"]
    with open(f"{pod.path}/logs/a.log", "ab") as stream:
        stream.write(b"wo\n")
    following.turn()
    following.log.close()
    assert following.texts == [b"one", b"two"]


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
    assert texts(pod, "a") == [b"onetwo"]


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


def test_apps_that_come_later_are_followed(pod: Pod) -> None:
    """Whoever asks for all apps also gets the log of one that is added while it is followed, from its beginning."""
    pod.write("logs/a.log", lines(b"stdout F a1", b"stdout F a2"))
    with log.Reader(pod, None, tail=1, follow=True) as reader:
        turns = reader.turns()
        assert [entry.text for _, entry in next(turns)] == [b"a2"]
        pod.write("logs/b.log", lines(b"stdout F b1", b"stdout F b2", start=2))
        assert [(app, entry.text) for app, entry in next(turns)] == [("b", b"b1"), ("b", b"b2")]
        assert reader.apps == ["a", "b"]
        pod.unlock()
        assert list(next(turns)) == []
        assert next(turns, None) is None

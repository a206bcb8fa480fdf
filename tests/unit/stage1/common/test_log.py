# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING

from rkt.stage1.common import log

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def _texts(path: str) -> list[tuple[str, str, str]]:
    with open(path, encoding="utf-8") as stream:
        records = [line.rstrip("\n").split(" ", 3) for line in stream]
    return [(stream, kind, text) for _, stream, kind, text in records]


def test_a_line_that_arrives_in_pieces_is_one_record(tmp_path: Path) -> None:
    """Records are lines of the app, not reads of the supervisor."""
    path = str(tmp_path / "app.log")
    file = log.LogFile(path)
    for piece in (b"one\ntw", b"o\n", b"thr"):
        file.write(b"stdout", piece)
    file.write(b"stderr", b"bad\n")
    file.finish()
    assert _texts(path) == [
        ("stdout", "F", "one"),
        ("stdout", "F", "two"),
        ("stderr", "F", "bad"),
        ("stdout", "F", "thr"),
    ]


def test_a_line_that_nothing_more_comes_of_is_a_record(tmp_path: Path) -> None:
    """What is said after a line was completed is another one; there is no empty record for what was whole."""
    path = str(tmp_path / "app.log")
    file = log.LogFile(path)
    file.write(b"stdout", b"whole\nhalf")
    file.complete()
    file.complete()
    file.write(b"stdout", b"other\n")
    file.finish()
    assert [text for _, _, text in _texts(path)] == ["whole", "half", "other"]


def test_times_are_utc_with_nanoseconds(tmp_path: Path) -> None:
    """Each record starts with an RFC 3339 time of 30 characters."""
    path = str(tmp_path / "app.log")
    file = log.LogFile(path)
    file.write(b"stdout", b"x\n")
    file.finish()
    stamp = (tmp_path / "app.log").read_text().split(" ")[0]
    assert len(stamp) == 30
    assert stamp.endswith("Z")


def test_a_long_line_is_cut_into_pieces_that_say_so(tmp_path: Path) -> None:
    """A line over the limit becomes P records and a last F record that together hold every byte."""
    path = str(tmp_path / "app.log")
    file = log.LogFile(path)
    line = "".join(chr(97 + i % 26) for i in range(log.MAX_LINE_BYTES * 2 + 100))
    file.write(b"stdout", line.encode() + b"\n")
    file.finish()
    records = _texts(path)
    assert [kind for _, kind, _ in records] == ["P", "P", "F"]
    assert "".join(text for _, _, text in records) == line


def test_an_endless_talker_takes_bounded_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files of the limit at most, the newest lines among them, none cut by the rotation."""
    monkeypatch.setattr(log, "MAX_FILE_BYTES", 10_000)
    path = str(tmp_path / "app.log")
    file = log.LogFile(path)
    for number in range(1000):
        file.write(b"stdout", b"line %d\n" % number)
    file.finish()
    assert sorted(os.listdir(tmp_path)) == ["app.log", "app.log.1"]
    assert all(os.path.getsize(tmp_path / name) <= 10_000 for name in os.listdir(tmp_path))
    texts = [text for _, _, text in _texts(path + ".1") + _texts(path)]
    assert texts == [f"line {number}" for number in range(1000 - len(texts), 1000)]


def test_a_link_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    """The log is never written where a symbolic link leads (invariant LG1)."""
    target = tmp_path / "target"
    target.write_text("untouched")
    os.symlink(target, tmp_path / "app.log")
    try:
        log.LogFile(str(tmp_path / "app.log"))
    except OSError:
        pass
    else:
        raise AssertionError("the link was followed")
    assert target.read_text() == "untouched"


def test_a_rotation_that_fails_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the log cannot be rotated, the file goes on and the app notices nothing."""
    monkeypatch.setattr(log, "MAX_FILE_BYTES", 200)
    directory = tmp_path / "logs"
    directory.mkdir()
    file = log.LogFile(str(directory / "app.log"))
    for number in range(10):
        if number == 3:
            directory.rename(tmp_path / "elsewhere")
        file.write(b"stdout", b"line %d\n" % number)
    (tmp_path / "elsewhere").rename(directory)
    for number in range(10, 14):
        file.write(b"stdout", b"line %d\n" % number)
    file.finish()
    path = str(directory / "app.log")
    assert [text for _, _, text in _texts(path + ".1")] == [f"line {number}" for number in range(10)]
    assert [text for _, _, text in _texts(path)] == [f"line {number}" for number in range(10, 14)]


def test_a_disk_that_was_full_costs_no_later_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that was written in part ends there; what is written once there is room begins a line."""
    path = str(tmp_path / "app.log")
    file = log.LogFile(path)
    room = [50]

    def write(fd: int, data: memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real_write(fd, data[: room[0]])
        room[0] -= written
        return written

    real_write = os.write
    monkeypatch.setattr(os, "write", write)
    for text in (b"one\n", b"two\n", b"three\n"):
        file.write(b"stdout", text)
    room[0] = 1000
    file.write(b"stdout", b"four\n")
    file.finish()
    with open(path, "rb") as stream:
        lines = stream.read().splitlines()
    assert lines[0].endswith(b" stdout F one")
    assert lines[-1].endswith(b" stdout F four")
    assert len(lines[-1]) == 44


def test_a_log_takes_so_many_lines_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond the rate is left out and counted, once for each second, by the log itself; the next second begins anew."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    path = str(tmp_path / "app.log")
    file = log.LogFile(path)
    file.limit(log.MAX_FILE_BYTES, 2, 3)
    for number in range(5):
        file.write(b"stdout", b"first %d\nagain %d\n" % (number, number))
    now[0] += 1.5
    file.write(b"stderr", b"second\n")
    now[0] += 0.2
    file.write(b"stdout", b"a\nb\nc\nd\ne\n" + b"x" * (log.MAX_LINE_BYTES + 1))
    file.finish()
    assert _texts(path) == [
        ("stdout", "F", "first 0"),
        ("stdout", "F", "again 0"),
        ("stdout", "F", "first 1"),
        ("stderr", "F:rkt", "rkt: 7 lines left out, the log takes 3 a second"),
        ("stderr", "F", "second"),
        ("stdout", "F", "a"),
        ("stdout", "F", "b"),
        ("stdout", "F", "x"),
        ("stderr", "F:rkt", "rkt: 4 lines left out, the log takes 3 a second"),
    ]

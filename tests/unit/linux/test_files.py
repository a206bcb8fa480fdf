# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import resource
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from rkt.linux import files

if TYPE_CHECKING:
    from pathlib import Path


def test_read_bounded(tmp_path: Path) -> None:
    """A file of exactly the limit is read whole, one byte more is refused."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert files.read_bounded(str(path), 100) == b"x" * 100
    with pytest.raises(OSError, match="larger than 99 bytes") as refused:
        files.read_bounded(str(path), 99)
    assert refused.value.errno == errno.EFBIG
    assert refused.value.filename == str(path)


def test_a_removal_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error on the way says where in the tree it was, and what is left goes with the next attempt."""
    (tmp_path / "tree" / "a" / "b").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "b" / "file").touch()
    unlink = os.unlink

    def refuse(path: str, *, dir_fd: int | None = None) -> None:
        if path == "file":
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        unlink(path, dir_fd=dir_fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        with pytest.raises(OSError, match="Input/output") as refused:
            files.remove_tree(f"{tmp_path}/tree")
    assert refused.value.filename == f"{tmp_path}/tree/a/b/file"
    files.remove_tree(f"{tmp_path}/tree")
    assert os.listdir(tmp_path) == []


def test_a_write_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of a descriptor says of which file, and a file that was to be replaced stays as it was."""
    path = str(tmp_path / "file")
    files.replace_file(path, b"old")

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left") as refused:
        files.replace_file(path, b"new")
    assert refused.value.filename == path
    with pytest.raises(OSError, match="No space left") as refused:
        files.write_new(f"{path}2", b"new")
    assert refused.value.filename == f"{path}2"
    assert (tmp_path / "file").read_bytes() == b"old"


def test_read_endless_file() -> None:
    """A file that claims no size but does not end is refused at the limit."""
    with pytest.raises(OSError, match="larger than 10 bytes"):
        files.read_bounded("/proc/self/status", 10)


def test_read_only_regular_files(tmp_path: Path) -> None:
    """Symbolic links, pipes and directories are refused, and a pipe does not block."""
    (tmp_path / "target").write_bytes(b"x")
    (tmp_path / "link").symlink_to("target")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="symbolic links") as link:
        files.read_bounded(str(tmp_path / "link"), 10)
    assert link.value.errno == errno.ELOOP
    for name in ("pipe", "."):
        with pytest.raises(OSError, match="not a regular file"):
            files.read_bounded(str(tmp_path / name), 10)


def test_write_new(tmp_path: Path) -> None:
    """A new file has its exact mode whatever the umask, and an existing one is never touched."""
    path = tmp_path / "file"
    before = os.umask(0o077)
    try:
        files.write_new(str(path), b"one", 0o664)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"one"
    assert path.stat().st_mode & 0o7777 == 0o664
    with pytest.raises(FileExistsError):
        files.write_new(str(path), b"two")
    assert path.read_bytes() == b"one"


def test_write_new_does_not_follow(tmp_path: Path) -> None:
    """A dangling symbolic link is not written through."""
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(FileExistsError):
        files.write_new(str(tmp_path / "link"), b"x")
    assert not (tmp_path / "elsewhere").exists()


def test_replace_file(tmp_path: Path) -> None:
    """Replacing leaves the new content, the exact mode, and no temporary file; readers keep the old one."""
    path = tmp_path / "file"
    files.replace_file(str(path), b"old", 0o600)
    with open(path, "rb") as reader:
        files.replace_file(str(path), b"new", 0o640, sync=False)
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o7777 == 0o640
    assert os.listdir(tmp_path) == ["file"]


def test_replace_file_fails_whole(tmp_path: Path) -> None:
    """When the rename is refused, the temporary file goes too."""
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        files.replace_file(str(tmp_path / "file"), b"x")
    assert os.listdir(tmp_path) == ["file"]


def test_remove_tree(tmp_path: Path) -> None:
    """A tree goes whole, read-only directories too; what its links point to stays."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"x")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "link").symlink_to(outside)
    (tree / "a" / "b" / "file").write_bytes(b"x")
    (tree / "a" / "b").chmod(0o000)
    files.remove_tree(str(tree))
    assert os.listdir(tmp_path) == ["outside"]
    assert (outside / "kept").exists()


def test_remove_tree_by_descriptor(tmp_path: Path) -> None:
    """Names are resolved below the given directory; an absent one and a link are fine."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        files.remove_tree("absent", dir_fd=fd)
        files.remove_tree("link", dir_fd=fd)
    finally:
        os.close(fd)
    assert os.listdir(tmp_path) == ["real"]


def test_remove_deep_tree() -> None:
    """Invariant UN13: a tree deeper than the recursion limit can be removed, without an open file per level."""
    # Not below tmp_path: the session after one that was killed here would fail to remove it.
    top = tempfile.mkdtemp(prefix="rkt-test-")
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        deeper = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(number) for number in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 50, hard))
    try:
        files.remove_tree(f"{top}/d")
        assert os.listdir(top) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        subprocess.run(["rm", "-rf", top], check=True)


def test_what_a_killed_writer_left_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that whoever was killed was about to rename goes; younger ones, other names, links and what they lead to stay."""

    class Killed(BaseException):
        """No handler runs."""

    def kill(source: str, _target: str) -> None:
        left.append(source)
        raise Killed

    left: list[str] = []
    (tmp_path / "below").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", kill)
        patched.setattr(os, "unlink", lambda _: None)
        for name in ("below/old", "below/young"):
            with pytest.raises(Killed):
                files.replace_file(str(tmp_path / name), b"")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".old.1f.0123abcd").touch()
    (tmp_path / "below" / "link").symlink_to(elsewhere)
    (tmp_path / "below" / ".link.1f.0123abcd").symlink_to(elsewhere)
    others = (".vimrc", "old", "..1f.0123abcd", ".a.1f.0123abcX", ".a.g.0123abcd", ".0123abcd")
    for name in others:
        (tmp_path / "below" / name).touch()
    for path in (left[0], elsewhere / ".old.1f.0123abcd", *(tmp_path / "below" / n for n in others)):
        os.utime(str(path), (1, 1))
    files.sweep_unfinished(str(tmp_path / "below"))
    stay = {*others, "link", ".link.1f.0123abcd", os.path.basename(left[1])}
    assert set(os.listdir(tmp_path / "below")) == stay
    assert os.listdir(elsewhere) == [".old.1f.0123abcd"]
    files.sweep_unfinished(str(tmp_path / "nothing"))

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from rkt.errors import ImageError
from rkt.image import copytree
from rkt.image.render import Selection
from tests.lib.unpacking import opened

if TYPE_CHECKING:
    from pathlib import Path

    from rkt.image.walk import Path as Inner


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree with one of everything."""
    root = tmp_path / "source"
    (root / "d/deep").mkdir(parents=True)
    (root / "d/f").write_bytes(b"x" * 3_000_000)
    os.setxattr(root / "d/f", "user.k", b"v")
    os.chmod(root / "d/f", 0o4444)
    os.link(root / "d/f", root / "d/deep/same")
    (root / "s").symlink_to("/etc/passwd")
    os.mkfifo(root / "p", 0o640)
    for name in ("d/f", "s", "p", "d/deep", "d", "."):
        os.utime(root / name, (7, 9), follow_symlinks=False)
    os.chmod(root, 0o751)
    return root


def copy(source: Path, target: Path, keep: frozenset[Inner] | None = None, *, link: bool = False) -> None:
    """Copy to a new directory; of the files only some, if told which."""
    target.mkdir()
    with opened(source) as source_fd, opened(target) as target_fd:
        selection = None
        if keep is not None:
            directories = frozenset(
                path for path, is_directory in copytree.list_tree(source_fd) if is_directory
            )
            selection = Selection(files=keep, directories=directories, owned=directories)
        copytree.copy_tree(source_fd, target_fd, selection=selection, link=link)


@pytest.mark.parametrize("reflink", [True, False])
def test_everything_is_copied(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, reflink: bool
) -> None:
    """Content, modes, times, attributes, links and pipes arrive, with and without reflinks."""
    if not reflink:

        def refuse(*_: object) -> int:
            raise OSError(errno.EOPNOTSUPP, "no reflinks")

        monkeypatch.setattr(fcntl, "ioctl", refuse)
    target = tmp_path / "target"
    copy(source, target)
    assert (target / "d/f").read_bytes() == b"x" * 3_000_000
    assert os.getxattr(target / "d/f", "user.k") == b"v"
    assert (
        (target / "d/f").stat().st_ino
        == (target / "d/deep/same").stat().st_ino
        != (source / "d/f").stat().st_ino
    )
    assert os.readlink(target / "s") == "/etc/passwd"
    for name in ("d/f", "s", "p", "d/deep", "d", "."):
        before, after = (os.lstat(root / name) for root in (source, target))
        assert (before.st_mode, before.st_mtime_ns) == (after.st_mode, after.st_mtime_ns), name
    assert stat.S_IMODE(target.stat().st_mode) == 0o751


def test_a_white_list_keeps_directories(source: Path, tmp_path: Path) -> None:
    """Only the listed files are copied; the first one met of several names is the file."""
    copy(source, tmp_path / "target", frozenset({(b"d", b"f"), (b"s",)}))
    found = {str(p.relative_to(tmp_path / "target")) for p in (tmp_path / "target").rglob("*")}
    assert found == {"d", "d/f", "d/deep", "s"}


def test_what_cannot_be_in_a_layer_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket is an error with its name, not left out in silence."""
    monkeypatch.chdir(source)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
    with pytest.raises(ImageError, match="'sock'"):
        copy(source, tmp_path / "target")

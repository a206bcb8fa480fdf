# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.linux import locks

if TYPE_CHECKING:
    from pathlib import Path


def test_exclusive(tmp_path: Path) -> None:
    """An exclusive lock keeps everybody else out until it is closed."""
    path = str(tmp_path / "lock")
    with locks.lock_file(path, exclusive=True):
        for exclusive in (True, False):
            with pytest.raises(BlockingIOError):
                locks.lock_file(path, exclusive=exclusive, blocking=False)
    locks.lock_file(path, exclusive=True, blocking=False).close()


def test_shared(tmp_path: Path) -> None:
    """Shared locks go together and keep an exclusive one out."""
    path = str(tmp_path / "lock")
    with (
        locks.lock_file(path, exclusive=False),
        locks.lock_file(path, exclusive=False, blocking=False),
        pytest.raises(BlockingIOError),
    ):
        locks.lock_file(path, exclusive=True, blocking=False)


def test_replaced_file(tmp_path: Path) -> None:
    """Invariant HH7: a lock on a file that is no longer at its path keeps nobody out, and a new lock is on the new file."""
    path = str(tmp_path / "lock")
    with locks.lock_file(path, exclusive=True):
        os.unlink(path)
        with locks.lock_file(path, exclusive=True, blocking=False) as second:
            assert os.fstat(second.fd).st_ino == os.stat(path).st_ino


def test_steal(tmp_path: Path) -> None:
    """A stolen descriptor keeps the lock after its owner is closed."""
    path = str(tmp_path / "lock")
    lock = locks.lock_file(path, exclusive=True)
    fd = lock.steal()
    lock.close()
    with pytest.raises(BlockingIOError):
        locks.lock_file(path, exclusive=True, blocking=False)
    os.close(fd)
    locks.lock_file(path, exclusive=True, blocking=False).close()


def test_directory(tmp_path: Path) -> None:
    """A directory is locked by path or below a descriptor; links and files are not directories."""
    (tmp_path / "pod").mkdir()
    (tmp_path / "link").symlink_to("pod")
    (tmp_path / "file").touch()
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with locks.lock_directory("pod", exclusive=True, dir_fd=fd), pytest.raises(BlockingIOError):
            locks.lock_directory(str(tmp_path / "pod"), exclusive=False, blocking=False)
    finally:
        os.close(fd)
    for name in ("link", "file"):
        with pytest.raises(NotADirectoryError):
            locks.lock_directory(str(tmp_path / name), exclusive=True)
    with pytest.raises(FileNotFoundError):
        locks.lock_directory(str(tmp_path / "absent"), exclusive=True)


def test_link_is_not_a_lock_file(tmp_path: Path) -> None:
    """A symbolic link in place of a lock file is refused."""
    (tmp_path / "lock").symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        locks.lock_file(str(tmp_path / "lock"), exclusive=True)
    assert not (tmp_path / "elsewhere").exists()

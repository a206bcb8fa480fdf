# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import _ctypes
import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from rkt.linux import libc, namespaces

if TYPE_CHECKING:
    from pathlib import Path


def test_openat2_stays_in_the_root(tmp_path: Path) -> None:
    """Invariant UN1: neither .. nor absolute links leave the directory that is the root of a look-up."""
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "root" / "etc" / "passwd").write_bytes(b"inside")
    (tmp_path / "root" / "link").symlink_to("/etc/passwd")
    (tmp_path / "root" / "up").symlink_to("../../../../etc/passwd")
    root_fd = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    try:
        for path in (b"link", b"up", b"/etc/passwd", b"../../etc/passwd"):
            fd = libc.openat2(root_fd, path, os.O_RDONLY, libc.RESOLVE_IN_ROOT)
            assert os.read(fd, 10) == b"inside"
            assert not os.get_inheritable(fd)
            os.close(fd)
        with pytest.raises(OSError, match="openat2") as refused:
            libc.openat2(root_fd, b"up", os.O_RDONLY, libc.RESOLVE_BENEATH)
        assert refused.value.errno == errno.EXDEV
        with pytest.raises(OSError, match="openat2") as refused:
            libc.openat2(root_fd, b"link", os.O_RDONLY, libc.RESOLVE_NO_SYMLINKS)
        assert refused.value.errno == errno.ELOOP
        assert refused.value.filename == "link"
    finally:
        os.close(root_fd)


def test_openat2_creates_with_a_mode(tmp_path: Path) -> None:
    """The mode of a new file arrives."""
    root_fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    os.close(libc.openat2(root_fd, b"file", flags, libc.RESOLVE_IN_ROOT, 0o600))
    os.close(root_fd)
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o600


def test_renameat2(tmp_path: Path) -> None:
    """An existing name is not replaced, and two names can be exchanged."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(FileExistsError):
            libc.renameat2(fd, b"a", fd, b"b", 1)
        libc.renameat2(fd, b"a", fd, b"b", 2)
    finally:
        os.close(fd)
    assert (tmp_path / "a").read_text() == "b"


def test_statfs_type() -> None:
    """Procfs is known by its number (invariant RN4)."""
    fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert libc.statfs_type(fd) == 0x9FA0
    finally:
        os.close(fd)


def test_close_range() -> None:
    """Descriptors become close-on-exec, and are closed, in one call."""
    low = 900
    high = low + 3
    fds = [os.dup2(0, number) for number in range(low, high + 1)]
    libc.close_range(low, high, libc.CLOSE_RANGE_CLOEXEC)
    assert not any(os.get_inheritable(fd) for fd in fds)
    libc.close_range(low, high)
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_error_names_call_and_path() -> None:
    """A failure carries errno, the call, and what it was about."""
    with pytest.raises(FileNotFoundError, match="open_tree") as failed:
        libc.open_tree(libc.AT_FDCWD, b"/nowhere/at all", 0)
    assert failed.value.filename == "/nowhere/at all"
    with pytest.raises(OSError, match="fsopen nonesuch"):
        libc.fsopen(b"nonesuch")


def test_own_namespaces() -> None:
    """The caller differs from itself in nothing."""
    assert namespaces.differing("self") == 0
    assert namespaces.differing(os.getpid()) == 0
    assert namespaces.identity("self", "mnt") != namespaces.identity("self", "net")
    fd = namespaces.open_namespace("self", "mnt")
    assert (os.fstat(fd).st_dev, os.fstat(fd).st_ino) == namespaces.identity("self", "mnt")
    os.close(fd)


def test_kinds_in_order_of_joining() -> None:
    """The user namespace is joined first and the mount namespace last."""
    assert namespaces.KINDS[0][0] == "user"
    assert namespaces.KINDS[-1][0] == "mnt"
    assert len(set(namespaces.FLAGS.values())) == 8


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's rights")
def test_file_system_ids_go_up_to_the_largest() -> None:
    """An id above 2147483647 can be taken for files as any other, and an id that is none is refused."""
    try:
        libc.set_file_system_ids(0xFFFFFFFE, 0x80000000)
        with open("/proc/thread-self/status", encoding="utf-8") as file:
            status = {line.split()[0]: line.split()[-1] for line in file if "id:" in line[:5]}
        assert (status["Uid:"], status["Gid:"]) == ("4294967294", "2147483648")
    finally:
        libc.set_file_system_ids(0, 0)
    with pytest.raises(PermissionError):
        libc.set_file_system_ids(0xFFFFFFFF, 0)


def test_openat2_is_repeated_while_somebody_renames(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """EAGAIN says that the kernel could not be sure of a ``..`` this time; any other error is final."""
    call = libc._syscall
    answers = iter([errno.EAGAIN] * 3)
    seen = []

    def uncertain(*args: Any) -> int:
        seen.append(args)
        error = next(answers, 0)
        if error:
            _ctypes.set_errno(error)
            return -1
        return int(call(*args))

    monkeypatch.setattr(libc, "_syscall", uncertain)
    fd = os.open(tmp_path, os.O_PATH)
    try:
        os.close(libc.openat2(fd, b".", os.O_PATH, libc.RESOLVE_IN_ROOT))
        assert len(seen) == 4
        with pytest.raises(FileNotFoundError):
            libc.openat2(fd, b"missing", os.O_PATH, libc.RESOLVE_IN_ROOT)
        assert len(seen) == 5
    finally:
        os.close(fd)

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from rkt.linux import landlock, libc
from tests.lib.isolated import errno_of, run_isolated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

needs_landlock = pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")


def restricted(function: Callable[[], object], allowed: list[tuple[bytes, int]]) -> object:
    """What a function returns in a child that has given up everything but what is allowed."""

    def body() -> object:
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        assert landlock.restrict(allowed) == min(landlock.abi(), landlock.NEWEST_ABI)
        return function()

    return run_isolated(body, 0)


def attempts(directory: Path) -> list[int]:
    """Errno of reading, writing, creating, making a directory, renaming across directories, and listing."""
    path = str(directory)
    return [
        errno_of(lambda: os.close(os.open(f"{path}/file", os.O_RDONLY))),
        errno_of(lambda: os.close(os.open(f"{path}/file", os.O_WRONLY))),
        errno_of(lambda: os.close(os.open(f"{path}/new", os.O_WRONLY | os.O_CREAT, 0o600))),
        errno_of(lambda: os.mkdir(f"{path}/directory")),
        errno_of(lambda: os.listdir(path)),
    ]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a file."""
    directory = tmp_path / "place"
    directory.mkdir()
    (directory / "file").write_bytes(b"x")
    return directory


@needs_landlock
def test_nothing_is_left(place: Path) -> None:
    """Without rules no file can be opened or made, by root neither."""
    assert restricted(lambda: attempts(place), []) == [errno.EACCES] * 5
    assert os.listdir(place) == ["file"]


@needs_landlock
def test_reading_only(place: Path) -> None:
    """What is allowed for reading can be read and listed, and not written."""
    rules = [(os.fsencode(place), landlock.READ)]
    assert restricted(lambda: attempts(place), rules) == [0, errno.EACCES, errno.EACCES, errno.EACCES, 0]


@needs_landlock
def test_filling_a_directory(place: Path) -> None:
    """A directory that may be filled takes files, directories, links and pipes; no devices, and nothing beside it."""
    other = place.parent / "other"
    other.mkdir()
    (other / "file").write_bytes(b"x")

    def body() -> list[object]:
        return [
            attempts(place),
            errno_of(lambda: os.mkfifo(f"{place}/pipe")),
            errno_of(lambda: os.symlink("x", f"{place}/symlink")),
            errno_of(lambda: os.link(f"{place}/file", f"{place}/directory/link")),
            errno_of(lambda: os.mknod(f"{place}/socket", 0o140600)),
            errno_of(lambda: os.link(f"{place}/file", f"{other}/link")),
            attempts(other),
        ]

    result = restricted(body, [(os.fsencode(place), landlock.FILL)])
    assert isinstance(result, list)
    assert result[:3] == [[0] * 5, 0, 0]
    assert result[3] == (0 if landlock.abi() >= landlock.REFER_ABI else errno.EXDEV)
    assert result[4] == errno.EACCES
    assert result[5] in {errno.EACCES, errno.EXDEV}
    assert result[6] == [errno.EACCES] * 5


@needs_landlock
def test_single_files_and_absent_ones(place: Path) -> None:
    """A file can be allowed by itself; a path that does not exist is no error and allows nothing."""
    rules = [(os.fsencode(place / "file"), landlock.READ), (os.fsencode(place / "absent"), landlock.READ)]
    assert restricted(lambda: attempts(place), rules) == [0, *[errno.EACCES] * 4]


@needs_landlock
def test_open_descriptors_keep_working(place: Path) -> None:
    """A descriptor from before can be written, truncated and read, which is how a worker gets its files."""
    fd = os.open(place / "file", os.O_RDWR)
    try:

        def body() -> list[int]:
            os.ftruncate(fd, 0)
            return [os.write(fd, b"abc"), len(os.pread(fd, 10, 0))]

        assert restricted(body, []) == [3, 3]
    finally:
        os.close(fd)


@pytest.mark.skipif(landlock.abi() < 4, reason="this kernel's Landlock knows no ports")
def test_ports() -> None:
    """No port is opened and nobody connected to, each unless it is left out of what is given up."""

    def attempt(network: int) -> list[int]:
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        landlock.restrict([], network=network)
        with socket.socket() as one, socket.socket() as two:
            return [
                errno_of(lambda: one.bind(("127.0.0.1", 0))),
                errno_of(lambda: two.connect(("127.0.0.1", 1))),
            ]

    assert run_isolated(lambda: attempt(landlock.BIND_TCP | landlock.CONNECT_TCP), 0) == [errno.EACCES] * 2
    assert run_isolated(lambda: attempt(landlock.BIND_TCP), 0) == [errno.EACCES, errno.ECONNREFUSED]


@pytest.mark.skipif(landlock.abi() < 6, reason="this kernel's Landlock knows no signals")
def test_signals_and_abstract_sockets() -> None:
    """Processes outside cannot be signalled, and abstract sockets of theirs not reached, by root neither."""
    name = f"\0rkt-test-{os.urandom(8).hex()}"
    parent = os.getpid()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()

        def body() -> list[int]:
            with socket.socket(socket.AF_UNIX) as client:
                return [
                    errno_of(lambda: os.kill(parent, 0)),
                    errno_of(lambda: client.connect(name)),
                    errno_of(lambda: signal.raise_signal(signal.SIGCHLD)),
                ]

        assert restricted(body, []) == [errno.EPERM, errno.EPERM, 0]


def test_kernels_without() -> None:
    """A kernel that has no Landlock, or does not use it, is version 0, and nothing is given up."""

    def body() -> list[int]:
        found = []
        for number in (errno.ENOSYS, errno.EOPNOTSUPP):

            def fail(number: int = number) -> int:
                raise OSError(number, "none")

            libc.landlock_abi = fail
            found += [landlock.abi(), landlock.restrict([]), landlock.file_rights(0)]
        return found

    assert run_isolated(body, 0) == [0] * 6


@pytest.mark.parametrize(("version", "count"), [(1, 13), (2, 14), (3, 15), (4, 15), (5, 16), (7, 16)])
def test_rights_of_versions(version: int, count: int) -> None:
    """Each version handles exactly the rights to files that it introduced or knew before."""
    assert landlock.file_rights(version).bit_count() == count


@needs_landlock
def test_older_versions_are_enough(place: Path) -> None:
    """A kernel that knows fewer rights is asked for those only."""

    def body() -> list[object]:
        libc.landlock_abi = lambda: 1
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        version = landlock.restrict([(os.fsencode(place), landlock.READ)])
        return [version, attempts(place)]

    assert run_isolated(body, 0) == [1, [0, errno.EACCES, errno.EACCES, errno.EACCES, 0]]

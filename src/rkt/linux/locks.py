# SPDX-License-Identifier: Apache-2.0
"""Advisory locks by flock(2): owned by the open file description, inherited across exec, released by the kernel.

Never process-wide POSIX locks: closing any descriptor of the file would drop them. A lock file may be removed by its
holder, so after acquiring, the path must still be the same inode (spec cli §8.7).
"""

from __future__ import annotations

import errno
import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_ATTEMPTS = 16


class Lock:
    """A held lock; releases on ``close`` or at the end of ``with``."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Release; harmless when released before."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def steal(self) -> int:
        """Give the descriptor, and with it the lock, to the caller."""
        fd, self.fd = self.fd, -1
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lock_file(path: str, *, exclusive: bool, blocking: bool = True, mode: int = 0o660) -> Lock:
    """Lock a file, made on demand.

    Raises:
        BlockingIOError: ``blocking`` is false and somebody else holds it.
        OSError: the file keeps being replaced (``ESTALE``), or what the file system says.
    """
    operation = (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if blocking else fcntl.LOCK_NB)
    for _ in range(_ATTEMPTS):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            fcntl.flock(fd, operation)
            held = os.fstat(fd)
            try:
                found = os.stat(path, follow_symlinks=False)
            except FileNotFoundError:
                found = None
            if found is not None and (held.st_dev, held.st_ino) == (found.st_dev, found.st_ino):
                lock, fd = Lock(fd), -1
                return lock
        finally:
            if fd >= 0:
                os.close(fd)
    raise OSError(errno.ESTALE, "lock file keeps being replaced", path)


def lock_directory(path: str, *, exclusive: bool, blocking: bool = True, dir_fd: int | None = None) -> Lock:
    """Lock an existing directory.

    Raises:
        BlockingIOError: ``blocking`` is false and somebody else holds it.
        FileNotFoundError: there is no such directory.
    """
    operation = (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if blocking else fcntl.LOCK_NB)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        fcntl.flock(fd, operation)
    except BaseException:
        os.close(fd)
        raise
    return Lock(fd)

# SPDX-License-Identifier: Apache-2.0
"""Files written whole or not at all, read with a bound, removed by descriptor."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20
#: Nobody takes so long to write a file that is written whole.
_WRITTEN_SECONDS = 600
_HEX = frozenset("0123456789abcdef")
#: So many directories are named in an error.
_MOST_NAMED = 64
#: For files of the kernel's, which say that they are empty.
_LEAST_CHUNK = 1 << 12


def read_bounded(path: str, limit_bytes: int, *, dir_fd: int | None = None) -> bytes:
    """Content of a regular file of at most ``limit_bytes``; symbolic links, pipes and devices are refused.

    Raises:
        OSError: ``EFBIG`` for a larger file, ``EINVAL`` for something that is not a regular file, or what the file
            system says.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=dir_fd)
    try:
        return read_fd_bounded(fd, limit_bytes, path)
    finally:
        os.close(fd)


def read_fd_bounded(fd: int, limit_bytes: int, path: str) -> bytes:
    """Likewise for an open descriptor; ``path`` only words the error."""
    status = os.fstat(fd)
    if status.st_mode & 0o170000 != 0o100000:
        raise OSError(errno.EINVAL, "not a regular file", path)
    if status.st_size > limit_bytes:
        raise OSError(errno.EFBIG, f"larger than {limit_bytes} bytes", path)
    chunks = []
    left = limit_bytes + 1
    # os.read sets aside all that it is asked for: a supervisor would keep that much longer than the file.
    step = min(max(status.st_size + 1, _LEAST_CHUNK), _CHUNK)
    while left > 0 and (chunk := os.read(fd, min(left, step))):
        chunks.append(chunk)
        left -= len(chunk)
    if left <= 0:
        raise OSError(errno.EFBIG, f"larger than {limit_bytes} bytes", path)
    return b"".join(chunks)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_new(path: str, data: bytes, mode: int = 0o640, *, dir_fd: int | None = None) -> None:
    """Create a file that must not exist; the mode is exact whatever the umask; nothing is synchronised."""
    fd = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode, dir_fd=dir_fd
    )
    try:
        os.fchmod(fd, mode)
        write_all(fd, data)
    except OSError as e:
        e.filename = path
        raise
    finally:
        os.close(fd)


def replace_file(path: str, data: bytes, mode: int = 0o640, *, sync: bool = True, gid: int = -1) -> None:
    """Write beside, synchronise, rename, synchronise the directory: readers see the old or the new file, never half.

    Args:
        path: the file to create or replace.
        data: its whole content.
        mode: exact permission bits.
        sync: whether the data must survive a power cut once this returns.
        gid: group to give the file, -1 to leave it.
    """
    directory, name = os.path.split(path)
    # As ``_is_unfinished`` knows it.
    temporary = os.path.join(directory, f".{name}.{os.getpid():x}.{os.urandom(4).hex()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            os.fchmod(fd, mode)
            if gid != -1:
                os.fchown(fd, -1, gid)
            write_all(fd, data)
            if sync:
                os.fsync(fd)
        except OSError as e:
            e.filename = path
            raise
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        raise
    if sync:
        sync_directory(directory or ".")


def sweep_unfinished(top: str) -> None:
    """Remove what ``replace_file`` left below a directory when its process was killed.

    Links are not followed. What cannot be removed stays: it is in nobody's way, and for whoever sweeps next.
    """
    import time

    oldest = time.time() - _WRITTEN_SECONDS
    try:
        for _, _, names, fd in os.fwalk(top):
            for name in filter(_is_unfinished, names):
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if status.st_mode & 0o170000 == 0o100000 and status.st_mtime < oldest:
                    os.unlink(name, dir_fd=fd)
    except OSError:
        pass


def _is_unfinished(name: str) -> bool:
    head, _, random = name.rpartition(".")
    head, _, pid = head.rpartition(".")
    return (
        head[:1] == "." and len(head) > 1 and len(random) == 8 and bool(pid) and _HEX.issuperset(pid + random)
    )


def sync_directory(path: str) -> None:
    """fsync(2) a directory, so that names in it survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as e:
        e.filename = path
        raise
    finally:
        os.close(fd)


def remove_tree(name: str, *, dir_fd: int | None = None) -> None:
    """Remove a file or a directory with all below it; symbolic links are never followed, other file systems refused.

    A directory that its owner could not enter or empty is first made so. Absent is fine. Works by descriptor (invariant
    HH6), needs no free space, and may be run again after an interruption.

    Raises:
        OSError: ``EXDEV`` when a mount is found below, ``ESTALE`` when somebody moves directories meanwhile, or what the
            file system says.
    """
    try:
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    if status.st_mode & 0o170000 != 0o040000:
        _unlink(name, dir_fd)
        return
    # A pod may have made a tree deeper than any limit on recursion or open files. So there is one open directory; the
    # way back up is "..", which must be the directory that we came from.
    fd = _enter(name, dir_fd, status.st_dev)
    stack: list[tuple[str, Iterator[str], tuple[int, int]]] = [(name, iter(os.listdir(fd)), _identity(fd))]
    try:
        while True:
            own_name, entries, _ = stack[-1]
            entry = next(entries, None)
            if entry is None:
                stack.pop()
                if not stack:
                    break
                fd = _leave(fd, stack[-1][2], own_name)
                _rmdir(own_name, fd)
                continue
            try:
                _unlink(entry, fd)
            except OSError as e:
                if e.errno not in {errno.EISDIR, errno.EPERM}:
                    raise
                below = _enter(entry, fd, status.st_dev)
                os.close(fd)
                fd = below
                stack.append((entry, iter(os.listdir(fd)), _identity(fd)))
    except OSError as e:
        # By its last name alone nobody would find it. A hostile tree may be deeper than a path is long.
        if isinstance(e.filename, str) and len(stack) < _MOST_NAMED:
            e.filename = "/".join([*(own for own, _, _ in stack), e.filename])
        raise
    finally:
        os.close(fd)
    _rmdir(name, dir_fd)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _enter(name: str, dir_fd: int | None, device: int) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=dir_fd)
    except PermissionError:
        # Not by name: that could be a link by now.
        path_fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            os.chmod(f"/proc/self/fd/{path_fd}", 0o700)
        finally:
            os.close(path_fd)
        fd = os.open(name, flags, dir_fd=dir_fd)
    try:
        status = os.fstat(fd)
        if status.st_dev != device:
            raise OSError(errno.EXDEV, "a mount is in the way", name)
        if status.st_mode & 0o300 != 0o300 and os.geteuid() != 0:
            os.fchmod(fd, 0o700)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _leave(fd: int, parent: tuple[int, int], name: str) -> int:
    """Close a directory and open the one above."""
    above = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    if _identity(above) != parent:
        os.close(above)
        raise OSError(errno.ESTALE, "a directory was moved while it was removed", name)
    os.close(fd)
    return above


def _unlink(name: str, dir_fd: int | None) -> None:
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        pass


def _rmdir(name: str, dir_fd: int | None) -> None:
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except FileNotFoundError:
        pass

# SPDX-License-Identifier: Apache-2.0
"""Copying a tree: reflinks where the file system has them, owners, times, attributes, hard links.

Both sides are walked by descriptors and nothing is followed, so the tree cannot lead the copy elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from typing import Protocol

    from rkt.linux.userns import IdRange

    Path = tuple[bytes, ...]

    class Selection(Protocol):
        """What to copy."""

        @property
        def owned(self) -> Container[Path]:
            """Directories that get the source's metadata."""

        @property
        def directories(self) -> Container[Path]:
            """Directories to copy."""

        @property
        def files(self) -> Container[Path]:
            """Everything else to copy."""


#: <linux/fs.h>
FICLONE = 0x40049409
_CHUNK = 1 << 20
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: What a host without reflinks, or between two file systems, answers to FICLONE.
_NO_REFLINK = frozenset(
    (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EBADF)
)
#: Too many names of one file, another file system, or one that knows no hard links.
_NO_LINK = frozenset((errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP))


class _Frame:
    """A directory being copied."""

    __slots__ = ("names", "path", "source_fd", "status", "target_fd")

    def __init__(self, path: Path, source_fd: int, target_fd: int) -> None:
        self.path = path
        self.source_fd = source_fd
        self.target_fd = target_fd
        self.status = os.fstat(source_fd)
        self.names: Iterator[bytes] = iter(sorted(map(os.fsencode, os.listdir(source_fd))))


class Copier:
    """Copies one tree; for one use."""

    def __init__(self, selection: Selection | None, *, link: bool, ids: IdRange | None = None) -> None:
        self._selection = selection
        self._ids = ids
        self._link_files = link
        self._owners = os.geteuid() == 0
        self._reflink = True
        # (device, inode) of a file with several names -> path of its first copy, from the target's root
        self._first_copies: dict[tuple[int, int], Path] = {}
        self._stack: list[_Frame] = []

    def run(self, source_fd: int, target_fd: int) -> None:
        """Copy what is below ``source_fd`` to below ``target_fd``.

        Raises:
            OSError: something cannot be copied; ``filename`` is its path from the top.
        """
        stack = self._stack
        stack.append(_Frame((), os.dup(source_fd), os.dup(target_fd)))
        path: Path = ()
        try:
            while stack:
                frame = stack[-1]
                path = frame.path
                name = next(frame.names, None)
                if name is not None:
                    path = (*path, name)
                    self._entry(frame, name, path)
                    continue
                # Making files in a directory changes its time, so its metadata comes last.
                if self._selection is None or frame.path in self._selection.owned:
                    self._metadata(frame.source_fd, frame.target_fd, frame.status)
                self._pop()
        except OSError as e:
            raise OSError(e.errno or errno.EIO, e.strerror or str(e), b"/".join(path) or b".") from e
        finally:
            while stack:
                self._pop()

    def _pop(self) -> None:
        frame = self._stack.pop()
        os.close(frame.source_fd)
        os.close(frame.target_fd)

    def _entry(self, frame: _Frame, name: bytes, path: Path) -> None:
        status = os.stat(name, dir_fd=frame.source_fd, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        selection = self._selection
        if kind == stat.S_IFDIR:
            if selection is not None and path not in selection.directories:
                return
            source_fd = os.open(name, _OPEN_DIRECTORY, dir_fd=frame.source_fd)
            try:
                try:
                    os.mkdir(name, 0o700, dir_fd=frame.target_fd)
                except FileExistsError:
                    if selection is None:
                        raise
                    # a layer below has it too
                target_fd = os.open(name, _OPEN_DIRECTORY, dir_fd=frame.target_fd)
            except BaseException:
                os.close(source_fd)
                raise
            self._stack.append(_Frame(path, source_fd, target_fd))
            return
        if selection is not None and path not in selection.files:
            return
        if self._link_files and self._share(frame, name):
            return
        if status.st_nlink > 1 and self._link(frame, name, path, status):
            return
        if kind == stat.S_IFREG:
            self._file(frame, name)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=frame.source_fd), name, dir_fd=frame.target_fd)
            self._metadata_by_name(frame.target_fd, name, status)
        elif kind == stat.S_IFIFO:
            os.mkfifo(name, 0o600, dir_fd=frame.target_fd)
            self._metadata_by_name(frame.target_fd, name, status)
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=frame.target_fd)
        else:
            raise OSError(errno.EINVAL, "neither file, directory, link nor named pipe")

    def _share(self, frame: _Frame, name: bytes) -> bool:
        """Give the layer's own file another name; whether the file system lets us."""
        try:
            os.link(name, name, src_dir_fd=frame.source_fd, dst_dir_fd=frame.target_fd, follow_symlinks=False)
        except OSError as e:
            if e.errno not in _NO_LINK:
                raise
            return False
        return True

    def _link(self, frame: _Frame, name: bytes, path: Path, status: os.stat_result) -> bool:
        """Link to the first copy of a file with several names; whether there was one."""
        first = self._first_copies.setdefault((status.st_dev, status.st_ino), path)
        if first == path:
            return False
        fd = os.dup(self._stack[0].target_fd)
        try:
            for component in first[:-1]:
                deeper = os.open(component, _OPEN_DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = deeper
            os.link(first[-1], name, src_dir_fd=fd, dst_dir_fd=frame.target_fd, follow_symlinks=False)
        finally:
            os.close(fd)
        return True

    def _file(self, frame: _Frame, name: bytes) -> None:
        source_fd = os.open(name, _OPEN_FILE, dir_fd=frame.source_fd)
        try:
            target_fd = os.open(name, _CREATE, 0o600, dir_fd=frame.target_fd)
            try:
                self._content(source_fd, target_fd)
                self._metadata(source_fd, target_fd, os.fstat(source_fd))
            finally:
                os.close(target_fd)
        finally:
            os.close(source_fd)

    def _content(self, source_fd: int, target_fd: int) -> None:
        if self._reflink:
            try:
                fcntl.ioctl(target_fd, FICLONE, source_fd)
            except OSError as e:
                if e.errno not in _NO_REFLINK:
                    raise
                self._reflink = False
            else:
                return
        while os.sendfile(target_fd, source_fd, None, _CHUNK):
            pass

    def _metadata(self, source_fd: int, target_fd: int, status: os.stat_result) -> None:
        # chown(2) clears setuid bits and capabilities, so it comes first.
        if self._owners:
            os.fchown(target_fd, *self._owner(status))
        # Attributes of the user class need permission to write, which the final mode may not give.
        for name in os.listxattr(source_fd):
            # A layer holds no others; labels of the host's security module belong to the place, not to the file.
            if name.startswith("user.") or (name == "security.capability" and self._owners):
                value = os.getxattr(source_fd, name)
                if self._ids is not None and name == "security.capability":
                    from rkt.linux.userns import shift_capabilities

                    value = shift_capabilities(value, self._ids)
                os.setxattr(target_fd, name, value)
        os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
        os.utime(target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _metadata_by_name(self, target_fd: int, name: bytes, status: os.stat_result) -> None:
        if self._owners:
            os.chown(name, *self._owner(status), dir_fd=target_fd, follow_symlinks=False)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target_fd, follow_symlinks=False)

    def _owner(self, status: os.stat_result) -> tuple[int, int]:
        if self._ids is None:
            return status.st_uid, status.st_gid
        return self._ids.outside(status.st_uid), self._ids.outside(status.st_gid)

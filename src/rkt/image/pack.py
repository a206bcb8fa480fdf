# SPDX-License-Identifier: Apache-2.0
"""A file or tree below one directory as a tar, while somebody may be changing it: the reading half of ``rkt cp``.

Runs in a confined worker whose root is the app's (or one directory of the host), so that there is no outside to be led
to: whatever a process of the pod swaps for a link meanwhile resolves inside (CVE-2018-15664, CVE-2019-14271). Magic links
of procfs are not followed. What lies on a file system of the kernel's own is not read.

The tar has regular files, directories and symbolic links. A file with several names comes several times; devices, sockets
and pipes are left out and counted; extended attributes are left out.
"""

from __future__ import annotations

import errno
import os
import stat

from rkt.errors import PodError
from rkt.image import tarformat
from rkt.image.tarformat import show
from rkt.linux import libc
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Resolution from the root of the worker's world.
INSIDE = libc.RESOLVE_IN_ROOT | libc.RESOLVE_NO_MAGICLINKS
#: Each level holds a descriptor, and a worker may have 256.
_MAX_DEPTH = 200
#: Paths that were left out and are named; the others are counted only.
_NAMED = 8
#: <linux/magic.h>: files there are views of the kernel, without a size or an end.
KERNEL_FILE_SYSTEMS = frozenset(
    (
        0x9FA0,  # proc
        0x62656572,  # sysfs
        0x27E0EB,  # cgroup
        0x63677270,  # cgroup2
        0x1CD1,  # devpts
        0x19800202,  # mqueue
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0x73636673,  # securityfs
        0xCAFE4A11,  # bpf
        0x62656570,  # configfs
        0x6165676C,  # pstore
        0xF97CFF8C,  # selinux
        0x65735543,  # fusectl
    )
)


class Packed(Record):
    """What was read.

    Attributes:
        left_out: how many entries are neither files, directories nor links; ``names`` of the first of them.
        broken: nobody read to the end.
    """

    left_out: int = 0
    names: list[str] = []
    broken: bool = False


class _Level:
    """A directory being read."""

    __slots__ = ("fd", "names", "path")

    def __init__(self, fd: int, path: bytes) -> None:
        self.fd = fd
        self.path = path
        self.names: Iterator[bytes] = iter(sorted(map(os.fsencode, os.listdir(fd))))


class Packer:
    """Writes one tar; for one use."""

    def __init__(self, root_fd: int, stream_fd: int) -> None:
        """Prepare.

        Args:
            root_fd: the worker's root directory.
            stream_fd: where the tar goes.
        """
        self._root_fd = root_fd
        self._stream_fd = stream_fd
        self._left_out = 0
        self._names: list[str] = []

    def run(self, path: bytes, top: bytes, *, follow: bool) -> Packed:
        """Write ``path`` and what is below.

        Args:
            path: from the root; one that ends in ``/`` or ``/.`` is a directory, whatever link leads there.
            top: what it is called in the tar.
            follow: whether a link that ``path`` itself is is followed.
        Raises:
            PodError: it is not there, or cannot be read.
        """
        broken = False
        try:
            self._start(path, top, follow=follow)
            self._write(bytes(2 * tarformat.BLOCK))
        except BrokenPipeError:
            broken = True  # why nobody reads any more is the reader's to say
        except OSError as e:
            where = e.filename if isinstance(e.filename, bytes) else path
            raise PodError(f"{show(where)}: {os.strerror(e.errno or 0)}") from None
        return Packed(left_out=self._left_out, names=self._names, broken=broken)

    def _start(self, path: bytes, top: bytes, *, follow: bool) -> None:
        is_directory = path.endswith((b"/", b"/.", b"/..")) or path in {b"", b".", b".."}
        flags = os.O_PATH | (os.O_DIRECTORY if is_directory else 0 if follow else os.O_NOFOLLOW)
        fd = libc.openat2(self._root_fd, path or b"/", flags, INSIDE)
        try:
            status = os.fstat(fd)
            if libc.statfs_type(fd) in KERNEL_FILE_SYSTEMS:
                raise PodError(
                    f"{show(path)} is on a file system of the kernel's, which has no files to copy"
                )
            if stat.S_ISLNK(status.st_mode):
                self._link(os.readlink(b"", dir_fd=fd), top, status)
            elif stat.S_ISDIR(status.st_mode):
                self._tree(os.open(b".", _READ_DIRECTORY, dir_fd=fd), top)
            elif stat.S_ISREG(status.st_mode):
                # By name once more, since a descriptor of this kind cannot be read; what is there now decides.
                opened = libc.openat2(
                    self._root_fd, path, _READ_FILE & ~(os.O_NOFOLLOW if follow else 0), INSIDE
                )
                if not self._file(opened, top):
                    raise PodError(f"{show(path)} was replaced while it was copied")
            else:
                raise PodError(f"{show(path)} is neither a file, a directory nor a link")
        finally:
            os.close(fd)

    def _tree(self, fd: int, top: bytes) -> None:
        levels: list[_Level] = []
        try:
            self._enter(levels, fd, top)
            while levels:
                level = levels[-1]
                name = next(level.names, None)
                if name is None:
                    os.close(levels.pop().fd)
                    continue
                try:
                    self._entry(levels, level, name)
                except FileNotFoundError:
                    continue  # removed meanwhile
                except BrokenPipeError:
                    raise
                except OSError as e:
                    if e.errno in {errno.ELOOP, errno.ENOTDIR}:
                        continue  # another kind of thing by now, as if it had come later
                    raise OSError(e.errno, e.strerror, level.path + b"/" + name) from e
        finally:
            for level in levels:
                os.close(level.fd)

    def _enter(self, levels: list[_Level], fd: int, path: bytes) -> None:
        try:
            if len(levels) >= _MAX_DEPTH:
                raise PodError(f"{show(path[:64])}… is more than {_MAX_DEPTH} directories deep")
            status = os.fstat(fd)
            if levels and libc.statfs_type(fd) in KERNEL_FILE_SYSTEMS:
                self._member(path + b"/", tarformat.DIRECTORY, status)
                os.close(fd)
                return
            self._member(path + b"/", tarformat.DIRECTORY, status)
            levels.append(_Level(fd, path))
        except BaseException:
            os.close(fd)
            raise

    def _entry(self, levels: list[_Level], level: _Level, name: bytes) -> None:
        path = level.path + b"/" + name
        status = os.stat(name, dir_fd=level.fd, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            self._enter(levels, os.open(name, _READ_DIRECTORY, dir_fd=level.fd), path)
        elif kind == stat.S_IFLNK:
            self._link(os.readlink(name, dir_fd=level.fd), path, status)
        elif kind != stat.S_IFREG or not self._file(os.open(name, _READ_FILE, dir_fd=level.fd), path):
            self._left_out += 1
            if len(self._names) < _NAMED:
                self._names.append(show(path))

    def _file(self, fd: int, path: bytes) -> bool:
        """Write a regular file and close it; false when it is something else."""
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return False
            self._member(path, tarformat.REGULAR, status, size=status.st_size)
            left = status.st_size
            while left:
                # A file that becomes shorter ends in zeros, one that grows is cut: the header has been written.
                data = os.read(fd, min(left, _CHUNK)) or bytes(min(left, _CHUNK))
                self._write(data)
                left -= len(data)
            self._write(bytes(tarformat.padding(status.st_size)))
        finally:
            os.close(fd)
        return True

    def _link(self, target: bytes, path: bytes, status: os.stat_result) -> None:
        self._member(path, tarformat.SYMLINK, status, link=target)

    def _member(
        self, path: bytes, kind: bytes, status: os.stat_result, *, size: int = 0, link: bytes = b""
    ) -> None:
        self._write(
            tarformat.render(
                tarformat.Member(
                    path,
                    kind,
                    mode=stat.S_IMODE(status.st_mode),
                    uid=status.st_uid,
                    gid=status.st_gid,
                    size=size,
                    mtime_ns=status.st_mtime_ns,
                    link=link,
                )
            )
        )

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._stream_fd, view) :]

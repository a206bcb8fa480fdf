# SPDX-License-Identifier: Apache-2.0
"""A tar into a directory that is there already and that somebody may be changing: the writing half of ``rkt cp``.

Runs in a confined worker whose root is the app's (or one directory of the host): see ``pack``. A member's parents are
opened from the root of what is filled, without following links, or, for an archive of the operator's that goes into a
pod, with links as the pod has them. What stands where a file or link goes is removed first and never written through; a
directory is never replaced, and one that is there keeps its owner and mode.

No set-user-ID and set-group-ID bits, no devices, no extended attributes: a file of a pod must not become a privileged one
of the host's, be it by way of a volume.
"""

from __future__ import annotations

import errno
import os
import stat

from rkt.errors import ImageError, PodError
from rkt.image import tarformat
from rkt.image.compression import Decompressor, fd_reader
from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.pack import INSIDE, KERNEL_FILE_SYSTEMS
from rkt.image.tarformat import show
from rkt.linux import libc
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rkt.image.tarformat import Member

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK = 1 << 20
#: Of what goes from a file system to another the size is no attack; a compressed archive still may not expand for ever.
LIMITS = DEFAULT_LIMITS.replace(tar_bytes=1 << 44, entries=1 << 24, time_seconds=7 * 86400)
#: How often a name is made free for somebody who keeps taking it.
_ATTEMPTS = 16
_MODE = 0o1777
_NAMED = 8


class Filled(Record):
    """What was written.

    Attributes:
        left_out: how many members are neither files, directories nor links; ``names`` of the first of them.
    """

    left_out: int = 0
    names: list[str] = []


class Filler:
    """Fills one directory; for one use."""

    def __init__(self, root_fd: int, stream_fd: int, *, keep_owners: bool, follow: bool) -> None:
        """Prepare.

        Args:
            root_fd: the worker's root directory.
            stream_fd: where the tar comes from.
            keep_owners: whether members get the owners that the tar names, rather than root.
            follow: whether links on the way to a member are followed.
        """
        self._root_fd = root_fd
        self._stream_fd = stream_fd
        self._keep_owners = keep_owners
        self._resolve = INSIDE if follow else INSIDE | libc.RESOLVE_NO_SYMLINKS
        self._follow = follow
        self._base = b""
        self._parent: tuple[bytes, int] = (b"", -1)
        self._times: dict[bytes, int] = {}
        self._memory_bytes = 0
        self._left_out = 0
        self._names: list[str] = []
        self._source: tarformat.Chunks | None = None

    def archive(self, path: bytes) -> Filled:
        """Unpack a foreign archive, compressed or not, into the directory ``path``.

        Raises:
            PodError: the directory is not there, or cannot be written to.
            ImageError: it is no tar, or breaks a rule.
        """
        base_fd = self._open(path, "is not a directory")
        os.close(base_fd)
        self._base = path
        return self._run(iter(Decompressor(fd_reader(self._stream_fd), LIMITS)), lambda name: name)

    def copy(self, path: bytes, name: bytes, *, contents: bool) -> Filled:
        """Unpack what ``Packer`` wrote, whose members are all one and what is below it.

        Args:
            path: where it goes: into that directory if there is one, else to become that.
            name: what it is called in a directory.
            contents: whether a directory's contents are meant, not itself.
        Raises:
            PodError, ImageError: as above.
        """
        place: list[bytes] = []

        def rename(member: bytes) -> bytes:
            if not place:
                place.append(self._place(path, name, is_tree=member.endswith(b"/"), contents=contents))
            return place[0] + b"/" + member.partition(b"/")[2] if place[0] else member.partition(b"/")[2]

        return self._run(_chunks(self._stream_fd), rename)

    def _place(self, path: bytes, name: bytes, *, is_tree: bool, contents: bool) -> bytes:
        """Settle ``_base``, the directory that is filled; returns what the first member is called there."""
        try:
            fd = libc.openat2(self._root_fd, path or b"/", os.O_PATH, INSIDE)
        except FileNotFoundError:
            if path.endswith(b"/") and not is_tree:
                raise PodError(f"directory {show(path)} does not exist") from None
        except OSError as e:
            raise PodError(f"{show(path)}: {os.strerror(e.errno or 0)}") from None
        else:
            is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
            os.close(fd)
            if is_directory:
                self._base = path
                return b"" if contents and is_tree else name
            if is_tree:
                raise PodError(f"{show(path)} is not a directory, and a directory is to be copied there")
            if path.endswith(b"/"):
                raise PodError(f"{show(path)} is not a directory")
        self._base, _, last = path.rstrip(b"/").rpartition(b"/")
        if last in {b"", b".", b".."}:
            raise PodError(f"{show(path)} does not exist")
        os.close(self._open(self._base, "is not a directory"))
        return last

    def _open(self, path: bytes, otherwise: str) -> int:
        """The directory that is filled; its path is the operator's, and links on it are followed, inside."""
        try:
            fd = libc.openat2(self._root_fd, path or b"/", _DIRECTORY, INSIDE)
        except NotADirectoryError:
            raise PodError(f"{show(path)} {otherwise}") from None
        except OSError as e:
            raise PodError(f"{show(path)}: {os.strerror(e.errno or 0)}") from None
        if libc.statfs_type(fd) in KERNEL_FILE_SYSTEMS:
            os.close(fd)
            raise PodError(f"{show(path)} is on a file system of the kernel's, which takes no files")
        return fd

    def _run(self, chunks: Iterator[bytes], rename: Callable[[bytes], bytes]) -> Filled:
        self._source = source = tarformat.Chunks(chunks)
        base_fd = -1
        try:
            for member in tarformat.members(source, LIMITS):
                relative = _clean(rename(member.path), member)
                if base_fd < 0:
                    base_fd = self._open(self._base, "is not a directory")
                    self._parent = (b"", base_fd)
                try:
                    self._add(base_fd, relative, member)
                except OSError as e:
                    raise PodError(f"{show(self._shown(relative))}: {os.strerror(e.errno or 0)}") from None
            for path, mtime_ns in reversed(self._times.items()):
                self._set_time(base_fd, path, mtime_ns)
        finally:
            if self._parent[1] not in {base_fd, -1}:
                os.close(self._parent[1])
            if base_fd >= 0:
                os.close(base_fd)
        return Filled(left_out=self._left_out, names=self._names)

    def _shown(self, relative: bytes) -> bytes:
        return self._base.rstrip(b"/") + b"/" + relative

    def _enter(self, base_fd: int, path: bytes) -> int:
        """Descriptor of a directory below what is filled, made if it is not there."""
        if self._parent[0] == path:
            return self._parent[1]
        if self._parent[1] != base_fd:
            os.close(self._parent[1])
            self._parent = (b"", base_fd)
        if path:
            try:
                fd = self._below(base_fd, path)
            except FileNotFoundError:
                above, _, name = path.rpartition(b"/")
                os.mkdir(name, 0o755, dir_fd=self._enter(base_fd, above))
                fd = self._below(base_fd, path)
            if self._parent[1] != base_fd:
                os.close(self._parent[1])
            self._parent = (path, fd)
        return self._parent[1]

    def _below(self, base_fd: int, path: bytes) -> int:
        if not self._follow:
            return libc.openat2(base_fd, path, _DIRECTORY, self._resolve)
        # Absolute links mean the root of the app, not the directory that is filled.
        return libc.openat2(self._root_fd, self._shown(path), _DIRECTORY, self._resolve)

    def _add(self, base_fd: int, path: bytes, member: Member) -> None:
        above, _, name = path.rpartition(b"/")
        if not name:
            return  # what is filled itself
        kind = member.kind
        parent_fd = self._enter(base_fd, above)
        if kind == tarformat.DIRECTORY:
            self._directory(parent_fd, name, path, member)
        elif kind == tarformat.REGULAR:
            self._file(parent_fd, name, member)
        elif kind == tarformat.SYMLINK:
            self._make(parent_fd, name, lambda: os.symlink(member.link, name, dir_fd=parent_fd))
            self._finish(parent_fd, name, member)
        elif kind == tarformat.HARD_LINK:
            self._hard_link(base_fd, path, member)
        else:
            self._left_out += 1
            if len(self._names) < _NAMED:
                self._names.append(show(path))

    def _make(self, parent_fd: int, name: bytes, make: Callable[[], int | None]) -> int:
        """Make something under a name, where anything but a directory makes way for it."""
        for _ in range(_ATTEMPTS):
            try:
                made = make()
            except FileExistsError:
                if stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
                try:
                    os.unlink(name, dir_fd=parent_fd)
                except FileNotFoundError:
                    continue
            else:
                return -1 if made is None else made
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def _file(self, parent_fd: int, name: bytes, member: Member) -> None:
        assert self._source is not None
        fd = self._make(parent_fd, name, lambda: os.open(name, _CREATE, 0o600, dir_fd=parent_fd))
        try:
            left = member.size
            for piece in self._source.content(member.size):
                left -= len(piece)
                while piece:
                    piece = piece[os.write(fd, piece) :]  # noqa: PLW2901 - the rest of the same piece
            if left:
                raise ImageError(f"the tar is truncated: it ends inside {show(member.path)!r}")
            if self._keep_owners:
                os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode & _MODE)
            os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(fd)

    def _finish(self, parent_fd: int, name: bytes, member: Member) -> None:
        if self._keep_owners:
            os.chown(name, member.uid, member.gid, dir_fd=parent_fd, follow_symlinks=False)
        os.utime(name, ns=(member.mtime_ns, member.mtime_ns), dir_fd=parent_fd, follow_symlinks=False)

    def _directory(self, parent_fd: int, name: bytes, path: bytes, member: Member) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        except FileExistsError:
            # It keeps what it has; that it is one, or leads to one, is seen again on the way to each member.
            if self._follow:
                os.close(libc.openat2(self._root_fd, self._shown(path), _DIRECTORY, self._resolve))
            else:
                os.close(os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd))
            return
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
        try:
            if self._keep_owners:
                os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode & _MODE)
        finally:
            os.close(fd)
        self._memory_bytes += len(path) + 200
        if self._memory_bytes < LIMITS.directory_memory_bytes:
            self._times[path] = member.mtime_ns

    def _set_time(self, base_fd: int, path: bytes, mtime_ns: int) -> None:
        """Making files in a directory changes its time, so this comes last; one that is gone needs none."""
        try:
            fd = self._below(base_fd, path)
            try:
                os.utime(b".", ns=(mtime_ns, mtime_ns), dir_fd=fd, follow_symlinks=False)
            finally:
                os.close(fd)
        except OSError:
            return

    def _hard_link(self, base_fd: int, path: bytes, member: Member) -> None:
        above, _, first = _clean(member.link, member).rpartition(b"/")
        source_fd = os.dup(self._enter(base_fd, above))
        try:
            above, _, name = path.rpartition(b"/")
            parent_fd = self._enter(base_fd, above)
            self._make(
                parent_fd,
                name,
                lambda: os.link(
                    first, name, src_dir_fd=source_fd, dst_dir_fd=parent_fd, follow_symlinks=False
                ),
            )
        finally:
            os.close(source_fd)


def _clean(path: bytes, member: Member) -> bytes:
    """A member's path without what means nothing; a leading slash is the directory that is filled.

    Raises:
        ImageError: it climbs, or is too long.
    """
    components = [part for part in path.split(b"/") if part not in {b"", b"."}]
    if b".." in components:
        raise ImageError(f"{show(member.path)!r} climbs out of the archive")
    if len(path) > LIMITS.path_bytes or len(components) > LIMITS.depth:
        raise ImageError(f"the path of a member is too long: {show(path[:64])}…")
    return b"/".join(components)


def _chunks(fd: int) -> Iterator[bytes]:
    while data := os.read(fd, _CHUNK):
        yield data

# SPDX-License-Identifier: Apache-2.0
"""Making an ACI from a directory or a tar: the same input gives the same bytes.

- The manifest comes first, then ``rootfs`` and what is below it, names in byte order (a tar's members in its own order).
- Times later than ``timestamp_seconds`` become that; no user names, no access times, no padding beyond the format's.
- Sockets and device nodes are left out: apps get a ``/dev`` of their own.
- Of the extended attributes, those are written that unpacking keeps.

Everything is read below descriptors, without following links. The result is read again as the store would read it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat

from rkt.errors import ImageError
from rkt.image import tarformat
from rkt.image.aci import scan_aci
from rkt.image.compression import NONE, Decompressor, encoder, fd_reader
from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.tarformat import Chunks, Member, show
from rkt.image.tarstream import split_path
from rkt.image.unpack import is_kept_xattr
from rkt.linux.files import write_all
from rkt.schema.record import Record
from rkt.values import ImageID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rkt.image.walk import Path
    from rkt.linux.userns import IdRange

_CHUNK = 1 << 20
_ROOTFS = b"rootfs"
_NANO = 10**9
_CAPABILITY = b"security.capability"
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Options(Record):
    """How the archive is written.

    Attributes:
        compression: ``none``, ``gzip``, ``bzip2`` or ``xz``.
        timestamp_seconds: latest modification time; ``None`` keeps them all.
        root_owner: make everything root's.
        ids: owners out of the range of this pod are written as the pod sees them; others, of the layers below what it
            changed, are so already.
    """

    compression: str = NONE
    timestamp_seconds: int | None = 0
    root_owner: bool = False
    ids: IdRange | None = None


class Created(Record):
    """What was made.

    Attributes:
        image_id: sha512 of the uncompressed tar.
        notices: what was left out, one line each.
    """

    image_id: ImageID
    notices: list[str]


class TarWriter:
    """Members of a tar to whatever takes bytes."""

    def __init__(self, write: Callable[[bytes], object], options: Options) -> None:
        self._write = write
        self._options = options
        self._held: list[bytes] = []
        self._held_bytes = 0

    def _put(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        self._write(data)

    def member(self, member: Member, content: Iterator[bytes] | None = None) -> None:
        """One member; the content must have the size that the member states."""
        options = self._options
        if options.root_owner:
            member.uid = member.gid = 0
        if options.ids is not None:
            _unshift(member, options.ids)
        if options.timestamp_seconds is not None:
            member.mtime_ns = min(member.mtime_ns, options.timestamp_seconds * _NANO)
        if member.path == b"./" and _is_usual_root(member):
            return
        self._put(tarformat.render(member))
        left = member.size
        for chunk in content or ():
            left -= len(chunk)
            self._put(bytes(chunk))
        if left:
            raise ImageError(f"{show(member.path)!r} changed while it was read")
        self._put(bytes(tarformat.padding(member.size)))

    def manifest(self, data: bytes) -> None:
        """The image manifest."""
        seconds = self._options.timestamp_seconds or 0
        member = Member(b"manifest", tarformat.REGULAR, size=len(data), mtime_ns=seconds * _NANO)
        self.member(member, iter([data]))

    def finish(self) -> None:
        """End the archive."""
        self._put(tarformat.END)
        self._flush()


class _Hashed:
    """An ACI on its way to a descriptor, compressed and hashed."""

    def __init__(self, fd: int, compression: str) -> None:
        self._fd = fd
        self._encoder = encoder(compression)
        self._hash = hashlib.sha512()

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        write_all(self._fd, self._encoder.compress(data))

    def finish(self) -> str:
        """Hex sha512 of the tar."""
        write_all(self._fd, self._encoder.flush())
        return self._hash.hexdigest()


class _Frame:
    """A directory being read."""

    __slots__ = ("fd", "names", "path")

    def __init__(self, path: bytes, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.names = iter(sorted(map(os.fsencode, os.listdir(fd))))


class _TreeReader:
    """Writes the members of a directory tree."""

    def __init__(self, writer: TarWriter, root: bytes) -> None:
        self._writer = writer
        self._root = root
        self._device = 0
        # (device, inode) of a file with several names -> path of its first member
        self._first_names: dict[tuple[int, int], bytes] = {}
        self._stack: list[_Frame] = []
        self.notices: list[str] = []

    def run(self, rootfs_fd: int) -> None:
        stack = self._stack
        path = self._root
        try:
            self._device = os.fstat(rootfs_fd).st_dev
            self._enter(path, os.dup(rootfs_fd))
            while stack:
                frame = stack[-1]
                name = next(frame.names, None)
                if name is None:
                    os.close(stack.pop().fd)
                else:
                    path = frame.path + b"/" + name if frame.path else name
                    self._entry(frame.fd, name, path)
        except OSError as e:
            raise ImageError(f"cannot read {show(path)!r}: {e.strerror or e}") from e
        finally:
            while stack:
                os.close(stack.pop().fd)

    def _enter(self, path: bytes, fd: int) -> None:
        try:
            status = os.fstat(fd)
            member = _member((path or b".") + b"/", tarformat.DIRECTORY, status)
            member.xattrs = _xattrs(fd)
            self._writer.member(member)
            if status.st_dev != self._device:
                self.notices.append(f"{show(path)} is a mount: what is on it is left out")
                os.close(fd)
                return
            self._stack.append(_Frame(path, fd))
        except BaseException:
            os.close(fd)
            raise

    def _entry(self, parent_fd: int, name: bytes, path: bytes) -> None:
        status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            self._enter(path, os.open(name, _OPEN_DIRECTORY, dir_fd=parent_fd))
            return
        if kind in {stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK}:
            word = "socket" if kind == stat.S_IFSOCK else "device node"
            self.notices.append(f"{show(path)} is a {word}: left out")
            return
        if status.st_nlink > 1:
            first = self._first_names.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                member = _member(path, tarformat.HARD_LINK, status)
                member.link = first
                self._writer.member(member)
                return
        if kind == stat.S_IFREG:
            self._file(parent_fd, name, path)
        elif kind == stat.S_IFLNK:
            member = _member(path, tarformat.SYMLINK, status)
            member.link = os.readlink(name, dir_fd=parent_fd)
            self._writer.member(member)
        elif kind == stat.S_IFIFO:
            self._writer.member(_member(path, tarformat.FIFO, status))

    def _file(self, parent_fd: int, name: bytes, path: bytes) -> None:
        fd = os.open(name, _OPEN_FILE, dir_fd=parent_fd)
        try:
            status = os.fstat(fd)
            member = _member(path, tarformat.REGULAR, status)
            member.size = status.st_size
            member.xattrs = _xattrs(fd)
            self._writer.member(member, _content(fd))
        finally:
            os.close(fd)


def _member(path: bytes, kind: bytes, status: os.stat_result) -> Member:
    return Member(
        path,
        kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
    )


def _is_usual_root(member: Member) -> bool:
    """Whether a layer need not say what its root directory is like; few programs write an entry for it."""
    return not member.xattrs and (member.mode, member.uid, member.gid) == (0o755, 0, 0)


def _unshift(member: Member, ids: IdRange) -> None:
    from rkt.linux.userns import unshift_capabilities

    member.uid = ids.seen_inside(member.uid)
    member.gid = ids.seen_inside(member.gid)
    if _CAPABILITY in member.xattrs:
        member.xattrs[_CAPABILITY] = unshift_capabilities(member.xattrs[_CAPABILITY], ids)


def _content(fd: int) -> Iterator[bytes]:
    while chunk := os.read(fd, _CHUNK):
        yield chunk


def _xattrs(fd: int) -> dict[bytes, bytes]:
    try:
        names = sorted(map(os.fsencode, os.listxattr(fd)))
    except OSError as e:
        if e.errno != errno.EOPNOTSUPP:
            raise
        return {}
    return {name: os.getxattr(fd, name) for name in names if is_kept_xattr(name)}


def write_tree(writer: TarWriter, rootfs_fd: int, *, root: bytes = b"") -> list[str]:
    """Write the members of a directory tree.

    Args:
        writer: gets them, and is not finished.
        rootfs_fd: the directory.
        root: what it is called in the tar; empty for the tar's own root.
    Returns:
        what was left out.
    Raises:
        ImageError: a file cannot be read.
    """
    reader = _TreeReader(writer, root)
    reader.run(rootfs_fd)
    return reader.notices


def write_members(writer: TarWriter, tar_fd: int, *, root: bytes = b"") -> list[str]:
    """Write the members of a tar of a root file system, compressed or not; as ``write_tree``."""
    limits = DEFAULT_LIMITS
    source = Chunks(iter(Decompressor(fd_reader(tar_fd), limits)))
    notices: list[str] = []
    skipped: set[Path] = set()
    above = (root,) if root else ()
    first = True
    for member in tarformat.members(source, limits):
        path = split_path(member.path, limits)
        if first and path and root:
            writer.member(Member(root + b"/", tarformat.DIRECTORY, mode=0o755))
        first = False
        if not path and member.kind != tarformat.DIRECTORY:
            raise ImageError(f"the root of the tar is a {tarformat.TYPE_WORDS[member.kind]}")
        target: Path = ()
        if member.kind == tarformat.HARD_LINK:
            target = split_path(member.link, limits)
            member.link = b"/".join((*above, *target))
        if member.kind in {tarformat.CHAR_DEVICE, tarformat.BLOCK_DEVICE} or target in skipped:
            skipped.add(path)
            notices.append(f"{show(member.path)} is a device node: left out")
            continue
        member.path = b"/".join((*above, *path)) or b"."
        if member.kind == tarformat.DIRECTORY:
            member.path += b"/"
        member.xattrs = {name: value for name, value in member.xattrs.items() if is_kept_xattr(name)}
        writer.member(member, map(bytes, source.content(member.size)))
    if first:
        raise ImageError("the tar is empty")
    return notices


def create_aci(
    out_fd: int, manifest: bytes, options: Options, *, rootfs_fd: int | None = None, tar_fd: int | None = None
) -> Created:
    """Write an ACI and read it again.

    Args:
        out_fd: an empty file, open for reading and writing.
        manifest: the image manifest, valid.
        options: how.
        rootfs_fd: directory that becomes the root file system; or
        tar_fd: tar of the root file system, compressed or not; members' paths are relative to its root.

    Returns:
        the image ID, and what was left out.

    Raises:
        ImageError: a file cannot be read, or the tar breaks a rule.
    """
    hashed = _Hashed(out_fd, options.compression)
    writer = TarWriter(hashed.write, options)
    writer.manifest(manifest)
    if rootfs_fd is not None:
        notices = write_tree(writer, rootfs_fd, root=_ROOTFS)
    else:
        assert tar_fd is not None
        notices = write_members(writer, tar_fd, root=_ROOTFS)
    writer.finish()
    digest = hashed.finish()
    os.lseek(out_fd, 0, os.SEEK_SET)
    image_id, manifest_again, _ = scan_aci(out_fd)
    if image_id != f"sha512-{digest}" or manifest_again != manifest:
        raise ImageError("the image that was written cannot be read again")
    return Created(image_id=image_id, notices=notices)

# SPDX-License-Identifier: Apache-2.0
"""Unpacking an archive below one directory descriptor: the only reader of tar bytes that writes files.

``Unpacker`` is what ACIs and layers of OCI images (``image.layer``) have in common; ``unpack_aci`` does the former.

Runs in the confined ``rkt-unpack`` worker as root with few capabilities and no view of the file system but an empty
directory. Nothing here builds a path string: each member's parents are opened one by one without following links
(``walk.DirectoryStack``), and its last component is created with ``O_EXCL`` or fails (invariants UN1 to UN6, UN8 to
UN13, UN17, UN19).

What becomes of a member:

- regular files, directories, symbolic links, hard links within the archive and named pipes are made as the header says,
  setuid bits included: the tree is only ever mounted ``nosuid``, below a directory that only root may enter;
- device nodes are not made, only counted; they stay in the tar-split file, so the tar can still be rebuilt;
- of the extended attributes ``security.capability`` and ``user.*`` are kept, except those that steer overlayfs;
- directories that are only implied by longer paths are 0755, root's, from 1970.

Directories get mode, owner and time last, deepest first, since making files in them would undo it.
"""

from __future__ import annotations

import errno
import hashlib
import os

from rkt.errors import ImageError, RktError, StoreError
from rkt.image import tarformat
from rkt.image.aci import MANIFEST, AciStream
from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.tarformat import show
from rkt.image.tarsplit import SplitWriter
from rkt.image.tarstream import check_symlink, duplicate
from rkt.image.walk import DirectoryStack
from rkt.linux import disk
from rkt.schema.record import Record
from rkt.values import ImageID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rkt.image.limits import Limits
    from rkt.image.tarformat import Member
    from rkt.image.tarstream import TarStream
    from rkt.image.walk import Path

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Files from this size on are held against the free space before they are written.
_BIG_FILE_BYTES = 1 << 20
#: Rough memory of one remembered path beyond its bytes.
_PATH_OVERHEAD_BYTES = 300


class UnpackResult(Record):
    """What was unpacked.

    Attributes:
        image_id: sha512 of the uncompressed tar.
        blob_sha256: hex sha256 of the bytes as read, empty when they were not hashed; ``blob_bytes`` their number.
        compression: ``none``, ``gzip``, ``bzip2`` or ``xz``.
        size_bytes: size of the uncompressed tar.
        tree_size_bytes: content of regular files, hard links once.
        entries: members of the archive.
        manifest: the image manifest, verbatim.
        skipped_devices: device nodes that were not made, and hard links to them.
        dropped_xattrs: extended attributes that were not set.
    """

    image_id: ImageID
    blob_sha256: str
    blob_bytes: int
    compression: str
    size_bytes: int
    tree_size_bytes: int
    entries: int
    manifest: bytes
    skipped_devices: int = 0
    dropped_xattrs: int = 0


def is_kept_xattr(name: bytes) -> bool:
    """Whether an extended attribute is taken from an image; ``user.overlay.*`` would steer a mount (invariant UN6)."""
    if name == b"security.capability":
        return True
    return name.startswith(b"user.") and len(name) > 5 and b"overlay" not in name.split(b".")


class Directory:
    """What a directory gets when all is in it.

    Attributes:
        explicit: whether the archive had an entry for it.
    """

    __slots__ = ("explicit", "gid", "mode", "mtime_ns", "uid", "xattrs")

    def __init__(self, member: Member | None = None) -> None:
        """Prepare; without a member it is only implied: 0755, root's, from 1970."""
        self.explicit = member is not None
        self.mode, self.uid, self.gid, self.mtime_ns = 0o755, 0, 0, 0
        self.xattrs: dict[bytes, bytes] = {}
        if member is not None:
            self.mode, self.uid, self.gid, self.mtime_ns = (
                member.mode,
                member.uid,
                member.gid,
                member.mtime_ns,
            )
            self.xattrs = member.xattrs


class Unpacker:
    """The tree being made.

    Attributes:
        directories: those made so far.
        skipped: device nodes that were not made, and hard links to them.
        tree_size_bytes, dropped_xattrs: so far.
        kept: content of the file ``keep``.
    """

    def __init__(
        self,
        target_fd: int,
        stream: TarStream,
        split: SplitWriter,
        link_target: Callable[[Member], Path],
        *,
        keep: Path = (),
    ) -> None:
        """Prepare.

        Args:
            target_fd: empty directory.
            stream: gives the content of the member that is added.
            split: is told of files.
            link_target: where a hard link points.
            keep: path of a small file whose content is wanted.
        """
        self.limits = stream.limits
        self._stream = stream
        self._split = split
        self._target_fd = target_fd
        self._link_target = link_target
        self._keep = keep
        self.parents = DirectoryStack(target_fd, missing=self._make_implicit)
        self._link_parents = DirectoryStack(target_fd)
        # Ownership needs root; tests and image tools run without.
        self._owners = os.geteuid() == 0
        self.directories: dict[Path, Directory] = {}
        self.skipped: set[Path] = set()
        self._memory_bytes = 0
        self.tree_size_bytes = 0
        self.dropped_xattrs = 0
        self.kept = b""

    def close(self) -> None:
        """Close what is held open."""
        self.parents.close()
        self._link_parents.close()

    def remember(self, path: Path) -> None:
        """Account for the memory that a remembered path takes."""
        self._memory_bytes += sum(map(len, path)) + 50 * len(path) + _PATH_OVERHEAD_BYTES
        if self._memory_bytes > self.limits.directory_memory_bytes:
            raise ImageError("the image has too many directories, device nodes or whiteouts")

    def _make_implicit(self, parent_fd: int, path: Path) -> None:
        if path in self.skipped:
            raise ImageError(f"the parent {show(b'/'.join(path))!r} of a member is not a directory")
        self.remember(path)
        os.mkdir(path[-1], 0o700, dir_fd=parent_fd)
        self.directories[path] = Directory()

    def add(self, path: Path, member: Member) -> None:
        """Make one member."""
        try:
            self._add(path, member)
        except FileExistsError:
            raise duplicate(member.path) from None
        except NotADirectoryError:
            raise ImageError(f"the parent of {show(member.path)!r} is not a directory") from None
        except OSError as e:
            raise refused(member.path, e) from e

    def _add(self, path: Path, member: Member) -> None:
        if not path:
            return  # the root of the archive: the target directory stays as it is
        kind = member.kind
        if path in self.skipped:
            raise duplicate(member.path)
        parent_fd = self.parents.enter(path[:-1])
        name = path[-1]
        if kind == tarformat.REGULAR:
            self._file(parent_fd, path, member)
        elif kind == tarformat.DIRECTORY:
            self._directory(parent_fd, path, member)
        elif kind == tarformat.SYMLINK:
            check_symlink(member)
            os.symlink(member.link, name, dir_fd=parent_fd)
            self.dropped_xattrs += len(member.xattrs)
            self._finish_by_name(parent_fd, name, member)
        elif kind == tarformat.HARD_LINK:
            self._hard_link(parent_fd, path, member)
        elif kind == tarformat.FIFO:
            os.mkfifo(name, 0o600, dir_fd=parent_fd)
            self.dropped_xattrs += len(member.xattrs)
            self._finish_by_name(parent_fd, name, member)
            # fchmodat(2) would follow a link, but the name is the pipe just made and nobody else writes here.
            os.chmod(name, member.mode, dir_fd=parent_fd)
        else:
            self._skip(parent_fd, path, member)

    def _file(self, parent_fd: int, path: Path, member: Member) -> None:
        size = member.size
        if size >= _BIG_FILE_BYTES:
            space = os.fstatvfs(self._target_fd)
            if size > space.f_bavail * space.f_frsize:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        keep = path == self._keep
        kept = []
        digest = hashlib.sha256()
        fd = os.open(path[-1], _CREATE, 0o600, dir_fd=parent_fd)
        try:
            left = size
            for piece in self._stream.source.content(size):
                count = len(piece)
                written = os.write(fd, piece)
                while written < count:
                    written += os.write(fd, piece[written:])
                digest.update(piece)
                left -= count
                if keep:
                    kept.append(bytes(piece))
            if left:
                raise ImageError(f"the tar is truncated: it ends inside {show(member.path)!r}")
            self._finish_by_fd(fd, member)
        finally:
            os.close(fd)
        self._split.file(b"/".join(path), size, digest.digest())
        self.tree_size_bytes += size
        if keep:
            self.kept = b"".join(kept)

    def _finish_by_fd(self, fd: int, member: Member) -> None:
        # chown(2) clears setuid bits and capabilities, so it comes first.
        if self._owners:
            os.fchown(fd, member.uid, member.gid)
        # Attributes of the user class need permission to write, which the final mode may not give.
        if member.xattrs:
            self._set_xattrs(fd, member.xattrs)
        os.fchmod(fd, member.mode)
        os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))

    def _finish_by_name(self, parent_fd: int, name: bytes, member: Member) -> None:
        if self._owners:
            os.chown(name, member.uid, member.gid, dir_fd=parent_fd, follow_symlinks=False)
        os.utime(name, ns=(member.mtime_ns, member.mtime_ns), dir_fd=parent_fd, follow_symlinks=False)

    def _set_xattrs(self, fd: int, xattrs: dict[bytes, bytes]) -> None:
        for name, value in xattrs.items():
            if not is_kept_xattr(name):
                self.dropped_xattrs += 1
                continue
            try:
                os.setxattr(fd, name, value)
            except PermissionError:
                if self._owners:
                    raise
                self.dropped_xattrs += 1

    def _directory(self, parent_fd: int, path: Path, member: Member) -> None:
        known = self.directories.get(path)
        if known is None:
            self.remember(path)
            os.mkdir(path[-1], 0o700, dir_fd=parent_fd)
        elif known.explicit:
            self._again(member)
        self.directories[path] = Directory(member)

    def _again(self, member: Member) -> None:
        """The archive has a second entry for a directory."""
        raise duplicate(member.path)

    def _hard_link(self, parent_fd: int, path: Path, member: Member) -> None:
        target = self._link_target(member)
        if target in self.skipped:
            self._skip(parent_fd, path, member)
            return
        try:
            target_fd = self._link_parents.enter(target[:-1])
            # linkat(2) without AT_SYMLINK_FOLLOW links a symbolic link itself, and refuses directories with EPERM.
            os.link(target[-1], path[-1], src_dir_fd=target_fd, dst_dir_fd=parent_fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            raise ImageError(
                f"hard link {show(member.path)!r} points to {show(member.link)!r}, which is no file so far"
            ) from None

    def _skip(self, parent_fd: int, path: Path, member: Member) -> None:
        try:
            os.stat(path[-1], dir_fd=parent_fd, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            raise duplicate(member.path)
        self.remember(path)
        self.skipped.add(path)

    def finish(self) -> None:
        """Give the directories their attributes, mode, owner and time; no member may be added afterwards."""
        for path in sorted(self.directories, reverse=True):
            directory = self.directories[path]
            fd = os.open(path[-1], _OPEN_DIRECTORY, dir_fd=self.parents.enter(path[:-1]))
            try:
                if self._owners:
                    os.fchown(fd, directory.uid, directory.gid)
                if directory.xattrs:
                    self._set_xattrs(fd, directory.xattrs)
                os.fchmod(fd, directory.mode)
                os.utime(fd, ns=(directory.mtime_ns, directory.mtime_ns))
            except OSError as e:
                raise refused(b"/".join(path), e) from e
            finally:
                os.close(fd)


def refused(path: bytes, e: OSError) -> RktError:
    """What the file system said to a member: its own fault, or the member's."""
    text = f"cannot unpack {show(path)!r}: {e.strerror or e}"
    return StoreError(text, hint=disk.remedy(e.errno)) if disk.is_disk(e) else ImageError(text)


def fill(unpacker: Unpacker, members: Iterable[tuple[Path, Member]]) -> int:
    """Let an unpacker make all members; returns their number."""
    entries = 0
    add = unpacker.add
    try:
        for path, member in members:
            entries += 1
            add(path, member)
        unpacker.finish()
    finally:
        unpacker.close()
    return entries


def unpack_aci(
    stream_fd: int, target_fd: int, split_fd: int, limits: Limits = DEFAULT_LIMITS, *, hash_blob: bool = True
) -> UnpackResult:
    """Unpack an ACI, hash it on both sides, and write its tar-split file.

    Args:
        stream_fd: the image, compressed or not, read from the current offset to the end.
        target_fd: an empty directory; nothing is created outside it. On failure it is left as far as it got.
        split_fd: an empty file for the tar-split stream.
        limits: ceilings.
        hash_blob: whether the bytes as read are hashed.

    Returns:
        digests, sizes and the manifest; the manifest is not parsed here.

    Raises:
        ImageError: the archive breaks a rule or a limit, or the file system refused a member.
        StoreError: the disk is full, or fails.
        OSError: the stream cannot be read or the split file not written.

    Source: App Container Specification, "App Container Image"; spec cli §8.3, §9.1.
    """
    split = SplitWriter(split_fd)
    with AciStream(stream_fd, limits, split.raw, hash_blob=hash_blob) as aci:
        unpacker = Unpacker(target_fd, aci, split, aci.layout.link_target, keep=(MANIFEST,))
        entries = fill(unpacker, aci.members())
        split.finish(aci.tar_bytes, aci.tar_digest())
        return UnpackResult(
            image_id=aci.image_id(),
            blob_sha256=aci.blob_sha256(),
            blob_bytes=aci.blob_bytes,
            compression=aci.compression,
            size_bytes=aci.tar_bytes,
            tree_size_bytes=unpacker.tree_size_bytes,
            entries=entries,
            manifest=unpacker.kept,
            skipped_devices=len(unpacker.skipped),
            dropped_xattrs=unpacker.dropped_xattrs,
        )

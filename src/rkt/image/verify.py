# SPDX-License-Identifier: Apache-2.0
"""Holding an unpacked layer against what was fetched: every difference, by name (spec cli §2.23; invariant SG13).

The tar-split file has all headers and the digest of each file, so the layer is checked as the tar describes it:
content, kind, mode, owner, link target, modification time, the extended attributes that are kept, what is missing and
what nobody put there. Device nodes are not in a layer. Directories only implied by longer paths must be there, as
``unpack`` makes them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat

from rkt.errors import DamagedRecord
from rkt.image import tarformat, tarsplit
from rkt.image.aci import Layout
from rkt.image.layer import LayerLayout
from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.marks import HOLDER_ATTRIBUTE, IMPLIED_LOOK, MARKS, OPAQUE_ATTRIBUTE, ROOTFS, Marks, read_marks
from rkt.image.unpack import is_kept_xattr
from rkt.image.walk import READ_FILE, DirectoryStack
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rkt.image.tarformat import Member
    from rkt.image.walk import Path

_CHUNK = 1 << 20
_NANO = 10**9
_KINDS = {
    stat.S_IFREG: tarformat.REGULAR,
    stat.S_IFDIR: tarformat.DIRECTORY,
    stat.S_IFLNK: tarformat.SYMLINK,
    stat.S_IFIFO: tarformat.FIFO,
    stat.S_IFCHR: tarformat.CHAR_DEVICE,
    stat.S_IFBLK: tarformat.BLOCK_DEVICE,
}


class Difference(Record):
    """One thing about one file that is not as it was fetched.

    Attributes:
        path: relative to the layer: ``rootfs/bin/sh``.
        what: ``content``, ``type``, ``mode``, ``owner``, ``link``, ``time``, ``attributes``, ``missing``, ``extra``, or
            ``unreadable``.
        detail: what was expected and found, for people.
        layer: which one it is in, where an image may have several.
    """

    path: bytes
    what: str
    detail: str = ""
    layer: str = ""

    def __str__(self) -> str:
        text = f"{tarformat.show(self.path)}: {self.what}"
        if self.layer:
            text += f" in layer {self.layer}"
        return f"{text} ({self.detail})" if self.detail else text


class _SplitSource:
    """Headers and padding of a split file, as ``tarformat.members`` reads them."""

    def __init__(self, split_fd: int) -> None:
        self.whole = tarsplit.open_hash(split_fd)
        self.digest = b""
        self._records = tarsplit.records(split_fd)
        self._held = b""

    def take(self, count: int, /) -> bytes:
        """Raw bytes; content of files is passed over by ``content``."""
        while len(self._held) < count:
            kind, data, size, digest = next(self._records)
            if kind == tarsplit.END:
                self._records = iter([(kind, data, size, digest)])
                self.digest = digest
                break
            if kind != tarsplit.RAW:
                raise DamagedRecord("the tar-split file is not in the order of its tar")
            self.whole.update(data)
            self._held += data
        data, self._held = self._held[:count], self._held[count:]
        return data

    def content(self, path: bytes) -> tuple[int, bytes]:
        """Size and sha256 of the file whose header came last."""
        kind, name, size, digest = next(self._records)
        if kind != tarsplit.FILE or self._held or name != path:
            raise DamagedRecord("the tar-split file is not in the order of its tar")
        return size, digest


class _Verifier:
    _may_end_early = False

    def __init__(
        self, split_fd: int, tree_fd: int, layout: Layout | LayerLayout, *, check_owner: bool
    ) -> None:
        self._source = _SplitSource(split_fd)
        self._layout = layout
        self._tree_fd = tree_fd
        self._check_owner = check_owner
        self._parents = DirectoryStack(tree_fd)
        self._link_parents = DirectoryStack(tree_fd)
        # Everything that belongs in the tree.
        self._expected: set[Path] = set()
        self._skipped: set[Path] = set()
        self._changed: set[Path] = set()
        self._differences: list[Difference] = []

    def _differs(self, path: Path, what: str, detail: str = "") -> None:
        self._differences.append(Difference(path=b"/".join(path), what=what, detail=detail))

    def run(self) -> list[Difference]:
        try:
            for member in tarformat.members(self._source, DEFAULT_LIMITS, may_end_early=self._may_end_early):
                self._place(self._layout.place(member), member)
            self._finish()
            self._extras((), self._tree_fd)
        finally:
            self._parents.close()
            self._link_parents.close()
        return self._differences

    def _place(self, path: Path, member: Member) -> None:
        digest = b""
        if member.kind == tarformat.REGULAR:
            size, digest = self._source.content(b"/".join(path))
            if size != member.size:
                raise DamagedRecord("the tar-split file is not in the order of its tar")
        if path:
            self._member(path, member, digest)

    def _finish(self) -> None:
        """All members were seen; what is behind has only extras to find."""

    def _member(self, path: Path, member: Member, digest: bytes) -> None:
        target: Path = ()
        if member.kind == tarformat.HARD_LINK:
            target = self._layout.link_target(member)
        if member.kind in {tarformat.CHAR_DEVICE, tarformat.BLOCK_DEVICE} or target in self._skipped:
            self._skipped.add(path)
            return
        self._expect(path)
        try:
            parent_fd = self._parents.enter(path[:-1])
            status = os.stat(path[-1], dir_fd=parent_fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            self._differs(path, "missing")
            return
        if target:
            self._hard_link(path, target, status)
            return
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), b"")
        if kind != member.kind:
            found = tarformat.TYPE_WORDS.get(kind, "socket")
            self._differs(path, "type", f"{tarformat.TYPE_WORDS[member.kind]} expected, {found} found")
            return
        self._metadata(path, member, status, parent_fd)
        if kind == tarformat.REGULAR:
            self._file(path, member, digest, parent_fd, status.st_size)

    def _expect(self, path: Path) -> None:
        for end in range(len(path), 0, -1):
            if path[:end] in self._expected:
                break
            self._expected.add(path[:end])

    def _hard_link(self, path: Path, target: Path, status: os.stat_result) -> None:
        try:
            parent_fd = self._link_parents.enter(target[:-1])
            other = os.stat(target[-1], dir_fd=parent_fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return  # reported where the target is a member
        if target in self._changed:
            # The other names of a changed file are changed as well, and may be the ones that people know.
            self._changed.add(path)
            self._differs(path, "content", f"the same file as {tarformat.show(b'/'.join(target))}")
        if (status.st_dev, status.st_ino) != (other.st_dev, other.st_ino):
            self._differs(path, "link", f"hard link to {tarformat.show(b'/'.join(target))} expected")

    def _metadata(self, path: Path, member: Member, status: os.stat_result, parent_fd: int) -> None:
        mode = stat.S_IMODE(status.st_mode)
        if member.kind != tarformat.SYMLINK and mode != member.mode:
            self._differs(path, "mode", f"{member.mode:04o} expected, {mode:04o} found")
        if self._check_owner and (status.st_uid, status.st_gid) != (member.uid, member.gid):
            self._differs(
                path, "owner", f"{member.uid}:{member.gid} expected, {status.st_uid}:{status.st_gid} found"
            )
        expected_s, found_s = member.mtime_ns // _NANO, status.st_mtime_ns // _NANO
        # File systems clamp times they cannot store, and round fractions.
        if expected_s != found_s and 0 <= expected_s < 1 << 31:
            self._differs(path, "time", f"{expected_s} expected, {found_s} found")
        if member.kind == tarformat.SYMLINK:
            link = os.readlink(path[-1], dir_fd=parent_fd)
            if link != member.link:
                expected, found = tarformat.show(member.link), tarformat.show(link)
                self._differs(path, "link", f"{expected!r} expected, {found!r} found")
        elif member.kind in {tarformat.REGULAR, tarformat.DIRECTORY}:
            self._attributes(path, member, parent_fd)

    def _attributes(self, path: Path, member: Member, parent_fd: int) -> None:
        expected = {name: value for name, value in member.xattrs.items() if is_kept_xattr(name)}
        if not self._check_owner:
            expected.pop(b"security.capability", None)
        try:
            fd = os.open(path[-1], READ_FILE, dir_fd=parent_fd)
        except OSError as e:
            self._differs(path, "unreadable", e.strerror or "")
            return
        try:
            found = {}
            for text in os.listxattr(fd):
                name = os.fsencode(text)
                # Labels of the host's security module are the host's business.
                if name.startswith(b"user.") or name == b"security.capability":
                    found[name] = os.getxattr(fd, name)
        except OSError as e:
            if e.errno != errno.EOPNOTSUPP:
                raise
            found = {}
        finally:
            os.close(fd)
        names = sorted(n for n in {*expected, *found} if expected.get(n) != found.get(n))
        if names:
            self._differs(path, "attributes", ", ".join(map(tarformat.show, names)))

    def _file(self, path: Path, member: Member, digest: bytes, parent_fd: int, size: int) -> None:
        if size != member.size:
            self._changed.add(path)
            self._differs(path, "content", f"{member.size} bytes expected, {size} found")
            return
        content = hashlib.sha256()
        try:
            fd = os.open(path[-1], READ_FILE, dir_fd=parent_fd)
            try:
                while chunk := os.read(fd, _CHUNK):
                    content.update(chunk)
                    self._hash(chunk)
            finally:
                os.close(fd)
        except OSError as e:
            self._differs(path, "unreadable", e.strerror or "")
            return
        if content.digest() != digest:
            self._changed.add(path)
            self._differs(path, "content", "other bytes of the same number")

    def _hash(self, chunk: bytes) -> None:
        """Content of a file, in the order of the tar."""

    def _extras(self, prefix: Path, directory_fd: int) -> None:
        """Report what the tar does not have, a directory as a whole."""
        stack: list[tuple[Path, Iterator[bytes]]] = [(prefix, _names(directory_fd))]
        while stack:
            path, names = stack[-1]
            name = next(names, None)
            if name is None:
                stack.pop()
                continue
            child = (*path, name)
            if child not in self._expected:
                self._differs(child, "extra")
                continue
            parent_fd = self._parents.enter(path)
            if stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
                stack.append((child, _names(self._parents.enter(child))))


def _names(directory_fd: int) -> Iterator[bytes]:
    """Names in a directory, sorted; the descriptor may be ``O_PATH``."""
    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        return iter(sorted(map(os.fsencode, os.listdir(fd))))
    finally:
        os.close(fd)


class _LayerVerifier(_Verifier):
    """Of a layer of an OCI image: directories by their last entry, whiteouts, marks, and the diff ID."""

    _layout: LayerLayout
    _may_end_early = True

    def __init__(self, split_fd: int, tree_fd: int, *, check_owner: bool) -> None:
        super().__init__(split_fd, tree_fd, LayerLayout(DEFAULT_LIMITS), check_owner=check_owner)
        self._directories: dict[Path, Member] = {}
        self._hidden: set[Path] = set()
        self._opaque: set[Path] = set()
        self._size_bytes = 0
        self._tree_size_bytes = 0

    @property
    def digest(self) -> bytes:
        """Of the tar, as the split file says."""
        return self._source.digest

    def _place(self, path: Path, member: Member) -> None:
        whiteout = self._layout.whiteout(path, member)
        if whiteout is not None:
            (self._opaque if whiteout.opaque else self._hidden).add(whiteout.path)
        elif member.kind == tarformat.DIRECTORY:
            self._directories[path] = member
            self._expect(path)
        else:
            self._tree_size_bytes += member.size
            super()._place(path, member)

    def _hash(self, chunk: bytes) -> None:
        self._source.whole.update(chunk)

    def _finish(self) -> None:
        self._expect((ROOTFS,))
        for path, member in self._directories.items():
            self._member(path, member, b"")
        for path in (*self._opaque, *(path[:-1] for path in self._hidden | self._skipped)):
            self._expect(path)
        holders = {path[:-1] for path in self._hidden | self._skipped if path not in self._expected}
        replaced = self._hidden & self._expected
        for path in sorted(self._hidden | self._skipped):
            self._whiteout(path)
        self._opaque |= {path for path in replaced if self._kind(path) == tarformat.DIRECTORY}
        if not self._differences and self._source.whole.digest() != self._source.digest:
            raise DamagedRecord("the tar-split file is not of this layer")
        self._marks(holders, replaced)

    def _kind(self, path: Path) -> bytes:
        try:
            status = os.stat(path[-1], dir_fd=self._parents.enter(path[:-1]), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return b""
        return _KINDS.get(stat.S_IFMT(status.st_mode), b"")

    def _whiteout(self, path: Path) -> None:
        if path in self._expected:
            return
        self._expect(path)
        try:
            status = os.stat(path[-1], dir_fd=self._parents.enter(path[:-1]), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            self._differs(path, "missing", "a whiteout")
            return
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev:
            self._differs(path, "type", "a whiteout is expected")

    def _marks(self, holders: set[Path], replaced: set[Path]) -> None:
        """What overlayfs was told, and the file that says so."""
        name = os.fsencode(MARKS)
        self._expect((name,))
        try:
            marks = read_marks(self._tree_fd, ".")
        except DamagedRecord as e:
            self._differs((name,), "unreadable", e.message)
            return
        directories = {path for path in self._expected if self._kind(path) == tarformat.DIRECTORY}
        expected = Marks(
            size_bytes=marks.size_bytes,
            tree_size_bytes=self._tree_size_bytes,
            implied=frozenset(p[1:] for p in directories if p not in self._directories and p not in replaced),
            opaque=frozenset(path[1:] for path in self._opaque),
            holders=frozenset(path[1:] for path in holders),
        )
        if marks != expected and not self._differences:
            self._differs((name,), "content", "not what the layer says")
        if not self._check_owner:
            return  # only root may look
        for path in sorted(directories):
            fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._parents.enter(path))
            try:
                found = {name for name in os.listxattr(fd) if name in {OPAQUE_ATTRIBUTE, HOLDER_ATTRIBUTE}}
            except OSError as e:
                if e.errno != errno.EOPNOTSUPP:
                    raise
                found = set()
            finally:
                os.close(fd)
            wanted = {OPAQUE_ATTRIBUTE} if path in self._opaque else set()
            if path in holders:
                wanted.add(HOLDER_ATTRIBUTE)
            if found != wanted:
                self._differs(path, "attributes", ", ".join(sorted(found ^ wanted)))
            if path not in self._directories:
                self._implied(path)

    def _implied(self, path: Path) -> None:
        status = os.stat(path[-1], dir_fd=self._parents.enter(path[:-1]), follow_symlinks=False)
        if (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) != IMPLIED_LOOK:
            self._differs(path, "mode", "that of a directory without an entry is expected")


def verify_layer(split_fd: int, tree_fd: int, *, check_owner: bool | None = None) -> list[Difference]:
    """Compare the layer of an ACI with the tar it was unpacked from.

    Args:
        split_fd: the tar-split file, at its start.
        tree_fd: the layer directory.
        check_owner: whether owners and file capabilities count; by default when run by root, since only root's
            ``unpack`` sets them.

    Returns:
        differences in the order of the tar, then what is extra; empty when all is as fetched.

    Raises:
        DamagedRecord: the tar-split file cannot be used.
        OSError: the tree cannot be read.
    """
    if check_owner is None:
        check_owner = os.geteuid() == 0
    return _Verifier(split_fd, tree_fd, Layout(DEFAULT_LIMITS), check_owner=check_owner).run()


def verify_oci_layer(
    split_fd: int, tree_fd: int, *, check_owner: bool | None = None
) -> tuple[str, list[Difference]]:
    """Likewise for a layer of an OCI or Docker image.

    Returns:
        hex diff ID of what the layer was unpacked from, and the differences.
    """
    if check_owner is None:
        check_owner = os.geteuid() == 0
    verifier = _LayerVerifier(split_fd, tree_fd, check_owner=check_owner)
    differences = verifier.run()
    return verifier.digest.hex(), differences

# SPDX-License-Identifier: Apache-2.0
"""Unpacking a layer of an OCI or Docker image below one directory descriptor, in the form that overlayfs reads.

What holds for an ACI (``image.unpack``) holds here, with these differences (OCI image specification, *layer*, "Changesets"
and "Whiteouts"):

- Everything is below ``rootfs``. Names may begin with ``/`` or ``./``, the layer's own root may have an entry, and a
  directory may have several, of which the last counts. A file that comes twice is refused: what readers make of it differs.
- ``.wh.NAME`` hides what lower layers have as NAME: a character device 0:0 of that name, which the kernel lets anybody
  make. ``.wh..wh..opq`` hides all that lower layers have in its directory. Neither hides anything of its own layer, wherever
  it stands: when the layer has NAME as well, a directory of that name hides those below it, and anything else does so
  anyhow. Names that begin with ``.wh.`` and are none of these are refused (invariant UN5).
- A device node is not made, but hides what lower layers have there.

The attributes that tell overlayfs of such directories are none that an image or this worker may set (invariant UN6). Their
names go to a file beside ``rootfs`` (``image.marks``).
"""

from __future__ import annotations

import hashlib
import os
import stat

from rkt.errors import ImageError
from rkt.image import tarformat
from rkt.image.compression import LAYER_KINDS
from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.marks import MARKS, ROOTFS, Marks
from rkt.image.tarformat import show
from rkt.image.tarsplit import LAYER_HEAD, SplitWriter
from rkt.image.tarstream import TarStream, split_path
from rkt.image.unpack import Unpacker, fill, refused
from rkt.linux.files import write_new
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rkt.image.limits import Limits
    from rkt.image.tarformat import Member
    from rkt.image.walk import Path

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
#: What overlayfs takes for "there is nothing".
_WHITEOUT_MODE = stat.S_IFCHR


class LayerResult(Record):
    """What was unpacked.

    Attributes:
        diff_id: hex sha256 of the uncompressed tar.
        blob_sha256: hex sha256 of the bytes as read, empty when they were not hashed; ``blob_bytes`` their number.
        compression: ``none``, ``gzip``, ``zstd``, ``bzip2`` or ``xz``.
        size_bytes: size of the uncompressed tar.
        tree_size_bytes: content of regular files, hard links once.
        entries: members of the archive.
        skipped_devices: device nodes that were not made, and hard links to them.
        dropped_xattrs: extended attributes that were not set.
    """

    diff_id: str
    blob_sha256: str
    blob_bytes: int
    compression: str
    size_bytes: int
    tree_size_bytes: int
    entries: int
    skipped_devices: int = 0
    dropped_xattrs: int = 0


class Whiteout(Record):
    """What an entry hides.

    Attributes:
        path: below the layer's directory.
        opaque: not ``path`` itself, but all that lower layers have in it.
    """

    path: Path
    opaque: bool


class LayerLayout:
    """Holds a layer's members against the rules, one after the other."""

    __slots__ = ("_limits",)

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def place(self, member: Member) -> Path:
        """The path of a member below the layer's directory.

        Raises:
            ImageError: the member may not be in a layer.
        """
        path = split_path(member.path.lstrip(b"/"), self._limits)
        if not path and member.kind != tarformat.DIRECTORY:
            raise ImageError(f"the root of the layer is a {tarformat.TYPE_WORDS[member.kind]}")
        return (ROOTFS, *path)

    def whiteout(self, path: Path, member: Member) -> Whiteout | None:
        """What a member hides; None for one that is what it says.

        Raises:
            ImageError: it has a reserved name and is no whiteout.
        """
        name = path[-1]
        if b"/" + _WHITEOUT not in b"/" + member.path:
            return None
        if any(component.startswith(_WHITEOUT) for component in path[:-1]):
            raise ImageError(f"path {show(member.path)!r} in the layer is below a whiteout")
        if not name.startswith(_WHITEOUT):
            return None
        if member.kind != tarformat.REGULAR or member.size:
            raise ImageError(f"whiteout {show(member.path)!r} in the layer is not an empty file")
        if name == _OPAQUE:
            return Whiteout(path=path[:-1], opaque=True)
        hidden = name[len(_WHITEOUT) :]
        if hidden in {b"", b".", b".."} or hidden.startswith(_WHITEOUT):
            raise ImageError(
                f"whiteout {show(member.path)!r} in the layer names nothing that could be hidden"
            )
        return Whiteout(path=(*path[:-1], hidden), opaque=False)

    def link_target(self, member: Member) -> Path:
        """Where a hard link points: something of the same layer.

        Raises:
            ImageError: it points elsewhere.
        """
        target = split_path(member.link.lstrip(b"/"), self._limits)
        if not target:
            raise ImageError(f"hard link {show(member.path)!r} points to the root of the layer")
        return (ROOTFS, *target)


class LayerStream(TarStream):
    """A layer being read."""

    def __init__(self, stream_fd: int, limits: Limits, split: SplitWriter, *, hash_blob: bool) -> None:
        super().__init__(stream_fd, limits, hashlib.sha256(), LAYER_KINDS, split.raw, hash_blob=hash_blob)
        self.layout = LayerLayout(limits)

    def members(self) -> Iterator[tuple[Path, Member]]:
        """Members with their checked paths; each one's content must be taken before the next.

        Raises:
            ImageError: the archive breaks a rule or a limit.
        """
        for member in tarformat.members(self.source, self.limits, may_end_early=True):
            yield self.layout.place(member), member


class _LayerUnpacker(Unpacker):
    """A layer being made."""

    def __init__(self, target_fd: int, stream: LayerStream, split: SplitWriter) -> None:
        super().__init__(target_fd, stream, split, stream.layout.link_target)
        self._whiteout = stream.layout.whiteout
        self._hidden: set[Path] = set()
        self._opaque: set[Path] = set()
        self._holders: set[Path] = set()

    def add(self, path: Path, member: Member) -> None:
        whiteout = self._whiteout(path, member)
        if whiteout is None:
            super().add(path, member)
            return
        self.remember(whiteout.path)
        (self._opaque if whiteout.opaque else self._hidden).add(whiteout.path)

    def _again(self, member: Member) -> None:
        """The last entry of a directory counts."""

    def finish(self) -> None:
        try:
            # What the layer has, directories that hold nothing but whiteouts too, comes before what it hides.
            hidden = sorted(self._hidden | self.skipped)
            for path in ((ROOTFS,), *sorted(self._opaque), *(path[:-1] for path in hidden)):
                self.parents.enter(path)
            for path in hidden:
                self._hide(path)
        except NotADirectoryError:
            raise ImageError("the parent of a whiteout is not a directory") from None
        except OSError as e:
            raise refused(b"a whiteout", e) from e
        super().finish()

    def _hide(self, path: Path) -> None:
        parent_fd = self.parents.enter(path[:-1])
        try:
            os.mknod(path[-1], _WHITEOUT_MODE, 0, dir_fd=parent_fd)
        except FileExistsError:
            # Of the same layer, so it stays.
            directory = self.directories.get(path)
            if directory is not None:
                self._opaque.add(path)
                # Nothing of a lower layer's is left of it, its owner and mode neither.
                directory.explicit = True
        else:
            self._holders.add(path[:-1])

    def marks(self, size_bytes: int) -> Marks:
        """What root has to know of the layer."""
        implied = (path for path, directory in self.directories.items() if not directory.explicit)
        return Marks(
            size_bytes=size_bytes,
            tree_size_bytes=self.tree_size_bytes,
            implied=frozenset(path[1:] for path in implied),
            opaque=frozenset(path[1:] for path in self._opaque),
            holders=frozenset(path[1:] for path in self._holders),
        )


def unpack_layer(
    stream_fd: int, target_fd: int, split_fd: int, limits: Limits = DEFAULT_LIMITS, *, hash_blob: bool = True
) -> LayerResult:
    """Unpack a layer, hash it on both sides, and write its tar-split file.

    Args:
        stream_fd: the layer, compressed or not, read from the current offset to the end.
        target_fd: an empty directory; the tree becomes its ``rootfs``, what overlayfs must be told its ``marks``.
        split_fd: an empty file for the tar-split stream.
        limits: ceilings.
        hash_blob: whether the bytes as read are hashed.

    Raises:
        ImageError: the archive breaks a rule or a limit, or the file system refused a member.
        StoreError: the disk is full, or fails.
        OSError: the stream cannot be read or the split file not written.
    """
    split = SplitWriter(split_fd, LAYER_HEAD)
    with LayerStream(stream_fd, limits, split, hash_blob=hash_blob) as stream:
        unpacker = _LayerUnpacker(target_fd, stream, split)
        entries = fill(unpacker, stream.members())
        split.finish(stream.tar_bytes, stream.tar_digest())
        write_new(MARKS, unpacker.marks(stream.tar_bytes).dump(), 0o600, dir_fd=target_fd)
        return LayerResult(
            diff_id=stream.tar_digest().hex(),
            blob_sha256=stream.blob_sha256(),
            blob_bytes=stream.blob_bytes,
            compression=stream.compression,
            size_bytes=stream.tar_bytes,
            tree_size_bytes=unpacker.tree_size_bytes,
            entries=entries,
            skipped_devices=len(unpacker.skipped),
            dropped_xattrs=unpacker.dropped_xattrs,
        )

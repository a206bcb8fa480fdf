# SPDX-License-Identifier: Apache-2.0
r"""What is known of an OCI layer besides its files, in a file ``marks`` beside its ``rootfs``.

::

    rkt layer 1\n
    SIZE TREESIZE\n                 bytes of the tar, bytes of the files
    LETTER PATH \0                  I implied, O opaque, W holds whiteouts; relative to rootfs, which is the empty path
    E SHA256 \0                     hex, of all before it

Written by ``rkt-unpack``, which may not set the attributes that overlayfs obeys; root reads it and sets them.
"""

from __future__ import annotations

import hashlib
import os
import stat

from rkt.errors import DamagedRecord
from rkt.image.tarformat import show
from rkt.image.walk import DirectoryStack
from rkt.linux.files import read_bounded
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.image.walk import Path

ROOTFS = b"rootfs"
MARKS = "marks"
OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"
HOLDER_ATTRIBUTE = "trusted.overlay.origin"
#: Mode, user and group of a directory without an entry of its own.
IMPLIED_LOOK = (0o755, 0, 0)
#: No layer has more: an unpacker does not remember more paths.
_MAX_BYTES = 64 << 20
#: Of a size; what writes it is the confined process that read the archive.
_MAX_DIGITS = 19
#: More of a path is not repeated in a message.
_SHOWN_BYTES = 256
_HEAD = b"rkt layer 1\n"
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Marks(Record):
    """What is known of a layer besides its files.

    Attributes:
        size_bytes: of the uncompressed tar.
        tree_size_bytes: content of regular files, hard links once.
        implied: directories without an entry of their own; paths are below ``rootfs``.
        opaque: directories that hide what lower layers have in them.
        holders: directories in which there are whiteouts.
    """

    size_bytes: int
    tree_size_bytes: int
    implied: frozenset[Path]
    opaque: frozenset[Path]
    holders: frozenset[Path]

    def dump(self) -> bytes:
        """Content of the file ``marks``."""
        records = [
            letter + b"/".join(path) + b"\0"
            for letter, paths in ((b"I", self.implied), (b"O", self.opaque), (b"W", self.holders))
            for path in sorted(paths)
        ]
        data = b"".join([_HEAD, b"%d %d\n" % (self.size_bytes, self.tree_size_bytes), *records])
        return data + b"E" + hashlib.sha256(data).hexdigest().encode() + b"\0"


def parse_marks(data: bytes, what: str) -> Marks:
    """Content of a file ``marks``.

    Raises:
        DamagedRecord: not what ``unpack_layer`` wrote.
    """
    sizes, _, body = data.removeprefix(_HEAD).partition(b"\n")
    size, _, tree_size = sizes.partition(b" ")
    *records, rest = body.split(b"\0")
    sizes_are_numbers = all(number.isdigit() and len(number) <= _MAX_DIGITS for number in (size, tree_size))
    if rest or not records or not data.startswith(_HEAD) or not sizes_are_numbers:
        raise DamagedRecord(f"{what} does not describe a layer")
    last = records.pop()
    if last != b"E" + hashlib.sha256(data[: -len(last) - 1]).hexdigest().encode():
        raise DamagedRecord(f"{what} is damaged: its checksum does not match")
    found: dict[bytes, set[Path]] = {b"I": set(), b"O": set(), b"W": set()}
    for record in records:
        path = tuple(record[1:].split(b"/")) if len(record) > 1 else ()
        if record[:1] not in found or not {b"", b".", b".."}.isdisjoint(path):
            raise DamagedRecord(f"{what} is damaged: it has a path {show(record[1:][:_SHOWN_BYTES])!r}")
        found[record[:1]].add(path)
    return Marks(
        size_bytes=int(size),
        tree_size_bytes=int(tree_size),
        implied=frozenset(found[b"I"]),
        opaque=frozenset(found[b"O"]),
        holders=frozenset(found[b"W"]),
    )


def set_marks(tree_fd: int, marks: Marks) -> None:
    """Tell overlayfs what the layer says, by attributes that only root may set.

    An opaque directory hides what lower layers have in it. Whiteouts in a directory that only this layer has are shown by
    the kernel as broken files, unless the directory looks as if it had been copied up, of which an empty ``origin`` is the
    sign (Documentation/filesystems/overlayfs.rst, "Non-directories", and ``ovl_path_check_origin_xattr``).

    Args:
        tree_fd: the layer directory; nothing in it may be written by others at the same time.
        marks: of the layer.
    Raises:
        OSError: a directory is missing, or the file system has no such attributes.
    """
    with DirectoryStack(tree_fd) as directories:
        for paths, name, value in (
            (marks.opaque, OPAQUE_ATTRIBUTE, b"y"),
            (marks.holders, HOLDER_ATTRIBUTE, b""),
        ):
            for path in sorted(paths):
                fd = os.open(b".", _OPEN_DIRECTORY, dir_fd=directories.enter((ROOTFS, *path)))
                try:
                    os.setxattr(fd, name, value)
                finally:
                    os.close(fd)


def find_whiteouts(root_fd: int, marks: Marks) -> frozenset[Path]:
    """Paths of a layer's whiteouts.

    Args:
        root_fd: its ``rootfs``.
        marks: of the layer.
    Raises:
        OSError: a directory cannot be read.
    """
    found = set()
    with DirectoryStack(root_fd) as directories:
        for path in sorted(marks.holders):
            fd = os.open(b".", _OPEN_DIRECTORY, dir_fd=directories.enter(path))
            try:
                for name in map(os.fsencode, os.listdir(fd)):
                    if stat.S_ISCHR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                        found.add((*path, name))
            finally:
                os.close(fd)
    return frozenset(found)


def read_marks(tree_fd: int, what: str) -> Marks:
    """The marks of a layer.

    Args:
        tree_fd: its directory.
        what: names it in errors, normally its path.
    Raises:
        DamagedRecord: they are missing, or not what was written.
    """
    try:
        data = read_bounded(MARKS, _MAX_BYTES, dir_fd=tree_fd)
    except OSError as e:
        raise DamagedRecord(f"cannot read {what}/{MARKS}: {e.strerror}") from e
    return parse_marks(data, f"{what}/{MARKS}")

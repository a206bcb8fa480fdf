# SPDX-License-Identifier: Apache-2.0
r"""What an unpacked tree does not tell about the tar it came from, kept so that the tar can be rebuilt (*tar-split*).

A split file, ``cas/split/KEY``, is 16 bytes of head and a zlib stream of records, in the order of the tar::

    "rkt tar-split 1\n"
    "R" length:u32            bytes                      headers and padding, verbatim
    "F" path length:u16 size:u64 sha256:32 path          content of a regular file, to be taken from the tree
    "E" size:u64 sha512:64                               the whole tar; the last record

Numbers are little-endian, paths are relative to the layer (``rootfs/bin/sh``). Every regular file has an "F" record,
empty ones too. The file names are in the headers as well; a record of its own lets ``rebuild`` do without parsing them.

That is what an ACI has. A layer of an OCI or Docker image has version 2, in which "E" has a sha256 of 32 bytes, the diff
ID, and whiteouts have no "F".
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib

from rkt.errors import DamagedRecord, ImageError
from rkt.image.tarformat import show
from rkt.image.walk import READ_FILE, DirectoryStack
from rkt.linux.files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    #: ("R", bytes), ("F", path, size, sha256) or ("E", size, digest)
    SplitRecord: TypeAlias = tuple[bytes, bytes, int, bytes]

HEAD = b"rkt tar-split 1\n"
LAYER_HEAD = b"rkt tar-split 2\n"
RAW = b"R"
FILE = b"F"
END = b"E"
_RAW = struct.Struct("<I")
_FILE = struct.Struct("<HQ32s")
#: Of each version: hash of the tar, last record.
_VERSIONS = {
    HEAD: ("sha512", struct.Struct("<Q64s")),
    LAYER_HEAD: ("sha256", struct.Struct("<Q32s")),
}
_FLUSH_BYTES = 1 << 16
#: "R" records are never longer; the writer cuts at ``_FLUSH_BYTES`` plus one extension header.
_MAX_RAW_BYTES = 4 << 20
_CHUNK = 1 << 20
#: More of a path is not repeated in a message.
_SHOWN_BYTES = 256


class SplitWriter:
    """Writes a split file to a descriptor, front to back."""

    __slots__ = ("_compress", "_end", "_fd", "_held", "_held_bytes")

    def __init__(self, fd: int, head: bytes = HEAD) -> None:
        self._fd = fd
        self._end = _VERSIONS[head][1]
        # Headers are mostly zeros and repetition: higher levels cost time and save nothing worth having.
        self._compress = zlib.compressobj(3)
        self._held: list[bytes] = []
        self._held_bytes = 0
        write_all(fd, head)

    def _put(self, data: bytes) -> None:
        if out := self._compress.compress(data):
            write_all(self._fd, out)

    def _flush_raw(self) -> None:
        if self._held_bytes:
            self._put(b"".join([RAW, _RAW.pack(self._held_bytes), *self._held]))
            self._held.clear()
            self._held_bytes = 0

    def raw(self, data: bytes) -> None:
        """Bytes that are kept verbatim."""
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= _FLUSH_BYTES:
            self._flush_raw()

    def file(self, path: bytes, size: int, sha256: bytes) -> None:
        """Content that the tree holds."""
        self._flush_raw()
        self._put(FILE + _FILE.pack(len(path), size, sha256) + path)

    def finish(self, size: int, digest: bytes) -> None:
        """The last record."""
        self._flush_raw()
        self._put(END + self._end.pack(size, digest))
        write_all(self._fd, self._compress.flush())


def _version(head: bytes, what: str) -> tuple[str, struct.Struct]:
    version = _VERSIONS.get(head)
    if version is None:
        raise DamagedRecord(f"{what} is not a tar-split file of version 1 or 2")
    return version


def open_hash(fd: int, *, what: str = "the tar-split file") -> hashlib._Hash:
    """The hash that a split file has of its tar; moves no offset.

    Raises:
        DamagedRecord: not a split file.
    """
    return hashlib.new(_version(os.pread(fd, len(HEAD), 0), what)[0])


class _Inflated:
    """The zlib stream of a split file, read in bounded pieces."""

    __slots__ = ("_decoder", "_fd", "_held", "_offset", "_what", "end")

    def __init__(self, fd: int, what: str) -> None:
        self._fd = fd
        self._what = what
        self._decoder = zlib.decompressobj()
        self._held = b""
        self._offset = 0
        self.end = _version(os.read(fd, len(HEAD)), what)[1]

    def take(self, count: int) -> bytes:
        end = self._offset + count
        while end > len(self._held):
            more = self._more()
            if not more:
                raise DamagedRecord(f"{self._what} is cut short")
            self._held = self._held[self._offset :] + more
            self._offset = 0
            end = count
        data = self._held[self._offset : end]
        self._offset = end
        return data

    def _more(self) -> bytes:
        decoder = self._decoder
        try:
            while not decoder.eof:
                data = decoder.unconsumed_tail or os.read(self._fd, _FLUSH_BYTES)
                if not data:
                    break
                if out := decoder.decompress(data, _CHUNK):
                    return out
        except zlib.error as e:
            raise DamagedRecord(f"{self._what} is damaged: {e}") from None
        return b""

    def finish(self) -> None:
        decoder = self._decoder
        if self._offset != len(self._held) or self._more() or decoder.unused_data or os.read(self._fd, 1):
            raise DamagedRecord(f"{self._what} has bytes behind its last record")
        if not decoder.eof:
            raise DamagedRecord(f"{self._what} is cut short")


def records(fd: int, *, what: str = "the tar-split file") -> Iterator[SplitRecord]:
    """Records of a split file from its first byte on: (kind, bytes or path, size, digest).

    Raises:
        DamagedRecord: not what a ``SplitWriter`` wrote.
    """
    stream = _Inflated(fd, what)
    while True:
        kind = stream.take(1)
        if kind == RAW:
            (length,) = _RAW.unpack(stream.take(_RAW.size))
            if length > _MAX_RAW_BYTES:
                raise DamagedRecord(f"{what} has a record of {length} bytes")
            yield RAW, stream.take(length), length, b""
        elif kind == FILE:
            length, size, digest = _FILE.unpack(stream.take(_FILE.size))
            path = stream.take(length)
            # The checksum of the zlib stream comes last: a path is not to be trusted before it is looked at.
            if b"\0" in path or not {b"", b".", b".."}.isdisjoint(path.split(b"/")):
                raise DamagedRecord(f"{what} has a record with path {show(path[:_SHOWN_BYTES])!r}")
            yield FILE, path, size, digest
        elif kind == END:
            size, digest = stream.end.unpack(stream.take(stream.end.size))
            stream.finish()
            yield END, b"", size, digest
            return
        else:
            raise DamagedRecord(f"{what} has a record of unknown kind {kind!r}")


def rebuild(split_fd: int, tree_fd: int, out_fd: int) -> str:
    """Write the tar that a layer was unpacked from, byte for byte.

    Args:
        split_fd: the split file, at its beginning.
        tree_fd: the layer directory, holding ``rootfs``, of an ACI ``manifest`` too.
        out_fd: receives the uncompressed tar.

    Returns:
        hex digest of what was written: of an ACI the sha512 that is in its ID, of a layer the sha256 that is its diff ID.

    Raises:
        ImageError: a file of the tree is missing or changed; its name is in the message.
        DamagedRecord: the split file is not what was written.
    """
    return rebuild_into(split_fd, tree_fd, lambda data: write_all(out_fd, data))


def rebuild_into(split_fd: int, tree_fd: int, write: Callable[[bytes], object]) -> str:
    """``rebuild``, with a function that receives the tar in pieces of about a mebibyte."""
    whole = open_hash(split_fd)
    written = 0
    held: list[bytes] = []
    held_bytes = 0
    with DirectoryStack(tree_fd) as directories:
        for kind, data, size, digest in records(split_fd):
            if kind == END:
                written += _write(write, held, whole)
                if (written, whole.digest()) != (size, digest):
                    raise DamagedRecord("the rebuilt image is not the one that was fetched")
                break
            for chunk in _content(directories, data, size, digest) if kind == FILE else (data,):
                held.append(chunk)
                held_bytes += len(chunk)
                if held_bytes >= _CHUNK:
                    written += _write(write, held, whole)
                    held_bytes = 0
    return whole.hexdigest()


def _write(write: Callable[[bytes], object], held: list[bytes], whole: hashlib._Hash) -> int:
    data = b"".join(held)
    held.clear()
    whole.update(data)
    write(data)
    return len(data)


def _content(directories: DirectoryStack, path: bytes, size: int, sha256: bytes) -> Iterator[bytes]:
    name = show(path)
    *parents, leaf = path.split(b"/")
    try:
        fd = os.open(leaf, READ_FILE, dir_fd=directories.enter(tuple(parents)))
    except OSError as e:
        raise ImageError(f"file {name!r} of the image cannot be read: {e.strerror}") from e
    try:
        content = hashlib.sha256()
        left = size
        while chunk := os.read(fd, min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            content.update(chunk)
            yield chunk
        if left or content.digest() != sha256:
            raise ImageError(f"file {name!r} of the image has changed since it was fetched")
    finally:
        os.close(fd)

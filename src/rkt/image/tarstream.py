# SPDX-License-Identifier: Apache-2.0
"""A tar being read: decompressed, hashed on both sides, cut into members, in two threads; what every path must obey."""

from __future__ import annotations

import hashlib

from rkt.errors import ImageError
from rkt.image.compression import Decompressor, ReadAhead, fd_reader
from rkt.image.tarformat import Chunks, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self

    from rkt.image.limits import Limits
    from rkt.image.tarformat import Member
    from rkt.image.walk import Path

#: The longest symbolic link a file system keeps, in bytes (PATH_MAX less the NUL).
_MAX_LINK_BYTES = 4095
_SHOWN_BYTES = 64


def split_path(path: bytes, limits: Limits) -> Path:
    """Components of a member's path; an empty tuple is the root of the archive.

    Raises:
        ImageError: absolute, climbing, too deep or too long.
    """
    if path.startswith(b"/"):
        raise ImageError(f"absolute path {show(path)!r} in the image")
    if len(path) > limits.path_bytes:
        raise ImageError(
            f"a path of {len(path)} bytes in the image, at most {limits.path_bytes} are accepted: {_start(path)}"
        )
    components = tuple([c for c in path.split(b"/") if c and c != b"."])
    if len(components) > limits.depth:
        raise ImageError(
            f"a path of {len(components)} components in the image, "
            f"at most {limits.depth} are accepted: {_start(path)}"
        )
    for component in components:
        if component == b"..":
            raise ImageError(f"path {show(path)!r} in the image climbs out of its directory")
        if len(component) > limits.name_bytes:
            raise ImageError(
                f"a name of {len(component)} bytes in the image, "
                f"at most {limits.name_bytes} are accepted: {_start(path)}"
            )
    return components


def _start(path: bytes) -> str:
    """How a path that is too long begins, for a message."""
    return repr(show(path[:_SHOWN_BYTES]) + "…")


def check_symlink(member: Member) -> None:
    """Refuse link texts that no file system keeps."""
    if not 0 < len(member.link) <= _MAX_LINK_BYTES:
        raise ImageError(f"symbolic link {show(member.path)!r} has a text of {len(member.link)} bytes")


def duplicate(path: bytes) -> ImageError:
    """The error for a member that was there before."""
    return ImageError(f"duplicate file entry {show(path)!r}")


class TarStream:
    """A tar as transferred.

    Attributes:
        source: where members and their content come from.
        limits: ceilings.
    """

    def __init__(
        self,
        stream_fd: int,
        limits: Limits,
        tar_hash: hashlib._Hash,
        kinds: Sequence[str],
        record: Callable[[bytes], object] | None = None,
        *,
        hash_blob: bool = True,
    ) -> None:
        """Prepare.

        Args:
            stream_fd: read from its current offset to the end.
            limits: ceilings.
            tar_hash: is given the uncompressed tar.
            kinds: how it may be compressed.
            record: is given all headers and padding.
            hash_blob: whether the bytes as read are hashed.
        """
        self._tar_hash = tar_hash
        self._blob_hash = hashlib.sha256() if hash_blob else None
        seen = None if self._blob_hash is None else self._blob_hash.update
        self._decompressor = Decompressor(fd_reader(stream_fd), limits, seen=seen, kinds=kinds)
        self._ahead = ReadAhead(self._hashed())
        self.limits = limits
        self.source = Chunks(iter(self._ahead), record)

    def _hashed(self) -> Iterator[bytes]:
        for chunk in self._decompressor:
            self._tar_hash.update(chunk)
            yield chunk

    def read(self, member: Member) -> bytes:
        """Content of a small member."""
        content = b"".join(self.source.content(member.size))
        if len(content) != member.size:
            raise ImageError(f"the tar is truncated: it ends inside {show(member.path)!r}")
        return content

    def skip(self, member: Member) -> None:
        """Pass over a member's content."""
        if sum(map(len, self.source.content(member.size))) != member.size:
            raise ImageError(f"the tar is truncated: it ends inside {show(member.path)!r}")

    @property
    def compression(self) -> str:
        """How the stream is compressed."""
        return self._decompressor.kind

    @property
    def blob_bytes(self) -> int:
        """Bytes as read."""
        return self._decompressor.input_bytes

    @property
    def tar_bytes(self) -> int:
        """Bytes of the uncompressed tar."""
        return self._decompressor.output_bytes

    def tar_digest(self) -> bytes:
        """Digest of the uncompressed tar, once all was read."""
        return self._tar_hash.digest()

    def blob_sha256(self) -> str:
        """Hex digest of the bytes as read, once all was read; empty when they were not hashed."""
        return "" if self._blob_hash is None else self._blob_hash.hexdigest()

    def close(self) -> None:
        """End the second thread."""
        self._ahead.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

# SPDX-License-Identifier: Apache-2.0
"""Unpacking a layer of an OCI or Docker image below one directory descriptor, in the form that overlayfs reads."""

from __future__ import annotations

from rkt.image.limits import DEFAULT_LIMITS
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.image.limits import Limits


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
    raise NotImplementedError

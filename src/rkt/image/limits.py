# SPDX-License-Identifier: Apache-2.0
"""Bounds on what an archive may ask of the host (invariants UN9 to UN14)."""

from __future__ import annotations

from rkt.schema.record import Record


class Limits(Record):
    """Ceilings; reaching one refuses the image.

    Attributes:
        tar_bytes: size of the uncompressed tar.
        ratio: output bytes per input byte, once more than ``ratio_free_bytes`` came out.
        ratio_free_bytes: output below this is never judged by its ratio.
        entries: headers in the archive, extension headers included.
        time_seconds: from the first byte to the last.
        manifest_bytes: size of the image manifest.
        header_bytes: payload of one PAX or GNU extension header.
        path_bytes: length of a member's path.
        name_bytes: length of one path component.
        depth: components of a member's path.
        directory_memory_bytes: memory spent on remembering directories until their times are set.
        decoder_memory_bytes: memory of the xz decoder; ``xz -9`` needs 65 MiB.
    """

    tar_bytes: int = 64 << 30
    ratio: int = 250
    ratio_free_bytes: int = 64 << 20
    entries: int = 1_000_000
    time_seconds: int = 3600
    manifest_bytes: int = 4 << 20
    header_bytes: int = 1 << 20
    path_bytes: int = 4096
    name_bytes: int = 255
    depth: int = 256
    directory_memory_bytes: int = 48 << 20
    decoder_memory_bytes: int = 80 << 20


DEFAULT_LIMITS = Limits()

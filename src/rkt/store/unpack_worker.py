# SPDX-License-Identifier: Apache-2.0
"""``rkt-unpack``: reads a verified blob from one descriptor, fills one directory, writes the split to another."""

from __future__ import annotations

import hashlib
import os

from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.unpack import unpack_aci
from rkt.privsep import confine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.privsep.worker import Emit


def prepare(request: dict[str, Any]) -> Unpack:
    """Take a request: ``arriving_seconds`` is 0 for a file, else how long it may take to come through a pipe."""
    return Unpack(float(request["arriving_seconds"]))


class Unpack:
    """One unpacking."""

    def __init__(self, arriving_seconds: float) -> None:
        self._arriving_seconds = arriving_seconds

    def confine(self, fds: dict[str, int]) -> None:
        """Keep ``blob``, ``split`` and ``target``, which becomes ``/``."""
        tree_fd = confine.take_directory(fds["target"])
        confine.begin(b"rkt-unpack", network=False)
        fds["target"] = confine.confine_unpack(tree_fd, file_size_bytes=DEFAULT_LIMITS.tar_bytes)

    def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
        """Unpack; the manifest's bytes stay in the directory, only their digest is reported."""
        limits = DEFAULT_LIMITS
        if self._arriving_seconds:
            limits = limits.replace(time_seconds=int(limits.time_seconds + self._arriving_seconds))
        else:
            os.lseek(fds["blob"], 0, os.SEEK_SET)
        # Whoever feeds a pipe hashes what goes into it, and needs nobody's word for it.
        hash_blob = not self._arriving_seconds
        result = unpack_aci(fds["blob"], fds["target"], fds["split"], limits, hash_blob=hash_blob)
        return {
            "image_id": result.image_id,
            "blob_sha256": result.blob_sha256,
            "size_bytes": result.size_bytes,
            "tree_size_bytes": result.tree_size_bytes,
            "manifest_sha256": hashlib.sha256(result.manifest).hexdigest(),
            "skipped_devices": result.skipped_devices,
            "dropped_xattrs": result.dropped_xattrs,
        }

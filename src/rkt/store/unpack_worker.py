# SPDX-License-Identifier: Apache-2.0
"""``rkt-unpack``: reads verified blobs from descriptors, fills one directory, writes splits to other descriptors."""

from __future__ import annotations

import hashlib
import os

from rkt.errors import ImageError
from rkt.image.layer import unpack_layer
from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.unpack import unpack_aci
from rkt.privsep import confine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.image.limits import Limits
    from rkt.privsep.worker import Emit


def prepare(request: dict[str, Any]) -> Unpack:
    """Take a request.

    ``arriving_seconds`` is 0 for files, else how long they may take to come through pipes; ``layers``, where it is, the
    number of layers of an OCI image, else the blob is an ACI.
    """
    arriving_seconds = float(request["arriving_seconds"])
    layers = int(request.get("layers", 0))
    return UnpackLayers(arriving_seconds, layers) if layers else Unpack(arriving_seconds)


class Unpack:
    """One ACI: from ``blob``, into ``target``, its split to ``split``."""

    def __init__(self, arriving_seconds: float) -> None:
        self._arriving_seconds = arriving_seconds

    def confine(self, fds: dict[str, int]) -> None:
        """Keep the descriptors; ``target`` becomes ``/``."""
        tree_fd = confine.take_directory(fds["target"])
        confine.begin(b"rkt-unpack", network=False)
        fds["target"] = confine.confine_unpack(tree_fd, file_size_bytes=DEFAULT_LIMITS.tar_bytes)

    def _limits(self) -> Limits:
        limits = DEFAULT_LIMITS
        return limits.replace(time_seconds=int(limits.time_seconds + self._arriving_seconds))

    def _begin(self, blob_fd: int) -> bool:
        """Go to where a blob begins; returns whether to hash it."""
        if self._arriving_seconds:
            # Whoever feeds a pipe hashes what goes into it, and needs nobody's word for it.
            return False
        os.lseek(blob_fd, 0, os.SEEK_SET)
        return True

    def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
        """Unpack; the manifest's bytes stay in the directory, only their digest is reported."""
        hash_blob = self._begin(fds["blob"])
        result = unpack_aci(fds["blob"], fds["target"], fds["split"], self._limits(), hash_blob=hash_blob)
        return {
            "image_id": result.image_id,
            "blob_sha256": result.blob_sha256,
            "size_bytes": result.size_bytes,
            "tree_size_bytes": result.tree_size_bytes,
            "manifest_sha256": hashlib.sha256(result.manifest).hexdigest(),
            "skipped_devices": result.skipped_devices,
            "dropped_xattrs": result.dropped_xattrs,
        }


class UnpackLayers(Unpack):
    """Layers, one after the other: from ``blobN``, into a directory N of ``target``, the split to ``splitN``."""

    def __init__(self, arriving_seconds: float, layers: int) -> None:
        super().__init__(arriving_seconds)
        self._layers = layers

    def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
        """Unpack them; what they say of directories stays beside their files."""
        limits = self._limits()
        results = []
        for number in range(self._layers):
            blob_fd = fds[f"blob{number}"]
            hash_blob = self._begin(blob_fd)
            name = str(number)
            os.mkdir(name, 0o700, dir_fd=fds["target"])
            target_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fds["target"])
            try:
                result = unpack_layer(blob_fd, target_fd, fds[f"split{number}"], limits, hash_blob=hash_blob)
            except ImageError as e:
                raise ImageError(f"layer {number + 1} of {self._layers}: {e.message}") from e.__cause__
            finally:
                os.close(target_fd)
            # Bounds are for the image, not for each of a hundred layers.
            limits = limits.replace(
                tar_bytes=limits.tar_bytes - result.size_bytes, entries=limits.entries - result.entries
            )
            results.append(
                {
                    "diff_id": result.diff_id,
                    "blob_sha256": result.blob_sha256,
                    "size_bytes": result.size_bytes,
                    "tree_size_bytes": result.tree_size_bytes,
                }
            )
        return {"layers": results}

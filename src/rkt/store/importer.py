# SPDX-License-Identifier: Apache-2.0
"""From a judged blob to an image of the store: ``rkt-unpack`` fills staging, root compares, the store commits.

Nothing is committed before there is a verdict, and nothing that differs from what the verdict is about. A large image is
unpacked while it is downloaded (``fetch.ahead``), which only ever fills staging.
"""

from __future__ import annotations

import hashlib
import os
import time

from rkt.errors import ImageError, InvalidManifest, StoreError
from rkt.image.limits import DEFAULT_LIMITS
from rkt.linux.files import read_bounded, remove_tree
from rkt.privsep.client import run_worker
from rkt.privsep.wire import foreign_count
from rkt.schema.appc import parse_image_manifest
from rkt.store.cas import MAX_MANIFEST_BYTES
from rkt.store.record import ImageRecord
from rkt.values import ImageID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.config.settings import Installation
    from rkt.store.cas import Store
    from rkt.store.staging import Staging
    from rkt.trust.verdict import Verdict

#: Beyond the time that the unpacker allows itself: start of the interpreter, closing of files.
_SPARE_SECONDS = 60.0


class Unpacked:
    """An unpacked image in staging, not yet visible.

    Attributes:
        image_id: of the uncompressed tar.
        manifest: the manifest's bytes.
        size_bytes, tree_size_bytes: as in the record.
    """

    __slots__ = ("image_id", "manifest", "size_bytes", "tree_size_bytes")

    def __init__(self, image_id: ImageID, manifest: bytes, size_bytes: int, tree_size_bytes: int) -> None:
        self.image_id = image_id
        self.manifest = manifest
        self.size_bytes = size_bytes
        self.tree_size_bytes = tree_size_bytes


class Filled:
    """What ``rkt-unpack`` left in staging, and what it said about it; nothing is compared yet.

    Attributes:
        result: as the worker reported it.
        manifest: the manifest's bytes.
        blob_sha256: of the bytes that were unpacked: the worker's word for a file, for a pipe that of its other end.
    """

    __slots__ = ("blob_sha256", "manifest", "result")

    def __init__(self, result: dict[str, Any], manifest: bytes) -> None:
        self.result = result
        self.manifest = manifest
        self.blob_sha256 = str(result.get("blob_sha256"))


def fill(
    staging: Staging, blob_fd: int, installation: Installation, *, arriving_seconds: float = 0.0
) -> Filled:
    """Let ``rkt-unpack`` make ``layer/`` and ``split`` in staging.

    Args:
        staging: of this operation.
        blob_fd: the image as transferred; or a pipe through which it comes.
        installation: where package and libraries are.
        arriving_seconds: how long it may take to come through the pipe; 0 for a file.
    Raises:
        ImageError: the archive breaks a rule.
        StoreError: the disk is full, or fails.
    """
    layer_path = f"{staging.path}/layer"
    os.mkdir(layer_path, 0o700)
    os.chmod(layer_path, 0o700)
    target_fd = os.open(layer_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        split_fd = staging.create("split")
        try:
            result = run_worker(
                "unpack",
                {"arriving_seconds": arriving_seconds},
                {"blob": blob_fd, "target": target_fd, "split": split_fd},
                installation,
                deadline_seconds=DEFAULT_LIMITS.time_seconds + arriving_seconds + _SPARE_SECONDS,
            )
        except StoreError as e:
            # The worker knows no directory but its root.
            raise StoreError(f"{e.message} (below {layer_path})", hint=e.hint) from e
        finally:
            os.close(split_fd)
        # The worker owned this directory for a while; it becomes root's private one again (invariant HH1).
        os.fchown(target_fd, os.geteuid(), os.getegid())
        os.fchmod(target_fd, 0o700)
        return Filled(result, _manifest(target_fd, result))
    finally:
        os.close(target_fd)


def empty(staging: Staging) -> None:
    """Take back what ``fill`` made."""
    remove_tree(f"{staging.path}/layer")
    remove_tree(f"{staging.path}/split")


def unpack(
    staging: Staging,
    blob_fd: int,
    installation: Installation,
    *,
    blob_sha256: str,
    manifest_sha256: str = "",
    filled: Filled | None = None,
) -> Unpacked:
    """Have ``layer/``, ``split`` and ``manifest`` in staging, of exactly the bytes that were judged.

    Args:
        staging: of this operation.
        blob_fd: the image as transferred.
        installation: where package and libraries are.
        blob_sha256: hex digest of the bytes that were judged.
        manifest_sha256: hex digest of the manifest that the judged name was read from; empty if none was read before.
        filled: what was unpacked while the image came; else it is unpacked now.
    Raises:
        ImageError: the archive breaks a rule, or is not what was judged.
    """
    filled = filled or fill(staging, blob_fd, installation)
    result, manifest = filled.result, filled.manifest
    if filled.blob_sha256 != blob_sha256:
        raise ImageError(
            "the image changed while it was being fetched: what was unpacked is not what was verified"
        )
    if manifest_sha256 and hashlib.sha256(manifest).hexdigest() != manifest_sha256:
        raise ImageError("the image's manifest is not the one its name was read from")
    with open(f"{staging.path}/manifest", "xb") as file:
        file.write(manifest)
    try:
        image_id = ImageID.parse(str(result.get("image_id")))
    except InvalidManifest as e:
        raise ImageError(f"rkt-unpack reported no image ID: {e.message}") from e
    return Unpacked(image_id, manifest, _size(result, "size_bytes"), _size(result, "tree_size_bytes"))


def _manifest(target_fd: int, result: dict[str, Any]) -> bytes:
    try:
        manifest = read_bounded("manifest", MAX_MANIFEST_BYTES, dir_fd=target_fd)
    except OSError as e:
        raise ImageError(f"the unpacked manifest cannot be read: {e.strerror}") from e
    if hashlib.sha256(manifest).hexdigest() != result.get("manifest_sha256"):
        raise ImageError("the unpacked manifest is not the one that was in the image")
    return manifest


def _size(result: dict[str, Any], name: str) -> int:
    value = foreign_count(result.get(name))
    if value is None:
        raise ImageError(f"rkt-unpack reported no {name}")
    return value


def commit(
    store: Store, staging: Staging, unpacked: Unpacked, verdict: Verdict, *, origin: str, latest: bool = False
) -> ImageRecord:
    """Make an unpacked image visible.

    Args:
        store: where to.
        staging: as ``unpack`` left it.
        unpacked: what ``unpack`` returned.
        verdict: about exactly these bytes and this name.
        origin: the reference as it was asked for.
        latest: found by discovery without a version.
    Raises:
        ImageError: the manifest gives another name than the one the verdict is about (invariant SG3).
    """
    # Root reads the manifest only now that somebody who is trusted, or the operator, vouches for it.
    manifest = parse_image_manifest(unpacked.manifest)
    if manifest.name != verdict.name:
        raise ImageError(
            f'the image was verified as "{verdict.name}" but its manifest says "{manifest.name}"'
        )
    return store.put(
        staging.path,
        staging.fd,
        ImageRecord(
            key=unpacked.image_id.key,
            image_id=unpacked.image_id,
            name=manifest.name,
            labels=manifest.labels,
            import_time_ns=time.time_ns(),
            origin=origin,
            size_bytes=unpacked.size_bytes,
            tree_size_bytes=unpacked.tree_size_bytes,
            verdict=verdict,
            layers=[unpacked.image_id.key],
            manifest_digest=f"sha256:{hashlib.sha256(unpacked.manifest).hexdigest()}",
            latest=latest,
        ),
    )


def hash_file(fd: int) -> str:
    """Hex sha256 of a file from its beginning; moves no offset."""
    digest = hashlib.sha256()
    buffer = bytearray(1 << 20)
    position = 0
    while count := os.preadv(fd, [buffer], position):
        digest.update(memoryview(buffer)[:count])
        position += count
    return digest.hexdigest()

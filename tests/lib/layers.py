# SPDX-License-Identifier: Apache-2.0
"""Layers of OCI images: tars with whiteouts, unpacked and marked as the store does it, laid over each other."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rkt.config.settings import Installation
from rkt.image.layer import LayerResult, unpack_layer
from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.marks import Marks, read_marks, set_marks
from rkt.image.tarsplit import rebuild
from rkt.image.verify import verify_oci_layer
from rkt.schema import jsontext
from rkt.store.cas import Store
from rkt.store.layout import setup_data_dir
from rkt.store.oci import FilledLayer, LayerBlob, NewImage, OciDocuments, find_layer, put_oci, unpack_layers
from rkt.store.staging import Staging
from rkt.values import ACIdentifier, ImageID
from tests.lib import aci
from tests.lib.store import INSECURE
from tests.lib.unpacking import opened, stream

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rkt.image.limits import Limits
    from rkt.image.verify import Difference
    from rkt.store.record import ImageRecord

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + "/src"
#: Where workers find the package and its libraries.
INSTALLATION = Installation(
    package_path=SOURCE,
    library_paths=[sysconfig.get_path("platlib")],
    stage1_images_path="",
)


def whiteout(path: str) -> aci.Entry:
    """Hides a path of lower layers."""
    directory, name = os.path.split(path)
    return aci.Entry(os.path.join(directory, f".wh.{name}"))


def opaque(directory: str = "") -> aci.Entry:
    """Hides all that lower layers have in a directory."""
    return aci.Entry(os.path.join(directory, ".wh..wh..opq"))


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def compress(data: bytes, kind: str) -> bytes:
    """As ``aci.compress``, with ``zstd``."""
    return zstd.compress(data) if kind == "zstd" else aci.compress(data, kind)


@dataclass
class Unpacked:
    """A layer on disk."""

    tree: Path
    split: Path
    result: LayerResult
    marks: Marks

    @property
    def root(self) -> Path:
        """Its files."""
        return self.tree / "rootfs"

    def rebuild(self) -> bytes:
        """The tar again."""
        out = self.tree.parent / "rebuilt"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with opened(self.split) as split_fd, opened(self.tree) as tree_fd, opened(out, flags) as out_fd:
            assert rebuild(split_fd, tree_fd, out_fd) == self.result.diff_id
        return out.read_bytes()

    def verify(self) -> list[Difference]:
        """Differences to what was unpacked."""
        with opened(self.split) as split_fd, opened(self.tree) as tree_fd:
            diff_id, differences = verify_oci_layer(split_fd, tree_fd)
        assert diff_id == self.result.diff_id
        return differences

    def found(self) -> set[tuple[str, str]]:
        """Differences as (path below ``rootfs``, what)."""
        return {(d.path.decode().removeprefix("rootfs/"), d.what) for d in self.verify()}


def unpack(base: Path, data: bytes, limits: Limits = DEFAULT_LIMITS) -> Unpacked:
    """Unpack a layer below a directory of the test; errors pass through."""
    tree = base / "tree"
    tree.mkdir(parents=True)
    split = base / "split"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with stream(data) as stream_fd, opened(tree) as tree_fd, opened(split, flags) as split_fd:
        result = unpack_layer(stream_fd, tree_fd, split_fd, limits)
        marks = read_marks(tree_fd, "tree")
        if os.geteuid() == 0:
            set_marks(tree_fd, marks)
    return Unpacked(tree, split, result, marks)


def oci_image(
    layers: Sequence[bytes], *, name: str = "registry.example/app", **more: Any
) -> tuple[NewImage, list[str]]:
    """What the store is told of an image with these layers (tars, the bottom one first), and the digests of its blobs."""
    digests = [sha256(layer) for layer in layers]
    diff_ids = [sha256(plain(layer)) for layer in layers]
    config = jsontext.dump(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}, **more}
    ).encode()
    manifest = jsontext.dump(
        {"schemaVersion": 2, "config": {"digest": f"sha256:{sha256(config)}"}, "layers": digests}
    ).encode()
    view = jsontext.dump(aci.image_manifest(name, ["/bin/app"])).encode()
    image = NewImage(
        image_id=ImageID.parse(f"sha256:{sha256(manifest)}"),
        name=ACIdentifier.parse(name),
        labels={"os": "linux", "arch": aci.ARCH},
        view=view,
        documents=OciDocuments(manifest=manifest, config=config),
        media_type="application/vnd.oci.image.manifest.v1+json",
        diff_ids=diff_ids,
        verdict=INSECURE.replace(name=name),
        origin="docker://registry.example/app",
        platform="linux/amd64",
    )
    return image, digests


def plain(layer: bytes) -> bytes:
    """A layer without its compression."""
    if layer.startswith(b"\x28\xb5\x2f\xfd"):
        return zstd.decompress(layer)
    if layer.startswith(b"\x1f\x8b"):
        import gzip

        return gzip.decompress(layer)
    return layer


def put_layers(data_dir: str, layers: Sequence[bytes], **more: Any) -> ImageRecord:
    """Fetch an image into a store as a command does, its layers coming from memory."""
    setup_data_dir(data_dir)
    store = Store(data_dir)
    image, digests = oci_image(layers, **more)
    with Staging(data_dir) as staging, ExitStack() as stack:
        blobs = {}
        for layer, digest, diff_id in zip(layers, digests, image.diff_ids, strict=True):
            if digest not in blobs and not find_layer(store, staging, digest, diff_id):
                fd = stack.enter_context(stream(layer))
                blobs[digest] = LayerBlob(fd=fd, digest=digest, diff_id=diff_id)
        filled: list[FilledLayer] = []
        if blobs:
            filled = unpack_layers(staging, list(blobs.values()), INSTALLATION)
        return put_oci(store, staging, image, filled)


@contextmanager
def mounted(data_dir: str, record: ImageRecord, base: Path) -> Iterator[Path]:
    """The root of an image as a pod sees it, in a mount namespace of the test's own."""
    from rkt.linux.mount import overlay

    store = Store(data_dir)
    for name in ("upper", "work", "root"):
        (base / name).mkdir(parents=True)
    lowers = [f"{store.layer_path(layer)}/rootfs" for layer in record.layers]
    overlay(lowers, base / "upper", base / "work", base / "root")  # type: ignore[arg-type]
    try:
        yield base / "root"
    finally:
        from rkt.linux.libc import umount2

        umount2(os.fsencode(base / "root"), 0)

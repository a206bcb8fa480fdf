# SPDX-License-Identifier: Apache-2.0
"""Images of the store for other programs: image layouts and Docker's archives, and as ACIs what is none.

- A Docker or OCI image keeps its layers and its configuration, byte for byte, and with it Docker's image ID. The store has
  no compressed bytes, so that its manifest names its layers anew, unless they were transferred without compression.
- An ACI becomes an image of one layer: all that it depends on is in there, what white lists hide is not.
- A Docker or OCI image becomes an ACI in the same way, with appc's view of it as manifest.
"""

from __future__ import annotations

import contextlib
import os

from rkt.errors import HostError, ImageError, StoreError
from rkt.image import oci_compose
from rkt.image.compression import NONE
from rkt.image.create import Options, TarWriter, create_aci, write_tree
from rkt.image.oci_output import open_sink
from rkt.image.oci_write import Document, Layer, write_image
from rkt.image.output import NewFile
from rkt.image.tarsplit import rebuild_into
from rkt.schema import jsontext
from rkt.schema.appc import parse_image_manifest
from rkt.schema.oci import parse_config
from rkt.schema.record import Record
from rkt.store.composition import merge, resolve
from rkt.store.locks import image_lock, prepare_lock
from rkt.store.oci import read_oci
from rkt.store.staging import Staging
from rkt.values import DOCKER_HUB, DOCKER_HUB_REGISTRY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from rkt.schema.appc import ImageManifest
    from rkt.store.cas import Store
    from rkt.values import ImageKey

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DOCKER = "appc.io/docker/"


class Exported(Record):
    """What was written.

    Attributes:
        image_id: of the new image: digest of its manifest, Docker's image ID in an archive of Docker, or that of an ACI.
        is_same: whether that is the image's own.
        notices: what could not be kept, one line each.
    """

    image_id: str
    is_same: bool
    notices: list[str] = []


def export_oci(
    store: Store,
    key: ImageKey,
    output_path: str,
    kind: str,
    *,
    overwrite: bool,
    compression: str = NONE,
    name: str = "",
) -> Exported:
    """Write an image as an image layout or an archive of Docker.

    Args:
        store: where it is.
        key: which one.
        output_path: of the layout or archive.
        kind: ``oci_output.OCI`` or ``DOCKER_ARCHIVE``.
        overwrite: whether what exists is replaced.
        compression: of the layers.
        name: ``name:tag`` to give it; its own by default.
    Raises:
        UsageError: the output exists.
        ImageError: a layer has changed in the store; nothing is written.
        StoreError: parts of the image are missing.
    """
    parts = stored_parts if key.is_oci else squashed_parts
    with (
        image_lock(store.data_dir, key, exclusive=False),
        parts(store, key) as (layers, finish),
        open_sink(output_path, kind, overwrite=overwrite) as sink,
    ):
        manifest = parse_image_manifest(store.manifest_bytes(key))
        written = write_image(
            sink, kind, layers, finish, compression=compression, reference=name or reference_of(manifest)
        )
        sink.commit()
    notices = [] if key.is_oci else _lost(manifest)
    return Exported(image_id=written.digest, is_same=written.is_same, notices=notices)


def export_squashed(store: Store, key: ImageKey, output_path: str, *, overwrite: bool) -> Exported:
    """Write a Docker or OCI image as an ACI of one layer.

    Raises:
        UsageError: the output exists.
        StoreError: parts of the image are missing.
    """
    with (
        image_lock(store.data_dir, key, exclusive=False),
        merged_root(store, key) as root_fd,
        NewFile(output_path, overwrite=overwrite) as output,
    ):
        created = create_aci(
            output.fd, store.manifest_bytes(key), Options(timestamp_seconds=None), rootfs_fd=root_fd
        )
        output.commit()
    return Exported(image_id=created.image_id, is_same=False, notices=created.notices)


@contextlib.contextmanager
def stored_parts(
    store: Store, key: ImageKey
) -> Iterator[tuple[list[Layer], Callable[[list[str]], Document]]]:
    """Layers and documents of a Docker or OCI image."""
    documents = read_oci(store, key)
    config = parse_config(documents.config)
    layers = [
        Layer(produce=_rebuilder(store, key, diff_id.key), diff_id=diff_id) for diff_id in config.diff_ids
    ]
    yield layers, lambda _: Document(config=documents.config, manifest=documents.manifest)


@contextlib.contextmanager
def squashed_parts(
    store: Store, key: ImageKey
) -> Iterator[tuple[list[Layer], Callable[[list[str]], Document]]]:
    """An ACI as one layer."""
    manifest = parse_image_manifest(store.manifest_bytes(key))

    def finish(diff_ids: list[str]) -> Document:
        document = oci_compose.config_of_appc(manifest)
        config = oci_compose.with_layers(
            document, diff_ids, added=1, created="", created_by="rkt image export"
        )
        return Document(config=config)

    with merged_root(store, key) as root_fd:
        yield [Layer(produce=lambda write: _write_tree(write, root_fd))], finish


@contextlib.contextmanager
def base_parts(store: Store, key: ImageKey) -> Iterator[tuple[list[Layer], dict[str, Any]]]:
    """Layers and configuration of an image that another one is made on; the image stays while this lasts."""
    parts = stored_parts if key.is_oci else squashed_parts
    with image_lock(store.data_dir, key, exclusive=False), parts(store, key) as (layers, finish):
        if key.is_oci:
            config: dict[str, Any] = jsontext.parse(finish([]).config, what="image configuration")
        else:
            config = oci_compose.config_of_appc(parse_image_manifest(store.manifest_bytes(key)))
        yield layers, config


def _write_tree(write: Callable[[bytes], object], root_fd: int) -> None:
    writer = TarWriter(write, Options(timestamp_seconds=None))
    write_tree(writer, root_fd)
    writer.finish()


def _rebuilder(store: Store, key: ImageKey, layer: ImageKey) -> Callable[[Callable[[bytes], object]], None]:
    def produce(write: Callable[[bytes], object]) -> None:
        tree_fd = _open(store.layer_path(layer), _OPEN_DIRECTORY, key)
        try:
            split_fd = _open(store.split_path(layer), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, key)
            try:
                rebuild_into(split_fd, tree_fd, write)
            except ImageError as e:
                raise ImageError(e.message, hint=f"rkt image verify {key.medium}") from e.__cause__
            finally:
                os.close(split_fd)
        finally:
            os.close(tree_fd)

    return produce


def _open(path: str, flags: int, key: ImageKey) -> int:
    try:
        return os.open(path, flags)
    except PermissionError:
        raise HostError(f"layer {path} can be read by root only", hint="run the command as root") from None
    except OSError as e:
        raise StoreError(
            f"cannot read {path}: {e.strerror}", hint=f"rkt image rm {key.medium}, then fetch it again"
        ) from e


@contextlib.contextmanager
def merged_root(store: Store, key: ImageKey) -> Iterator[int]:
    """The root file system of an image with all that it consists of, laid over each other in staging.

    That of an ACI without dependencies is its layer's own.
    """
    manifest = parse_image_manifest(store.manifest_bytes(key))
    if not (key.is_oci or manifest.dependencies or manifest.path_whitelist):
        fd = _open(f"{store.layer_path(key)}/rootfs", _OPEN_DIRECTORY, key)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    parts = resolve(store, key)
    # Held shared, it keeps all layers from vanishing.
    with prepare_lock(store.data_dir), Staging(store.data_dir) as staging:
        os.mkdir("root", 0o755, dir_fd=staging.fd)
        fd = os.open("root", _OPEN_DIRECTORY, dir_fd=staging.fd)
        try:
            merge(store, parts, fd)
            yield fd
        finally:
            os.close(fd)


def reference_of(manifest: ImageManifest) -> str:
    """``name:tag`` of an image as Docker's programs write it; empty where there is no tag."""
    annotations = manifest.annotations
    repository = annotations.get(f"{_DOCKER}repository", manifest.name)
    registry = annotations.get(f"{_DOCKER}registryurl", "")
    if registry == DOCKER_HUB_REGISTRY:
        registry = DOCKER_HUB
    tag = manifest.labels.get("version", "")
    if not tag:
        return ""
    return f"{registry}/{repository}:{tag}" if registry else f"{repository}:{tag}"


def _lost(manifest: ImageManifest) -> list[str]:
    return [
        f"the image's {what} have no place in an OCI image" for what in oci_compose.lost_of_appc(manifest)
    ]

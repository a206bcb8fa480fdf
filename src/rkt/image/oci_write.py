# SPDX-License-Identifier: Apache-2.0
"""A Docker or OCI image put together from layers, configuration and manifest, into a layout or an archive.

The configuration goes in as it is. The manifest does so too where every layer comes out with the digest that it names;
that is so for layers that were transferred without compression, and for none that was compressed, since no two versions
of a compressor give the same bytes. Elsewhere its layers are named anew and the rest of it is kept.
"""

from __future__ import annotations

from rkt.errors import ImageError
from rkt.image import oci_output
from rkt.image.compression import GZIP, NONE
from rkt.image.oci_output import DOCKER_ARCHIVE, BlobWriter, archive_index, blob_name, put_blob, write_index
from rkt.schema import jsontext, oci
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from rkt.image.oci_output import Blob, Sink

    #: Hands the bytes of an uncompressed layer to a function.
    Produce: TypeAlias = Callable[[Callable[[bytes], object]], object]

ZSTD = "zstd"
#: What layers may be compressed with.
COMPRESSIONS = (NONE, GZIP, ZSTD)
_OCI_SUFFIXES = {NONE: "", GZIP: "+gzip", ZSTD: "+zstd"}
_DOCKER_SUFFIXES = {NONE: "", GZIP: ".gzip", ZSTD: ".zstd"}
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"


class Layer(Record):
    """A layer to write.

    Attributes:
        produce: gives its bytes.
        diff_id: what they must be; empty where that is not known yet.
    """

    produce: Produce
    diff_id: str = ""


class Written(Record):
    """What was written.

    Attributes:
        digest: of the manifest, in an image layout; of the configuration, Docker's image ID, in its archives.
        is_same: whether the manifest is the one that was given.
    """

    digest: str
    is_same: bool


class Document(Record):
    """Configuration and manifest.

    Attributes:
        config: the configuration's bytes.
        manifest: the image's own, whose layers are named anew; empty for a new one.
        annotations: of a new one.
    """

    config: bytes
    manifest: bytes = b""
    annotations: dict[str, str] = {}


def write_image(
    sink: Sink,
    kind: str,
    layers: Sequence[Layer],
    finish: Callable[[list[str]], Document],
    *,
    compression: str = NONE,
    reference: str = "",
) -> Written:
    """Write an image; the sink is not committed.

    Args:
        sink: where to.
        kind: ``oci_output.OCI`` or ``DOCKER_ARCHIVE``.
        layers: the bottom one first.
        finish: gives the documents, once the diff IDs of all layers are known.
        compression: one of ``COMPRESSIONS``.
        reference: name of the image, with its tag.
    Raises:
        ImageError: a layer is not what it must be.
    """
    is_archive = kind == DOCKER_ARCHIVE
    name = _layer_name if is_archive else blob_name
    blobs = [write_layer(sink, layer, compression, name) for layer in layers]
    documents = finish([blob.diff_id for blob in blobs])
    if is_archive:
        config = BlobWriter(sink, NONE)
        config.write(documents.config)
        digest = config.finish(_config_name).digest
        names = [_layer_name(_hex(blob.digest)) for blob in blobs]
        sink.put("manifest.json", archive_index(_config_name(_hex(digest)), names, reference))
        return Written(digest=digest, is_same=False)
    manifest, media_type = make_manifest(documents, blobs, compression)
    put_blob(sink, documents.config)
    digest = write_index(sink, manifest, media_type, reference)
    return Written(digest=digest, is_same=manifest == documents.manifest)


def write_layer(sink: Sink, layer: Layer, compression: str, name: Callable[[str], str]) -> Blob:
    """Write one layer; ``name`` makes its file's name of the hex digest.

    Raises:
        ImageError: it is not what it must be.
    """
    writer = BlobWriter(sink, compression)
    layer.produce(writer.write)
    blob = writer.finish(name)
    if layer.diff_id and blob.diff_id != layer.diff_id:
        raise ImageError(
            f"layer {layer.diff_id} is not in the store as it was fetched: it became {blob.diff_id}"
        )
    return blob


def make_manifest(documents: Document, blobs: Sequence[Blob | None], compression: str) -> tuple[bytes, str]:
    """The manifest's bytes and media type.

    Args:
        documents: of the image.
        blobs: the layers as they were written, the bottom one first; None for one that stays what the manifest says.
        compression: of what was written.
    """
    if not documents.manifest:
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": oci.OCI_MANIFEST,
            "config": {
                "mediaType": oci.OCI_CONFIG,
                "digest": oci_output.digest_of(documents.config),
                "size": len(documents.config),
            },
            "layers": [
                blob.descriptor(layer_type(oci.OCI_MANIFEST, compression))
                for blob in blobs
                if blob is not None
            ],
        }
        if documents.annotations:
            document["annotations"] = documents.annotations
        return jsontext.dump(document).encode(), oci.OCI_MANIFEST
    old = oci.parse_manifest(documents.manifest)
    if all(
        blob is None or blob.digest == layer.digest for layer, blob in zip(old.layers, blobs, strict=True)
    ):
        return documents.manifest, old.media_type
    document = jsontext.parse(documents.manifest, what="image manifest")
    media_type = layer_type(old.media_type, compression)
    # Annotations of layers stay theirs.
    document["layers"] = [
        layer if blob is None else {**layer, **blob.descriptor(media_type)}
        for layer, blob in zip(document["layers"], blobs, strict=True)
    ]
    return jsontext.dump(document).encode(), old.media_type


def layer_type(manifest_type: str, compression: str) -> str:
    """Media type of a layer in a manifest of some type."""
    if manifest_type == oci.DOCKER_MANIFEST:
        return _DOCKER_LAYER + _DOCKER_SUFFIXES[compression]
    return _OCI_LAYER + _OCI_SUFFIXES[compression]


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _layer_name(digest: str) -> str:
    return f"{digest}.tar"


def _config_name(digest: str) -> str:
    return f"{digest}.json"

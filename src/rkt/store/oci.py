# SPDX-License-Identifier: Apache-2.0
"""OCI and Docker images in the store: layers that several images share, and the documents they came with.

::

    cas/record/KEY, cas/manifest/KEY     as of ACIs; the manifest is appc's view of the image
    cas/oci/KEY/{manifest,config,index}  the documents, their own bytes; index only where there was one
    cas/layer/sha256-DIFFID/             a layer, cas/split/sha256-DIFFID what rebuilds its tar
    cas/layer/KEY/                       directories that layers only imply, as lower layers have them; often not there
    cas/blob/SHA256                      link whose text is the key of the layer that the blob with that sha256 unpacks to

How an image is fetched::

    with Staging(store.data_dir) as staging:
        layers = {digest: find_layer(store, staging, digest, diff_id) for …}   # those that are there stay there
        filled = unpack_layers(staging, [LayerBlob(…), …], installation)       # the others
        put_oci(store, staging, NewImage(…), filled)
"""

from __future__ import annotations

from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.config.settings import Installation
    from rkt.store.cas import Store
    from rkt.store.record import ImageRecord, OciFacts
    from rkt.store.staging import Staging
    from rkt.trust.verdict import Verdict
    from rkt.values import ACIdentifier, ImageID, ImageKey


class LayerBlob(Record):
    """A layer as it is transferred.

    Attributes:
        fd: a file at any offset, or a pipe.
        digest: hex sha256 of it, as the image's manifest says.
        diff_id: hex sha256 of its tar, as the image's config says.
        is_pipe: whether it comes through a pipe, whose other end hashes what goes into it (``verified`` of the filled layer).
    """

    fd: int
    digest: str
    diff_id: str
    is_pipe: bool = False


class FilledLayer(Record):
    """A layer in staging: of the diff ID that was asked for, or ``unpack_layers`` had refused it.

    Attributes:
        key: ``sha256-`` and the diff ID.
        digest: hex sha256 of the blob; of a pipe, whoever fills it compares what went in with this before ``put_oci``.
        size_bytes: of the uncompressed tar.
        tree_size_bytes: of the files.
        directory: its name in staging.
    """

    key: ImageKey
    digest: str
    size_bytes: int
    tree_size_bytes: int
    directory: str


class OciDocuments(Record):
    """The documents of an image, the very bytes that were transferred; ``index`` is empty where there was none."""

    manifest: bytes
    config: bytes
    index: bytes = b""


class NewImage(Record):
    """An image to make visible.

    Attributes:
        image_id: digest of the manifest.
        name, labels: of the appc view.
        view: bytes of the appc view.
        documents: as transferred.
        facts: for the record.
        diff_ids: hex, of all its layers, the bottom one first, as the config lists them.
        verdict: about exactly this image.
        origin: the reference as it was asked for.
        latest: found without a version.
    """

    image_id: ImageID
    name: ACIdentifier
    labels: dict[str, str]
    view: bytes
    documents: OciDocuments
    facts: OciFacts
    diff_ids: list[str]
    verdict: Verdict
    origin: str
    latest: bool = False


def find_layer(store: Store, staging: Staging, digest: str, diff_id: str) -> bool:
    """Whether a layer is there already; if so it stays until staging is gone.

    Args:
        store: where to look.
        staging: of this operation.
        digest: hex sha256 of the blob.
        diff_id: hex sha256 of its tar.
    Raises:
        ImageError: that blob unpacks to another tar.
    """
    raise NotImplementedError


def unpack_layers(
    staging: Staging,
    blobs: Sequence[LayerBlob],
    installation: Installation,
    *,
    arriving_seconds: float = 0.0,
) -> list[FilledLayer]:
    """Let one ``rkt-unpack`` unpack layers into staging, one after the other.

    Args:
        staging: of this operation; called once for it.
        blobs: in the order in which they are read.
        installation: where package and libraries are.
        arriving_seconds: how long pipes may take; 0 for files.
    Raises:
        ImageError: an archive breaks a rule, or is not what the manifest and the config say.
        StoreError: the disk is full, or fails.
    """
    raise NotImplementedError


def put_oci(store: Store, staging: Staging, image: NewImage, layers: Sequence[FilledLayer]) -> ImageRecord:
    """Make an image visible, with its new layers; whole or not at all.

    Args:
        store: where to.
        staging: as ``unpack_layers`` left it.
        image: what to say of it.
        layers: those that were not there before.
    Raises:
        ImageError: its layers cannot be laid over each other.
        StoreError, OSError: the disk, or the file system, refused.
    """
    raise NotImplementedError


def read_oci(store: Store, key: ImageKey) -> OciDocuments:
    """The documents of an image.

    Raises:
        NotFound: the image is not in the store, or is an ACI.
        DamagedRecord: the bytes are not those that were transferred.
    """
    raise NotImplementedError

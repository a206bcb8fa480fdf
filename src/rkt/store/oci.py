# SPDX-License-Identifier: Apache-2.0
"""OCI and Docker images in the store: layers that several images share, and the documents they came with.

::

    cas/record/KEY, cas/manifest/KEY     as of ACIs; the manifest is appc's view of the image
    cas/oci/KEY/{manifest,config}        the documents, their own bytes
    cas/oci/KEY/index-SHA256             the index that the manifest was chosen from, where there was one
    cas/layer/sha256-DIFFID/             a layer, cas/split/sha256-DIFFID what rebuilds its tar
    cas/layer/KEY/                       directories that layers only imply, as lower layers have them; often not there
    cas/blob/SHA256                      link whose text is the key of the layer that the blob with that sha256 unpacks to

How an image is fetched::

    with Staging(store.data_dir) as staging:
        there = [find_layer(store, staging, digest, diff_id) for … in …]         # those that are there stay there
        filled = unpack_layers(staging, [LayerBlob(…), …], installation)           # the others
        put_oci(store, staging, NewImage(…), filled)
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

from rkt.errors import DamagedRecord, HostError, ImageError, NotFound, RktError, StoreError
from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.marks import Marks, read_marks, set_marks
from rkt.image.parents import Lower, differing_parents, make_parents, missing_parents
from rkt.linux.files import read_bounded, remove_tree, sync_directory, write_new
from rkt.schema.envelope import sha256_hex
from rkt.schema.oci import MAX_LAYERS
from rkt.schema.record import Record
from rkt.store.cas import MAX_MANIFEST_BYTES, disk_error
from rkt.store.record import ImageRecord, OciFacts
from rkt.store.refs import PINS, entries
from rkt.values import ImageKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence
    from typing import Any

    from rkt.config.settings import Installation
    from rkt.image.verify import Difference
    from rkt.store.cas import Store
    from rkt.store.staging import Staging
    from rkt.trust.verdict import Verdict
    from rkt.values import ACIdentifier, ImageID, TreeID

#: Layers for one ``rkt-unpack``, which may have 256 files open.
_BATCH = 60
#: Beyond the time that the unpacker allows itself: start of the interpreter, closing of files.
_SPARE_SECONDS = 60.0
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LayerBlob(Record):
    """A layer as it is transferred.

    Attributes:
        fd: a file at any offset, or a pipe.
        digest: hex sha256 of it, as the image's manifest says.
        diff_id: hex sha256 of its tar, as the image's config says.
    """

    fd: int
    digest: str
    diff_id: str


class FilledLayer(Record):
    """A layer in staging: of the diff ID that was asked for, or ``unpack_layers`` had refused it.

    Attributes:
        key: ``sha256-`` and the diff ID.
        digest: hex sha256 of the blob; of a pipe, whoever fills it compares what went in with this before ``put_oci``.
        path: its directory in staging.
        split_path: its split file.
    """

    key: ImageKey
    digest: str
    path: str
    split_path: str


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
        media_type: of the manifest.
        platform: ``os/architecture[/variant]``.
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
    media_type: str
    diff_ids: list[str]
    verdict: Verdict
    origin: str
    platform: str = ""
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
    from rkt.store.locks import prepare_lock

    key = ImageKey.parse(f"sha256-{diff_id}")
    # Under the lock, so that image gc sees either no layer or the pin.
    with prepare_lock(store.data_dir):
        try:
            known = os.readlink(f"{store.data_dir}/cas/blob/{digest}")
            os.stat(f"{store.data_dir}/cas/layer/{key}")
            os.stat(store.split_path(key))
        except OSError:
            return False
        if known != key:
            raise _other_tar(digest, diff_id, known.removeprefix("sha256-"))
        os.makedirs(f"{staging.path}/{PINS}", exist_ok=True)
        os.close(os.open(f"{staging.path}/{PINS}/{key}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return True


def _other_tar(digest: str, diff_id: str, found: str) -> ImageError:
    return ImageError(
        f"layer sha256:{digest} has diff ID sha256:{found}, but the image's config says sha256:{diff_id}"
    )


def unpack_layers(
    staging: Staging,
    blobs: Sequence[LayerBlob],
    installation: Installation,
    *,
    arriving_seconds: float = 0.0,
) -> list[FilledLayer]:
    """Let ``rkt-unpack`` unpack layers into staging, one after the other.

    Args:
        staging: of this operation; called once for it.
        blobs: in the order in which they are read, each layer once.
        installation: where package and libraries are.
        arriving_seconds: how long it may take until all has come through pipes; 0 for files.
    Raises:
        ImageError: an archive breaks a rule, or is not what the manifest and the config say.
        StoreError: the disk is full, or fails.
    """
    if len(blobs) > MAX_LAYERS:
        raise ImageError(f"the image has {len(blobs)} layers, at most {MAX_LAYERS} are accepted")
    filled: list[FilledLayer] = []
    for start in range(0, len(blobs), _BATCH):
        filled += _unpack_batch(staging, blobs[start : start + _BATCH], installation, start, arriving_seconds)
    return filled


def empty(staging: Staging) -> None:
    """Take back what ``unpack_layers`` made."""
    for name in entries(staging.path):
        if name.startswith(("layers-", "split-")):
            remove_tree(f"{staging.path}/{name}")


def _unpack_batch(
    staging: Staging,
    blobs: Sequence[LayerBlob],
    installation: Installation,
    start: int,
    arriving_seconds: float,
) -> list[FilledLayer]:
    from rkt.privsep.client import run_worker

    path = f"{staging.path}/layers-{start}"
    splits = [f"split-{start + number}" for number in range(len(blobs))]
    with ExitStack() as stack:
        target_fd = _new_directory(path)
        stack.callback(os.close, target_fd)
        fds = {"target": target_fd}
        for number, blob in enumerate(blobs):
            fds[f"blob{number}"] = blob.fd
            fds[f"split{number}"] = split_fd = staging.create(splits[number])
            stack.callback(os.close, split_fd)
        try:
            answer = run_worker(
                "unpack",
                {"arriving_seconds": arriving_seconds, "layers": len(blobs)},
                fds,
                installation,
                deadline_seconds=DEFAULT_LIMITS.time_seconds + arriving_seconds + _SPARE_SECONDS,
            )
        except StoreError as e:
            # The worker knows no directory but its root.
            raise StoreError(f"{e.message} (below {path})", hint=e.hint) from e
        # The worker owned this directory for a while; it becomes root's private one again (invariant HH1).
        _take_back(target_fd)
        results = answer.get("layers")
        if not isinstance(results, list) or len(results) != len(blobs):
            raise ImageError("rkt-unpack did not report its layers")
        filled = []
        for number, (blob, result) in enumerate(zip(blobs, results, strict=True)):
            _compare(blob, result, arriving=arriving_seconds > 0)
            _mark(f"{path}/{number}")
            filled.append(
                FilledLayer(
                    key=ImageKey.parse(f"sha256-{blob.diff_id}"),
                    digest=blob.digest,
                    path=f"{path}/{number}",
                    split_path=f"{staging.path}/{splits[number]}",
                )
            )
        return filled


def _new_directory(path: str) -> int:
    os.mkdir(path, 0o700)
    os.chmod(path, 0o700)
    return os.open(path, _OPEN_DIRECTORY)


def _take_back(directory_fd: int) -> None:
    os.fchown(directory_fd, os.geteuid(), os.getegid())
    os.fchmod(directory_fd, 0o700)


def _compare(blob: LayerBlob, result: Any, *, arriving: bool) -> None:
    """Hold what was unpacked against what the image's documents say (invariant UN15)."""
    if not isinstance(result, dict):
        raise ImageError("rkt-unpack did not report its layers")
    if not arriving and result.get("blob_sha256") != blob.digest:
        raise ImageError(f"layer sha256:{blob.digest} changed while it was being fetched")
    if result.get("diff_id") != blob.diff_id:
        raise _other_tar(blob.digest, blob.diff_id, str(result.get("diff_id"))[:64])


def _mark(path: str) -> None:
    """Tell overlayfs what the layer says of its directories."""
    tree_fd = os.open(path, _OPEN_DIRECTORY)
    try:
        _take_back(tree_fd)
        try:
            set_marks(tree_fd, read_marks(tree_fd, path))
        except OSError as e:
            raise disk_error(f"cannot set attributes of directories below {path}", e) from e
    finally:
        os.close(tree_fd)


def put_oci(store: Store, staging: Staging, image: NewImage, layers: Sequence[FilledLayer]) -> ImageRecord:
    """Make an image visible, with its new layers; whole or not at all.

    Args:
        store: where to.
        staging: as ``unpack_layers`` left it.
        image: what to say of it.
        layers: those that ``find_layer`` did not find.
    Returns:
        the record that is in the store now, as of ``Store.put``.
    Raises:
        ImageError: its layers cannot be laid over each other.
        StoreError, OSError: the disk, or the file system, refused.
    """
    key = image.image_id.key
    documents = _with_index(store, key, image.documents)
    if f"sha256-{sha256_hex(documents.manifest)}" != image.image_id:
        raise ImageError(f"the manifest of image {key.digest} is not the one that has this digest")
    if not 0 < len(image.diff_ids) <= MAX_LAYERS:
        raise ImageError(f"the image has {len(image.diff_ids)} layers, 1 to {MAX_LAYERS} are accepted")
    new = {layer.key: layer for layer in layers}
    # A layer that comes again below itself adds nothing, and the kernel takes no directory twice.
    stack = list(dict.fromkeys(ImageKey.parse(f"sha256-{diff_id}") for diff_id in reversed(image.diff_ids)))
    marks, has_parents = _make_parents(
        staging, [new[layer].path if layer in new else store.layer_path(layer) for layer in stack]
    )
    size_bytes = sum(each.size_bytes for each in marks)
    if size_bytes > DEFAULT_LIMITS.tar_bytes:
        raise ImageError(f"the image is larger than {DEFAULT_LIMITS.tar_bytes} bytes")
    _write_documents(staging, documents)
    write_new(f"{staging.path}/manifest", image.view, 0o640)
    record = ImageRecord(
        key=key,
        image_id=image.image_id,
        name=image.name,
        labels=image.labels,
        import_time_ns=time.time_ns(),
        origin=image.origin,
        size_bytes=size_bytes,
        tree_size_bytes=sum(each.tree_size_bytes for each in marks),
        verdict=image.verdict,
        layers=[key, *stack] if has_parents else stack,
        manifest_digest=f"sha256:{sha256_hex(image.view)}",
        latest=image.latest,
        oci=OciFacts(
            media_type=image.media_type,
            config_digest=f"sha256:{sha256_hex(documents.config)}",
            index_digest=f"sha256:{sha256_hex(documents.index)}" if documents.index else "",
            platform=image.platform,
        ),
    )

    def place(gid: int) -> None:
        for layer in layers:
            store.place_layer(layer.path, layer.split_path, layer.key)
            _note_blob(store, layer)
        if has_parents:
            store.place_layer(f"{staging.path}/parents", "", key)
        for layer_key in record.layers:
            store.layer_path(layer_key)
        _place_documents(store, staging, key, gid)

    return store.put(staging.path, staging.fd, record, place)


def _with_index(store: Store, key: ImageKey, documents: OciDocuments) -> OciDocuments:
    """Documents with the index by which the image was found earlier, if it was not found by one now."""
    if documents.index:
        return documents
    try:
        return documents.replace(index=read_oci(store, key).index)
    except RktError:
        return documents  # new, or damaged


def _make_parents(staging: Staging, paths: Iterable[str]) -> tuple[list[Marks], bool]:
    """Marks of the layers, the topmost first, and whether they need a layer of directories on top of them."""
    with ExitStack() as stack:
        lowers = _open_lowers(stack, paths)
        parents = missing_parents(lowers)
        if parents:
            os.close(_new_directory(f"{staging.path}/parents"))
            target_fd = _new_directory(f"{staging.path}/parents/rootfs")
            stack.callback(os.close, target_fd)
            make_parents(lowers, parents, target_fd)
        return [lower.marks for lower in lowers], bool(parents)


def _open_lowers(stack: ExitStack, paths: Iterable[str]) -> list[Lower]:
    lowers = []
    for path in paths:
        root_fd = os.open(f"{path}/rootfs", _OPEN_DIRECTORY)
        stack.callback(os.close, root_fd)
        tree_fd = os.open(path, _OPEN_DIRECTORY)
        try:
            lowers.append(Lower(root_fd, read_marks(tree_fd, path)))
        finally:
            os.close(tree_fd)
    return lowers


def _write_documents(staging: Staging, documents: OciDocuments) -> None:
    path = f"{staging.path}/oci"
    os.mkdir(path, 0o700)
    write_new(f"{path}/manifest", documents.manifest, 0o640)
    write_new(f"{path}/config", documents.config, 0o640)
    if documents.index:
        write_new(f"{path}/{_index_name(sha256_hex(documents.index))}", documents.index, 0o640)


def _index_name(digits: str) -> str:
    """Of the file: with its digest, so that another index can be there before the record speaks of it."""
    return f"index-{digits}"


def _place_documents(store: Store, staging: Staging, key: ImageKey, gid: int) -> None:
    path = f"{staging.path}/oci"
    for name in ("", *os.listdir(path)):
        if gid != -1:
            os.chown(f"{path}/{name}", -1, gid)
    # Changing the group takes the set-group-id bit.
    os.chmod(path, 0o2750)
    final_path = f"{store.data_dir}/cas/oci/{key}"
    try:
        os.rename(path, final_path)
    except OSError:
        # There already: with the same bytes, but for those that are damaged and an index that is new.
        for name in os.listdir(path):
            os.rename(f"{path}/{name}", f"{final_path}/{name}")
        sync_directory(final_path)
    sync_directory(f"{store.data_dir}/cas/oci")


def _note_blob(store: Store, layer: FilledLayer) -> None:
    try:
        os.symlink(layer.key, f"{store.data_dir}/cas/blob/{layer.digest}")
    except FileExistsError:
        pass  # it says the same, or ``find_layer`` had refused the image


def is_whole(store: Store, record: ImageRecord) -> bool:
    """Whether all that an image consists of is there, its documents unchanged; its layers are not looked into."""
    try:
        store.manifest_bytes(record.key)
        read_oci(store, record.key)
        for layer in record.layers:
            store.layer_path(layer)
    except RktError:
        return False
    return True


def read_oci(store: Store, key: ImageKey) -> OciDocuments:
    """The documents of an image.

    Raises:
        NotFound: the image is not in the store, or is an ACI.
        DamagedRecord: the bytes are not those that were transferred.
    """
    facts = store.get(key).oci
    if facts is None:
        raise NotFound(f"image {key.medium} is an App Container Image, no OCI or Docker image")
    return OciDocuments(
        manifest=_read_document(store, key, "manifest", key.digest),
        config=_read_document(store, key, "config", facts.config_digest),
        index=_read_document(
            store, key, _index_name(facts.index_digest[len("sha256:") :]), facts.index_digest
        )
        if facts.index_digest
        else b"",
    )


def _read_document(store: Store, key: ImageKey, name: str, digest: str) -> bytes:
    path = f"{store.data_dir}/cas/oci/{key}/{name}"
    try:
        data = read_bounded(path, MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        raise _damaged(key, f"{path} is missing") from None
    except PermissionError as e:
        raise HostError(f"cannot read {path}: {e.strerror}", hint="run the command as root") from e
    except OSError as e:
        raise _damaged(key, f"cannot read {path}: {e.strerror}") from e
    if digest != f"sha256:{sha256_hex(data)}":
        raise _damaged(key, f"{path} is not what was fetched")
    return data


def _damaged(key: ImageKey, message: str) -> DamagedRecord:
    return DamagedRecord(message, hint=f"rkt image rm {key.medium}, then fetch it again")


def verify_oci(store: Store, record: ImageRecord) -> list[Difference]:
    """Every difference between an image's documents and layers and what was fetched.

    Raises:
        StoreError: parts of the image are missing or damaged.
    """
    found: list[Difference] = []
    try:
        read_oci(store, record.key)
        for key in record.layers:
            if key != record.key:
                found += _verify_layer(store, key)
        if not found and record.layers[0] == record.key:
            found += _verify_parents(store, record)
    except StoreError as e:
        raise StoreError(
            f"image {record.key.medium} is damaged: {e.message}",
            hint=f"rkt image verify --repair {record.key.medium}",
        ) from e
    return found


def damaged_layers(store: Store, record: ImageRecord) -> list[ImageKey]:
    """Layers of an image that are not as they were fetched, or not there."""
    damaged = []
    for key in record.layers:
        try:
            if key != record.key and not _verify_layer(store, key):
                continue
        except (OSError, RktError):
            pass  # it cannot even be read
        damaged.append(key)
    return damaged


def _verify_layer(store: Store, key: ImageKey) -> list[Difference]:
    from rkt.image.verify import verify_oci_layer

    split_path = store.split_path(key)
    try:
        tree_fd = os.open(store.layer_path(key), _OPEN_DIRECTORY)
        try:
            split_fd = os.open(split_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                diff_id, differences = verify_oci_layer(split_fd, tree_fd)
            finally:
                os.close(split_fd)
        finally:
            os.close(tree_fd)
    except PermissionError:
        raise HostError(
            f"layer {key.medium} can be read by root only", hint="run the command as root"
        ) from None
    except OSError as e:
        raise StoreError(f"cannot read {e.filename or split_path}: {e.strerror}") from e
    if diff_id != key.digest.removeprefix("sha256:"):
        raise StoreError(f"{split_path} is of another layer")
    return [difference.replace(layer=key.medium) for difference in differences]


def _verify_parents(store: Store, record: ImageRecord) -> list[Difference]:
    """Whether the directories that the image's layers only imply are as lower layers have them."""
    from rkt.image.verify import Difference

    with ExitStack() as stack:
        lowers = _open_lowers(stack, [store.layer_path(key) for key in record.layers[1:]])
        root_fd = os.open(f"{store.layer_path(record.key)}/rootfs", _OPEN_DIRECTORY)
        stack.callback(os.close, root_fd)
        wrong = differing_parents(lowers, missing_parents(lowers), root_fd)
    return [
        Difference(path=b"/".join((b"rootfs", *path)), what=what, layer=record.key.medium)
        for path, what in wrong
    ]


def remove_parts(
    store: Store, key: ImageKey, record: ImageRecord | None, needed: Container[ImageKey | TreeID] | None
) -> None:
    """Remove what only an OCI image has, its record being gone: documents, and layers that nothing else needs.

    Args:
        store: where it was.
        key: the image.
        record: what its record said; None when it was damaged, then ``store.gc`` finds the layers.
        needed: as for ``Store.remove``.
    """
    from rkt.store.staging import discard

    discard(store.data_dir, f"{store.data_dir}/cas/oci/{key}")
    if record is None or needed is None:
        return
    damaged: list[RktError] = []
    others = {layer for other in store.records(damaged) for layer in other.layers}
    if damaged:
        return  # which layers they need is not known
    for layer in record.layers:
        if layer not in needed and layer not in others:
            store.remove_layer(layer)
    forget_blobs(store)


def forget_blobs(store: Store) -> None:
    """Forget of which blobs layers came that are gone; under the exclusive prepare lock."""
    directory = f"{store.data_dir}/cas/blob"
    for name in entries(directory):
        try:
            key = os.readlink(f"{directory}/{name}")
            os.stat(f"{store.data_dir}/cas/layer/{key}")
        except OSError:
            remove_tree(f"{directory}/{name}")

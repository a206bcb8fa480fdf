# SPDX-License-Identifier: Apache-2.0
"""An image of the store together with the images it depends on (spec cli §5.9, §5.10)."""

from __future__ import annotations

import os

from rkt.errors import HostError, ImageError, NotFound, RktError, StoreError
from rkt.fetch.reference import host_labels
from rkt.image import render
from rkt.schema.appc import parse_image_manifest
from rkt.values import AppcReference, is_image_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rkt.image.render import Hiding, Part
    from rkt.linux.userns import IdRange
    from rkt.schema.appc import Dependency, ImageManifest
    from rkt.store.cas import Store
    from rkt.store.record import ImageRecord
    from rkt.values import ImageKey

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def find_dependency(store: Store, dependency: Dependency) -> ImageRecord:
    """The image in the store that a dependency stands for: by ID where it has one, else by name and labels.

    Raises:
        NotFound: it is not in the store.
        ImageError: what is found is not what the dependency says.
    """
    wanted = AppcReference(dependency.image_name, dependency.labels)
    if dependency.image_id:
        try:
            key: ImageKey | None = store.resolve_id(dependency.image_id)
        except NotFound:
            key = None
    else:
        # An image for this host first; else one that says nothing of hosts.
        key = store.find_by_name(AppcReference(wanted.name, {**host_labels(), **wanted.labels}))
        if key is None:
            key = store.find_by_name(wanted)
    if key is None:
        what = f"{wanted} with ID {dependency.image_id}" if dependency.image_id else str(wanted)
        raise NotFound(f"dependency {what} is not in the store", hint=f"rkt fetch {wanted}")
    record = store.get(key)
    check_dependency(record, dependency)
    return record


def dependents(store: Store, keys: Collection[ImageKey]) -> dict[ImageKey, list[ImageRecord]]:
    """Images of the store that depend directly on one of some others, and are not among them.

    Returns:
        key of each that is depended on -> what depends on it.
    """
    found: dict[ImageKey, list[ImageRecord]] = {}
    for record in store.records():
        if record.key in keys:
            continue
        try:
            manifest = parse_image_manifest(store.manifest_bytes(record.key))
        except RktError:
            continue  # damaged, or just removed: it depends on nothing that could be missed
        for dependency in manifest.dependencies:
            try:
                key = find_dependency(store, dependency).key
            except RktError:
                continue
            if key in keys and record not in found.setdefault(key, []):
                found[key].append(record)
    return found


def check_dependency(record: ImageRecord, dependency: Dependency) -> None:
    """Hold an image against what the dependency says of it: ID, name, labels, size (invariant UN19).

    Raises:
        ImageError: they differ.
    """
    wanted = AppcReference(dependency.image_name, dependency.labels)
    if dependency.image_id and not _is_prefix(dependency.image_id, record):
        raise ImageError(
            f"dependency {wanted} must be {dependency.image_id}, but image {record.image_id} was found"
        )
    if record.name != dependency.image_name or not dependency.labels.items() <= record.labels.items():
        raise ImageError(
            f"dependency {wanted} is image {record.full_name}, which has another name or other labels"
        )
    if dependency.size_bytes and dependency.size_bytes != record.size_bytes:
        raise ImageError(
            f"dependency {wanted} must have {dependency.size_bytes} bytes, but image {record.key.medium} has "
            f"{record.size_bytes}"
        )


def _is_prefix(image_id: str, record: ImageRecord) -> bool:
    return is_image_hash(image_id) and record.image_id.startswith(image_id)


def resolve(store: Store, top: ImageKey) -> list[Part]:
    """The layers of an image with its dependencies, all of them in the store, the topmost first.

    Raises:
        NotFound: a dependency is missing.
        ImageError: a dependency is not what is asked for, or they form a cycle, or there are too many.
        StoreError: a record or a manifest is damaged.
    """
    manifests: dict[ImageKey, ImageManifest] = {}

    def manifest_of(key: ImageKey) -> ImageManifest:
        if key not in manifests:
            manifests[key] = parse_image_manifest(store.manifest_bytes(key))
        return manifests[key]

    parts = render.flatten(top, manifest_of, lambda dependency: find_dependency(store, dependency).key)
    return [each for part in parts for each in _expand(store, part)]


def own_parts(store: Store, key: ImageKey) -> list[Part]:
    """The layers of an image without its dependencies, the topmost first."""
    return _expand(store, render.Part(key=key))


def _expand(store: Store, part: Part) -> list[Part]:
    """A part for each layer of an image; an ACI has one, named as itself."""
    if not part.key.is_oci:
        return [part]
    return [part.replace(layer=layer) for layer in store.get(part.key).layers]


def merge(
    store: Store,
    parts: Sequence[Part],
    target_fd: int,
    *,
    link: bool = False,
    ids: IdRange | None = None,
) -> None:
    """Lay the layers over each other in a directory, each as far as the white lists leave it.

    Args:
        store: where the layers are.
        parts: as ``resolve`` returns them.
        target_fd: empty directory, becomes the root file system.
        link: share files with the layers; for what nobody writes to.
        ids: as for ``copy_tree``.
    Raises:
        ImageError: a file cannot be copied.
        StoreError: a layer is missing.
    """
    from rkt.image.copytree import copy_layers, copy_tree, list_tree

    fds: list[int] = []
    try:
        for part in parts:
            fds.append(_open_root(store, part.layer_key))  # noqa: PERF401 - closed below
        if len(parts) == 1 and not render.is_filtered(parts) and not parts[0].key.is_oci:
            copy_tree(fds[0], target_fd, ids=ids)
            return
        try:
            hidings = [_hiding(store, part, fd) for part, fd in zip(parts, fds, strict=True)]
            selections = render.select(parts, (list_tree(fd) for fd in fds), hidings)
        except OSError as e:
            raise StoreError(f"cannot read a layer: {e.strerror}", hint="rkt image verify") from e
        copy_layers(fds, selections, target_fd, link=link, ids=ids)
    finally:
        for fd in fds:
            os.close(fd)


def _hiding(store: Store, part: Part, root_fd: int) -> Hiding:
    """What a layer hides; those that are named as their image hide nothing but by what they have."""
    if part.layer_key == part.key:
        return render.Hiding()
    from rkt.image.marks import find_whiteouts, read_marks

    path = store.layer_path(part.layer_key)
    fd = os.open(path, _OPEN_DIRECTORY)
    try:
        marks = read_marks(fd, path)
    finally:
        os.close(fd)
    return render.Hiding(whiteouts=find_whiteouts(root_fd, marks), opaque=marks.opaque)


def _open_root(store: Store, key: ImageKey) -> int:
    path = f"{store.layer_path(key)}/rootfs"
    try:
        return os.open(path, _OPEN_DIRECTORY)
    except PermissionError:
        raise HostError(f"layer {path} can be read by root only", hint="run the command as root") from None
    except OSError as e:
        raise StoreError(
            f"the root filesystem of image {key} cannot be opened: {e.strerror}",
            hint=f"rkt image verify {key.medium}",
        ) from e

# SPDX-License-Identifier: Apache-2.0
"""Garbage of the store: dead staging directories, parts of images that nobody sees, layers that nothing needs.

Everything here may be interrupted and run again, and is driven only by what is on disk.
"""

from __future__ import annotations

import os

from rkt.errors import InvalidManifest, NotFound, RktError, reason_of
from rkt.linux.files import remove_tree, sweep_unfinished
from rkt.schema.record import Record
from rkt.store import staging
from rkt.store.cas import Store
from rkt.store.locks import prepare_lock
from rkt.store.refs import IMAGE_STATES, LAYER_STATES, needed_keys, referenced_keys
from rkt.values import ImageKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from rkt.values import TreeID

#: Files of these directories below ``cas`` are named by the key of the image they belong to.
_BY_KEY = ("manifest", "used", "imagelocks", "oci")


class Outcome(Record):
    """What a collection did.

    Attributes:
        layers: keys of the layers, and IDs of the trees, that were removed because nothing referred to them.
        images: keys of the images that were removed because they were not used for long.
        problems: what could not be done, one line each.
    """

    layers: list[str] = []
    images: list[ImageKey] = []
    problems: list[str] = []


def sweep(data_dir: str) -> list[str]:
    """What ``rkt gc`` does to the store: take what killed commands left. Cheap when there is nothing.

    Returns:
        what could not be removed, one line each.
    """
    problems = staging.sweep(data_dir)
    store = Store(data_dir)
    sweep_unfinished(f"{data_dir}/trust")
    try:
        if _unowned(store):
            # Somebody is preparing a pod or committing an image: the next sweep finds the same.
            with prepare_lock(data_dir, exclusive=True, blocking=False):
                problems += _remove_layers(store).problems
                _remove_stray_files(store)
    except BlockingIOError:
        pass
    except (OSError, RktError) as e:
        problems.append(f"cannot sweep {data_dir}/cas: {reason_of(e)}")
    return problems


def collect(
    store: Store, *, unused_since_ns: int, protected: Collection[ImageKey] = (), dry_run: bool = False
) -> Outcome:
    """What ``rkt image gc`` does: layers and trees nobody refers to, then images not used for long.

    Args:
        store: the store.
        unused_since_ns: images last used before this time go, nanoseconds since the epoch.
        protected: images that stay whatever their age.
        dry_run: only find out, change nothing.
    """
    from rkt.fetch import partial

    problems = [] if dry_run else staging.sweep(store.data_dir) + partial.trim(store.data_dir)
    with prepare_lock(store.data_dir, exclusive=True):
        first = _remove_layers(store, dry_run=dry_run)
        trees = _remove_trees(store, dry_run=dry_run)
        problems += first.problems + trees.problems
        if not dry_run:
            _remove_stray_files(store)
        layer_users = needed_keys(store.data_dir)
        keep = referenced_keys(store.data_dir, IMAGE_STATES) | set(protected)
        images: list[ImageKey] = []
        damaged: list[RktError] = []
        for record in list(store.records(damaged)):
            if record.key in keep or store.last_used_ns(record.key) >= unused_since_ns:
                continue
            try:
                if not dry_run:
                    store.remove(record.key, needed=layer_users)
                images.append(record.key)
            except NotFound:
                continue
            except RktError as e:
                problems.append(e.message)
        problems += [f"{e.message} ({e.hint})" for e in damaged]
    return Outcome(layers=first.layers + trees.layers, images=images, problems=problems)


def remove_image(store: Store, key: ImageKey) -> bool:
    """What ``rkt image rm`` does to one image.

    Returns:
        whether its layers went too; they stay while a pod refers to them, or while a pod that might is being made.
    Raises:
        NotFound, StoreError: as ``Store.remove``.
    """
    try:
        with prepare_lock(store.data_dir, exclusive=True, blocking=False):
            needed = needed_keys(store.data_dir)
            in_use = _in_use(store, key, needed)
            store.remove(key, needed=needed)
            return not in_use
    except BlockingIOError:
        store.remove(key, needed=None)
        return False


def _in_use(store: Store, key: ImageKey, needed: Collection[ImageKey | TreeID]) -> bool:
    """Whether a layer of an image stays when it is removed."""
    return key in needed or any(layer in needed for layer in _layers(store, key))


def _unowned(store: Store) -> set[str]:
    """Names in the store's directories that no record of the same name owns; a few directory reads."""
    owned: set[str] = set(store.keys())
    names: set[str] = set()
    for directory in ("layer", "split", *_BY_KEY):
        names.update(_entries(f"{store.data_dir}/cas/{directory}"))
    for directory in ("record", "remote"):
        names.update(name for name in _entries(f"{store.data_dir}/cas/{directory}") if name.startswith("."))
    names -= owned
    if any(name.startswith("sha256-") for name in names):
        # Layers of OCI images, which are named in their records.
        for key in owned:
            if key.startswith("sha256-"):
                names.difference_update(_layers(store, ImageKey.parse(key)))
    return names


def _layers(store: Store, key: ImageKey) -> list[ImageKey]:
    try:
        return store.get(key).layers
    except RktError:
        return []


def _remove_layers(store: Store, *, dry_run: bool = False) -> Outcome:
    """Remove layers that neither an image nor a pod refers to; under the exclusive prepare lock."""
    candidates = set()
    for directory in ("layer", "split"):
        candidates.update(_keys(f"{store.data_dir}/cas/{directory}"))
    candidates -= set(store.keys())
    if not candidates:
        return Outcome()
    damaged: list[RktError] = []
    for record in store.records(damaged):
        candidates.difference_update(record.layers)
    if damaged:
        # Which layers a damaged record needs is not known.
        return Outcome(
            problems=[f"{e.message}: unused layers are kept meanwhile ({e.hint})" for e in damaged]
        )
    candidates -= needed_keys(store.data_dir)
    outcome = Outcome()
    for key in sorted(candidates):
        try:
            if not dry_run:
                store.remove_layer(key)
            outcome.layers.append(key)
        except (OSError, RktError) as e:
            outcome.problems.append(f"cannot remove layer {key}: {reason_of(e)}")
    return outcome


def _remove_trees(store: Store, *, dry_run: bool) -> Outcome:
    """Remove rendered trees that no pod refers to; under the exclusive prepare lock."""
    needed = referenced_keys(store.data_dir, LAYER_STATES)
    outcome = Outcome()
    for name in sorted(_entries(f"{store.data_dir}/cas/tree")):
        if name in needed:
            continue
        try:
            if not dry_run:
                store.remove_tree(name)
            outcome.layers.append(name)
        except (OSError, RktError) as e:
            outcome.problems.append(f"cannot remove tree {name}: {reason_of(e)}")
    return outcome


def _remove_stray_files(store: Store) -> None:
    """Remove what a killed commit or removal left, and mend the name index; under the exclusive prepare lock."""
    from rkt.store.oci import forget_blobs

    cas = f"{store.data_dir}/cas"
    owned = set(store.keys())
    for directory in _BY_KEY:
        for name in _entries(f"{cas}/{directory}"):
            if name not in owned:
                remove_tree(f"{cas}/{directory}/{name}")
    for directory in ("record", "remote"):
        for name in _entries(f"{cas}/{directory}"):
            if name.startswith("."):
                _unlink(f"{cas}/{directory}/{name}")
    names = f"{cas}/name"
    for quoted in _entries(names):
        for name in _entries(f"{names}/{quoted}"):
            if name not in owned:
                _unlink(f"{names}/{quoted}/{name}")
        try:
            os.rmdir(f"{names}/{quoted}")
        except OSError:
            continue  # not empty
    store.remove_remote_rows(None)
    forget_blobs(store)
    # Last, as it is the only step that may want room.
    for record in store.records():
        store.index_name(record.name, record.key)


def _keys(path: str) -> list[ImageKey]:
    keys = []
    for name in _entries(path):
        try:
            keys.append(ImageKey.parse(name))
        except InvalidManifest:
            continue
    return keys


def _entries(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass

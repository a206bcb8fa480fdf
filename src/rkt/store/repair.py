# SPDX-License-Identifier: Apache-2.0
"""Mending an image whose files are not as they were fetched: it is fetched again from where it came from.

The damaged layers are set aside meanwhile, and put back when nothing better was found: a pod that was prepared with them is
not made worse. A crash in between leaves an image without its layers, which is repaired in the same way. Of an OCI image,
layers that are as they were fetched are not fetched again.
"""

from __future__ import annotations

import os

from rkt.errors import NotFound, RktError, StoreError
from rkt.fetch.reference import POLICY_UPDATE
from rkt.store.cas import Store
from rkt.store.locks import prepare_lock
from rkt.store.refs import LAYER_STATES, referenced_keys, running_keys
from rkt.store.staging import Staging
from rkt.trust.verdict import KIND_BUILTIN
from rkt.values import Digest, TreeID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.store.record import ImageRecord


def repair_image(store: Store, record: ImageRecord, settings: Settings) -> None:
    """Replace an image's layers by healthy ones.

    Args:
        store: where the image is.
        record: its record, which is intact.
        settings: of the running command; what it trusts today decides, as at every fetch.
    Raises:
        StoreError: the image cannot be had again, or a running pod uses it; its layers are as before.
    """
    key = record.key
    layers_path = f"{store.data_dir}/cas/layer"
    damaged = [key]
    if record.oci:
        from rkt.store.oci import damaged_layers

        damaged = damaged_layers(store, record)
    with Staging(store.data_dir) as staging:
        with prepare_lock(store.data_dir, exclusive=True):
            if not running_keys(store.data_dir).isdisjoint(damaged):
                raise StoreError(
                    f"cannot repair image {key.medium}: a running pod uses it",
                    hint="rkt list, then rkt stop, then again",
                )
            for layer in damaged:
                try:
                    os.rename(f"{layers_path}/{layer}", f"{staging.path}/damaged-{layer}")
                except FileNotFoundError:
                    pass  # lost, by a repair that was killed for one
            # Else a server that says "not modified" would be believed.
            store.remove_remote_rows(key)
        try:
            _fetch_again(record, settings)
        finally:
            for layer in damaged:
                aside, final_path = f"{staging.path}/damaged-{layer}", f"{layers_path}/{layer}"
                if os.path.isdir(aside) and not os.path.isdir(final_path):
                    os.rename(aside, final_path)


def _fetch_again(record: ImageRecord, settings: Settings) -> None:
    key, origin = record.key, record.origin
    hint = f"fetch it from elsewhere: rkt image rm {key.medium}, then rkt fetch"
    try:
        if record.verdict.kind == KIND_BUILTIN:
            from rkt.store.builtin import import_builtin_stage1

            found = import_builtin_stage1(settings, origin, record.image_id)
        elif record.oci:
            found = _fetch_oci_again(record, settings)
        else:
            from rkt.fetch.fetch import fetch_image

            found = fetch_image(origin, settings, pull_policy=POLICY_UPDATE)
    except RktError as e:
        raise StoreError(
            f"cannot repair image {key.medium} from {origin}: {e.message}", hint=e.hint or hint
        ) from e
    if found.image_id != record.image_id:
        raise StoreError(
            f"cannot repair image {key.medium}: {origin} is another image now ({found.key.medium})", hint=hint
        )


def _fetch_oci_again(record: ImageRecord, settings: Settings) -> ImageRecord:
    """From a registry by digest, since the tag may be another image's by now."""
    from rkt.fetch import reference as references
    from rkt.fetch.fetch import fetch_image
    from rkt.fetch.oci import fetch_oci
    from rkt.fetch.oci_reference import parse_docker
    from rkt.fetch.report import Reporter

    assert record.oci is not None
    settings = settings.replace(platform=record.oci.platform)
    parsed = references.parse_reference(record.origin)
    if parsed.kind != references.DOCKER:
        return fetch_image(record.origin, settings, pull_policy=POLICY_UPDATE)
    target = parse_docker(parsed.location).replace(digest=Digest.parse(record.key.digest))
    return fetch_oci(target, record.origin, settings, Store(settings.data_dir), Reporter(settings))


def repair_tree(store: Store, name: str) -> bool:
    """Make a rendered tree anew, or remove it when no pod needs it.

    Returns:
        whether it is there again; otherwise the next pod that needs it makes it.
    Raises:
        StoreError: a running pod uses it, or pods need it and it cannot be made of what is in the store.
        ImageError: a layer that it is made of has changed too.
    """
    from rkt.image.render import tree_id
    from rkt.store.composition import resolve
    from rkt.store.trees import ensure_tree, read_tree_record

    if name in running_keys(store.data_dir):
        raise StoreError(f"cannot repair tree {name}: a running pod uses it", hint="rkt list, then rkt stop")
    with prepare_lock(store.data_dir, exclusive=True):
        needed = name in referenced_keys(store.data_dir, LAYER_STATES)
        if not needed:
            store.remove_tree(name)
            return False
    record = read_tree_record(store.layer_path(TreeID.parse(name)))
    try:
        parts = resolve(store, record.parts[0])
    except NotFound as e:
        raise StoreError(f"cannot repair tree {name}: {e.message}", hint=e.hint) from e
    if tree_id(parts) != name:
        raise StoreError(
            f"cannot repair tree {name}: a dependency is another image now",
            hint="remove the pods that use it",
        )
    with prepare_lock(store.data_dir):
        store.remove_tree(name)
        ensure_tree(store, parts)
    return True

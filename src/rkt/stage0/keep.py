# SPDX-License-Identifier: Apache-2.0
"""Images that the next pod needs whatever happens: the stage1 images, and what they depend on."""

from __future__ import annotations

from rkt.errors import RktError
from rkt.stage0.stage1 import built_in_images

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.store.cas import Store
    from rkt.values import ImageKey


def stage1_keys(settings: Settings, store: Store) -> set[ImageKey]:
    """Keys of the installation's stage1 images and of the configured one, as far as they are in the store.

    Raises:
        ConfigError: the configuration cannot be read, so that nobody knows what it needs.
    """
    from rkt.config.stage1 import load_stage1
    from rkt.store.composition import resolve

    configured = load_stage1(settings)
    keys: set[ImageKey] = set()
    try:
        images, _ = built_in_images(settings)
        keys.update(image.image_id.key for image in images.values() if store.contains(image.image_id.key))
    except RktError:
        pass  # an installation without stage1 images
    for record in store.records():
        if configured.name and (record.name, record.labels.get("version")) == (
            configured.name,
            configured.version,
        ):
            keys.add(record.key)
        if configured.location and record.origin == configured.location:
            keys.add(record.key)
    for key in list(keys):
        try:
            keys.update(part.key for part in resolve(store, key))
        except RktError:
            continue  # damaged, or without its dependencies: it is kept as far as it is there
    return keys


def honour_removals(settings: Settings, store: Store, *, dry_run: bool = False) -> list[ImageKey]:
    """Remove what members of the group ``rkt`` want removed and neither a pod nor a setting needs; cheap when that is nothing.

    Returns:
        what was removed. What cannot be is tried again by the next command.
    """
    from rkt.store.pending import Spool
    from rkt.store.pending_gc import remove_removed

    with Spool(settings.data_dir) as spool:
        if not spool.removed(store):
            return []
        return remove_removed(spool, store, protected=stage1_keys(settings, store), dry_run=dry_run)

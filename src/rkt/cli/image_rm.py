# SPDX-License-Identifier: Apache-2.0
"""``rkt image rm``: take images out of the store (spec cli §2.17)."""

from __future__ import annotations

import os

from rkt.cli.command import Command
from rkt.cli.output import message, write
from rkt.cli.pod_flags import report
from rkt.errors import EXIT_FAILURE, UsageError
from rkt.values import is_image_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.config.settings import Settings
    from rkt.store.cas import Store
    from rkt.values import ImageKey


def run(invocation: Invocation) -> int:
    """Remove each image; one that is not there does not keep the others."""
    from rkt.errors import RktError
    from rkt.store import gc
    from rkt.store.cas import Store
    from rkt.store.composition import dependents

    if not invocation.words:
        raise UsageError("must provide at least one image ID", hint="rkt image list")
    settings = invocation.settings
    if os.geteuid() != 0:
        return _as_member(invocation.words, settings)
    store = Store(settings.data_dir)
    failed = False
    removed = 0
    keys: list[ImageKey] = []
    for word in invocation.words:
        try:
            key = store.resolve(word)
        except RktError as e:
            pending = _remove_pending(settings, word)
            if pending is not None:
                write(f'successfully removed aci for image: "{pending}"\n')
                removed += 1
            else:
                report(settings, e)
                failed = True
            continue
        if key not in keys:
            keys.append(key)
    default = _default_stage1(settings)
    needed_by = dependents(store, keys)
    for key in keys:
        try:
            layers_gone = gc.remove_image(store, key)
        except RktError as e:
            report(settings, e)
            failed = True
            continue
        removed += 1
        _remove_pending(settings, key)
        if key == default:
            message(
                settings, f"warning: {key.medium} is the default stage1 image; the next pod imports it again"
            )
        for dependent in needed_by.get(key, ()):
            message(
                settings,
                f"warning: {dependent.full_name} depends on {key.medium}, which will have to be fetched again",
            )
        write(f'successfully removed aci for image: "{key}"\n')
        if not layers_gone:
            message(
                settings, f"files of {key.medium} stay as long as pods use them; then: rkt gc, rkt image gc"
            )
    _honour_members(settings, store)
    if removed:
        message(settings, f"{removed} image(s) successfully removed")
    return EXIT_FAILURE if failed else 0


def _honour_members(settings: Settings, store: Store) -> None:
    """Remove what members asked to be removed; nobody asked for it here, so that nothing is said."""
    from rkt.stage0.keep import honour_removals

    honour_removals(settings, store)


def _remove_pending(settings: Settings, text: str) -> ImageKey | None:
    """Remove an image that members fetched and root did not take, from all who have it; its key, None when there is none."""
    from rkt.store.pending import Spool, matching

    with Spool(settings.data_dir) as spool:
        found = matching(spool.pending(), text) if spool.homes else []
        if not found or (is_image_hash(text) and len({p.key for p in found}) > 1):
            return None
        key = found[0].key
        for pending in found:
            if pending.key == key:
                spool.discard(pending)
    return key


def _as_member(words: list[str], settings: Settings) -> int:
    """A member removes their own images, and asks root to remove others."""
    from rkt.errors import HostError, RktError
    from rkt.stage0.keep import stage1_keys
    from rkt.store.member import MemberStore, find_to_remove, member_settings

    own = member_settings(settings)
    store = MemberStore(own.data_dir, own.shared_dir)
    failed = False
    keys: list[ImageKey] = []
    for word in words:
        try:
            key = find_to_remove(store, word)
            if store.is_shared(key) and key in stage1_keys(settings, store.shared):
                raise HostError(
                    f"image {key.medium} is a stage1 image, which root's pods start with",
                    hint=f"sudo rkt image rm {key.medium}",
                )
        except RktError as e:
            report(settings, e)
            failed = True
            continue
        if key not in keys:
            keys.append(key)
    removed = 0
    for key in keys:
        try:
            if store.is_own(key):
                store.remove(key)
            if store.is_shared(key):
                store.ask_for_removal(key)
                message(
                    settings, f"files of {key.medium} stay until root's next rkt image gc, image rm or fetch"
                )
        except RktError as e:
            report(settings, e)
            failed = True
            continue
        removed += 1
        write(f'successfully removed aci for image: "{key}"\n')
    if removed:
        message(settings, f"{removed} image(s) successfully removed")
    return EXIT_FAILURE if failed else 0


def _default_stage1(settings: Settings) -> ImageKey | None:
    from rkt.errors import RktError
    from rkt.stage0.stage1 import built_in_images

    try:
        images, default = built_in_images(settings)
    except RktError:
        return None
    return images[default].image_id.key if default in images else None


COMMAND = Command(
    name="image rm",
    summary="remove images from the store",
    usage="IMAGE…",
    description=(
        "IMAGE is a hash, the beginning of one, a name, or the docker:// reference by which it came. Pods that use the image keep working: its files stay until "
        "no pod refers to them.\n\n"
        "A member of the group rkt removes images of their own at once. One that root fetched vanishes from the lists, and its "
        "files go with the next rkt image gc, image rm or fetch by root, unless a pod needs them or it was used or fetched again by then. "
        "Stage1 images stay."
    ),
    needs_root=True,
    for_members=True,
    completes="image",
    run=run,
)

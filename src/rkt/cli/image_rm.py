# SPDX-License-Identifier: Apache-2.0
"""``rkt image rm``: take images out of the store (spec cli §2.17)."""

from __future__ import annotations

from rkt.cli.command import Command
from rkt.cli.output import message, write
from rkt.errors import EXIT_FAILURE, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.config.settings import Settings
    from rkt.values import ImageKey


def run(invocation: Invocation) -> int:
    """Remove each image; one that is not there does not keep the others."""
    from rkt.errors import RktError
    from rkt.store import gc
    from rkt.store.cas import Store

    if not invocation.words:
        raise UsageError("must provide at least one image ID", hint="rkt image list")
    settings = invocation.settings
    store = Store(settings.data_dir)
    failed = False
    keys: list[ImageKey] = []
    for word in invocation.words:
        try:
            key = store.resolve(word)
        except RktError as e:
            message(settings, e.message + (f" (hint: {e.hint})" if e.hint else ""))
            failed = True
            continue
        if key not in keys:
            keys.append(key)
    removed = 0
    default = _default_stage1(settings)
    for key in keys:
        try:
            layers_gone = gc.remove_image(store, key)
        except RktError as e:
            message(settings, e.message)
            failed = True
            continue
        removed += 1
        if key == default:
            message(
                settings, f"warning: {key.medium} is the default stage1 image; the next pod imports it again"
            )
        write(f'successfully removed aci for image: "{key}"\n')
        if not layers_gone:
            message(
                settings, f"files of {key.medium} stay as long as pods use them; then: rkt gc, rkt image gc"
            )
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
        "IMAGE is a hash, the beginning of one, or a name. Pods that use the image keep working: its files stay until "
        "no pod refers to them."
    ),
    needs_root=True,
    completes="image",
    run=run,
)

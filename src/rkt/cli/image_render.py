# SPDX-License-Identifier: Apache-2.0
"""``rkt image render``: an image as an app sees it, as a directory (spec cli §2.21)."""

from __future__ import annotations

from rkt.cli.command import Command, Invocation
from rkt.cli.image_extract import FLAGS
from rkt.cli.parse import FlagError


def _run(invocation: Invocation) -> int:
    from rkt.image.export import render_image
    from rkt.store.cas import Store

    if len(invocation.words) != 2:
        raise FlagError("an image and an output directory are expected")
    image, output_path = invocation.words
    store = Store(invocation.settings.data_dir)
    render_image(
        store,
        store.resolve(image),
        output_path,
        rootfs_only=invocation.values["rootfs-only"],
        overwrite=invocation.values["overwrite"],
    )
    return 0


COMMAND = Command(
    name="image render",
    summary="write the files an app would see to a directory",
    usage="[--rootfs-only] [--overwrite] IMAGE DIR",
    description=(
        "Like `rkt image extract`, but with everything the image depends on, which must be in the store, and as far as "
        "the path white lists of the images leave it. Every file is first compared with what was fetched."
    ),
    flags=FLAGS,
    run=_run,
    completes="image",
    examples=(("rkt image render example.com/hello hello", "manifest and root file system in ./hello"),),
)

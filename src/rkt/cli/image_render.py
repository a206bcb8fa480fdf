# SPDX-License-Identifier: Apache-2.0
"""``rkt image render``: an image as an app sees it, as a directory (spec cli §2.21)."""

from __future__ import annotations

from rkt.cli.command import Command, Invocation
from rkt.cli.image_extract import FLAGS
from rkt.cli.parse import FlagError
from rkt.errors import ImageError


def _run(invocation: Invocation) -> int:
    from rkt.image.export import extract_image
    from rkt.schema.appc import parse_image_manifest
    from rkt.store.cas import Store

    if len(invocation.words) != 2:
        raise FlagError("an image and an output directory are expected")
    image, output_path = invocation.words
    store = Store(invocation.settings.data_dir)
    key = store.resolve(image)
    manifest = parse_image_manifest(store.manifest_bytes(key))
    if manifest.dependencies:
        names = ", ".join(dependency.image_name for dependency in manifest.dependencies)
        raise ImageError(
            f"image {manifest.name} depends on other images ({names}), which cannot be rendered",
            hint=f"rkt image extract {key.medium} DIR",
        )
    extract_image(
        store,
        key,
        output_path,
        rootfs_only=invocation.values["rootfs-only"],
        overwrite=invocation.values["overwrite"],
        manifest=manifest,
    )
    return 0


COMMAND = Command(
    name="image render",
    summary="write the files an app would see to a directory",
    usage="[--rootfs-only] [--overwrite] IMAGE DIR",
    description=(
        "Like `rkt image extract`, but applies the path white list of the image. An image that depends on others is "
        "refused."
    ),
    flags=FLAGS,
    run=_run,
    completes="image",
    examples=(("rkt image render example.com/hello hello", "manifest and root file system in ./hello"),),
)

# SPDX-License-Identifier: Apache-2.0
"""``rkt image render``: an image as an app sees it, as a directory (spec cli §2.21)."""

from __future__ import annotations

from rkt.cli.command import Command, Invocation
from rkt.cli.image_extract import FLAGS, write_files


def _run(invocation: Invocation) -> int:
    from rkt.image.export import render_image

    return write_files(invocation, render_image)


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

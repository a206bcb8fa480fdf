# SPDX-License-Identifier: Apache-2.0
"""``rkt image export``: the ACI as it was fetched (spec cli §2.19)."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag, Invocation
from rkt.cli.parse import FlagError


def _run(invocation: Invocation) -> int:
    from rkt.image.export import export_image
    from rkt.store.cas import Store

    if len(invocation.words) != 2:
        raise FlagError("an image and an output file are expected")
    image, output_path = invocation.words
    store = Store(invocation.settings.data_dir)
    export_image(store, store.resolve(image), output_path, overwrite=invocation.values["overwrite"])
    return 0


COMMAND = Command(
    name="image export",
    summary="write a stored image to an ACI file",
    usage="[--overwrite] IMAGE OUTPUT.aci",
    description=(
        "Writes the uncompressed image byte for byte as it was fetched; the sha512 of the file is the image ID. It is "
        "rebuilt from the unpacked files, each of which is compared with what was fetched: a file that has changed "
        "since is named, and nothing is written."
    ),
    flags=(Flag(name="overwrite", kind=BOOL, default=False, help="replace the output file"),),
    run=_run,
    completes="image",
    examples=(("rkt image export example.com/hello hello.aci", "write the image to hello.aci"),),
)

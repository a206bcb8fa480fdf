# SPDX-License-Identifier: Apache-2.0
"""``rkt image verify``: is a stored image as it was fetched (spec cli §2.23)."""

from __future__ import annotations

from rkt.cli.command import Command, Invocation
from rkt.cli.output import message, printable, write
from rkt.cli.parse import FlagError
from rkt.errors import EXIT_FAILURE


def _run(invocation: Invocation) -> int:
    from rkt.image.export import verify_image
    from rkt.store.cas import Store

    if not invocation.words:
        raise FlagError("at least one image is expected")
    store = Store(invocation.settings.data_dir)
    status = 0
    for image in invocation.words:
        key = store.resolve(image)
        differences = verify_image(store, key)
        if not differences:
            write(printable(f'successfully verified checksum for image: "{image}" ("{key}")\n'))
            continue
        status = EXIT_FAILURE
        write(printable(f'verification failed for image: "{image}" ("{key}")\n'))
        for difference in differences:
            write(f"  {difference}\n")
        count = f"{len(differences)} difference{'' if len(differences) == 1 else 's'}"
        message(invocation.settings, f"{image}: {count} to what was fetched")
        message(invocation.settings, f"hint: rkt image rm {key.medium}, then fetch it again")
    return status


COMMAND = Command(
    name="image verify",
    summary="compare stored images with what was fetched",
    usage="IMAGE…",
    description=(
        "Reads every file of the images and compares content, type, mode, owner, link target, modification time and "
        "extended attributes with what was fetched; files that are missing or that nobody put there count too. Each "
        "difference is printed with the file's name. The exit status is 254 when there is one."
    ),
    run=_run,
    completes="image",
    examples=(("rkt image verify example.com/hello", "check one image"),),
)

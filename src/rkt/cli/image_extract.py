# SPDX-License-Identifier: Apache-2.0
"""``rkt image extract``: an image's files as a directory (spec cli §2.20)."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag, Invocation
from rkt.cli.parse import FlagError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Flags that ``image render`` has too.
FLAGS = (
    Flag(
        name="rootfs-only",
        kind=BOOL,
        default=False,
        help="make the directory the root file system itself, without the manifest",
    ),
    Flag(name="overwrite", kind=BOOL, default=False, help="replace the output directory"),
)


def write_files(invocation: Invocation, write: Callable[..., None]) -> int:
    """Resolve the image named first and let ``write`` put its files into the directory named second."""
    from rkt.store.cas import Store

    if len(invocation.words) != 2:
        raise FlagError("an image and an output directory are expected")
    image, output_path = invocation.words
    store = Store(invocation.settings.data_dir)
    write(
        store,
        store.resolve(image),
        output_path,
        rootfs_only=invocation.values["rootfs-only"],
        overwrite=invocation.values["overwrite"],
    )
    return 0


def _run(invocation: Invocation) -> int:
    from rkt.image.export import extract_image

    return write_files(invocation, extract_image)


COMMAND = Command(
    name="image extract",
    summary="write the files of a stored image to a directory",
    usage="[--rootfs-only] [--overwrite] IMAGE DIR",
    description=(
        "Copies the image's manifest and root file system to a directory, without its dependencies. The directory may "
        "be entered by its owner only, since images have setuid programs; with --rootfs-only it gets the mode that the "
        "image says."
    ),
    flags=FLAGS,
    run=_run,
    completes="image",
    examples=(("rkt image extract --rootfs-only example.com/hello root", "the root file system as ./root"),),
)

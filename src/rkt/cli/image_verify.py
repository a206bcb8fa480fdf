# SPDX-License-Identifier: Apache-2.0
"""``rkt image verify``: is a stored image as it was fetched (spec cli §2.23)."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag, Invocation
from rkt.cli.output import message, write
from rkt.cli.parse import FlagError
from rkt.cli.pod_flags import report
from rkt.errors import EXIT_FAILURE, RktError, StoreError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.store.cas import Store
    from rkt.values import ImageKey


def _run(invocation: Invocation) -> int:
    from rkt.store.cas import Store

    if not invocation.words:
        raise FlagError("at least one image is expected")
    settings = invocation.settings
    store = Store(settings.data_dir)
    repair = invocation.values["repair"]
    status = 0
    for image in invocation.words:
        key = store.resolve(image)
        good = _layer(store, image, key, settings, repair=repair)
        good = _trees(store, image, key, settings, repair=repair) and good
        if good:
            write(printable(f'successfully verified checksum for image: "{image}" ("{key}")\n'))
        else:
            status = EXIT_FAILURE
    return status


def _layer(store: Store, image: str, key: ImageKey, settings: Settings, *, repair: bool) -> bool:
    """Whether the image's own layer is, or is again, as it was fetched."""
    from rkt.image.export import verify_image

    record = store.get(key)
    try:
        lines = [str(difference) for difference in verify_image(store, key)]
    except StoreError as e:
        if not repair:
            raise
        lines = [e.message]
    if not lines:
        return True
    write(printable(f'verification failed for image: "{image}" ("{key}")\n'))
    for line in lines:
        write(f"  {line}\n")
    count = f"{len(lines)} difference{'' if len(lines) == 1 else 's'}"
    message(settings, f"{image}: {count} to what was fetched")
    if not repair:
        message(settings, f"hint: rkt image verify --repair {key.medium}, or rkt image rm and fetch it again")
        return False
    from rkt.store.repair import repair_image

    try:
        repair_image(store, record, settings)
    except RktError as e:
        report(settings, e)
        return False
    write(printable(f'repaired image: "{image}" ("{key}")\n'))
    return not verify_image(store, key)


def _trees(store: Store, image: str, key: ImageKey, settings: Settings, *, repair: bool) -> bool:
    """Whether the trees that have files of the image are, or are again, as they were rendered."""
    from rkt.store.trees import damaged_trees

    good = True
    for name in damaged_trees(store, key):
        verb = "rebuilding..." if repair else "rkt image verify --repair rebuilds it"
        write(printable(f"tree cache verification failed for image {image}: {name};  {verb}\n"))
        if not repair:
            good = False
            continue
        from rkt.store.repair import repair_tree

        try:
            if not repair_tree(store, name):
                message(settings, f"no pod needs {name}, so it was removed")
        except RktError as e:
            report(settings, e)
            good = False
    return good


COMMAND = Command(
    name="image verify",
    summary="compare stored images with what was fetched",
    usage="[--repair] IMAGE…",
    description=(
        "Reads every file of the images and compares content, type, mode, owner, link target, modification time and "
        "extended attributes with what was fetched; files that are missing or that nobody put there count too. Each "
        "difference is printed with the file's name. Trees that were rendered of the images are compared with what was "
        "rendered. The exit status is 254 when there is a difference.\n\n"
        "With --repair a damaged image is fetched again from where it came from, and replaced if what comes is the same "
        "image and is trusted; the exit status is 254 only when something could not be repaired."
    ),
    flags=(
        Flag(
            name="repair",
            kind=BOOL,
            default=False,
            help="fetch damaged images again from where they came from, render damaged trees again",
        ),
    ),
    run=_run,
    completes="image",
    examples=(("rkt image verify example.com/hello", "check one image"),),
)

# SPDX-License-Identifier: Apache-2.0
"""``rkt image gc``: remove what no pod needs and nobody used for long (spec cli §2.18)."""

from __future__ import annotations

from rkt.cli.command import DURATION, Command, Flag
from rkt.cli.output import message, write
from rkt.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.config.settings import Settings
    from rkt.values import ImageKey


def run(invocation: Invocation) -> int:
    """Collect; what could not be removed is only reported, so that one bad file does not stop the rest."""
    import time

    from rkt.store import gc
    from rkt.store.cas import Store
    from rkt.store.layout import setup_data_dir

    if invocation.words:
        raise UsageError(f"image gc takes no argument, got {invocation.words[0]!r}")
    settings = invocation.settings
    setup_data_dir(settings.data_dir)
    grace_ns = int(invocation.values["grace-period"] * 10**9)
    outcome = gc.collect(
        Store(settings.data_dir),
        unused_since_ns=time.time_ns() - grace_ns,
        protected=_default_stage1(settings),
    )
    for key in outcome.layers:
        message(settings, f'removed treestore "{key}"')
    for key in outcome.images:
        write(f'successfully removed aci for image: "{key}"\n')
    if outcome.images:
        message(settings, f"{len(outcome.images)} image(s) successfully removed")
    for problem in outcome.problems:
        message(settings, problem)
    return 0


def _default_stage1(settings: Settings) -> set[ImageKey]:
    """The stage1 images of the installation: the next pod would only import them again."""
    from rkt.errors import RktError
    from rkt.stage0.stage1 import built_in_images

    try:
        images, _ = built_in_images(settings)
    except RktError:
        return set()
    return {image.image_id.key for image in images.values()}


COMMAND = Command(
    name="image gc",
    summary="remove images that were not used for long, and files that no pod needs any more",
    description=(
        "Removes what killed commands left behind, files of removed images that no pod refers to any more, and images "
        "that were not used within the grace period, unless a pod that runs or may run needs them."
    ),
    flags=(
        Flag(
            name="grace-period",
            kind=DURATION,
            default=24 * 3600.0,
            help="keep images that were used within this time",
            metavar="DURATION",
        ),
    ),
    needs_root=True,
    run=run,
)

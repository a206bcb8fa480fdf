# SPDX-License-Identifier: Apache-2.0
"""``rkt image gc``: remove what no pod needs and nobody used for long (spec cli §2.18)."""

from __future__ import annotations

import os

from rkt.cli.command import BOOL, DURATION, Command, Flag
from rkt.cli.output import message, write
from rkt.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Collect; what could not be removed is only reported, so that one bad file does not stop the rest."""
    import time

    from rkt.stage0.keep import honour_removals, stage1_keys
    from rkt.store import gc
    from rkt.store.cas import Store
    from rkt.store.layout import setup_data_dir
    from rkt.store.pending_gc import collect_spool

    settings = invocation.settings
    if os.geteuid() != 0:
        # Of members too, in rkt's words.
        raise HostError(
            f"cannot collect below {settings.data_dir}: permission denied", hint="sudo rkt image gc"
        )
    dry_run = invocation.values["dry-run"]
    setup_data_dir(settings.data_dir)
    store = Store(settings.data_dir)
    removed = honour_removals(settings, store, dry_run=dry_run)
    spool_problems = [] if dry_run else collect_spool(store)
    outcome = gc.collect(
        store,
        unused_since_ns=time.time_ns() - int(invocation.values["grace-period"] * 10**9),
        protected=stage1_keys(settings, store),
        dry_run=dry_run,
    )
    for name in outcome.layers:
        message(settings, f'{"would remove" if dry_run else "removed"} treestore "{name}"')
    images = list(dict.fromkeys([*removed, *outcome.images]))
    for key in images:
        write(f'{"would remove" if dry_run else "successfully removed"} aci for image: "{key}"\n')
    if images and not dry_run:
        message(settings, f"{len(images)} image(s) successfully removed")
    for problem in spool_problems + outcome.problems:
        message(settings, problem)
    return 0


COMMAND = Command(
    name="image gc",
    summary="remove images that were not used for long, and files that no pod needs any more",
    description=(
        "Removes what killed commands left behind, files of removed images that no pod refers to any more, and images "
        "that were not used within the grace period, unless a pod that runs or may run needs them. What a pod needs "
        "includes what its images depend on. The stage1 images of the installation and the configured one stay; built-in "
        "ones of earlier versions go like any other image.\n\n"
        "Of what members of the group rkt fetched it removes what root has by now, what is older than 30 days, and what is "
        "over their share; what members removed goes whatever its age, unless a pod needs it."
    ),
    flags=(
        Flag(name="dry-run", kind=BOOL, default=False, help="only say what would be removed"),
        Flag(
            name="grace-period",
            kind=DURATION,
            default=24 * 3600.0,
            help="keep images that were used within this time",
            metavar="DURATION",
        ),
    ),
    run=run,
)

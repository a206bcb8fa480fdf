# SPDX-License-Identifier: Apache-2.0
"""``rkt gc``: take away pods that ended, and whatever killed commands left (spec cli §2.13)."""

from __future__ import annotations

from rkt.cli.command import BOOL, DURATION, Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Collect; what could not be removed is reported, and the status stays 0 as in rkt."""
    from rkt.stage0.gc import collect

    values = invocation.values
    collect(
        invocation.settings,
        grace_seconds=values["grace-period"],
        expire_seconds=values["expire-prepared"],
        mark_only=values["mark-only"],
    )
    return 0


COMMAND = Command(
    name="gc",
    summary="remove pods that ended",
    description=(
        "Marks pods that ended, deletes those marked for longer than the grace period, drops prepared pods that nobody "
        "ran, and takes away what killed commands left in the data directory and among trusted keys and rules. Running pods are "
        "never touched."
    ),
    run=run,
    flags=(
        Flag(
            name="expire-prepared",
            kind=DURATION,
            default=86400.0,
            help="age after which a prepared pod is dropped",
            metavar="DURATION",
        ),
        Flag(
            name="grace-period",
            kind=DURATION,
            default=1800.0,
            help="least time between marking and deleting a pod",
            metavar="DURATION",
        ),
        Flag(name="mark-only", kind=BOOL, default=False, help="only mark pods that ended"),
    ),
    needs_root=True,
    examples=(("rkt gc --grace-period=0", "delete everything that ended, now"),),
)

# SPDX-License-Identifier: Apache-2.0
"""``rkt app list``: the apps of a pod and their states (spec cli §2.25)."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.format_flag import FORMAT_FLAG
from rkt.cli.pod_flags import one_pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """A line for each app; without apps and legend an empty one, as in rkt."""
    from rkt.cli.output import print_json, write
    from rkt.pod import status

    with one_pod(invocation) as pod:
        apps = status.examine(pod).apps
    if invocation.values["format"]:
        pretty = invocation.values["format"] == "json-pretty"
        print_json([status.app_json(app) for app in apps], pretty=pretty)
        return 0
    lines = [] if invocation.values["no-legend"] else ["NAME\tSTATE"]
    lines += [f"{app.name}\t{app.state}" for app in apps]
    write("\n".join(lines) + "\n")
    return 0


COMMAND = Command(
    name="app list",
    summary="list the apps of a pod",
    usage="UUID",
    description=(
        "One line per app: its name, a tab, its state. That is unknown, created, running or exited; apps of a pod that "
        "does not change share the pod's."
    ),
    run=run,
    flags=(
        FORMAT_FLAG,
        Flag(name="no-legend", kind=BOOL, default=False, help="leave out the line of column names"),
    ),
    completes="pod",
)

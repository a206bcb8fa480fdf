# SPDX-License-Identifier: Apache-2.0
"""``rkt pause``: freeze the processes of running pods; beyond rkt."""

from __future__ import annotations

from rkt.cli.command import Command
from rkt.cli.pod_flags import UUID_FILE_FLAG, for_each_pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.pod.lifecycle import Pod


def run(invocation: Invocation) -> int:
    """One pod after the other; one that is refused does not keep the others."""
    from rkt.cli.output import write
    from rkt.pod.pause import pause

    def act(pod: Pod) -> None:
        write(f'"{pod.uuid}"\n' if pause(pod) else f'pod "{pod.uuid}" is already paused\n')

    return for_each_pod(invocation, act, failed="failed to pause {} pod(s)")


COMMAND = Command(
    name="pause",
    summary="freeze the processes of running pods",
    usage="UUID…",
    description=(
        "Every process of the pod stands still, with all its memory, until rkt unpause. The state of a paused "
        "pod is still running; status shows paused=true, JSON has a member paused. rkt enter is refused, rkt "
        "stop lets the apps go on after it has sent its signals."
    ),
    run=run,
    flags=(UUID_FILE_FLAG,),
    needs_root=True,
    completes="pod",
)

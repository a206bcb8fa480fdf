# SPDX-License-Identifier: Apache-2.0
"""``rkt unpause``: let paused pods go on; beyond rkt."""

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
    from rkt.pod.pause import unpause

    def act(pod: Pod) -> None:
        write(f'"{pod.uuid}"\n' if unpause(pod) else f'pod "{pod.uuid}" is not paused\n')

    return for_each_pod(invocation, act, failed="failed to unpause {} pod(s)")


COMMAND = Command(
    name="unpause",
    summary="let paused pods go on",
    usage="UUID…",
    description=("Undoes rkt pause."),
    run=run,
    flags=(UUID_FILE_FLAG,),
    needs_root=True,
    completes="pod",
)

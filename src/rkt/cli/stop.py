# SPDX-License-Identifier: Apache-2.0
"""``rkt stop``: end running pods (spec cli §2.11)."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.pod_flags import UUID_FILE_FLAG, for_each_pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.pod.lifecycle import Pod


def run(invocation: Invocation) -> int:
    """Stop each pod; one that cannot be stopped does not keep the others."""
    from rkt.cli.output import write
    from rkt.stage0.stop import stop

    def act(pod: Pod) -> None:
        stopped = stop(invocation.settings, pod, force=invocation.values["force"])
        write(f'"{pod.uuid}"\n' if stopped else f'pod "{pod.uuid}" is already stopped\n')

    return for_each_pod(invocation, act, failed="failed to stop {} pod(s)")


COMMAND = Command(
    name="stop",
    summary="stop running pods",
    usage="[--force] UUID…",
    description=(
        "Asks the apps of each pod to end, waits as long as they have to, then kills what is left. With --force they "
        "are killed at once. Prints the UUID of each pod that was stopped."
    ),
    run=run,
    flags=(Flag(name="force", kind=BOOL, default=False, help="kill instead of asking"), UUID_FILE_FLAG),
    completes="pod",
)

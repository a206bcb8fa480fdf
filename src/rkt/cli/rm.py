# SPDX-License-Identifier: Apache-2.0
"""``rkt rm``: delete pods that do not run (spec cli §2.12)."""

from __future__ import annotations

from rkt.cli.command import Command
from rkt.cli.pod_flags import UUID_FILE_FLAG, for_each_pod
from rkt.errors import PodError, reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.pod.lifecycle import Pod


def run(invocation: Invocation) -> int:
    """Remove each pod; one that cannot be removed does not keep the others."""
    from rkt.cli.output import write
    from rkt.stage0.gc import remove

    def act(pod: Pod) -> None:
        try:
            remove(invocation.settings, pod)
        except OSError as e:
            from rkt.linux.disk import remedy

            hint = remedy(e.errno) or "rkt gc --grace-period=0, which goes on with it"
            raise PodError(f'unable to remove pod "{pod.uuid}": {reason_of(e)}', hint=hint) from e
        write(f'"{pod.uuid}"\n')

    return for_each_pod(invocation, act, failed="failed to remove one or more pods")


COMMAND = Command(
    name="rm",
    summary="delete pods that do not run",
    usage="UUID…",
    description="Deletes pods at once, without gc's grace period, and prints their UUIDs. Running pods are refused.",
    run=run,
    flags=(UUID_FILE_FLAG,),
    needs_root=True,
    completes="pod",
)

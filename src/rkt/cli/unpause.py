# SPDX-License-Identifier: Apache-2.0
"""``rkt unpause``: let paused pods go on; beyond rkt."""

from __future__ import annotations

from rkt.cli.command import Command
from rkt.cli.pod_flags import UUID_FILE_FLAG, each_pod, report
from rkt.errors import PodError, RktError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """One pod after the other; one that is refused does not keep the others."""
    from rkt.cli.output import write
    from rkt.pod.pause import unpause

    failures = 0
    for _, pod in each_pod(invocation):
        if pod is None:
            failures += 1
            continue
        try:
            changed = unpause(pod)
        except RktError as e:
            report(invocation.settings, e)
            failures += 1
            continue
        write(f'"{pod.uuid}"\n' if changed else f'pod "{pod.uuid}" is not paused\n')
    if failures:
        raise PodError(f"failed to unpause {failures} pod(s)")
    return 0


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

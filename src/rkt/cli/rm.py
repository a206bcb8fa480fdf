# SPDX-License-Identifier: Apache-2.0
"""``rkt rm``: delete pods that do not run (spec cli §2.12)."""

from __future__ import annotations

from rkt.cli.command import Command
from rkt.cli.pod_flags import UUID_FILE_FLAG, each_pod, report
from rkt.errors import PodError, RktError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Remove each pod; one that cannot be removed does not keep the others."""
    from rkt.cli.output import write
    from rkt.stage0.gc import remove

    settings = invocation.settings
    failures = 0
    for _, pod in each_pod(invocation):
        if pod is None:
            failures += 1
            continue
        try:
            remove(settings, pod)
        except RktError as e:
            report(settings, e)
            failures += 1
        except OSError as e:
            report(settings, PodError(f'unable to remove pod "{pod.uuid}": {e.strerror} ({e.filename})'))
            failures += 1
        else:
            write(f'"{pod.uuid}"\n')
    if failures:
        raise PodError("failed to remove one or more pods")
    return 0


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

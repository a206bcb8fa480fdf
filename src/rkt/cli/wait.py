# SPDX-License-Identifier: Apache-2.0
"""``rkt wait``: wait for pods to end and print their exit statuses; beyond rkt."""

from __future__ import annotations

from rkt.cli.command import BOOL, DURATION, Command, Flag
from rkt.cli.pod_flags import UUID_FILE_FLAG, each_pod, report
from rkt.errors import PodError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Print a status for each pod in the order given; with one pod, end with its status."""
    import time

    from rkt.cli.output import write
    from rkt.pod import status
    from rkt.schema.duration import render_duration

    settings = invocation.settings
    limit = invocation.values["timeout"]
    deadline = time.monotonic() + limit if limit else None
    codes: list[int] = []
    failures = 0
    for _, pod in each_pod(invocation):
        if pod is None:
            failures += 1
            continue
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if invocation.values["ready"]:
            if status.wait_until(
                pod, lambda p: status.is_up(p) or status.has_ended(p), left
            ) and status.is_up(pod):
                write(f"{pod.uuid}\n")
                continue
            gone = not pod.refresh() or status.has_ended(pod)
            reason = "ended before it was ready" if gone else f"was not ready within {render_duration(limit)}"
            report(settings, PodError(f'pod "{pod.uuid}" {reason}'))
            failures += 1
            continue
        if not status.wait_until(pod, status.has_ended, left):
            gone = not pod.refresh()
            reason = (
                "was removed while waiting for it" if gone else f"did not end within {render_duration(limit)}"
            )
            report(settings, PodError(f'pod "{pod.uuid}" {reason}'))
            failures += 1
            continue
        code = status.pod_exit_code(pod)
        if code is None:
            reason = (
                "its stage1 records none"
                if "statuses" in status.not_enforced(pod)
                else "it was killed or never ran"
            )
            report(settings, PodError(f'pod "{pod.uuid}" left no exit status: {reason}'))
            code = status.UNKNOWN_STATUS
        codes.append(code)
        write(f"{code}\n")
    if failures:
        raise PodError(f"failed to wait for {failures} pod(s)")
    return codes[0] if len(codes) == 1 else 0


COMMAND = Command(
    name="wait",
    summary="wait for pods to end, or to be ready",
    usage="[--ready] [--timeout=DURATION] UUID…",
    description=(
        "Waits until each pod is over and prints its exit status: that of the first app that failed, 0 if none did. "
        "With one pod the command ends with that status; with several it ends with 0. With --ready it waits "
        "until each pod is up instead and every app of it that has a readiness probe is ready, prints its UUID, and fails for "
        "one that ended before."
    ),
    run=run,
    flags=(
        Flag(name="ready", kind=BOOL, default=False, help="wait for pods to be ready instead of over"),
        Flag(
            name="timeout",
            kind=DURATION,
            default=0.0,
            help="longest time to wait for all of them; 0 for no limit",
            metavar="DURATION",
        ),
        UUID_FILE_FLAG,
    ),
    completes="pod",
)

# SPDX-License-Identifier: Apache-2.0
"""Ask stage1 to stop a pod (spec runtime §1.5)."""

from __future__ import annotations

from rkt.errors import PodError, Stage1Error
from rkt.pod import status
from rkt.stage0 import contract
from rkt.stage0.entrypoint import run_entrypoint
from rkt.stage0.stage1 import program_root, read_program
from rkt.store.cas import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.pod.lifecycle import Pod

#: Longer than any stop time an app may have by default.
_TIMEOUT_SECONDS = 300.0
#: How long a pod may take from its start until it can be asked to stop.
_READY_SECONDS = 10.0
#: How long a pid of the last run may be there when a pod is started again.
_LEFT_SECONDS = 0.5


def stop(settings: Settings, pod: Pod, *, force: bool) -> bool:
    """Stop a running pod.

    Args:
        settings: of the running command.
        pod: to stop.
        force: kill instead of asking.
    Returns:
        Whether there was something to stop; false for a pod that is over already.
    Raises:
        PodError: the pod does not run yet.
        Stage1Error: stage1 cannot, or did not.
    """
    if pod.is_exited:
        return False
    if not pod.is_running:
        raise PodError(f'pod "{pod.uuid}" is not running', hint=f"rkt status {pod.uuid.short}")
    if not status.is_ready(pod):
        # It was started a moment ago, and nobody listens yet; or its first process is gone and others go on (quirk 7).
        seconds = _READY_SECONDS if status.supervisor_pid(pod) is None else _LEFT_SECONDS
        status.wait_until(pod, lambda now: status.is_ready(now) or not now.is_running, seconds)
        if not pod.is_running:
            return True
    program = read_program(pod)
    if not program.has(contract.ANNOTATION_STOP):
        raise Stage1Error("rkt stop not implemented for pod's stage1", hint="end the rkt process of the pod")
    entrypoint = program.entrypoint(contract.ANNOTATION_STOP)
    code = run_entrypoint(
        f"{program_root(pod, Store(settings.data_dir))}/{entrypoint}",
        [*(["--force"] if force else []), pod.uuid],
        pod.path,
        timeout_seconds=_TIMEOUT_SECONDS,
        quiet_stdout=False,
    )
    # The pod may have ended by itself while it was being asked to (C7).
    if code != 0 and pod.refresh() and pod.is_running:
        hint = "" if force else f"rkt stop --force {pod.uuid.short}"
        raise Stage1Error(f'stage1 failed to stop pod "{pod.uuid}": status {code}', hint=hint)
    return True

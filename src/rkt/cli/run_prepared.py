# SPDX-License-Identifier: Apache-2.0
"""``rkt run-prepared``: become a pod that was prepared before (spec cli §2.3)."""

from __future__ import annotations

from rkt.cli.command import Command
from rkt.cli.pod_flags import PREPARE_FLAGS, RUN_FLAGS, one_pod, run_options
from rkt.errors import HostError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Does not return on success: the process becomes the pod."""
    from rkt.pod import status
    from rkt.stage0 import contract, roots
    from rkt.stage0.prepare import check_before
    from rkt.stage0.run import run as become
    from rkt.stage0.run import take_prepared

    settings = invocation.settings
    options = run_options(invocation)
    pod = one_pod(invocation)
    take_prepared(pod)
    if options.interactive and len(status.read_summary(pod).apps) > 1:
        raise UsageError("interactive option only supports pods with one app")
    if pod.has(contract.OVERLAY_PREPARED) and (reason := roots.overlay_unsupported(settings.data_dir)):
        raise HostError(f"unable to run prepared overlay-enabled pod: overlay not supported: {reason}")
    check_before(pod, settings, options)
    become(pod, settings, options)


COMMAND = Command(
    name="run-prepared",
    summary="run a prepared pod",
    usage="UUID",
    description=(
        "Becomes a pod that rkt prepare made, named by UUID, an unambiguous prefix of it, or the pod's name.\n\n"
        "Whether its images are still trusted is checked again; the images may have left the store meanwhile."
    ),
    run=run,
    flags=RUN_FLAGS,
    other_flags=PREPARE_FLAGS,
    other_hint="that is for rkt prepare: it was decided when the pod was made",
    needs_root=True,
    completes="pod",
)

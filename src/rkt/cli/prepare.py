# SPDX-License-Identifier: Apache-2.0
"""``rkt prepare``: make a pod to be run later (spec cli §2.2)."""

from __future__ import annotations

from rkt.cli.app_args import ALL_APP_FLAGS
from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.pod_flags import PREPARE_FLAGS, RUN_FLAGS, pod_request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Prepare, then print the UUID: it stands on disk by then."""
    from rkt.cli.output import write
    from rkt.stage0.prepare import finish, prepare
    from rkt.stage0.stage1 import choose

    request = pod_request(invocation)
    pod = prepare(request, choose(invocation.values), invocation.settings, sync=True)
    finish(pod)
    write(f"{pod.uuid}\n")
    return 0


COMMAND = Command(
    name="prepare",
    summary="prepare a pod to run it later",
    usage="[--volume=VOLUME…] [--mount=MOUNT…] IMAGE [--name=APP…] [-- ARG… [---]]…",
    description=(
        "Does everything that run does short of starting the pod, and prints the pod's UUID, for run-prepared. "
        "rkt help run says how images and their options are written.\n\n"
        "Protections that --insecure-options switches off are recorded and stay off for this pod only."
    ),
    run=run,
    flags=(
        *PREPARE_FLAGS,
        Flag(name="quiet", kind=BOOL, default=False, help="print nothing but the UUID on standard output"),
    ),
    app_flags=ALL_APP_FLAGS,
    other_flags=RUN_FLAGS,
    other_hint="that is for rkt run-prepared",
    needs_root=True,
    completes="image",
    examples=(("rkt run-prepared $(rkt prepare example.com/web)", "prepare and run in two steps"),),
)

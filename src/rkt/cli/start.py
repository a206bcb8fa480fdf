# SPDX-License-Identifier: Apache-2.0
"""``rkt start``: become a pod that is over once more; beyond rkt."""

from __future__ import annotations

from rkt.cli.command import Command
from rkt.cli.pod_flags import RUN_FLAGS, UUID_FILE_FLAG, one_pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Does not return on success: the process becomes the pod."""
    from rkt.stage0.start import start

    start(invocation.settings, one_pod(invocation), interactive=invocation.values["interactive"])


COMMAND = Command(
    name="start",
    summary="run a pod again that is over",
    usage="[--interactive] UUID",
    description=(
        "Becomes a pod that has ended, was stopped or was killed, marked by gc or not: the same UUID, name and manifest, "
        "the files as its apps left them, and the network, host name and DNS it was run with. Its logs go on. Whether its "
        "images are still trusted is checked again.\n\n"
        "As rkt run it stays in the foreground and ends with the pod's status. Apps read no input unless --interactive "
        "is given this time.\n\n"
        "A pod of rkt app sandbox comes back with its apps added and none started: that is rkt app start."
    ),
    run=run,
    flags=(*(flag for flag in RUN_FLAGS if flag.name == "interactive"), UUID_FILE_FLAG),
    needs_root=True,
    completes="pod",
    examples=(("rkt start shop", "run a pod again, by its name"),),
)

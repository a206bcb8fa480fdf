# SPDX-License-Identifier: Apache-2.0
"""``rkt app rm``: remove an app from a pod (spec cli §2.25)."""

from __future__ import annotations

from rkt.cli.app_flag import APP_FLAG, pod_and_app
from rkt.cli.command import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """One app of one pod."""
    from rkt.stage0.live import remove

    pod, app = pod_and_app(invocation, "remove")
    with pod:
        remove(invocation.settings, pod, app)
    return 0


COMMAND = Command(
    name="app rm",
    summary="remove an app from a pod",
    usage="UUID --app=APP",
    description=(
        "Stops the app if it runs and removes all that is its own: files, log, status and its part of the pod manifest. "
        "Works on a pod that is over, too."
    ),
    run=run,
    flags=(APP_FLAG,),
    needs_root=True,
    completes="pod",
)

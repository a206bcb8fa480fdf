# SPDX-License-Identifier: Apache-2.0
"""``rkt app stop``: stop an app of a live pod (spec cli §2.25)."""

from __future__ import annotations

from rkt.cli.app_flag import APP_FLAG, pod_and_app
from rkt.cli.command import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """One app of one pod."""
    from rkt.stage0.live import stop

    pod, app = pod_and_app(invocation, "stop")
    with pod:
        if not stop(invocation.settings, pod, app):
            from rkt.cli.output import write

            write(f'pod "{pod.uuid}" is already stopped\n')
    return 0


COMMAND = Command(
    name="app stop",
    summary="stop an app of a live pod",
    usage="UUID --app=APP",
    description=(
        "Sends SIGTERM to the app, after its stop time SIGKILL, and returns when it has ended. The pod and its other apps go "
        "on. An app that SIGTERM ends has done what it was told and has status 0."
    ),
    run=run,
    flags=(APP_FLAG,),
    needs_root=True,
    completes="pod",
)

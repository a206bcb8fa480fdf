# SPDX-License-Identifier: Apache-2.0
"""``rkt app start``: start an app of a live pod (spec cli §2.25)."""

from __future__ import annotations

from rkt.cli.app_flag import APP_FLAG, pod_and_app
from rkt.cli.command import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """One app of one pod."""
    from rkt.stage0.live import start

    pod, app = pod_and_app(invocation, "start")
    with pod:
        start(invocation.settings, pod, app)
    return 0


COMMAND = Command(
    name="app start",
    summary="start an app of a live pod",
    usage="UUID --app=APP",
    description=(
        "Starts an app that was added, or starts it again when it has ended. Its image is held against today's policy first. "
        "An app that runs is left alone."
    ),
    run=run,
    flags=(APP_FLAG,),
    needs_root=True,
    completes="pod",
)

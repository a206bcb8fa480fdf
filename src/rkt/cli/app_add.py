# SPDX-License-Identifier: Apache-2.0
"""``rkt app add``: add an app to a live pod (spec cli §2.25)."""

from __future__ import annotations

from rkt.cli.app_args import ADDED_APP_FLAGS
from rkt.cli.command import Command
from rkt.cli.pod_flags import LOCKED_FLAG
from rkt.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Add, and do not start."""
    from rkt.pod import lifecycle
    from rkt.pod.request import AppRequest
    from rkt.stage0.live import add

    hint = f"rkt app add {COMMAND.usage}"
    if not invocation.apps:
        raise UsageError("must provide the pod UUID", hint=hint)
    pod_word, *images = invocation.apps
    if invocation.mounts or pod_word != AppRequest(reference=pod_word.reference):
        raise UsageError("flags of the app must follow its image", hint=hint)
    if len(images) != 1:
        raise UsageError("must give only one app" if images else "must give an app", hint=hint)
    with lifecycle.find(invocation.settings.pods_dir, pod_word.reference) as pod:
        add(invocation.settings, pod, images[0], locked=invocation.values["locked"])
    return 0


COMMAND = Command(
    name="app add",
    summary="add an app to a live pod",
    usage="UUID IMAGE [--name=APP…] [-- ARG…]",
    description=(
        "Adds an app of an image that is in the store to a running pod that rkt app sandbox made. The image's verdict is "
        "held against today's policy. The app is not started: that is rkt app start."
    ),
    run=run,
    flags=(LOCKED_FLAG,),
    app_flags=ADDED_APP_FLAGS,
    needs_root=True,
    completes="pod",
    examples=(
        ("rkt app add 5bc080ca example.com/web --name=web", "add an app, under a name"),
        (
            "rkt app add web example.com/db --mount=volume=data,target=/var/lib/db",
            "to the pod named web, with a volume that the pod was started with",
        ),
        (
            "rkt app add web example.com/job --mnt-volume=name=in,kind=host,source=/srv/in,readOnly=true,target=/in",
            "with a volume of its own, which goes with it",
        ),
    ),
)

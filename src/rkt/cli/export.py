# SPDX-License-Identifier: Apache-2.0
"""``rkt export``: an exited pod's app as an image (spec cli §2.14)."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag
from rkt.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Write the file; nothing is printed."""
    from rkt.pod import lifecycle
    from rkt.stage0.enter import choose_app
    from rkt.stage0.export import export

    if len(invocation.words) != 2:
        raise UsageError("a pod and an output file are expected", hint=f"rkt export {COMMAND.usage}")
    settings = invocation.settings
    with lifecycle.find(settings.pods_dir, invocation.words[0]) as pod:
        app = choose_app(pod, invocation.values["app"], "export")
        export(settings, pod, app, invocation.words[1], overwrite=invocation.values["overwrite"])
    return 0


COMMAND = Command(
    name="export",
    summary="write an exited pod's app as an image",
    usage="[--app=APP] [--overwrite] UUID OUTPUT.aci",
    description=(
        "Writes the app's root file system as the pod left it, with the manifest of the image it came from, as a "
        "gzip compressed ACI. The pod must be over; it stays as it is."
    ),
    run=run,
    flags=(
        Flag(name="app", default="", help="name of the app, where the pod has several", metavar="APP"),
        Flag(name="overwrite", kind=BOOL, default=False, help="replace an existing file"),
    ),
    completes="pod",
    examples=(("rkt export 5bc080ca web.aci", "keep what a pod changed"),),
)

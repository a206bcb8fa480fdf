# SPDX-License-Identifier: Apache-2.0
"""What the commands about one app of one pod share."""

from __future__ import annotations

from rkt.cli.command import Flag
from rkt.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.pod.lifecycle import Pod

APP_FLAG = Flag(name="app", default="", help="name of the app", metavar="APP")


def pod_and_app(invocation: Invocation, verb: str) -> tuple[Pod, str]:
    """The pod that the only word names, opened, and the app.

    Raises:
        UsageError, NotFound, Ambiguous: it cannot be told.
    """
    from rkt.pod import lifecycle
    from rkt.values import ACName

    hint = f"rkt {invocation.command.name} {invocation.command.usage}"
    if len(invocation.words) != 1:
        raise UsageError("must provide the pod UUID", hint=hint)
    if not invocation.values["app"]:
        raise UsageError(f"must provide the app to {verb}", hint=hint)
    app = ACName.parse(invocation.values["app"], what="app name")
    return lifecycle.find(invocation.settings.pods_dir, invocation.words[0]), str(app)

# SPDX-License-Identifier: Apache-2.0
"""``rkt update``: change the limits of a running app; beyond rkt."""

from __future__ import annotations

from rkt.cli.app_args import APP_FLAGS, read_flags
from rkt.cli.command import Command, Flag
from rkt.cli.pod_flags import UUID_FILE_FLAG, one_pod
from rkt.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation

_LIMITS = ("cpu", "cpu-shares", "cpuset-cpus", "io-weight", "memory", "pids-limit")


def run(invocation: Invocation) -> int:
    """All limits or none."""
    from rkt.stage0.enter import choose_app
    from rkt.stage0.live import update

    given = {name: invocation.values[name] for name in _LIMITS if name in invocation.given}
    if not given:
        names = ", ".join(f"--{name}" for name in _LIMITS)
        raise UsageError("no limit is given", hint=f"one or more of {names}")
    flags = read_flags(given)
    with one_pod(invocation) as pod:
        app = choose_app(pod, invocation.values["app"], "update")
        update(invocation.settings, pod, app, flags)
    return 0


COMMAND = Command(
    name="update",
    summary="change the limits of a running app",
    usage="[--app=APP] --LIMIT=VALUE… UUID",
    description=(
        "Sets limits of an app while it runs, as the flags of that name of rkt run do at its start; limits that are not "
        "named stay. Either all of them are set, or none: a memory limit below what is in use is refused, as is what the "
        "host has no controller for. The pod manifest is changed too, so that they hold when the app or the pod is "
        "started again."
    ),
    run=run,
    flags=(
        Flag(name="app", default="", help="name of the app, where the pod has several", metavar="APP"),
        *(APP_FLAGS[name].replace(default="") for name in _LIMITS),
        UUID_FILE_FLAG,
    ),
    needs_root=True,
    completes="pod",
    examples=(("rkt update --memory=512M --cpu=2 5bc080ca", "more memory and two CPUs"),),
)

# SPDX-License-Identifier: Apache-2.0
"""``rkt enter``: start a program inside a running app, or beside the apps of a pod (spec cli §2.10)."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.pod_flags import UUID_FILE_FLAG, read_uuid_file
from rkt.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Does not return on success: the process becomes the program. Also of ``rkt app exec``, which is the same."""
    from rkt.pod import lifecycle
    from rkt.stage0.enter import check_running, choose_app, enter, enter_pod

    settings = invocation.settings
    words = invocation.words
    path = invocation.values["uuid-file"]
    if path:
        words = [read_uuid_file(path), *words]
    if not words:
        raise UsageError(
            "must provide the pod UUID", hint=f"rkt {invocation.command.name} {invocation.command.usage}"
        )
    into_pod = invocation.values.get("pod", False)
    if into_pod and invocation.values["app"]:
        raise UsageError("--pod and --app exclude each other")
    pod = lifecycle.find(settings.pods_dir, words[0])
    check_running(pod)
    command = words[1:]
    if command[:1] == ["--"]:
        command = command[1:]
    if into_pod:
        enter_pod(settings, pod, command)
    app = choose_app(pod, invocation.values["app"], invocation.command.name)
    enter(settings, pod, app, command)


COMMAND = Command(
    name="enter",
    summary="start a program inside a running app",
    usage="[--app=APP|--pod] UUID [CMD [ARG…]]",
    description=(
        "Runs a command, a shell by default, confined like the app: the same namespaces, cgroup, capabilities, system "
        "call filter, user and environment. Ends with the command's status.\n\n"
        "With --pod the command runs in the pod's own root instead, as the pod's root user, beside what runs the apps: where "
        "a pod is run by systemd, that is the place for systemctl and journalctl. It has the rights of the pod's systemd, "
        "which are more than any app's."
    ),
    run=run,
    flags=(
        Flag(name="app", default="", help="name of the app, where the pod has several", metavar="APP"),
        Flag(
            name="pod",
            kind=BOOL,
            default=False,
            help="enter the pod's own root, of flavors that have one (nspawn)",
        ),
        UUID_FILE_FLAG,
    ),
    needs_root=True,
    tail=True,
    completes="pod",
    examples=(
        ("rkt enter --app=web 5bc080ca /bin/sh", "a shell in one of several apps"),
        ("rkt enter --pod 5bc080ca systemctl status", "the units of a pod that systemd runs"),
    ),
)

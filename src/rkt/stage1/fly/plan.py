# SPDX-License-Identifier: Apache-2.0
"""What the only app of a pod becomes: everything that rkt itself may, less what was asked to be taken away."""

from __future__ import annotations

from rkt.errors import Stage1Error
from rkt.schema.mounts import pair_mounts
from rkt.stage1.common.exec_plan import build_exec_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.pod import LoadedPod, PodApp
    from rkt.stage2.exec import ExecPlan

#: Where the environment of the app is kept, below stage1's root: ``NAME=VALUE`` and a zero byte each.
ENVIRONMENT = "rkt/env"


def only_app(pod: LoadedPod) -> PodApp:
    """The app of a pod that has one.

    Raises:
        Stage1Error: it has another number of apps.
    """
    if len(pod.apps) != 1:
        names = ", ".join(app.name for app in pod.apps) or "none"
        raise Stage1Error(
            f"fly only supports 1 application per pod, this one has {len(pod.apps)}: {names}",
            hint="run each in a pod of its own, or choose another stage1",
        )
    return pod.apps[0]


def check(pod: LoadedPod, app: PodApp, arguments: RunArguments) -> None:
    """Refuse what this flavour cannot do, before anything is made.

    Raises:
        Stage1Error: naming it.
    """
    if arguments.networks not in ([], ["host"]):
        raise Stage1Error(
            f"fly pods have the host's network, not {','.join(arguments.networks)}", hint="--net=host"
        )
    for given, what, flag in (
        (arguments.private_users, "user namespace", "--private-users"),
        (arguments.hostname, "host name", "--hostname"),
        (arguments.mutable, "apps that come later", "rkt app sandbox"),
        (arguments.ipc == "private", "IPC namespace", "--ipc=private"),
    ):
        if given:
            raise Stage1Error(f"fly pods have no {what} of their own", hint=f"leave {flag} out")
    _check_volumes(pod, app)


def _check_volumes(pod: LoadedPod, app: PodApp) -> None:
    """No volume is made up where the host's files are meant, and none is mounted twice (spec runtime §3.13)."""
    seen: dict[str, str] = {}
    for wanted in pair_mounts(app.runtime, app.app, pod.manifest, recursive_default=False):
        if wanted.implicit:
            point = str(wanted.name).removeprefix(f"{app.name}-")
            raise Stage1Error(
                f"missing volume for mountpoint {point!r}, {wanted.path} of app {app.name}",
                hint=f"--volume={point},kind=host,source=PATH",
            )
        if wanted.directory in seen:
            raise Stage1Error(
                f"volume {str(wanted.name)!r} is mounted twice, on {seen[wanted.directory]} and {wanted.path}",
                hint="give the second mount a volume of its own",
            )
        seen[wanted.directory] = wanted.path


def build(
    app: PodApp,
    root_fd: int,
    arguments: RunArguments,
    *,
    argv: Sequence[str] | None = None,
    entering: bool = False,
) -> ExecPlan:
    """As ``build_exec_plan``, without default confinement: an agent of the host mounts, traces, and changes the network."""
    return build_exec_plan(app, root_fd, arguments, argv=argv, entering=entering, confined=False)


def encode_environment(environment: dict[bytes, bytes]) -> bytes:
    """The file that ``decode_environment`` reads; values may have line feeds."""
    return b"".join(name + b"=" + value + b"\0" for name, value in environment.items())


def decode_environment(data: bytes) -> dict[bytes, bytes]:
    """The environment of an app as it was when it started."""
    found = {}
    for entry in data.split(b"\0"):
        name, separator, value = entry.partition(b"=")
        if separator:
            found[name] = value
    return found

# SPDX-License-Identifier: Apache-2.0
"""What a stage1 does not enforce, by its own word (docs/stage1-contract.md); imported for those that say something.

What the operator asked for is refused; what only an image asks for is lost, and said. Both are found when the pod is made,
and kept in the pod for whoever looks at it later or runs it again.
"""

from __future__ import annotations

from rkt.errors import Stage1Error, UsageError
from rkt.schema import isolators
from rkt.schema.appc import ANNOTATION_LOG_MODE, ANNOTATION_STREAMS
from rkt.stage0 import contract
from rkt.stage0.messages import tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.config.settings import Settings
    from rkt.pod.lifecycle import Pod
    from rkt.schema.appc import App, ImageManifest, PodManifest, RuntimeApp
    from rkt.stage0.run import RunOptions
    from rkt.stage0.stage1 import Program

#: The pod has the host's network; likewise for the other namespaces.
NETWORK = "network"
HOSTNAME = "hostname"
IPC = "ipc"
USERS = "users"
#: No more than one app can be in the pod.
SEVERAL_APPS = "several-apps"
#: An app that asks for nothing is as free as rkt itself: no default capabilities, filter, no_new_privs, masks, devices.
CONFINEMENT = "confinement"
EVENT_HANDLERS = "event-handlers"
SYSCTLS = "sysctls"
#: What the app says is not kept.
LOGS = "logs"
#: What is the host's, as people call it, in the order in which it is told.
_OF_HOST = {
    NETWORK: "network",
    "processes": "processes",
    IPC: "IPC",
    HOSTNAME: "host name",
    USERS: "users",
    "devices": "devices",
}
#: Isolators, each with its word and what it is called.
_ISOLATORS = {
    isolators.MEMORY: ("memory", "a memory limit", "--memory"),
    isolators.CPU: ("cpu", "a CPU limit", "--cpu"),
    isolators.CPU_SHARES: ("cpu", "CPU shares", "--cpu-shares"),
    isolators.CPUSET_CPUS: ("cpu", "a set of CPUs", "--cpuset-cpus"),
    isolators.PIDS: ("pids", "a limit of processes", "--pids-limit"),
    isolators.IO_LIMITS: ("io", "limits of IO", "--io-limit"),
    isolators.IO_WEIGHT: ("io", "an IO weight", "--io-weight"),
    isolators.BLOCK_BANDWIDTH: ("io", "a limit of bandwidth", "the isolator"),
    isolators.BLOCK_IOPS: ("io", "a limit of operations", "the isolator"),
    isolators.SYSCTL: (SYSCTLS, "kernel parameters", "--sysctl"),
    isolators.CAPABILITIES_RETAIN: ("capabilities", "a set of capabilities", "--caps-retain"),
    isolators.CAPABILITIES_REMOVE: ("capabilities", "capabilities taken away", "--caps-remove"),
    isolators.SECCOMP_RETAIN: ("seccomp", "a system call filter", "--seccomp"),
    isolators.SECCOMP_REMOVE: ("seccomp", "a system call filter", "--seccomp"),
    isolators.NO_NEW_PRIVILEGES: ("no-new-privileges", "no_new_privs", "--no-new-privileges"),
    isolators.RLIMITS: ("rlimits", "limits of its process", "--ulimit"),
    isolators.OOM_SCORE_ADJ: ("oom-score", "an OOM score", "--oom-score-adj"),
}
_HOST = ["host"]


def settle(program: Program, options: RunOptions) -> RunOptions:
    """The options of a run as this stage1 can have them.

    Raises:
        UsageError: one was asked for and cannot be had.
    """
    words = program.not_enforced
    is_elsewhere = options.networks != _HOST and not options.usual_networks
    for word, is_asked, what, flag, hint in (
        (NETWORK, is_elsewhere, "network", f"--net={','.join(options.networks)}", "--net=host"),
        (HOSTNAME, bool(options.hostname), "host name", f"--hostname={options.hostname}", ""),
        (IPC, options.ipc == "private", "IPC namespace", "--ipc=private", ""),
    ):
        if word in words and is_asked:
            raise UsageError(
                f"a pod of {program.name} has no {what} of its own: {flag} cannot be",
                hint=hint or f"leave {flag.partition('=')[0]} out",
            )
    return options.replace(networks=_HOST) if NETWORK in words else options


def check_pod(
    program: Program, manifest: PodManifest, images: Sequence[ImageManifest], *, private_users: bool
) -> list[str]:
    """Refuse what the operator asks for and this stage1 does not enforce.

    Args:
        program: the stage1.
        manifest: of the pod to be.
        images: manifests of the images of its apps, in order.
        private_users: whether it is to have a user namespace.
    Returns:
        a sentence on each wish of an image that is lost.
    Raises:
        Stage1Error: naming what it is.
    """
    words = program.not_enforced
    if private_users and USERS in words:
        raise Stage1Error(
            f"a pod of {program.name} has no users of its own", hint="leave --private-users out"
        )
    if len(manifest.apps) > 1 and SEVERAL_APPS in words:
        names = ", ".join(str(app.name) for app in manifest.apps)
        raise Stage1Error(
            f"a pod of {program.name} has one app, this one would have {len(manifest.apps)}: {names}",
            hint="run each in a pod of its own",
        )
    if LOGS in words and ANNOTATION_LOG_MODE in manifest.annotations:
        raise Stage1Error(
            f"the pod is to have logs ({ANNOTATION_LOG_MODE}), which {program.name} does not keep",
            hint="leave the annotation out",
        )
    for isolator in manifest.isolators:
        word, what, flag = _ISOLATORS.get(isolator.name, ("", "", ""))
        if word in words:
            raise Stage1Error(
                f"the pod is to have {what} ({isolator.name}), which {program.name} does not enforce",
                hint=f"leave {flag} out",
            )
    return check_apps(program, manifest.apps, images)


def check_apps(program: Program, apps: Sequence[RuntimeApp], images: Sequence[ImageManifest]) -> list[str]:
    """The same for some apps and their images."""
    words = program.not_enforced
    lost = []
    for runtime, image in zip(apps, images, strict=True):
        for stream in ("stdout", "stderr") if LOGS in words else ():
            if runtime.annotations.get(f"{ANNOTATION_STREAMS}{stream}") == "log":
                raise Stage1Error(
                    f"app {str(runtime.name)!r} is to have its {stream} logged, which {program.name} does not do",
                    hint=f"leave --{stream} out",
                )
        app = runtime.app or image.app
        if app is not None:
            lost += _lost(program, str(runtime.name), app, image)
    return lost


def _lost(program: Program, name: str, app: App, image: ImageManifest) -> list[str]:
    words = program.not_enforced
    own = image.app.isolators if image.app is not None else []
    own = [*own, *isolators.tighten(own, lambda names: names)[0]]
    found: dict[str, None] = {}
    for isolator in app.isolators:
        word, what, flag = _ISOLATORS.get(isolator.name, ("", "", ""))
        if word not in words:
            continue
        if isolator not in own:
            raise Stage1Error(
                f"app {name!r} is to have {what} ({isolator.name}), which {program.name} does not enforce",
                hint=f"leave {flag} out",
            )
        found[what] = None
    if app.event_handlers and EVENT_HANDLERS in words:
        found["event handlers"] = None
    if not found:
        return []
    return [f"the image of app {name!r} asks for {' and '.join(found)}: not with {program.name}"]


def record(pod: Pod, program: Program, lost: Sequence[str]) -> None:
    """Write down what is not enforced for a pod that is being made."""
    lines = [",".join(program.not_enforced), *lost]
    pod.write(contract.NOT_ENFORCED, "".join(f"{line}\n" for line in lines).encode())


def announce(settings: Settings, pod: Pod, program: Program) -> None:
    """Say it once for each run: in general where the app is not confined, and what of its image's wishes is lost."""
    words = program.not_enforced
    if CONFINEMENT in words:
        things = [text for word, text in _OF_HOST.items() if word in words]
        shared = f"{', '.join(things[:-1])} and {things[-1]}" if len(things) > 1 else "".join(things)
        has = f"the host's {shared}, and " if things else ""
        tell(settings, f"warning: {program.name} does not confine its app: it has {has}all of rkt's rights")
    for line in (pod.read_text(contract.NOT_ENFORCED) or "").split("\n")[1:]:
        tell(settings, f"warning: {line}")

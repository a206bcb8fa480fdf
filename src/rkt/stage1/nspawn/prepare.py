# SPDX-License-Identifier: Apache-2.0
"""What the child does before it becomes systemd-nspawn: the pod's root, the apps' roots, their units and FIFOs.

A child of its own, because it changes whose the files are that it makes, is in the pod's namespaces for networks and IPC,
and is gone afterwards with everything it needed. It mounts in the supervisor's mount namespace, from which mounts reach the
pod also when it runs.
"""

from __future__ import annotations

import os

from rkt.schema.appc import EVENT_POST_STOP, EVENT_PRE_START
from rkt.stage1.common.arguments import ids_of
from rkt.stage1.common.exec_plan import build_exec_plan
from rkt.stage1.common.say import say
from rkt.stage1.nspawn import command, root, units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.linux.userns import UserNamespace
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.pod import LoadedPod, PodApp
    from rkt.stage1.common.volumes import Volumes
    from rkt.stage2.exec import ExecPlan

_HANDLERS = (EVENT_PRE_START, EVENT_POST_STOP)
_PREFIX = "os/linux/seccomp-"


def prepare(
    pod: LoadedPod, arguments: RunArguments, volumes: Volumes, program: str, notify_socket: str
) -> tuple[list[str], dict[str, str]]:
    """Make everything; the caller is a child in the pod's network and IPC namespaces and in its cgroup.

    Args:
        pod: with the apps that are to be there from the start.
        arguments: of ``run``.
        volumes: of these apps.
        program: systemd-nspawn.
        notify_socket: what it is to notify.
    Returns:
        the command's words and environment.
    Raises:
        RktError, OSError: something is refused.
    """
    pod_path = os.getcwdb()
    users = open_users(arguments)
    features = units.Features.of_host()
    root.make_root(arguments)
    write_units(units.pod_units(arguments, features))
    kept = 0
    for app in pod.apps:
        kept |= prepare_app(pod, app, arguments, volumes, features, pod_path, users)
        os.chdir(pod_path)
    words = command.build_arguments(program, os.fsdecode(pod_path) + f"/{root.POD_ROOT}", arguments, kept)
    if arguments.debug:
        say(" ".join(words))
    unfiltered = arguments.disable_seccomp or any(
        each.name.startswith(_PREFIX) for app in pod.apps for each in app.app.isolators
    )
    return words, command.build_environment(arguments, notify_socket, unfiltered=unfiltered)


def open_users(arguments: RunArguments) -> UserNamespace | None:
    """A user namespace with the pod's ids for mounts; what is made from here on belongs to the pod's root."""
    ids = ids_of(arguments)
    if ids is None:
        return None
    from rkt.linux import userns

    users = userns.UserNamespace.create(ids)
    userns.assume_owner(ids.first)
    return users


def prepare_app(
    pod: LoadedPod,
    app: PodApp,
    arguments: RunArguments,
    volumes: Volumes,
    features: units.Features,
    pod_path: bytes,
    users: UserNamespace | None,
) -> int:
    """One app's root, units and FIFOs.

    Returns:
        mask of the capabilities that the app may have.
    """
    root_fd = root.make_app_root(app, arguments, pod_path, volumes.of(app.name), users)
    execute = build_exec_plan(app, root_fd, arguments)
    handlers: dict[str, ExecPlan] = {}
    programs: dict[str, bytes] = {}
    for name in _HANDLERS:
        if name in app.app.event_handlers:
            handlers[name] = build_exec_plan(
                app, root_fd, arguments, argv=app.app.event_handlers[name], as_root=True
            )
            programs[name], _ = units.find_program(root_fd, handlers[name])
    if handlers and arguments.debug:
        say(f"{app.name}: handlers {', '.join(handlers)}")
    found, _ = units.find_program(root_fd, execute)
    unit = units.AppUnit(
        app=app,
        execute=execute,
        handlers=handlers,
        program=found,
        handler_programs=programs,
        root=f"/{root.APPS}/{app.name}/rootfs".encode(),
        stdin="null",
        stdout=f"file:/rkt/streams/{app.name}-stdout",
        stderr=f"file:/rkt/streams/{app.name}-stderr",
        devices=volumes.devices(app.name),
        stop_signal=units.stop_signal(app),
    )
    os.chdir(pod_path)
    written = units.app_units(unit, pod, arguments, features)
    write_units(written)
    if arguments.debug:
        for name, content in written.items():
            if name.endswith(".service") and isinstance(content, bytes):
                for line in content.decode(errors="replace").splitlines():
                    say(f"{name}: {line}")
    uid, gid = execute.uid, execute.gid
    if users is not None:
        uid, gid = users.ids.outside(uid), users.ids.outside(gid)
    for stream in ("stdout", "stderr"):
        path = f"{root.STREAMS}/{app.name}-{stream}"
        os.mkfifo(path, 0o200)
        os.chown(path, uid, gid)
    os.close(root_fd)
    return execute.capabilities


def write_units(content: dict[str, bytes | str]) -> None:
    """Write what ``units`` gives: files, and links, by names relative to the directory of units."""
    for name, value in content.items():
        path = os.path.normpath(f"{root.UNITS}/{name}")
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        if isinstance(value, str):
            os.symlink(value, path)
            continue
        is_secret = path.startswith(f"{root.SHARED}/env/")
        fd = os.open(
            path,
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600 if is_secret else 0o644,
        )
        try:
            os.write(fd, value)
        finally:
            os.close(fd)

# SPDX-License-Identifier: Apache-2.0
"""What the child does before it becomes systemd-nspawn: the pod's root, the apps' roots, their units and FIFOs.

A child of its own, because it changes whose the files are that it makes, is in the pod's namespaces for networks and IPC,
and is gone afterwards with everything it needed. It mounts in the supervisor's mount namespace, from which mounts reach the
pod also when it runs.
"""

from __future__ import annotations

import os

from rkt.errors import Stage1Error, quoted
from rkt.linux import files, libc
from rkt.schema.appc import EVENT_POST_STOP, EVENT_PRE_START
from rkt.schema.record import Record
from rkt.stage1.common.arguments import ids_of
from rkt.stage1.common.exec_plan import build_exec_plan, pod_filter
from rkt.stage1.common.say import say
from rkt.stage1.nspawn import command, programs, root, units
from rkt.stage1.nspawn.places import Places, fifo_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.linux.listening import Listening
    from rkt.linux.userns import UserNamespace
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.pod import LoadedPod, PodApp
    from rkt.stage1.common.volumes import Volumes
    from rkt.stage2.exec import ExecPlan

_HANDLERS = (EVENT_PRE_START, EVENT_POST_STOP)


class Launch(Record):
    """An app that is to be started, planned before anything of the pod runs.

    Attributes:
        app: the app.
        execute: what its process becomes.
        handlers: its event handlers by name, likewise.
    """

    app: PodApp
    execute: ExecPlan
    handlers: dict[str, ExecPlan]


def plan_app(pod: LoadedPod, app: PodApp, arguments: RunArguments) -> Launch:
    """Look what an app's processes are to become.

    Raises:
        Stage1Error: that cannot be had.
    """
    root_fd = os.open(app.rootfs_path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        execute = build_exec_plan(app, root_fd, arguments)
        handlers = {
            name: build_exec_plan(app, root_fd, arguments, argv=app.app.event_handlers[name], as_root=True)
            for name in _HANDLERS
            if name in app.app.event_handlers
        }
    finally:
        os.close(root_fd)
    if Places(app, arguments).tty:
        # As the other flavours have it; systemd would say vt220.
        default = os.environb.get(b"TERM", b"vt100") if arguments.interactive else b"xterm"
        execute.environment.setdefault(b"TERM", default)
    if "LISTEN_FDS" in os.environ:
        from rkt.stage1.common import activation

        activation.give(pod, app, execute)
        if execute.sockets:
            # systemd counts them, and for the app's program only.
            del execute.environment[b"LISTEN_FDS"]
        if arguments.mutable and len(execute.sockets) > 1:
            raise Stage1Error(
                f"app {quoted(app.name)} declares {len(execute.sockets)} of the sockets that were passed: "
                "with the flavour nspawn an app that comes later can have one"
            )
    return Launch(app=app, execute=execute, handlers=handlers)


def prepare(
    pod: LoadedPod,
    launches: Sequence[Launch],
    arguments: RunArguments,
    volumes: Volumes,
    program: str,
    notify_socket: str,
    held: list[list[Listening]],
) -> tuple[list[str], dict[str, str]]:
    """Make everything; the caller is a child in the pod's network and IPC namespaces and in its cgroup.

    Args:
        pod: the pod.
        launches: the apps that are to be there from the start.
        arguments: of ``run``.
        volumes: of these apps.
        program: systemd-nspawn.
        notify_socket: what it is to notify.
        held: sockets of the host's service manager (``sockets.hold``).
    Returns:
        the command's words and environment.
    Raises:
        RktError, OSError: something is refused.
    """
    pod_path = os.getcwdb()
    users = open_users(arguments)
    root.make_root(arguments)
    write_accounts(launches)
    write_units(units.pod_units())
    if held:
        from rkt.stage1.nspawn import sockets

        write_units(sockets.unit_files(held))
    kept = 0
    for launch in launches:
        prepare_app(pod, launch, arguments, volumes, pod_path, users)
        kept |= launch.execute.capabilities
    words = command.build_arguments(program, os.fsdecode(pod_path) + f"/{root.POD_ROOT}", arguments, kept)
    if arguments.debug:
        say(" ".join(words))
    seccomp = pod_filter(pod, arguments)
    if seccomp:
        # Of everything in the pod; nspawn's own filter, which would refuse more than apps may be given, is left out.
        libc.seccomp_load(seccomp)
    environment = command.build_environment(arguments, notify_socket)
    if held:
        environment |= sockets.give(held)
    return words, environment


def open_users(arguments: RunArguments) -> UserNamespace | None:
    """A user namespace with the pod's ids for mounts; what is made from here on belongs to the pod's root."""
    ids = ids_of(arguments)
    if ids is None:
        return None
    from rkt.linux import userns

    users = userns.UserNamespace.create(ids)
    userns.assume_owner(ids.first)
    return users


def _check_directory(root_fd: int, name: str, path: bytes) -> None:
    """Refuse a working directory that is not in the root: systemd would follow a link into /proc, and out of the root by that.

    What becomes of it later is seen by ``witness``.
    """
    try:
        os.close(libc.openat2(root_fd, path, os.O_PATH | os.O_DIRECTORY, libc.RESOLVE_IN_ROOT))
    except OSError as e:
        raise Stage1Error(
            f"app {name!r}: working directory {os.fsdecode(path)}: {os.strerror(e.errno or 0)}"
        ) from e


def prepare_app(
    pod: LoadedPod,
    launch: Launch,
    arguments: RunArguments,
    volumes: Volumes,
    pod_path: bytes,
    users: UserNamespace | None,
    base: str = root.POD_ROOT,
) -> None:
    """One app's root, below ``base``, units and FIFOs."""
    app, execute = launch.app, launch.execute
    root_fd = root.make_app_root(app, arguments, pod_path, volumes.of(app.name), users, base)
    os.chdir(pod_path)
    _check_directory(root_fd, app.name, execute.working_directory)
    places = Places(app, arguments)
    unit = units.AppUnit(
        app=app,
        execute=execute,
        handlers=launch.handlers,
        program=programs.find_program(root_fd, execute)[0],
        handler_programs={
            name: programs.find_program(root_fd, plan)[0] for name, plan in launch.handlers.items()
        },
        root=f"/{root.APPS}/{app.name}/rootfs".encode(),
        stdin=places.stdin,
        stdout=places.stdout,
        stderr=places.stderr,
        tty=places.tty,
        devices=volumes.devices(app.name),
    )
    os.close(root_fd)
    written = units.app_units(unit, pod, arguments)
    write_units(written)
    for name in units.left_out(execute):
        say(f"app {app.name!r}: systemd gives no app a variable {name!r}")
    if arguments.debug:
        for line in bytes(written[units.unit_name(app.name)]).decode(errors="replace").splitlines():  # type: ignore[arg-type]
            say(f"{app.name}: {line}")
    uid, gid = execute.uid, execute.gid
    if users is not None:
        uid, gid = users.ids.outside(uid), users.ids.outside(gid)
    fifos = [(f"{root.STREAMS}/{app.name}-{stream}", 0o200) for stream in ("stdout", "stderr")]
    if places.has_fifo:
        fifos.append((fifo_path(app.name), 0o400))
    for path, mode in fifos:
        os.mkfifo(path, mode)
        os.chown(path, uid, gid)


def write_accounts(launches: Sequence[Launch]) -> None:
    """Names of all ids that the apps have, in the pod's own ``/etc``."""
    plans = [plan for launch in launches for plan in (launch.execute, *launch.handlers.values())]
    for name, content in zip(("passwd", "group"), units.accounts(plans), strict=True):
        files.replace_file(f"{root.POD_ROOT}/etc/{name}", content, 0o644, sync=False)


def write_units(content: dict[str, bytes | str]) -> None:
    """Write what ``units`` gives: files, and links, by names relative to the directory of units."""
    for name, value in content.items():
        path = os.path.normpath(f"{root.UNITS}/{name}")
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        if isinstance(value, str):
            os.symlink(value, path)
        else:
            is_secret = path.startswith(f"{root.SHARED}/env/")
            files.replace_file(path, value, 0o600 if is_secret else 0o644, sync=False)

# SPDX-License-Identifier: Apache-2.0
"""The ``run`` entrypoint: namespaces for networks and IPC, cgroups, then systemd-nspawn, then the apps' units.

Order: mount namespace, the engine's own files, volumes, cgroups, network and IPC namespaces, networks, systemd-nspawn with
everything that it needs made before it starts, systemd in the pod, its units, the files that stage0 waits for. Working
directory is the pod directory; stage0's lock descriptor stays open until the end. Why a supervisor stays and nspawn is its
child: docs/adr/0014.
"""

from __future__ import annotations

import os

from rkt.errors import Stage1Error
from rkt.linux import cgroupfs, libc, mount
from rkt.schema import appc
from rkt.schema.limits import NAMESPACE_IPC, NAMESPACE_NET
from rkt.stage0 import contract
from rkt.stage1.common import control, limits, own_files
from rkt.stage1.common.announce import announce, notify_ready
from rkt.stage1.common.arguments import ids_of, parse_run, save_run
from rkt.stage1.common.groups import INIT_GROUP
from rkt.stage1.common.isolation import PodNamespaces
from rkt.stage1.common.pod import load_pod
from rkt.stage1.common.say import say
from rkt.stage1.common.volumes import Volumes
from rkt.stage1.nspawn import command, root, scope
from rkt.stage1.nspawn.machine import Machine
from rkt.stage1.nspawn.prepare import plan_app, prepare
from rkt.stage1.nspawn.supervisor import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from rkt.linux.cgroup import Group
    from rkt.linux.listening import Listening
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.networks import Networks
    from rkt.stage1.common.pod import LoadedPod, PodApp
    from rkt.stage1.nspawn.prepare import Launch
    from rkt.stage1.nspawn.streams import UnitStreams

#: systemd's own hierarchy of version 1: in it, too, the pod's systemd must be below the pod's group.
_NAMED = "name=systemd"
_CONTROLLERS = ("memory", "pids", "cpu", "cpuset", "io")


def main(argv: list[str]) -> int:
    """Run the pod; returns its exit status.

    Raises:
        RktError, OSError: the pod could not be started; what was made has been taken back.
    """
    os.umask(0)
    arguments = parse_run(argv)
    lock_fd = int(os.environ[contract.ENV_LOCK_FD])
    # The lock says "alive": it is ours until we end, and no child's.
    libc.close_range(3, 0xFFFFFFFF, libc.CLOSE_RANGE_CLOEXEC)
    os.fstat(lock_fd)
    pod = load_pod()
    if not pod.apps and not arguments.mutable:
        raise Stage1Error("pod must contain at least one application")
    program = command.find_nspawn()
    networks = own_files.find_networks(arguments, lock_fd)
    held: list[list[Listening]] = []
    if "LISTEN_FDS" in os.environ:
        from rkt.stage1.nspawn import sockets

        held = sockets.hold(pod, is_mutable=arguments.mutable)
    if limits.has_sysctls(pod):
        from rkt.stage1.common import sysctls

        sysctls.check(pod, arguments)
    save_run(argv)
    mount.enter_own_namespace()
    own_files.make_own_files(arguments)
    root.make_shared()
    # Before anything is made: a source that is missing or not to be trusted ends the pod here.
    volumes = Volumes(pod, ids_of(arguments), say)
    server = control.listen()
    try:
        host = cgroupfs.detect()
        if scope.enter(host, arguments.uuid, say, debug=arguments.debug):
            host = cgroupfs.detect()
        groups = limits.create_groups(host, pod, arguments, say, devices=volumes.devices(), also=(_NAMED,))
        if arguments.debug:
            for warning in groups.warnings:
                say(warning)
        try:
            return _supervise(pod, arguments, groups, volumes, server, networks, program, held)
        finally:
            if networks is not None:
                networks.release()
            groups.remove()
    finally:
        own_files.take_leave(arguments, server)


def _supervise(
    pod: LoadedPod,
    arguments: RunArguments,
    groups: Group,
    volumes: Volumes,
    server: _socket.socket,
    networks: Networks | None,
    program: str,
    held: list[list[Listening]],
) -> int:
    flags = 0
    if "host" not in arguments.networks:
        flags |= libc.CLONE_NEWNET
    if arguments.ipc != "parent":
        flags |= libc.CLONE_NEWIPC

    def thaw() -> None:
        if os.path.exists(contract.PAUSED):
            from rkt.linux import cgroup_freezer

            cgroup_freezer.thaw(groups)

    terminal = None
    if arguments.interactive:
        from rkt.stage1.common.interactive import open_terminal

        terminal = open_terminal(pod)

    def make_streams(app: PodApp) -> UnitStreams | None:
        if not arguments.interactive and not appc.has_streams(app.runtime.annotations):
            return None
        from rkt.stage1.nspawn.streams import UnitStreams

        return UnitStreams(pod, app, arguments, terminal)

    kind: type[Supervisor] = Supervisor
    if arguments.mutable:
        from rkt.stage1.nspawn.live import LiveSupervisor

        kind = LiveSupervisor
    supervisor = kind(
        server,
        status_directory=f"{contract.STAGE1_ROOTFS}/{contract.STATUS_DIR}",
        report=say,
        thaw=thaw,
        make_streams=make_streams,
        interactive=terminal,
    )
    if "WATCHDOG_USEC" in os.environ:
        from rkt.stage1.common.notify import Watchdog

        watchdog = Watchdog.from_environment()
        if watchdog is not None:
            supervisor.tickers.append(watchdog)
    shared = PodNamespaces(flags, b"", with_pids=False)
    try:
        try:
            if arguments.private_users and flags & libc.CLONE_NEWNET:
                _admit_low_ports()
            if networks is not None:
                arguments = own_files.attach_networks(networks, pod, arguments, shared.net_fd)
            if os.path.exists(contract.MDS_REGISTERED):
                from rkt.stage1.common import metadata

                arguments = metadata.reach(arguments, networks)
            if limits.has_sysctls(pod):
                from rkt.stage1.common import sysctls

                sysctls.write(pod, arguments, (NAMESPACE_NET, NAMESPACE_IPC))
            # Apps that a sandbox has from an earlier run are started when somebody says so.
            first = pod.replace(apps=[]) if arguments.mutable else pod
            launches = [plan_app(pod, app, arguments) for app in first.apps]
            own_groups = _app_groups(first, groups, volumes, arguments)
            machine = _start_machine(pod, launches, arguments, groups, volumes, program, held)
        finally:
            shared.leave()
        try:
            volumes.close()
            supervisor.able_to_launch(
                lambda live, app, others: _launch_alone(live, app, others, arguments, groups, shared)
            )
            os.makedirs(contract.LOGS, mode=0o750, exist_ok=True)
            ids = ids_of(arguments)
            if supervisor.boot(machine, arguments, 0 if ids is None else ids.first):
                if limits.has_sysctls(pod):
                    sysctls.write_uts(pod, arguments, machine.leader_pidfd)
                supervisor.start(list(zip(launches, own_groups, strict=True)))
                announce(machine.leader)
                notify_ready()
            return supervisor.run()
        except BaseException:
            supervisor.abandon(machine)
            raise
    finally:
        shared.close()


def _launch_alone(
    pod: LoadedPod,
    app: PodApp,
    others: list[Launch],
    arguments: RunArguments,
    groups: Group,
    shared: PodNamespaces,
) -> tuple[Launch, Group | None]:
    """Make one app ready while the pod runs, beside ``others``: its root, its unit, its FIFOs."""
    from rkt.stage1.nspawn.live import in_child, remove_files, take_back
    from rkt.stage1.nspawn.prepare import open_users, prepare_app, write_accounts

    launch = plan_app(pod, app, arguments)
    volumes = Volumes(pod.replace(apps=[app]), ids_of(arguments), say)
    group = None
    try:
        devices = None if arguments.disable_paths else volumes.devices()
        limits.make_room(groups, pod, devices or ())
        if _is_unified(groups):
            limits.check_app_limits(groups, app, say)
        else:
            group = limits.create_app_group(groups, pod, app, say, devices=devices)
        remove_files(app.name)

        def make() -> None:
            pod_path = os.getcwdb()
            users = open_users(arguments)
            write_accounts([*others, launch])
            # A mount takes its attributes along when it gets to the pod, but not those that it is given afterwards: so the
            # root is made beside, where nobody sees it.
            prepare_app(pod, launch, arguments, volumes, pod_path, users, base=root.SCAFFOLD)
            place = f"{root.POD_ROOT}/{root.APPS}/{app.name}/rootfs"
            os.makedirs(place, 0o755)
            mount.attach(mount.clone(f"{root.SCAFFOLD}/{root.APPS}/{app.name}/rootfs"), place)

        shared.enter()
        try:
            in_child(make)
        finally:
            shared.leave()
    except BaseException:
        if group is not None:
            group.remove()
        raise
    finally:
        volumes.close()
        take_back(app.name, base=root.SCAFFOLD)
    return launch, group


def _app_groups(
    pod: LoadedPod, groups: Group, volumes: Volumes, arguments: RunArguments
) -> list[Group | None]:
    """The apps' own cgroups, where limits are version 1's; in version 2 systemd makes them."""
    if _is_unified(groups):
        for app in pod.apps:
            limits.check_app_limits(groups, app, say)
        return [None] * len(pod.apps)
    found: list[Group | None] = []
    for app in pod.apps:
        # Where no app has devices of its own the pod's policy will do.
        own = volumes.devices(app.name) if volumes.devices() and not arguments.disable_paths else None
        found.append(limits.create_app_group(groups, pod, app, say, devices=own))
    return found


def _start_machine(
    pod: LoadedPod,
    launches: list[Launch],
    arguments: RunArguments,
    groups: Group,
    volumes: Volumes,
    program: str,
    held: list[list[Listening]],
) -> Machine:
    """Fork systemd-nspawn in the namespaces that the caller is in, and in a cgroup of its own."""
    controllers = [name for name in _CONTROLLERS if groups.has(name)] if _is_unified(groups) else []
    joiner = groups.child(INIT_GROUP, (_NAMED, *controllers)).joiner()
    try:
        return Machine(
            command.machine_name(arguments.uuid),
            lambda address: prepare(pod, launches, arguments, volumes, program, address, held),
            joiner,
            debug=arguments.debug,
        )
    finally:
        joiner.close()


def _admit_low_ports() -> None:
    """Let every process of the pod have every port.

    The network namespace is the host's root's, and nspawn makes the pod's user namespace after it: CAP_NET_BIND_SERVICE of
    the pod does not count there. Nobody but the pod is in this network.
    """
    try:
        fd = os.open("/proc/sys/net/ipv4/ip_unprivileged_port_start", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)


def _is_unified(groups: Group) -> bool:
    """Whether limits are version 2's."""
    found = groups.find("memory") or groups.find("pids")
    return found is not None and found[0] == 2

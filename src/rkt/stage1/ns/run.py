# SPDX-License-Identifier: Apache-2.0
"""The ``run`` entrypoint: isolation first, then supervision (spec runtime §1.5).

Order: mount namespace, the pod's own files, cgroups, pid 1 with the pod's namespaces, the apps' plans, the apps, the
files that stage0 waits for. Working directory is the pod directory; stage0's lock descriptor stays open until the end.
"""

from __future__ import annotations

import os

from rkt.errors import Stage1Error
from rkt.linux import cgroupfs, libc, mount
from rkt.schema import appc
from rkt.stage0 import contract
from rkt.stage1.common import control, limits, own_files
from rkt.stage1.common.announce import announce, notify_ready
from rkt.stage1.common.app_root import OWN_FILES
from rkt.stage1.common.arguments import ids_of, parse_run, save_run
from rkt.stage1.common.exec_plan import default_filter
from rkt.stage1.common.isolation import PodNamespaces
from rkt.stage1.common.pod import load_pod
from rkt.stage1.common.say import say
from rkt.stage1.common.volumes import Volumes
from rkt.stage1.ns.init import Init, open_reaper
from rkt.stage1.ns.launch import Launch
from rkt.stage1.ns.plan import build_app_plan
from rkt.stage1.ns.supervisor import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from rkt.linux.cgroup import Group, Joiner
    from rkt.linux.cgroupfs import Hierarchies
    from rkt.linux.userns import UserNamespace
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.interactive import Interactive
    from rkt.stage1.common.networks import Networks
    from rkt.stage1.common.pod import LoadedPod, PodApp
    from rkt.stage1.ns.app_state import App
    from rkt.stage1.ns.launch import PlanMaker
    from rkt.stage1.ns.plan import AppPlan
    from rkt.stage1.ns.probes import Prober


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
    networks = own_files.find_networks(arguments, lock_fd)
    if "LISTEN_FDS" in os.environ and not arguments.mutable:
        from rkt.stage1.common import activation

        activation.check(pod)
    if limits.has_sysctls(pod):
        from rkt.stage1.common import sysctls

        sysctls.check(pod, arguments)
    save_run(argv)
    mount.enter_own_namespace()
    own_files.make_own_files(arguments)
    # Before anything is made: a source that is missing or not to be trusted ends the pod here.
    volumes = Volumes(pod, ids_of(arguments), say)
    server = control.listen()
    try:
        host = cgroupfs.detect()
        groups = limits.create_groups(host, pod, arguments, say, devices=volumes.devices())
        if arguments.debug:
            for warning in groups.warnings:
                say(warning)
        is_unified = all(hierarchy.version == 2 for hierarchy in host)
        try:
            return _supervise(pod, arguments, host, groups, volumes, server, networks, is_unified=is_unified)
        finally:
            if networks is not None:
                networks.release()
            groups.remove()
    finally:
        own_files.take_leave(arguments, server)


def _supervise(
    pod: LoadedPod,
    arguments: RunArguments,
    host: Hierarchies,
    groups: Group,
    volumes: Volumes,
    server: _socket.socket,
    networks: Networks | None,
    *,
    is_unified: bool,
) -> int:
    flags = libc.CLONE_NEWUTS
    if "host" not in arguments.networks:
        flags |= libc.CLONE_NEWNET
    if arguments.ipc != "parent":
        flags |= libc.CLONE_NEWIPC
    stdin_fd = _standard_input(arguments)
    pod_path = os.getcwdb()
    own = pod_path + b"/" + OWN_FILES.encode()
    joiner = limits.create_init_group(groups, arguments).joiner()
    reaper_fd = open_reaper(f"{contract.STAGE1_ROOTFS}/reaper")
    shared, init, users = _isolate(
        arguments, flags, reaper_fd, own + b"/" + own_files.EMPTY_ROOT.encode(), joiner
    )
    joiner.close()
    os.close(reaper_fd)
    if networks is not None:
        arguments = _attach(networks, pod, arguments, shared, init)
    if os.path.exists(contract.MDS_REGISTERED):
        arguments = _reach_metadata(networks, arguments, shared, init)
    terminal = None
    if arguments.interactive:
        from rkt.stage1.common.interactive import open_terminal

        terminal = open_terminal(pod)
    status_directory = f"{contract.STAGE1_ROOTFS}/{contract.STATUS_DIR}"

    def thaw() -> None:
        if os.path.exists(contract.PAUSED):
            from rkt.linux import cgroup_freezer

            cgroup_freezer.thaw(groups)

    prober = _prober(pod, arguments, shared, users, status_directory)

    def set_limits(app: App, apps: list[App]) -> None:
        from rkt.stage1.common.update import update

        others = [each.launch.cgroup for each in apps if each is not app]
        update(host, groups, app.launch.cgroup, others, pid=app.pid, report=say)

    if arguments.mutable:
        from rkt.stage1.ns.live import LiveSupervisor

        supervisor: Supervisor = LiveSupervisor(
            init,
            shared,
            server,
            status_directory=status_directory,
            report=say,
            thaw=thaw,
            set_limits=set_limits,
        ).able_to_launch(
            lambda live, app: _launch_alone(
                live, app, arguments, groups, users, prober, is_unified=is_unified
            )
        )
    else:
        supervisor = Supervisor(
            init,
            shared,
            server,
            status_directory=status_directory,
            report=say,
            thaw=thaw,
            set_limits=set_limits,
            interactive=terminal,
            stdin_fd=stdin_fd,
        )
    if prober is not None:
        supervisor.probe_by(prober)
    if "WATCHDOG_USEC" in os.environ:
        from rkt.stage1.common.notify import Watchdog

        watchdog = Watchdog.from_environment()
        if watchdog is not None:
            supervisor.tickers.append(watchdog)
    try:
        try:
            if limits.has_sysctls(pod):
                from rkt.stage1.common import sysctls

                sysctls.write(pod, arguments)
            _start_apps(
                supervisor, pod, arguments, groups, volumes, terminal, users, prober, is_unified=is_unified
            )
        except BaseException:
            supervisor.finish()
            raise
        announce(init.pid)
        if prober is None:
            notify_ready()
        else:
            prober.when_ready(notify_ready)
        return supervisor.run()
    finally:
        shared.close()
        if users is not None:
            users.close()


def _isolate(
    arguments: RunArguments, flags: int, reaper_fd: int, empty_root: bytes, joiner: Joiner
) -> tuple[PodNamespaces, Init, UserNamespace | None]:
    """The pod's namespaces with its pid 1; a user namespace owns the others, so it must be there first."""
    hostname = own_files.hostname_of(arguments).encode()
    seccomp = b"" if arguments.disable_seccomp else default_filter()
    ids = ids_of(arguments)
    if ids is None:
        shared = PodNamespaces(flags, hostname)
        return shared, Init(reaper_fd, empty_root=empty_root, joiner=joiner, seccomp=seccomp), None
    from rkt.stage1.common.private_users import open_users

    flags |= libc.CLONE_NEWPID
    init = Init(reaper_fd, empty_root=empty_root, joiner=joiner, seccomp=seccomp, flags=flags, ids=ids)
    try:
        return PodNamespaces(flags, hostname, pid=init.pid), init, open_users(init.pid, ids)
    except BaseException:
        init.kill()
        init.wait()
        raise


def _start_apps(
    supervisor: Supervisor,
    pod: LoadedPod,
    arguments: RunArguments,
    groups: Group,
    volumes: Volumes,
    terminal: Interactive | None,
    users: UserNamespace | None,
    prober: Prober | None,
    *,
    is_unified: bool,
) -> None:
    """Plan every app, then start them all."""
    make_plan = _plan_maker(pod, arguments, volumes, terminal, users, prober, is_unified=is_unified)

    def make_group(app: PodApp) -> Group:
        # Where no app has devices of its own the pod's policy will do.
        own = volumes.devices(app.name) if volumes.devices() and not arguments.disable_paths else None
        return limits.create_app_group(groups, pod, app, say, devices=own)

    # Apps that a sandbox has from an earlier run are started when somebody says so.
    apps = [] if arguments.mutable else pod.apps
    launches = [Launch(app, make_group(app), make_plan) for app in apps]
    os.makedirs(contract.LOGS, mode=0o750, exist_ok=True)
    supervisor.start(launches)
    if not any(launch.has_more for launch in launches):
        volumes.close()


def _launch_alone(
    pod: LoadedPod,
    app: PodApp,
    arguments: RunArguments,
    groups: Group,
    users: UserNamespace | None,
    prober: Prober | None,
    *,
    is_unified: bool,
) -> tuple[Launch, Volumes]:
    """What starts one app while the pod runs, and the volumes that it needs until it is over."""
    volumes = Volumes(pod.replace(apps=[app]), ids_of(arguments), say)
    group = None
    try:
        devices = None if arguments.disable_paths else volumes.devices()
        limits.make_room(groups, pod, devices or ())
        group = limits.create_app_group(groups, pod, app, say, devices=devices)
        return Launch(
            app, group, _plan_maker(pod, arguments, volumes, None, users, prober, is_unified=is_unified)
        ), volumes
    except BaseException:
        volumes.close()
        if group is not None:
            group.remove()
        raise


def _plan_maker(
    pod: LoadedPod,
    arguments: RunArguments,
    volumes: Volumes,
    terminal: Interactive | None,
    users: UserNamespace | None,
    prober: Prober | None,
    *,
    is_unified: bool,
) -> PlanMaker:
    pod_path = os.getcwdb()

    def make_plan(app: PodApp, group: Group, *, handler: str, is_first: bool) -> AppPlan:
        plan = build_app_plan(
            app,
            arguments,
            pod_path=pod_path,
            joiner=group.joiner(),
            volumes=volumes.of(app.name),
            unified_cgroup=is_unified,
            handler=handler,
            is_first=is_first,
            users=users,
        )
        if terminal is not None and not handler:
            plan.steps.append(terminal.step(plan.execute.uid))
            # Of the operator's variables, the one that describes the terminal.
            plan.execute.environment.setdefault(b"TERM", os.environb.get(b"TERM", b"vt100"))
        if not handler and appc.has_streams(app.runtime.annotations):
            from rkt.stage1.ns.app_streams import ForkedStreams

            uid = plan.execute.uid
            owner = uid if users is None else users.ids.outside(uid)
            plan = ForkedStreams(pod, app, uid, owner, terminal).add_to(plan)
        if not handler and "LISTEN_FDS" in os.environ:
            from rkt.stage1.common import activation

            activation.give(pod, app, plan.execute)
        if prober is not None and not handler:
            prober.prepare(app, plan)
        if arguments.debug:
            for step in plan.steps:
                say(f"{app.name}: {step.describe()}")
        return plan

    return make_plan


def _standard_input(arguments: RunArguments) -> int:
    """What the app reads: -1 for nothing; to be called before there are namespaces to be in."""
    if not arguments.interactive:
        return -1
    if os.isatty(0):
        # The app gets a terminal of its own instead.
        return 0
    from rkt.stage1.common.feed import feed, is_channel

    return 0 if is_channel(0) else feed(0)


def _prober(
    pod: LoadedPod,
    arguments: RunArguments,
    shared: PodNamespaces,
    users: UserNamespace | None,
    status_directory: str,
) -> Prober | None:
    """What probes the apps, if one of them is to be probed, now or later."""
    names = [name for app in pod.apps for name in app.runtime.annotations]
    if not arguments.mutable and not any(name.startswith(contract.ANNOTATIONS_OF_PROBES) for name in names):
        return None
    from rkt.stage1.ns.probes import Prober

    prober = Prober(arguments, shared, users, status_directory=status_directory, report=say)
    if not arguments.mutable:
        prober.expect(pod.apps)
    return prober


def _attach(
    networks: Networks, pod: LoadedPod, arguments: RunArguments, shared: PodNamespaces, init: Init
) -> RunArguments:
    """Set the pod's networks up; the arguments as they are then, with files of names that come of the networks."""
    try:
        return own_files.attach_networks(networks, pod, arguments, shared.net_fd)
    except BaseException:
        _give_up(shared, init)
        raise


def _reach_metadata(
    networks: Networks | None, arguments: RunArguments, shared: PodNamespaces, init: Init
) -> RunArguments:
    """The arguments with the URL of the metadata service."""
    from rkt.stage1.common import metadata

    try:
        return metadata.reach(arguments, networks)
    except BaseException:
        _give_up(shared, init)
        raise


def _give_up(shared: PodNamespaces, init: Init) -> None:
    """End the pod before it has apps."""
    shared.leave()
    init.kill()
    init.wait()

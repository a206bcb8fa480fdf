# SPDX-License-Identifier: Apache-2.0
"""The ``run`` entrypoint: isolation first, then supervision (spec runtime §1.5).

Order: mount namespace, the pod's own files, cgroups, pid 1 with the pod's namespaces, the apps' plans, the apps, the
files that stage0 waits for. Working directory is the pod directory; stage0's lock descriptor stays open until the end.
"""

from __future__ import annotations

import os

from rkt.errors import Stage1Error
from rkt.linux import cgroup, files, libc, mount
from rkt.schema import appc, jsontext
from rkt.stage0 import contract
from rkt.stage1.common import control, hosts
from rkt.stage1.common.arguments import parse_run
from rkt.stage1.common.pod import load_pod
from rkt.stage1.common.say import say
from rkt.stage1.ns import limits
from rkt.stage1.ns.init import Init, open_reaper
from rkt.stage1.ns.isolation import PodNamespaces
from rkt.stage1.ns.launch import Launch
from rkt.stage1.ns.plan import OWN_FILES, SHM, build_app_plan, default_filter
from rkt.stage1.ns.supervisor import Supervisor
from rkt.stage1.ns.volumes import Volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from rkt.linux.userns import IdRange, UserNamespace
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.pod import LoadedPod, PodApp
    from rkt.stage1.ns.interactive import Interactive
    from rkt.stage1.ns.launch import PlanMaker
    from rkt.stage1.ns.networks import Networks
    from rkt.stage1.ns.plan import AppPlan
    from rkt.stage1.ns.probes import Prober
    from rkt.stage1.ns.supervisor import App

#: Root directory of pid 1, below the engine's own files. In a user namespace it enters as owner, without capabilities.
EMPTY_ROOT = "empty-root"
#: How the pod was run, for ``enter`` (spec runtime §2.3).
RUNTIME_CONFIG = "runtime-config"
_SHM_OPTIONS = b"mode=1777,size=64m"
_OWN_FLAGS = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
_MAX_HOSTS_BYTES = 1 << 20
_OWN_OPTIONS = b"mode=700,size=1m,nr_inodes=64"


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
    networks = _networks(arguments, lock_fd)
    if "LISTEN_FDS" in os.environ and not arguments.mutable:
        from rkt.stage1.common import activation

        activation.check(pod)
    if limits.has_sysctls(pod):
        from rkt.stage1.ns import sysctls

        sysctls.check(pod, arguments)
    files.replace_file(
        RUNTIME_CONFIG, jsontext.dump({"version": 1, "arguments": argv}).encode(), 0o640, sync=False
    )
    mount.enter_own_namespace()
    _make_own_files(arguments)
    # Before anything is made: a source that is missing or not to be trusted ends the pod here.
    volumes = Volumes(pod, _ids(arguments), say)
    server = control.listen()
    host = cgroup.Cgroups.detect()
    groups = limits.create_groups(host, pod, arguments, say, devices=volumes.devices())
    if arguments.debug:
        for warning in groups.warnings:
            say(warning)
    is_unified = all(hierarchy.version == 2 for hierarchy in host.hierarchies)
    try:
        return _supervise(pod, arguments, host, groups, volumes, server, networks, is_unified=is_unified)
    finally:
        if networks is not None:
            networks.release()
        groups.remove()
        if os.path.exists(contract.MDS_REGISTERED):
            from rkt.stage1.common import metadata

            metadata.forget(arguments.uuid)
        server.close()
        os.unlink(contract.CONTROL_SOCKET)


def _supervise(
    pod: LoadedPod,
    arguments: RunArguments,
    host: cgroup.Cgroups,
    groups: cgroup.Group,
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
    shared, init, users = _isolate(arguments, flags, reaper_fd, own + b"/" + EMPTY_ROOT.encode(), joiner)
    joiner.close()
    os.close(reaper_fd)
    if networks is not None:
        arguments = _attach(networks, pod, arguments, shared, init)
    if os.path.exists(contract.MDS_REGISTERED):
        arguments = _reach_metadata(networks, arguments, shared, init)
    terminal = _open_terminal(pod, arguments)
    status_directory = f"{contract.STAGE1_ROOTFS}/{contract.STATUS_DIR}"

    def thaw() -> None:
        if os.path.exists(contract.PAUSED):
            groups.thaw()

    prober = _prober(pod, arguments, shared, users, status_directory)

    def set_limits(app: App, apps: list[App]) -> None:
        from rkt.stage1.ns.update import update

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
        supervisor.tickers.append(prober)
    if "WATCHDOG_USEC" in os.environ:
        from rkt.stage1.common.notify import Watchdog

        watchdog = Watchdog.from_environment()
        if watchdog is not None:
            supervisor.tickers.append(watchdog)
    try:
        try:
            if limits.has_sysctls(pod):
                from rkt.stage1.ns import sysctls

                sysctls.write(pod, arguments)
            _start_apps(
                supervisor, pod, arguments, groups, volumes, terminal, users, prober, is_unified=is_unified
            )
        except BaseException:
            supervisor.finish()
            raise
        _announce(init.pid)
        if prober is None:
            _notify_ready()
        else:
            prober.when_ready(_notify_ready)
        return supervisor.run()
    finally:
        shared.close()
        if users is not None:
            users.close()


def _isolate(
    arguments: RunArguments, flags: int, reaper_fd: int, empty_root: bytes, joiner: cgroup.Joiner
) -> tuple[PodNamespaces, Init, UserNamespace | None]:
    """The pod's namespaces with its pid 1; a user namespace owns the others, so it must be there first."""
    hostname = _hostname(arguments).encode()
    seccomp = b"" if arguments.disable_seccomp else default_filter()
    ids = _ids(arguments)
    if ids is None:
        shared = PodNamespaces(flags, hostname)
        return shared, Init(reaper_fd, empty_root=empty_root, joiner=joiner, seccomp=seccomp), None
    from rkt.stage1.ns.users import open_users

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
    groups: cgroup.Group,
    volumes: Volumes,
    terminal: Interactive | None,
    users: UserNamespace | None,
    prober: Prober | None,
    *,
    is_unified: bool,
) -> None:
    """Plan every app, then start them all."""
    make_plan = _plan_maker(pod, arguments, volumes, terminal, users, prober, is_unified=is_unified)

    def make_group(app: PodApp) -> cgroup.Group:
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
    groups: cgroup.Group,
    users: UserNamespace | None,
    prober: Prober | None,
    *,
    is_unified: bool,
) -> tuple[Launch, Volumes]:
    """What starts one app while the pod runs, and the volumes that it needs until it is over."""
    volumes = Volumes(pod.replace(apps=[app]), _ids(arguments), say)
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

    def make_plan(app: PodApp, group: cgroup.Group, *, handler: str, is_first: bool) -> AppPlan:
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
            from rkt.stage1.ns.app_streams import AppStreams

            uid = plan.execute.uid
            owner = uid if users is None else users.ids.outside(uid)
            plan = AppStreams(pod, app, uid, owner, terminal).add_to(plan)
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


def _ids(arguments: RunArguments) -> IdRange | None:
    """The ids of a pod that has a user namespace."""
    if not arguments.private_users:
        return None
    from rkt.stage1.ns.users import parse_ids

    return parse_ids(arguments.private_users)


def _open_terminal(pod: LoadedPod, arguments: RunArguments) -> Interactive | None:
    """The operator's terminal, if the app is to have it."""
    if not arguments.interactive:
        return None
    if any(app.runtime.annotations.get(contract.ANNOTATION_RESTART, "no") != "no" for app in pod.apps):
        raise Stage1Error("an interactive app cannot have a restart policy")
    if len(pod.apps) > 1:
        raise Stage1Error("interactive option only supports pods with one app")
    if not os.isatty(0):
        return None
    from rkt.stage1.ns.interactive import Interactive

    return Interactive()


def _announce(pid: int) -> None:
    """The files stage0 waits for, the pid last."""
    ready = f"{contract.STAGE1_ROOTFS}/{contract.SUPERVISOR_STATUS}"
    try:
        os.unlink(ready)
    except FileNotFoundError:
        pass
    os.symlink("ready", ready)
    files.replace_file(contract.PID, b"%d" % pid, 0o640, sync=False)


def _notify_ready() -> None:
    """Word to a service manager that asked for it: apps run, and those that can tell are ready."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        from rkt.stage1.common.notify import notify

        notify(address, b"READY=1")


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


def _networks(arguments: RunArguments, lock_fd: int) -> Networks | None:
    """The networks that plugins are to set up, if there are any; what is wrong with them shows here.

    Raises:
        NetworkError: one is not to be had.
    """
    if arguments.networks in (["none"], ["host"]):
        return None
    from rkt.stage1.ns.networks import Networks

    return Networks(arguments, lock_fd)


def _attach(
    networks: Networks, pod: LoadedPod, arguments: RunArguments, shared: PodNamespaces, init: Init
) -> RunArguments:
    """Set the pod's networks up; the arguments as they are then, with files of names that come of the networks."""
    try:
        networks.attach(pod, shared.net_fd)
        arguments = _publish_names(networks, arguments)
        if egress := pod.manifest.annotations.get(contract.ANNOTATION_EGRESS):
            networks.restrict(egress, arguments.resolv_mode, shared.net_fd)
        if networks.dns() is None:
            return arguments
        own = OWN_FILES.encode()
        flags = libc.MS_REMOUNT | libc.MS_BIND | _OWN_FLAGS
        # Of the mount only: pid 1's root is another mount of the same files, and stays read-only.
        libc.mount(None, own, None, flags)
        networks.write_resolv_conf(f"{OWN_FILES}/resolv.conf")
        libc.mount(None, own, None, flags | libc.MS_RDONLY)
        return arguments.replace(resolv_mode="network")
    except BaseException:
        _give_up(shared, init)
        raise


def _publish_names(networks: Networks, arguments: RunArguments) -> RunArguments:
    """Let pods of the same networks know each other by name; the hosts file that changes with them takes the place of ours."""
    if arguments.hosts_mode == "host":
        networks.publish(None)
        return arguments
    own = f"{OWN_FILES}/hosts".encode()
    networks.publish(files.read_bounded(own.decode(), _MAX_HOSTS_BYTES))
    libc.mount(contract.HOSTS.encode(), own, None, libc.MS_BIND)
    # What is bound of it into apps is as read-only as this is.
    libc.mount(None, own, None, libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY | _OWN_FLAGS)
    return arguments.replace(hosts_mode="network")


def _reach_metadata(
    networks: Networks | None, arguments: RunArguments, shared: PodNamespaces, init: Init
) -> RunArguments:
    """The arguments with the URL of the metadata service."""
    from rkt.stage1.common import metadata

    try:
        gateways = None if networks is None else networks.gateways()
        return arguments.replace(metadata_url=metadata.announce(arguments, gateways))
    except BaseException:
        _give_up(shared, init)
        raise


def _give_up(shared: PodNamespaces, init: Init) -> None:
    """End the pod before it has apps."""
    shared.leave()
    init.kill()
    init.wait()


def _hostname(arguments: RunArguments) -> str:
    return arguments.hostname or f"rkt-{arguments.uuid}"


def _make_own_files(arguments: RunArguments) -> None:
    """What the engine shows inside apps, on a tmpfs of its own that is read-only before the first app starts."""
    for directory in (OWN_FILES, SHM):
        os.makedirs(directory, mode=0o755, exist_ok=True)
    own = OWN_FILES.encode()
    libc.mount(b"tmpfs", own, b"tmpfs", _OWN_FLAGS, _OWN_OPTIONS)
    libc.mount(b"tmpfs", SHM.encode(), b"tmpfs", _OWN_FLAGS, _SHM_OPTIONS)
    os.mkdir(f"{OWN_FILES}/hidden-directory", 0)
    os.mkdir(f"{OWN_FILES}/{EMPTY_ROOT}", 0o700)
    files.write_new(f"{OWN_FILES}/hidden-file", b"", 0)
    hostname = _hostname(arguments)
    files.write_new(f"{OWN_FILES}/hostname", hostname.encode() + b"\n", 0o644)
    files.write_new(f"{OWN_FILES}/hosts", hosts.hosts_file(arguments.hosts_mode, hostname), 0o644)
    if arguments.resolv_mode in {"stage0", "host"}:
        files.write_new(f"{OWN_FILES}/resolv.conf", hosts.resolv_file(arguments.resolv_mode), 0o644)
    if arguments.private_users:
        from rkt.stage1.ns.users import give, parse_ids

        visible = [name for name in os.listdir(OWN_FILES) if name in {"hostname", "hosts", "resolv.conf"}]
        give([SHM, *(f"{OWN_FILES}/{name}" for name in visible)], parse_ids(arguments.private_users))
    libc.mount(None, own, None, libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY | _OWN_FLAGS)

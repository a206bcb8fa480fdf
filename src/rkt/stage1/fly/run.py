# SPDX-License-Identifier: Apache-2.0
"""The ``run`` entrypoint: this process becomes the app, in a root of its own and all else of the host's (spec runtime §3.13).

Nobody is left to supervise: the app has the pid that was started, gets every signal, and its status is the pod's. It holds
the pod's lock too, which says that the pod lives, through a descriptor with a number out of the way of programs that use
low ones. What only a supervisor could do, such as keeping what the app says, does not happen.

Order: what is wrong shows first; then the pod's files and cgroup, the mounts, the new root, and last of all the pid, when
whoever enters the process finds the app's root and not the host's.
"""

from __future__ import annotations

import fcntl
import os
import sys

from rkt.errors import Stage1Error
from rkt.linux import cgroup, cgroupfs, disk, files, libc, mount
from rkt.schema import isolators
from rkt.schema.appc import ANNOTATION_STREAMS
from rkt.stage0 import contract
from rkt.stage1.common import hosts, limits, steps
from rkt.stage1.common.announce import announce_app, announce_ready
from rkt.stage1.common.app_root import OWN_FILES
from rkt.stage1.common.arguments import parse_run, save_run
from rkt.stage1.common.groups import group_name
from rkt.stage1.common.pod import load_pod
from rkt.stage1.common.say import say
from rkt.stage1.common.volumes import Volumes
from rkt.stage1.fly import plan as plans
from rkt.stage1.fly import trees
from rkt.stage2.exec import become

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.pod import PodApp
    from rkt.stage1.common.volumes import Volume
    from rkt.stage2.exec import ExecPlan

#: Least number of the lock's descriptor in the app. Shells use those below 10 for scripts and some above for themselves.
_LEAST_LOCK_FD = 200
_OWN_FLAGS = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
_SAFE = libc.MS_NOSUID | libc.MS_NODEV


def main(argv: list[str]) -> int:
    """Become the app; does not return when that works.

    Raises:
        RktError, OSError: the pod could not be started.
    """
    os.umask(0)
    arguments = parse_run(argv)
    lock_fd = int(os.environ[contract.ENV_LOCK_FD])
    libc.close_range(3, 0xFFFFFFFF, libc.CLOSE_RANGE_CLOEXEC)
    pod = load_pod()
    app = plans.only_app(pod)
    plans.check(pod, app, arguments)
    if "LISTEN_FDS" in os.environ:
        from rkt.stage1.common import activation

        activation.check(pod)
    save_run(argv)
    volumes = Volumes(pod, None, say, recursive=False)
    root_path = os.getcwdb() + b"/" + app.rootfs_path.encode()
    root_fd = _enter_root(root_path)
    if os.path.exists(contract.MDS_REGISTERED):
        from rkt.stage1.common import metadata

        arguments = metadata.reach(arguments, None)
    execute = plans.build(app, root_fd, arguments)
    if arguments.interactive:
        # Of the operator's variables, the one that describes the terminal.
        execute.environment.setdefault(b"TERM", os.environb.get(b"TERM", b"vt100"))
    if "LISTEN_FDS" in os.environ:
        activation.give(pod, app, execute)
    plan = _steps(app, arguments, execute, volumes.of(app.name))
    _join_group(arguments)
    if arguments.debug:
        for step in plan:
            say(f"{app.name}: {step.describe()}")
    _write_records(app, execute)
    manager = None
    if address := os.environ.get("NOTIFY_SOCKET", ""):
        from rkt.stage1.common import notify

        manager = notify.connect(address)
    lock_fd = fcntl.fcntl(lock_fd, fcntl.F_DUPFD, _LEAST_LOCK_FD)
    execute = execute.replace(lock_fd=lock_fd)
    # No import can be served from the image's files from here on (invariant EN2).
    sys.meta_path.clear()
    sys.path.clear()
    os.chdir(root_path)
    current: steps.Step | None = None
    try:
        for each in plan:
            current = each
            each.apply(root_fd)
        current = None
        _say_who(app.name, lock_fd)
        if manager is not None:
            notify.send(manager, b"READY=1")
        become(execute)
    except OSError as e:
        # Whoever tells of it could import nothing any more.
        raise Stage1Error(f"app {app.name!r}: {steps.failure(current, e)}", hint=disk.remedy(e.errno)) from e
    return 0


def _enter_root(path: bytes) -> int:
    """The app's root as a mount; stage0 has given this process a mount namespace of its own."""
    if not os.path.ismount(path):
        mount.bind(path, path, attributes=mount.UNTRUSTED, recursive=False)
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _steps(
    app: PodApp, arguments: RunArguments, execute: ExecPlan, volumes: list[Volume]
) -> list[steps.Step]:
    """What makes the app's root, in this order."""
    with trees.HostMounts():
        plan = trees.kernel_trees(volumes)
        of_host = {
            volume: trees.volume_tree(volume, volumes, say)
            for volume in volumes
            if volume.mount.source is not None
        }
    if not any(volume.place == b"tmp" for volume in volumes):
        plan.append(steps.MakeDirectory(b"tmp", 0o1777))
        plan.append(steps.MountFilesystem(b"tmpfs", b"tmp", _SAFE, b"mode=1777"))
    plan += _engine_files(arguments)
    plan += [of_host.get(volume) or trees.volume_tree(volume, volumes, say) for volume in volumes]
    if isolators.last(app.app.isolators, isolators.OOM_SCORE_ADJ) is not None:
        # Else an agent keeps what its service manager gave it.
        plan += limits.oom_score_steps(app)
    if execute.rlimits:
        from rkt.stage1.common import rlimits

        plan += rlimits.raising_steps(execute.rlimits)
    plan.append(steps.PivotRoot(readonly=bool(app.runtime.readonly_rootfs)))
    if not arguments.interactive:
        plan.append(steps.EmptyInput())
    for number, stream in ((1, "stdout"), (2, "stderr")):
        if app.runtime.annotations.get(f"{ANNOTATION_STREAMS}{stream}") == "null":
            plan.append(Silence(number))
    return plan


class Silence(steps.Step):
    """Throw away what the app writes to a stream."""

    __slots__ = ("stream",)

    def __init__(self, stream: int) -> None:
        self.stream = stream

    def describe(self) -> str:
        """See ``Step``."""
        return f"stream {self.stream} goes nowhere"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        fd = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(fd, self.stream)
        os.close(fd)


def _engine_files(arguments: RunArguments) -> list[steps.Step]:
    """``/etc/resolv.conf`` and ``/etc/hosts`` as they were asked for, on a read-only file system of their own."""
    wanted = {b"hosts": hosts.hosts_file(arguments.hosts_mode, os.uname().nodename)}
    if arguments.resolv_mode in {"stage0", "host"}:
        wanted[b"resolv.conf"] = hosts.resolv_file(arguments.resolv_mode)
    own = os.getcwdb() + b"/" + OWN_FILES.encode()
    os.makedirs(own, mode=0o755, exist_ok=True)
    libc.mount(b"tmpfs", own, b"tmpfs", _OWN_FLAGS, b"mode=755,size=4m,nr_inodes=8")
    plan: list[steps.Step] = [steps.MakeDirectory(b"etc", keep=True)]
    for name, data in wanted.items():
        files.write_new(os.fsdecode(own + b"/" + name), data, 0o644)
        if_absent = name == b"hosts" and arguments.hosts_mode == "default"
        plan.append(steps.BindFile(own + b"/" + name, b"etc/" + name, only_if_absent=if_absent))
    libc.mount(None, own, None, libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY | _OWN_FLAGS)
    return plan


def _join_group(arguments: RunArguments) -> None:
    """A cgroup of the pod's own, without a limit: by it the pod is frozen, looked at, and ended to the last process.

    Nobody is left who could remove it when the app has ended: gc does.
    """
    host = cgroupfs.detect()
    group = cgroup.create_pod(host, group_name(arguments.uuid), () if host.unified else (cgroup.FREEZER,))
    files.replace_file(contract.SUBCGROUP, group.record().encode(), 0o640, sync=False)
    joiner = group.joiner()
    joiner.join(unified=True)
    joiner.close()


def _write_records(app: PodApp, execute: ExecPlan) -> None:
    """What the other entrypoints and stage0 go by, but for the pid."""
    path = f"{contract.STAGE1_ROOTFS}/{plans.ENVIRONMENT}/{app.name}"
    files.replace_file(path, plans.encode_environment(execute.environment), 0o600, sync=False)
    files.replace_file(contract.PGID, b"%d" % os.getpgid(0), 0o640, sync=False)
    announce_ready()


def _say_who(name: str, lock_fd: int) -> None:
    """The app's process, below the pod directory, which is out of sight by now but for its descriptor."""
    pod = f"/proc/self/fd/{lock_fd}"
    pid = os.getpid()
    announce_app(name, pid, pod)
    files.replace_file(f"{pod}/{contract.PID}", b"%d" % pid, 0o640, sync=False)

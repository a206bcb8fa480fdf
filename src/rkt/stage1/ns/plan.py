# SPDX-License-Identifier: Apache-2.0
"""From a pod manifest to the steps of one app; nothing here changes anything but the pod's own volume directories."""

from __future__ import annotations

import os
import sys

from rkt.errors import Stage1Error
from rkt.linux import capabilities, libc
from rkt.schema import isolators
from rkt.schema.record import Record
from rkt.stage0 import contract
from rkt.stage1.common import paths, steps
from rkt.stage1.common import users as accounts
from rkt.stage1.common.environment import build_environment
from rkt.stage1.ns import limits
from rkt.stage2.exec import ExecPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rkt.linux.cgroup import Joiner
    from rkt.linux.userns import UserNamespace
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.pod import PodApp
    from rkt.stage1.ns.app_streams import AppStreams
    from rkt.stage1.ns.volumes import Volume

#: Directory of the engine's own files for a pod, a small read-only tmpfs that no app can reach except by binds.
OWN_FILES = f"{contract.STAGE1_ROOTFS}/rkt/own"
#: ``/dev/shm`` of the pod, shared by its apps as they share its IPC namespace.
SHM = f"{contract.STAGE1_ROOTFS}/rkt/shm"
#: Compiled default filter, beside the entrypoint: ``enter`` runs where the pod's own stage1 root is not mounted.
_FILTER = os.path.join(os.path.dirname(sys.argv[0]), f"seccomp-default-{os.uname().machine}.bpf")
_MAX_FILTER_BYTES = 1 << 20
_SAFE = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
#: gid of group tty, by convention and in devpts(5).
_TTY_GID = 5


class AppPlan(Record):
    """Everything one process of an app needs, prepared before the fork.

    Attributes:
        root_fd, joiner: closed by whoever forked.
        cgroup_fd: version 2 cgroup to be born in, -1 for the caller's.
        streams: its standard streams, where they are not the usual ones.
    """

    name: str
    root_fd: int
    joiner: Joiner
    cgroup_fd: int
    steps: list[steps.Step]
    execute: ExecPlan
    streams: AppStreams | None = None

    def release(self) -> None:
        """Close what the plan holds; after the fork, or when there will be none."""
        os.close(self.root_fd)
        self.joiner.close()
        for step in self.steps:
            step.release()


def build_exec_plan(
    app: PodApp,
    root_fd: int,
    arguments: RunArguments,
    *,
    argv: Sequence[str] | None = None,
    as_root: bool = False,
    entering: bool = False,
) -> ExecPlan:
    """What a process of the app becomes, its own or a command entering it: the same confinement for all (CVE-2019-10144).

    Args:
        app: the app.
        root_fd: its root, for users and groups.
        arguments: of ``run``; the ``--disable-…`` ones loosen.
        argv: the command instead of the app's own.
        entering: it joins a running app, so it gets no more than the caller may give.
        as_root: run it as 0:0 of the image, which is all that sets an event handler apart (spec runtime §3.4).
    """
    words = list(argv if argv is not None else app.app.exec)
    if not words or not words[0]:
        raise Stage1Error(f"app {app.name!r} has nothing to execute", hint="rkt run IMAGE --exec=PROGRAM")
    ids = None
    if arguments.private_users:
        from rkt.stage1.ns.users import parse_ids

        ids = parse_ids(arguments.private_users)
    kept = _capabilities(app, arguments)
    uid = gid = 0
    groups: list[int] = []
    if not as_root:
        groups = app.app.supplementary_gids
        try:
            uid, gid = accounts.resolve_both(
                root_fd,
                app.app.user,
                app.app.group,
                annotations=app.image.annotations,
                ids=ids,
            )
        except Stage1Error as e:
            raise Stage1Error(f"app {app.name!r}: {e.message}", hint=e.hint) from e
    seccomp = b"" if arguments.disable_seccomp else _filter(app)
    plan = ExecPlan(
        argv=[word.encode("utf-8", "surrogateescape") for word in words],
        environment=build_environment(app.name, app.app, arguments.metadata_url),
        uid=uid,
        gid=gid,
        # The app's own group too, or a file that denies that group something would grant it (CVE-2022-36109).
        groups=[gid, *(each for each in groups if each != gid)],
        working_directory=(app.app.working_directory or "/").encode(),
        capabilities=kept,
        no_new_privileges=isolators.fixes_privileges(app.app.isolators, uid=uid, filtered=bool(seccomp)),
        seccomp=seccomp,
        rlimits=_rlimits(app, entering=entering),
    )
    if ids is not None:
        from rkt.stage1.ns.users import check_ids

        check_ids(app.name, plan, ids)
    return plan


def _rlimits(app: PodApp, *, entering: bool) -> list[tuple[int, int, int]]:
    if isolators.last(app.app.isolators, isolators.RLIMITS) is None:
        return []
    from rkt.stage1.ns import rlimits

    return rlimits.app_limits(app, entering=entering)


def _capabilities(app: PodApp, arguments: RunArguments) -> int:
    """The app's bounding set; what rkt itself lacks cannot be passed on, and is an error if it was asked for by name."""
    kept = capabilities.full_mask()
    if not arguments.disable_capabilities_restriction:
        kept = capabilities.mask(isolators.retained_capabilities(app.app.isolators))
    lacking = capabilities.missing(kept)
    if (
        lacking
        and not arguments.disable_capabilities_restriction
        and isolators.last(app.app.isolators, isolators.CAPABILITIES_RETAIN) is not None
    ):
        names = ", ".join(capabilities.names(lacking))
        raise Stage1Error(f"app {app.name!r} is to have {names}, which rkt itself does not have here")
    return kept & ~lacking


def _filter(app: PodApp) -> bytes:
    """The app's compiled system call filter; one that cannot be had is an error (CVE-2023-2431)."""
    wanted = [i for i in app.app.isolators if i.name.startswith("os/linux/seccomp-")]
    if wanted:
        from rkt.linux import seccomp_isolators

        return seccomp_isolators.compile_isolators(
            [(i.name, i.value.names, i.value.errno) for i in wanted], default_filter()
        )
    return default_filter()


def default_filter() -> bytes:
    """The compiled filter that came with this stage1.

    Raises:
        Stage1Error: there is none for this machine.
    """
    from rkt.linux import files

    try:
        return files.read_bounded(_FILTER, _MAX_FILTER_BYTES)
    except OSError as e:
        raise Stage1Error(
            f"this stage1 has no system call filter for {os.uname().machine}: {_FILTER}",
            hint="rkt run --insecure-options=seccomp",
        ) from e


def build_app_plan(
    app: PodApp,
    arguments: RunArguments,
    *,
    pod_path: bytes,
    joiner: Joiner,
    volumes: Sequence[Volume],
    unified_cgroup: bool,
    handler: str = "",
    is_first: bool = True,
    users: UserNamespace | None = None,
) -> AppPlan:
    """The steps of one process of an app, in the order in which they have to happen.

    Args:
        app: the app.
        arguments: of ``run``.
        pod_path: the pod directory.
        joiner: of the app's cgroups.
        volumes: its own.
        unified_cgroup: whether it may see its cgroups.
        handler: name of an event handler to run instead of the app's program.
        is_first: whether no process of the app ran before.
        users: the pod's user namespace. With it, steps before the last one make what they make as the pod's root, with
            the rights of the host's.
    """
    root_path = pod_path + b"/" + app.rootfs_path.encode()
    try:
        root_fd = os.open(root_path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        joiner.close()
        raise
    plan: list[steps.Step] = []
    try:
        argv = app.app.event_handlers[handler] if handler else None
        execute = build_exec_plan(app, root_fd, arguments, argv=argv, as_root=bool(handler))
        for step in _steps(
            app,
            arguments,
            execute,
            root_path,
            pod_path=pod_path,
            joiner=joiner,
            volumes=volumes,
            unified_cgroup=unified_cgroup,
            is_first=is_first,
            users=users,
        ):
            plan.append(step)  # noqa: PERF402 - what was made is let go of when the next one fails
    except BaseException:
        # The pod may go on without this app.
        os.close(root_fd)
        joiner.close()
        for step in plan:
            step.release()
        raise
    return AppPlan(
        name=app.name,
        root_fd=root_fd,
        joiner=joiner,
        cgroup_fd=joiner.cgroup_fd if is_first else -1,
        steps=plan,
        execute=execute,
    )


def _steps(
    app: PodApp,
    arguments: RunArguments,
    execute: ExecPlan,
    root_path: bytes,
    *,
    pod_path: bytes,
    joiner: Joiner,
    volumes: Sequence[Volume],
    unified_cgroup: bool,
    is_first: bool,
    users: UserNamespace | None,
) -> Iterator[steps.Step]:
    """The steps, one after the other: each is made when the one before is in its owner's hands."""
    covered = {volume.place for volume in volumes}
    own = pod_path + b"/" + OWN_FILES.encode()
    plan: list[steps.Step] = [
        steps.NewSession(),
        # A group that was killed by ``cgroup.kill`` also kills what is born there later: Linux 6.14 compares the group's
        # count of kills with that of the parent's group (cgroup_css_set_fork). Moving there is safe.
        steps.JoinCgroup(joiner, unified=not is_first),
        # After its cgroup, which becomes the root that the app sees.
        steps.Unshare(libc.CLONE_NEWCGROUP),
        steps.EnterRoot(root_path, bind=not os.path.ismount(root_path)),
    ]
    # As the host's root, whom the kernel asks about both.
    plan += limits.oom_score_steps(app)
    if execute.rlimits:
        from rkt.stage1.ns import rlimits

        plan += rlimits.raising_steps(execute.rlimits)
    if users is not None:
        from rkt.stage1.ns.users import Give, JoinUsers, OwnFiles

        plan.append(OwnFiles(users.ids))
    plan += _kernel_file_systems(
        own, covered, masked=not arguments.disable_paths, unified_cgroup=unified_cgroup
    )
    if b"dev" not in covered:
        tty_gid = _TTY_GID if users is None else users.ids.outside(_TTY_GID)
        plan += _devices(pod_path + b"/" + SHM.encode(), tty_gid)
        if users is not None:
            plan.append(Give(b"dev/pts", users.ids))
            if arguments.ipc != "parent":
                # Else it is the host's, with the host's IPC namespace.
                plan.append(Give(b"dev/mqueue", users.ids))
    plan += _engine_files(own, arguments)
    yield from plan
    for volume in volumes:
        yield volume.attach(users)
    yield steps.PivotRoot(readonly=bool(app.runtime.readonly_rootfs))
    owner = execute.uid if users is None else users.ids.outside(execute.uid)
    if owner:
        yield steps.OwnStreams(owner, (1, 2))
    if users is not None:
        yield JoinUsers(users)


def _kernel_file_systems(
    own: bytes, covered: set[bytes], *, masked: bool, unified_cgroup: bool
) -> list[steps.Step]:
    plan: list[steps.Step] = [
        steps.MakeDirectory(b"proc"),
        steps.MountFilesystem(b"proc", b"proc", _SAFE),
    ]
    # What the operator mounts there may not fit into a sysfs (spec runtime §3.5, row 6).
    has_sys = not any(place.partition(b"/")[0] == b"sys" for place in covered)
    if has_sys:
        plan.append(steps.MakeDirectory(b"sys"))
        plan.append(steps.MountFilesystem(b"sysfs", b"sys", _SAFE | (libc.MS_RDONLY if masked else 0)))
    if not masked:
        return plan
    plan += [steps.ReadOnly(path) for path in paths.READ_ONLY]
    for path in (*paths.MASKED, *paths.thermal_directories()):
        if path.startswith(b"sys/") and not has_sys:
            continue
        if path == b"sys/fs" and unified_cgroup:
            plan.append(steps.MountFilesystem(b"tmpfs", b"sys/fs", _SAFE, b"mode=755,size=4k,nr_inodes=8"))
            plan.append(steps.MakeDirectory(b"sys/fs/cgroup"))
            plan.append(steps.MountFilesystem(b"cgroup2", b"sys/fs/cgroup", _SAFE | libc.MS_RDONLY))
            continue
        plan.append(steps.Mask(path, own + b"/hidden-file", own + b"/hidden-directory"))
    return plan


def _devices(shm: bytes, tty_gid: int) -> list[steps.Step]:
    return [
        steps.MakeDirectory(b"dev"),
        steps.MountFilesystem(
            b"tmpfs", b"dev", libc.MS_NOSUID | libc.MS_NOEXEC, b"mode=755,size=64k,nr_inodes=256"
        ),
        *(steps.MakeDevice(*device) for device in paths.DEVICES),
        steps.MakeDirectory(b"dev/pts"),
        steps.MountFilesystem(
            b"devpts",
            b"dev/pts",
            libc.MS_NOSUID | libc.MS_NOEXEC,
            b"newinstance,ptmxmode=0666,mode=0620,gid=%d" % tty_gid,
        ),
        steps.MakeDirectory(b"dev/mqueue"),
        steps.MountFilesystem(b"mqueue", b"dev/mqueue", _SAFE),
        steps.MakeDirectory(b"dev/shm", 0o1777),
        steps.Bind(shm, b"dev/shm"),
        steps.MakeSymlink(b"pts/ptmx", b"dev/ptmx"),
        steps.MakeSymlink(b"/proc/self/fd", b"dev/fd"),
        steps.MakeSymlink(b"/proc/self/fd/0", b"dev/stdin"),
        steps.MakeSymlink(b"/proc/self/fd/1", b"dev/stdout"),
        steps.MakeSymlink(b"/proc/self/fd/2", b"dev/stderr"),
    ]


def _engine_files(own: bytes, arguments: RunArguments) -> list[steps.Step]:
    """``/etc/hostname``, ``/etc/hosts``, ``/etc/resolv.conf`` as spec runtime §3.8 asks."""
    plan: list[steps.Step] = [
        steps.MakeDirectory(b"tmp", 0o1777, keep=True),
        steps.MakeDirectory(b"run", keep=True),
        steps.MakeDirectory(b"etc", keep=True),
        steps.BindFile(own + b"/hostname", b"etc/hostname"),
    ]
    if arguments.resolv_mode in {"stage0", "host", "network"}:
        plan.append(steps.BindFile(own + b"/resolv.conf", b"etc/resolv.conf"))
    plan.append(
        steps.BindFile(own + b"/hosts", b"etc/hosts", only_if_absent=arguments.hosts_mode == "default")
    )
    return plan

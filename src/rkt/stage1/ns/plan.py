# SPDX-License-Identifier: Apache-2.0
"""From a pod manifest to the steps of one app; nothing here changes anything but the pod's own volume directories."""

from __future__ import annotations

import os

from rkt.linux import libc
from rkt.schema.record import Record
from rkt.stage1.common import limits, steps
from rkt.stage1.common.app_root import OWN_FILES, SHM, TTY_GID, devices, engine_files, kernel_file_systems
from rkt.stage1.common.exec_plan import build_exec_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rkt.linux.cgroup import Joiner
    from rkt.linux.userns import UserNamespace
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.pod import PodApp
    from rkt.stage1.common.volumes import Volume
    from rkt.stage1.ns.app_streams import ForkedStreams
    from rkt.stage2.exec import ExecPlan


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
    streams: ForkedStreams | None = None

    def release(self) -> None:
        """Close what the plan holds; after the fork, or when there will be none."""
        os.close(self.root_fd)
        self.joiner.close()
        for step in self.steps:
            step.release()


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
        from rkt.stage1.common import rlimits

        plan += rlimits.raising_steps(execute.rlimits)
    if users is not None:
        from rkt.stage1.common.private_users import Give, JoinUsers, OwnFiles

        plan.append(OwnFiles(users.ids))
    plan += kernel_file_systems(
        own, covered, masked=not arguments.disable_paths, unified_cgroup=unified_cgroup
    )
    if b"dev" not in covered:
        tty_gid = TTY_GID if users is None else users.ids.outside(TTY_GID)
        plan += devices(pod_path + b"/" + SHM.encode(), tty_gid)
        if users is not None:
            plan.append(Give(b"dev/pts", users.ids))
            if arguments.ipc != "parent":
                # Else it is the host's, with the host's IPC namespace.
                plan.append(Give(b"dev/mqueue", users.ids))
    plan += engine_files(own, arguments)
    yield from plan
    for volume in volumes:
        yield volume.attach(users)
    yield steps.PivotRoot(readonly=bool(app.runtime.readonly_rootfs))
    owner = execute.uid if users is None else users.ids.outside(execute.uid)
    if owner:
        yield steps.OwnStreams(owner, (1, 2))
    if users is not None:
        yield JoinUsers(users)

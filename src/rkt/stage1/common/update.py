# SPDX-License-Identifier: Apache-2.0
"""New limits for an app that runs: what the pod manifest says now, set on its cgroups; imported when somebody asks.

All of them or none: what the kernel had before is put back when it refuses one. Where version 1 has no cgroup of the app's
own for a controller, because nobody had asked for a limit, it is made and the app's processes are moved into it.
"""

from __future__ import annotations

import os

from rkt.errors import Stage1Error, quoted
from rkt.linux import cgroup_limits, cgroup_migration, cgroup_processes, files
from rkt.schema import isolators
from rkt.schema.quantity import bytes_text
from rkt.stage0 import contract
from rkt.stage1.common import limits
from rkt.stage1.common.pod import load_pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rkt.linux.cgroup import Group
    from rkt.linux.cgroupfs import Hierarchies


def update(
    host: Hierarchies,
    groups: Group,
    group: Group,
    others: Sequence[Group],
    *,
    pid: int,
    report: Callable[[str], None],
) -> None:
    """Set the limits of one app anew.

    Args:
        host: the hierarchies.
        groups: the pod's.
        group: the app's, named as the app.
        others: of the other apps.
        pid: of a process of the app.
        report: gets a sentence on each wish of an image that cannot be granted.
    Raises:
        Stage1Error: a limit cannot be set; then the old ones hold.
    """
    pod = load_pod()
    app = pod.app(group.name)
    controllers = limits.controllers_of(app)
    _make_groups(host, groups, group, others, controllers, pid)
    before = cgroup_limits.read_limits(group, controllers)
    try:
        _check_memory(group, isolators.last(app.app.isolators, isolators.MEMORY))
        limits.set_app_limits(group, pod, app, report)
        limits.make_room(groups, pod, ())
    except BaseException:
        cgroup_limits.restore_limits(before)
        raise


def _make_groups(
    host: Hierarchies,
    groups: Group,
    group: Group,
    others: Sequence[Group],
    controllers: set[str],
    pid: int,
) -> None:
    def members() -> set[int]:
        return cgroup_processes.pids(group) or _in_mount_namespace(groups, pid)

    def record() -> None:
        files.replace_file(contract.SUBCGROUP, groups.record().encode(), 0o640, sync=False)

    try:
        cgroup_migration.extend_pod(host, groups, (group, *others), controllers, record)
        cgroup_migration.extend_child(group, groups, controllers, members)
    except OSError as e:
        raise Stage1Error(
            f"app {quoted(group.name)} cannot be given a cgroup of its own: {e.strerror}"
        ) from e


def _in_mount_namespace(groups: Group, pid: int) -> set[int]:
    """Processes of the app where it has no cgroup of its own at all."""
    try:
        own = os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return set()  # it is about to be started again
    found = set()
    for each in cgroup_processes.pids(groups):
        try:
            if os.readlink(f"/proc/{each}/ns/mnt") == own:
                found.add(each)
        except OSError:
            continue  # it has ended
    return found


def _check_memory(group: Group, wanted: isolators.Resource | None) -> None:
    """Version 1 refuses a limit below what is in use; version 2 would kill the app, so it is refused here."""
    if wanted is None or wanted.limit_amount is None:
        return
    used = cgroup_limits.memory_in_use(group)
    if used > wanted.limit_amount:
        limit = bytes_text(wanted.limit_amount)
        raise Stage1Error(
            f"app {quoted(group.name)}: a memory limit of {limit} is less than the {bytes_text(used)} in use",
            hint="rkt stats UUID",
        )

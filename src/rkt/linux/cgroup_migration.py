# SPDX-License-Identifier: Apache-2.0
"""Migrating processes that run already: into cgroups of version 1 that nobody had asked for when they were started.

Source: Documentation/admin-guide/cgroup-v1/cgroups.rst.
"""

from __future__ import annotations

import errno

from rkt.linux import cgroup, cgroup_processes, cgroup_subtree, cgroupfs, pidfd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rkt.linux.cgroup import Group
    from rkt.linux.cgroupfs import Hierarchies

_GATHER_ATTEMPTS = 100


def extend_pod(
    hierarchies: Hierarchies,
    group: Group,
    children: Iterable[Group],
    controllers: Iterable[str],
    record: Callable[[], None],
) -> None:
    """Give a running pod a directory in version 1 hierarchies that nobody had asked for when it was made.

    Args:
        hierarchies: the host's.
        group: the pod's.
        children: the groups below it, which inherit the new ones.
        controllers: those that are wanted.
        record: called when the group's record has changed, before there is a directory.
    Raises:
        OSError: as for ``extend_child``.
    """
    wanted = tuple(controllers)
    have = {hierarchy.key for hierarchy, _, _ in group.places}
    for hierarchy in hierarchies:
        if hierarchy.version != 1 or hierarchy.key in have:
            continue
        parent = hierarchy.directory(hierarchy.own_path)
        if parent is None or not any(hierarchy.offers(item) for item in wanted):
            continue
        place = (
            hierarchy,
            f"{hierarchy.own_path.rstrip('/')}/{group.name}",
            f"{parent}/{group.name}",
        )
        group.places.append(place)
        record()
        cgroup.make_directory(hierarchy, parent, place[2])
        _gather(place[2], lambda: cgroup_processes.pids(group))
        for child in children:
            child.inherited.append(place)


def extend_child(
    group: Group, above: Group, controllers: Iterable[str], members: Callable[[], set[int]]
) -> None:
    """Get directories for controllers that a running app had no limits of, and its processes into them.

    Args:
        group: the app's.
        above: the pod's group.
        controllers: those that will get limits.
        members: tells the numbers of the app's processes by now.
    Raises:
        OSError: ``EAGAIN`` when they are born faster than they can be moved, or what the kernel says.
    """
    wanted = tuple(controllers)
    for place in list(group.inherited):
        hierarchy, path, directory = place
        if hierarchy.version == 1 and any(hierarchy.offers(item) for item in wanted):
            own = f"{directory}/{group.name}"
            cgroup.make_directory(hierarchy, directory, own)
            _gather(own, members)
            group.inherited.remove(place)
            group.places.append((hierarchy, f"{path}/{group.name}", own))
    for hierarchy, _, directory in above.places:
        if hierarchy.version == 2:
            cgroup_subtree.enable(directory, wanted, hierarchy.mount_point)


def take(group: Group, pid: int) -> None:
    """Move a process that somebody else has put into a group of version 2, or of systemd's own hierarchy, and all others in it.

    Only into the group's own directories of version 1.

    Raises:
        OSError: ``EAGAIN`` when they are born faster than they can be moved, or what the kernel says.
    """
    actual = cgroupfs.membership(pid)
    place = None
    for hierarchy, _, _ in (*group.places, *group.inherited):
        path = actual.get(hierarchy.key, "/")
        if path != "/" and (hierarchy.version == 2 or hierarchy.key.startswith("name=")):
            place = hierarchy.directory(path) or place

    def members() -> set[int]:
        if place is None:
            return {pid}
        return {int(item) for item in cgroupfs.read(f"{place}/cgroup.procs").split()}

    for hierarchy, _, directory in group.places:
        if hierarchy.version == 1:
            _gather(directory, members)


def _gather(directory: str, members: Callable[[], set[int]]) -> None:
    """Move processes into a version 1 cgroup until all are there, also those born meanwhile."""
    path = f"{directory}/cgroup.procs"
    gone: set[int] = set()
    moved: set[int] = set()
    for _ in range(_GATHER_ATTEMPTS):
        missing = members() - {int(item) for item in cgroupfs.read(path).split()} - gone
        # The kernel says nothing of those that are ending, and leaves them where they are (cgroup_migrate_add_task).
        gone |= {pid for pid in missing & moved if pidfd.is_exiting(pid)}
        missing -= gone
        if not missing:
            return
        for pid in missing:
            try:
                cgroupfs.write(path, b"%d" % pid)
            except ProcessLookupError:
                gone.add(pid)
        moved |= missing
    raise OSError(errno.EAGAIN, "its processes are born faster than they can be moved", directory)

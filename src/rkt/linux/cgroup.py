# SPDX-License-Identifier: Apache-2.0
"""The cgroups of a pod on every kind of host: making them, getting a child into them, finding them again, removing them.

A pod's group is made below the caller's own cgroup in each hierarchy that is needed, so that limits of whoever started
us keep holding::

    <own cgroup>/                       of `rkt run`, for example the cgroup of its systemd unit
    ├── NAME/                           the pod: limits of the pod, device policy
    │   ├── APP/                        one per app, only in the hierarchies in which it has limits (and in version 2)
    │   └── …
    └── NAME.supervisor/                version 2 only, and only when the caller had to make room, see below

Version 2 gives controllers only to children of a cgroup without processes of its own. When the caller is alone in its
cgroup it moves itself to ``NAME.supervisor``. When others are there, such as the shell of a login session, the pod goes
beside that cgroup, below the nearest ancestor that has room. For the same reason no process may be put into a pod's
group itself once apps have groups: give pid 1 a child of its own.

Moving a process by ``cgroup.procs`` waits for all CPUs to pass a grace period, 10 ms and more, on the first move. So a
``Joiner`` uses two ways without that price: ``clone3`` straight into a version 2 cgroup, and writing 0 to ``tasks`` of
version 1, by which a process with one thread moves itself.

Hosts without a controller, or on which the caller may make no cgroups, give warnings. A limit that was asked for and
cannot be applied is an ``OSError`` (``ENOTSUP``), and so is a cgroup for which the kernel has no room today, such as a
65536th of ``memory``: a check that cannot be made is a failed check.

What is not about the tree of groups has modules of its own: ``cgroupfs`` the hierarchies and their files,
``cgroup_subtree`` the room in version 2, ``cgroup_limits`` and ``cgroup_devices`` what a group may use,
``cgroup_processes`` and ``cgroup_freezer`` what is in it, ``cgroup_migration`` what gets into it later.

Source: Documentation/admin-guide/cgroup-v1/, Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import errno
import os
import time

from rkt.linux import cgroupfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rkt.linux.cgroupfs import Hierarchies, Hierarchy

    #: Hierarchy, path of the cgroup in it, directory of the cgroup.
    Place = tuple[Hierarchy, str, str]

#: Controllers a pod gets a group for, whether or not limits are asked: ceilings by default (invariant RN24) and the
#: device policy (UN8). ``cpu`` is added by callers that have a CPU limit to set.
DEFAULT_CONTROLLERS = ("memory", "pids", "devices")
#: Of version 1, for hosts without version 2, whose groups can all be frozen.
FREEZER = "freezer"
SUPERVISOR_SUFFIX = ".supervisor"

#: Why a cgroup cannot be made on a host that has them. ``EAGAIN``: ``cgroup.max.descendants`` of one above.
_NO_ROOM = frozenset((errno.ENOSPC, errno.EAGAIN, errno.ENOMEM, errno.EIO, errno.EMFILE, errno.ENFILE))


class Joiner:
    """Opened beforehand, so that a child gets into a group by a few writes and no path."""

    __slots__ = ("cgroup_fd", "procs_fd", "task_fds")

    def __init__(self, cgroup_fd: int, procs_fd: int, task_fds: list[int]) -> None:
        #: Directory of the version 2 cgroup for ``libc.clone3``, -1 without.
        self.cgroup_fd = cgroup_fd
        self.procs_fd = procs_fd
        self.task_fds = task_fds

    def join(self, *, unified: bool) -> None:
        """Move the calling process, which must have one thread.

        Args:
            unified: whether to move in version 2 too; false for a process born there by ``libc.clone3``.
        """
        if unified and self.procs_fd >= 0:
            os.write(self.procs_fd, b"0")
        for fd in self.task_fds:
            os.write(fd, b"0")

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self.cgroup_fd, self.procs_fd, *self.task_fds):
            if fd >= 0:
                os.close(fd)
        self.cgroup_fd = self.procs_fd = -1
        self.task_fds = []


class Group:
    """The cgroups of a pod or of an app of it, one directory per hierarchy."""

    __slots__ = ("inherited", "name", "places", "warnings")

    def __init__(self, name: str, places: list[Place], warnings: list[str]) -> None:
        self.name = name
        #: Of each directory that is this group's own.
        self.places = places
        #: Of those hierarchies where only the parent has a directory.
        self.inherited: list[Place] = []
        self.warnings = warnings

    def has(self, controller: str) -> bool:
        """Whether limits of a controller can be set on this group."""
        return self.find(controller) is not None

    def find(self, controller: str) -> tuple[int, str] | None:
        """Version and directory in which a controller counts and limits for this group itself; None where it does not."""
        for hierarchy, _, directory in self.places:
            if hierarchy.version == 1:
                if hierarchy.offers(controller):
                    return 1, directory
            elif controller in cgroupfs.read(f"{directory}/cgroup.controllers").split():
                return 2, directory
        return None

    def need(self, controller: str) -> tuple[int, str]:
        """Likewise.

        Raises:
            OSError: ``ENOTSUP`` where it does not.
        """
        found = self.find(controller)
        if found is None:
            raise OSError(
                errno.ENOTSUP, f"cgroup controller {controller} is not available on this host", self.name
            )
        return found

    @property
    def unified_directory(self) -> str | None:
        """Directory of the version 2 cgroup, None without."""
        return next((directory for hierarchy, _, directory in self.places if hierarchy.version == 2), None)

    def directories(self) -> list[str]:
        """The group's own directories."""
        return [directory for _, _, directory in self.places]

    def record(self) -> str:
        """Text by which ``open_pod`` finds the group again.

        The first line is the path below the root of each hierarchy, for version 2 where there is one. Further lines
        ``KEY:PATH`` name the hierarchies where it is another one.
        """
        paths = {hierarchy.key: path for hierarchy, path, _ in self.places}
        default = paths.get("", next(iter(paths.values()), ""))
        lines = [default, *(f"{key}:{path}" for key, path in paths.items() if path != default)]
        return "\n".join(lines) + "\n"

    def child(self, name: str, controllers: Iterable[str] = ()) -> Group:
        """Make a group for an app below a pod's.

        Args:
            name: one path component.
            controllers: those that will get limits. Other version 1 hierarchies keep the parent's group.
        Returns:
            The group; what the host does not allow is in its ``warnings``.
        Raises:
            OSError: the kernel has no room for it now; nothing of it is left.
        """
        wanted = tuple(controllers)
        group = Group(name, [], [])
        for hierarchy, path, directory in self.places:
            place = (hierarchy, f"{path}/{name}", f"{directory}/{name}")
            if hierarchy.version == 1 and not any(hierarchy.offers(item) for item in wanted):
                group.inherited.append((hierarchy, path, directory))
                continue
            if hierarchy.version == 2 and wanted:
                from rkt.linux import cgroup_subtree

                try:
                    cgroup_subtree.enable(directory, wanted, hierarchy.mount_point)
                except OSError as e:
                    group.warnings.append(f"no controllers below {directory}: {e.strerror}")
            try:
                make_directory(hierarchy, directory, place[2])
            except OSError as e:
                if e.errno in _NO_ROOM:
                    group.remove()
                    raise OSError(e.errno, f"cannot make a cgroup: {e.strerror}", place[2]) from e
                group.warnings.append(f"no cgroup {place[2]}: {e.strerror}")
                group.inherited.append((hierarchy, path, directory))
                continue
            group.places.append(place)
        return group

    def open_child(self, name: str, pid: int = 0) -> Group:
        """The group of an app as it was made before; hierarchies without a directory of its own are the parent's.

        Args:
            name: as for ``child``.
            pid: of a process of the app: in version 2, and in systemd's own hierarchy, the group is the one that it is in,
                wherever below this one.
        """
        group = Group(name, [], [])
        membership_of_pid = cgroupfs.membership(pid) if pid else {}
        for hierarchy, path, directory in self.places:
            is_managers = hierarchy.version == 2 or hierarchy.key.startswith("name=")
            actual = membership_of_pid.get(hierarchy.key, "") if is_managers else ""
            if actual.startswith(path + "/") and ".." not in actual.split("/"):
                group.places.append((hierarchy, actual, directory + actual[len(path) :]))
            elif os.path.isdir(f"{directory}/{name}"):
                group.places.append((hierarchy, f"{path}/{name}", f"{directory}/{name}"))
            else:
                group.inherited.append((hierarchy, path, directory))
        return group

    def joiner(self) -> Joiner:
        """Open what is needed to get a child into the group; the caller closes it."""
        joiner = Joiner(-1, -1, [])
        try:
            for hierarchy, _, directory in (*self.places, *self.inherited):
                if hierarchy.version == 2:
                    joiner.cgroup_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                    joiner.procs_fd = os.open(f"{directory}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
                else:
                    joiner.task_fds.append(os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC))
        except BaseException:
            joiner.close()
            raise
        return joiner

    def remove(self, timeout_seconds: float = 2.0) -> list[str]:
        """Remove the directories, deepest first, waiting for processes that are about to be gone.

        Returns:
            Directories that could not be removed, each with the reason; absent ones are fine.
        """
        deadline = time.monotonic() + timeout_seconds
        left = []
        for hierarchy, _, directory in self.places:
            for path in reversed(cgroupfs.walk(directory)):
                left += _remove_directory(path, deadline)
            if hierarchy.version == 2:
                # The supervisor may be this very process; then a later gc takes it.
                _remove_directory(directory + SUPERVISOR_SUFFIX, 0)
        return left


def create_pod(
    hierarchies: Hierarchies, name: str, controllers: Iterable[str] = DEFAULT_CONTROLLERS
) -> Group:
    """Make the group of a pod.

    Args:
        hierarchies: the host's.
        name: one path component, unique on the host.
        controllers: those that are wanted; the version 2 cgroup is always made where there is one.
    Returns:
        The group; what the host does not have or does not allow is in its ``warnings`` and not an error.
    Raises:
        OSError: the kernel has no room for it now; nothing of it is left, but for the cgroup to which the caller may have
            moved itself to make room: that is for ``search_pod``.
    """
    if "/" in name or name in {"", ".", ".."}:
        raise ValueError(f"not a name for a cgroup: {name!r}")
    wanted = tuple(controllers)
    group = Group(name, [], [])
    version_1 = {item for item in wanted if any(each.offers(item) for each in hierarchies)}
    for hierarchy in hierarchies:
        if hierarchy.version == 1 and not any(hierarchy.offers(item) for item in wanted):
            continue
        parent = hierarchy.directory(hierarchy.own_path)
        path = hierarchy.own_path.rstrip("/")
        if parent is None:
            group.warnings.append(f"no cgroup in {hierarchy.mount_point}: {path} is not visible there")
            continue
        try:
            needed = [item for item in wanted if item not in version_1 and item != "devices"]
            if hierarchy.version == 2 and needed:
                from rkt.linux import cgroup_subtree

                leaf = name + SUPERVISOR_SUFFIX
                parent, path = cgroup_subtree.make_room(hierarchy, parent, path, leaf, needed, group.warnings)
            make_directory(hierarchy, parent, f"{parent}/{name}")
        except OSError as e:
            if e.errno in _NO_ROOM:
                group.remove()
                raise OSError(e.errno, f"cannot make a cgroup: {e.strerror}", f"{parent}/{name}") from e
            group.warnings.append(f"no cgroup {parent}/{name}: {e.strerror}")
            continue
        group.places.append((hierarchy, f"{path}/{name}", f"{parent}/{name}"))
    for item in wanted:
        if item not in {"devices", "cpuacct", FREEZER} and not group.has(item):
            group.warnings.append(f"cgroup controller {item} is not available on this host")
    return group


def open_pod(hierarchies: Hierarchies, record: str, name: str) -> Group:
    """Find a pod's group from its record, in any later process.

    Args:
        hierarchies: the host's.
        record: what ``Group.record`` gave.
        name: the name given at ``create_pod``; paths that do not end in it are refused.
    Returns:
        The group with those directories that still exist, maybe none.
    Raises:
        ValueError: the record is damaged.
    """
    default, *others = record.splitlines() or [""]
    exceptions = {key: path for key, _, path in [line.partition(":") for line in others]}
    group = Group(name, [], [])
    if not default:
        return group  # no hierarchy was writable
    for hierarchy in hierarchies:
        path = exceptions.get(hierarchy.key, default)
        parts = path.split("/")
        if parts[-1] != name or ".." in parts or not name:
            raise ValueError(f"not a cgroup of {name}: {path!r}")
        directory = hierarchy.directory(path)
        if directory is not None and os.path.isdir(directory):
            group.places.append((hierarchy, path, directory))
        elif directory is not None and hierarchy.version == 2:
            _remove_directory(directory + SUPERVISOR_SUFFIX, 0)
    return group


def search_pod(hierarchies: Hierarchies, name: str) -> Group:
    """Find a pod's group by its name alone, wherever it is; for a run that was killed before it wrote the record.

    Reads every directory of every hierarchy, so it is only for when there is no record.
    """
    group = Group(name, [], [])
    for hierarchy in hierarchies:
        root = hierarchy.root.rstrip("/")
        for directory in cgroupfs.walk(hierarchy.mount_point):
            base = directory.rpartition("/")[2]
            if base == name:
                path = root + directory[len(hierarchy.mount_point) :]
                group.places.append((hierarchy, path, directory))
            elif base == name + SUPERVISOR_SUFFIX:
                _remove_directory(directory, 0)
    return group


def make_directory(hierarchy: Hierarchy, parent: str, directory: str) -> None:
    """Make a cgroup, ready for processes; one that is there is taken as it is.

    Raises:
        OSError: the kernel refuses; nothing of it is left.
    """
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        return  # left by a run that was killed; the same pod, as names are unique
    try:
        if "memory" in hierarchy.controllers:
            # Before 5.11 a group does not count what is in its children unless told so.
            cgroupfs.write_if_there(f"{directory}/memory.use_hierarchy", b"1")
        if "cpuset" in hierarchy.controllers:
            # Empty at birth, and no process may join before both are set.
            for item in ("cpuset.cpus", "cpuset.mems"):
                cgroupfs.write(f"{directory}/{item}", cgroupfs.read(f"{parent}/{item}").strip().encode())
    except BaseException:
        # Nobody will know of it.
        os.rmdir(directory)
        raise


def _remove_directory(path: str, deadline: float) -> list[str]:
    pause = 0.0005
    while True:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return []
        except OSError as e:
            if e.errno != errno.EBUSY or time.monotonic() > deadline:
                return [f"{path}: {e.strerror}"]
        else:
            return []
        time.sleep(pause)
        pause = min(pause * 2, 0.05)

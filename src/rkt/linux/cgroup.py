# SPDX-License-Identifier: Apache-2.0
"""Control groups on every kind of host: version 1 (controllers alone or together), hybrid, version 2.

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

Source: Documentation/admin-guide/cgroup-v1/, Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import errno
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: Controllers a pod gets a group for, whether or not limits are asked: ceilings by default (invariant RN24) and the
#: device policy (UN8). ``cpu`` is added by callers that have a CPU limit to set.
DEFAULT_CONTROLLERS = ("memory", "pids", "devices")
#: Of version 1, for hosts without version 2, whose groups can all be frozen.
FREEZER = "freezer"

#: Device policy: everything is refused but these. (type, major, minor or None for all, access)
DEFAULT_DEVICES: tuple[tuple[str, int, int | None, str], ...] = (
    ("c", 1, 3, "rwm"),  # null
    ("c", 1, 5, "rwm"),  # zero
    ("c", 1, 7, "rwm"),  # full
    ("c", 1, 8, "rwm"),  # random
    ("c", 1, 9, "rwm"),  # urandom
    ("c", 5, 0, "rwm"),  # tty
    ("c", 5, 1, "rw"),  # console
    ("c", 5, 2, "rw"),  # ptmx
    ("c", 136, None, "rw"),  # pts/*
    ("c", 10, 200, "rw"),  # net/tun
)

SUPERVISOR_SUFFIX = ".supervisor"

#: Why a cgroup cannot be made on a host that has them. ``EAGAIN``: ``cgroup.max.descendants`` of one above.
_NO_ROOM = frozenset((errno.ENOSPC, errno.EAGAIN, errno.ENOMEM, errno.EIO, errno.EMFILE, errno.ENFILE))
#: How it shows that somebody else has removed a group meanwhile.
_GONE = frozenset((errno.ENOENT, errno.ENODEV))

#: Version 1 writes a number near 2⁶³ where there is no limit.
_NO_LIMIT = 1 << 60
_READ_LIMIT_BYTES = 1 << 16
_CFS_PERIOD_US = 100_000
_CFS_MINIMUM_US = 1000
_GATHER_ATTEMPTS = 100
#: Version -> controller -> files that a limit is written to.
_LIMIT_FILES = {
    1: {
        "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes"),
        "cpu": ("cpu.cfs_quota_us", "cpu.shares"),
        "cpuset": ("cpuset.cpus",),
        "pids": ("pids.max",),
        "io": ("blkio.bfq.weight",),
    },
    2: {
        "memory": ("memory.max", "memory.swap.max", "memory.low", "memory.oom.group"),
        "cpu": ("cpu.max", "cpu.weight"),
        "cpuset": ("cpuset.cpus",),
        "pids": ("pids.max",),
        "io": ("io.weight", "io.bfq.weight"),
    },
}


class Hierarchy:
    """One mounted cgroup file system and the caller's place in it."""

    __slots__ = ("controllers", "mount_point", "own_path", "root", "version")

    def __init__(
        self, version: int, controllers: Sequence[str], mount_point: str, root: str, own_path: str
    ) -> None:
        self.version = version
        #: For version 1: names such as ``cpu`` or ``name=systemd``. For version 2: empty, see ``available``.
        self.controllers = tuple(controllers)
        self.mount_point = mount_point
        #: Cgroup that is visible at the mount point; ``/`` but for bind mounts.
        self.root = root
        #: The caller's cgroup as ``/proc/self/cgroup`` names it.
        self.own_path = own_path

    def offers(self, controller: str) -> bool:
        """Whether this is the version 1 hierarchy of a controller; version 1 calls ``io`` ``blkio``."""
        return controller in self.controllers or (controller == "io" and "blkio" in self.controllers)

    @property
    def key(self) -> str:
        """What the record of a pod calls this hierarchy, as in ``/proc/PID/cgroup``: empty for version 2."""
        return ",".join(self.controllers)

    def directory(self, path: str) -> str | None:
        """Where a cgroup is in the file system; None when it is not below what is mounted."""
        root = self.root.rstrip("/")
        if path == self.root or not root:
            relative = path.strip("/") if not root else ""
        elif path.startswith(root + "/"):
            relative = path[len(root) + 1 :]
        else:
            return None
        if ".." in relative.split("/"):
            return None  # the caller is outside of the root of its cgroup namespace
        return f"{self.mount_point}/{relative}" if relative else self.mount_point


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

    def fds(self) -> list[int]:
        """Every descriptor, for whoever closes all others."""
        return [fd for fd in (self.cgroup_fd, self.procs_fd, *self.task_fds) if fd >= 0]

    def close(self) -> None:
        """Close the descriptors."""
        for fd in self.fds():
            os.close(fd)
        self.cgroup_fd = self.procs_fd = -1
        self.task_fds = []


class Group:
    """The cgroups of a pod or of an app of it, one directory per hierarchy."""

    __slots__ = ("_inherited", "_paths", "name", "warnings")

    def __init__(self, name: str, paths: list[tuple[Hierarchy, str, str]], warnings: list[str]) -> None:
        self.name = name
        #: (hierarchy, cgroup path, directory) of each directory that is this group's own.
        self._paths = paths
        #: Likewise, of those hierarchies where only the parent has a directory.
        self._inherited: list[tuple[Hierarchy, str, str]] = []
        self.warnings = warnings

    # Finding -----------------------------------------------------------------------------------------------------

    def has(self, controller: str) -> bool:
        """Whether limits of a controller can be set on this group."""
        return self._find(controller) is not None

    def counter(self, controller: str) -> tuple[int, str] | None:
        """Version and directory in which a controller counts for this group itself; None where it does not."""
        return self._find(controller)

    def _find(self, controller: str) -> tuple[int, str] | None:
        for hierarchy, _, directory in self._paths:
            if hierarchy.version == 1:
                if hierarchy.offers(controller):
                    return 1, directory
            elif controller in _read(f"{directory}/cgroup.controllers").split():
                return 2, directory
        return None

    def _need(self, controller: str) -> tuple[int, str]:
        found = self._find(controller)
        if found is None:
            raise OSError(
                errno.ENOTSUP, f"cgroup controller {controller} is not available on this host", self.name
            )
        return found

    @property
    def unified_directory(self) -> str | None:
        """Directory of the version 2 cgroup, None without."""
        return next((directory for hierarchy, _, directory in self._paths if hierarchy.version == 2), None)

    def directories(self) -> list[str]:
        """The group's own directories."""
        return [directory for _, _, directory in self._paths]

    def record(self) -> str:
        """Text by which ``Cgroups.open_pod`` finds the group again.

        The first line is the path below the root of each hierarchy, for version 2 where there is one. Further lines
        ``KEY:PATH`` name the hierarchies where it is another one.
        """
        paths = {hierarchy.key: path for hierarchy, path, _ in self._paths}
        default = paths.get("", next(iter(paths.values()), ""))
        lines = [default, *(f"{key}:{path}" for key, path in paths.items() if path != default)]
        return "\n".join(lines) + "\n"

    # Making ------------------------------------------------------------------------------------------------------

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
        for hierarchy, path, directory in self._paths:
            place = (hierarchy, f"{path}/{name}", f"{directory}/{name}")
            if hierarchy.version == 1 and not any(hierarchy.offers(item) for item in wanted):
                group._inherited.append((hierarchy, path, directory))
                continue
            if hierarchy.version == 2 and wanted:
                try:
                    _enable(directory, wanted, hierarchy.mount_point)
                except OSError as e:
                    group.warnings.append(f"no controllers below {directory}: {e.strerror}")
            try:
                _make(hierarchy, directory, place[2])
            except OSError as e:
                if e.errno in _NO_ROOM:
                    group.remove()
                    raise OSError(e.errno, f"cannot make a cgroup: {e.strerror}", place[2]) from e
                group.warnings.append(f"no cgroup {place[2]}: {e.strerror}")
                group._inherited.append((hierarchy, path, directory))
                continue
            group._paths.append(place)
        return group

    def extend(self, above: Group, controllers: Iterable[str], members: Callable[[], set[int]]) -> None:
        """Get directories for controllers that a running app had no limits of, and its processes into them.

        Args:
            above: the pod's group.
            controllers: those that will get limits.
            members: tells the numbers of the app's processes by now.
        Raises:
            OSError: ``EAGAIN`` when they are born faster than they can be moved, or what the kernel says.
        """
        wanted = tuple(controllers)
        for place in list(self._inherited):
            hierarchy, path, directory = place
            if hierarchy.version == 1 and any(hierarchy.offers(item) for item in wanted):
                own = f"{directory}/{self.name}"
                _make(hierarchy, directory, own)
                _gather(own, members)
                self._inherited.remove(place)
                self._paths.append((hierarchy, f"{path}/{self.name}", own))
        for hierarchy, _, directory in above._paths:
            if hierarchy.version == 2:
                _enable(directory, wanted, hierarchy.mount_point)

    def open_child(self, name: str, pid: int = 0) -> Group:
        """The group of an app as it was made before; hierarchies without a directory of its own are the parent's.

        Args:
            name: as for ``child``.
            pid: of a process of the app: in version 2, and in systemd's own hierarchy, the group is the one that it is in,
                wherever below this one.
        """
        group = Group(name, [], [])
        membership_of_pid = membership(pid) if pid else {}
        for hierarchy, path, directory in self._paths:
            is_managers = hierarchy.version == 2 or hierarchy.key.startswith("name=")
            actual = membership_of_pid.get(hierarchy.key, "") if is_managers else ""
            if actual.startswith(path + "/") and ".." not in actual.split("/"):
                group._paths.append((hierarchy, actual, directory + actual[len(path) :]))
            elif os.path.isdir(f"{directory}/{name}"):
                group._paths.append((hierarchy, f"{path}/{name}", f"{directory}/{name}"))
            else:
                group._inherited.append((hierarchy, path, directory))
        return group

    # Limits ------------------------------------------------------------------------------------------------------

    def set_memory_limit(self, size_bytes: int) -> None:
        """Ceiling of memory and, where the kernel counts it, of memory and swap together.

        Raises:
            OSError: ``ENOTSUP`` without the controller, or what the kernel says.
        """
        version, directory = self._need("memory")
        value = b"%d" % size_bytes
        if version == 2:
            _write(f"{directory}/memory.max", value)
            _write_if_there(f"{directory}/memory.swap.max", b"0")
            # A pod that loses one process to the OOM killer is broken: let it take the whole group (RN24).
            _write_if_there(f"{directory}/memory.oom.group", b"1")
            return
        swap = f"{directory}/memory.memsw.limit_in_bytes"
        try:
            _write(f"{directory}/memory.limit_in_bytes", value)
            _write_if_there(swap, value)
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise
            # Memory alone may not exceed memory and swap: when raising a limit, the other order is needed.
            _write(swap, value)
            _write(f"{directory}/memory.limit_in_bytes", value)

    def set_cpu_limit(self, millicores: int) -> None:
        """Ceiling of CPU time, in thousandths of one CPU.

        Raises:
            OSError: ``ENOTSUP`` without the controller, ``EINVAL`` for more than an ancestor has.
        """
        version, directory = self._need("cpu")
        quota = max(millicores * _CFS_PERIOD_US // 1000, _CFS_MINIMUM_US)
        if version == 2:
            _write(f"{directory}/cpu.max", b"%d %d" % (quota, _CFS_PERIOD_US))
            return
        _write(f"{directory}/cpu.cfs_period_us", b"%d" % _CFS_PERIOD_US)
        try:
            _write(f"{directory}/cpu.cfs_quota_us", b"%d" % quota)
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise
            raise OSError(e.errno, f"{millicores}m is more than the cgroup above has", directory) from None

    def set_cpu_shares(self, shares: int) -> None:
        """Weight of CPU time against other groups, 2 to 262144; 1024 is usual.

        Raises:
            OSError: ``ENOTSUP`` without the controller.
        """
        version, directory = self._need("cpu")
        if version == 2:
            _write(f"{directory}/cpu.weight", b"%d" % weight_of_shares(shares))
        else:
            _write(f"{directory}/cpu.shares", b"%d" % shares)

    def set_pids_limit(self, count: int) -> None:
        """Ceiling of processes and threads.

        Raises:
            OSError: ``ENOTSUP`` without the controller.
        """
        _, directory = self._need("pids")
        _write(f"{directory}/pids.max", b"%d" % count)

    def set_memory_request(self, size_bytes: int) -> None:
        """Memory to leave alone when it gets short: protected in version 2, reclaimed from later in version 1.

        Version 2 protects a child only as far as its ancestors are protected.

        Raises:
            OSError: ``ENOTSUP`` without the controller.
        """
        version, directory = self._need("memory")
        name = "memory.low" if version == 2 else "memory.soft_limit_in_bytes"
        _write(f"{directory}/{name}", b"%d" % size_bytes)

    def set_cpus(self, cpus: str, wanted: frozenset[int]) -> None:
        """CPUs to run on.

        Args:
            cpus: a list as the kernel reads it, ``0-3,6``.
            wanted: the same as numbers; version 2 would take CPUs that are not there and use others.
        Raises:
            OSError: ``ENOTSUP`` without the controller, ``ERANGE`` for a CPU that the parent does not have.
        """
        version, directory = self._need("cpuset")
        text = _read(f"{directory}/{'cpuset.cpus.effective' if version == 2 else 'cpuset.cpus'}").strip()
        available: set[int] = set()
        for part in filter(None, text.split(",")):
            first, _, last = part.partition("-")
            available.update(range(int(first), int(last or first) + 1))
        if missing := sorted(wanted - available):
            numbers = ",".join(str(number) for number in missing)
            raise OSError(errno.ERANGE, f"no CPU {numbers} among {text}", directory)
        _write(f"{directory}/cpuset.cpus", cpus.encode())

    def set_io_limit(self, device: tuple[int, int], rates: dict[str, int]) -> None:
        """Ceilings of a block device.

        Args:
            device: major and minor number of a whole disk.
            rates: ``read-bps``, ``write-bps`` in bytes, ``read-iops``, ``write-iops`` in operations per second.
        Raises:
            OSError: ``ENOTSUP`` without the controller, ``ENODEV`` for what is no disk.
        """
        version, directory = self._need("io")
        number = f"{device[0]}:{device[1]}"
        if version == 2:
            words = [f"{name[0]}{name.partition('-')[2]}={rate}" for name, rate in rates.items()]
            _write(f"{directory}/io.max", " ".join([number, *words]).encode())
            return
        for name, rate in rates.items():
            file_name = f"blkio.throttle.{name.replace('-', '_')}_device"
            _write(f"{directory}/{file_name}", f"{number} {rate}".encode())

    def set_io_weight(self, weight: int) -> None:
        """Weight against other groups on disks whose scheduler knows weights, 1 to 10000; 100 is usual.

        Raises:
            OSError: ``ENOTSUP`` without the controller, or where the kernel has no such scheduler.
        """
        version, directory = self._need("io")
        # BFQ has 1000 where version 2 has 10000; the usual weight is 100 for both (systemd converts likewise).
        bfq = weight if weight <= 100 else 100 + (weight - 100) * 900 // 9900
        names = {"io.weight": weight, "io.bfq.weight": bfq} if version == 2 else {"blkio.bfq.weight": bfq}
        there = {name: value for name, value in names.items() if os.path.exists(f"{directory}/{name}")}
        if not there:
            raise OSError(errno.ENOTSUP, "this kernel has no io weights", directory)
        for name, value in there.items():
            _write(f"{directory}/{name}", b"%d" % value)

    def limits(self, controllers: Iterable[str]) -> list[tuple[str, str]]:
        """The files in which these controllers keep the group's limits, with what is in them."""
        found = []
        for controller in controllers:
            place = self._find(controller)
            for name in _LIMIT_FILES[place[0]].get(controller, ()) if place is not None else ():
                path = f"{place[1]}/{name}"  # type: ignore[index]
                if os.path.exists(path):
                    found.append((path, _read(path).strip()))
        return found

    @staticmethod
    def restore_limits(found: list[tuple[str, str]]) -> None:
        """Put back what ``limits`` said."""
        # Of memory, and memory and swap, either may have to come first.
        for path, text in (*found, *reversed(found)):
            try:
                _write(path, text.encode())
            except OSError:
                continue

    def memory_in_use(self) -> int:
        """Memory that the kernel cannot take back by forgetting files, in bytes; 0 where it is not counted."""
        found = self._find("memory")
        if found is None:
            return 0
        version, directory = found
        lines = _read(f"{directory}/memory.stat").splitlines()
        counts = {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
        if version == 1:
            return counts.get("total_rss", 0) + counts.get("total_shmem", 0)
        return sum(counts.get(name, 0) for name in ("anon", "shmem", "kernel_stack", "pagetables"))

    def memory_limit(self) -> int:
        """The ceiling of memory that was set on this group itself; 0 for none."""
        found = self._find("memory")
        if found is None:
            return 0
        return limit_of(_read(f"{found[1]}/{'memory.max' if found[0] == 2 else 'memory.limit_in_bytes'}"))

    def out_of_memory_kills(self) -> tuple[str, int]:
        """How many processes the kernel has killed for want of memory, and the directory for which it counts them.

        That is the parent's where the group has no counter of its own.
        """
        for hierarchy, _, directory in (*self._paths, *self._inherited):
            if hierarchy.version == 1 and hierarchy.offers("memory"):
                return directory, max(0, _count(f"{directory}/memory.oom_control"))
        own = self.unified_directory
        for directory in (own, own.rpartition("/")[0]) if own else ():
            kills = _count(f"{directory}/memory.events")
            if kills >= 0:
                return directory, kills
        return "", 0

    def set_devices(self, allowed: Sequence[tuple[str, int, int | None, str]] = DEFAULT_DEVICES) -> None:
        """Refuse every device but those of ``allowed``, with version 1 files or, without them, a version 2 program.

        Call it before the group has children: version 1 refuses later (``EBUSY``).

        Raises:
            OSError: ``ENOTSUP`` with neither, or what the kernel says.
        """
        for hierarchy, _, directory in self._paths:
            if "devices" in hierarchy.controllers:
                _write(f"{directory}/devices.deny", b"a")
                self.admit_devices(allowed)
                return
        directory = self.unified_directory or ""
        if not directory:
            raise OSError(errno.ENOTSUP, "no cgroup for a device policy", self.name)
        from rkt.linux import cgroup_devices

        cgroup_devices.attach(directory, allowed)

    def admit_devices(self, more: Sequence[tuple[str, int, int | None, str]]) -> None:
        """Let a group whose policy is a version 1 one have more devices; groups below it go on without them.

        In version 2 a policy cannot be widened, so a group whose children may come to differ should have none itself.
        """
        for hierarchy, _, directory in self._paths:
            if "devices" not in hierarchy.controllers:
                continue
            fd = os.open(f"{directory}/devices.allow", os.O_WRONLY | os.O_CLOEXEC)
            try:
                for kind, major, minor, access in more:
                    text = f"{kind} {major}:{'*' if minor is None else minor} {access}"
                    try:
                        os.write(fd, text.encode())
                    except PermissionError:
                        self.warnings.append(f"device {text} is not allowed to this host's own cgroup")
            finally:
                os.close(fd)

    # Members -----------------------------------------------------------------------------------------------------

    def joiner(self) -> Joiner:
        """Open what is needed to get a child into the group; the caller closes it."""
        joiner = Joiner(-1, -1, [])
        try:
            for hierarchy, _, directory in (*self._paths, *self._inherited):
                if hierarchy.version == 2:
                    joiner.cgroup_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                    joiner.procs_fd = os.open(f"{directory}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
                else:
                    joiner.task_fds.append(os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC))
        except BaseException:
            joiner.close()
            raise
        return joiner

    def attach(self, pid: int) -> None:
        """Move another process with its threads. Slow, see the module's text; children had better use a ``Joiner``."""
        for _, _, directory in (*self._paths, *self._inherited):
            _write(f"{directory}/cgroup.procs", b"%d" % pid)

    def take(self, pid: int) -> None:
        """Move a process that somebody else has put into a group of version 2, or of systemd's own hierarchy, and all others in it.

        Only into the group's own directories of version 1.

        Raises:
            OSError: ``EAGAIN`` when they are born faster than they can be moved, or what the kernel says.
        """
        actual = membership(pid)
        place = None
        for hierarchy, _, _ in (*self._paths, *self._inherited):
            path = actual.get(hierarchy.key, "/")
            if path != "/" and (hierarchy.version == 2 or hierarchy.key.startswith("name=")):
                place = hierarchy.directory(path) or place

        def members() -> set[int]:
            if place is None:
                return {pid}
            return {int(item) for item in _read(f"{place}/cgroup.procs").split()}

        for hierarchy, _, directory in self._paths:
            if hierarchy.version == 1:
                _gather(directory, members)

    @property
    def freezer(self) -> tuple[int, str] | None:
        """Version and file by which the group and all below it are frozen; None where the host has none.

        In version 1 a frozen process does not even die before it goes on.
        """
        own = self.unified_directory
        if own is not None and os.path.exists(f"{own}/cgroup.freeze"):
            return 2, f"{own}/cgroup.freeze"
        found = self._find(FREEZER)
        return (1, f"{found[1]}/freezer.state") if found is not None else None

    def freeze(self, timeout_seconds: float = 10.0) -> bool:
        """Stop every process in the group and below it where it is; False when some could not be stopped in time.

        Raises:
            OSError: ``ENOTSUP`` without a freezer, or what the kernel says.
        """
        found = self.freezer
        if found is None:
            raise OSError(errno.ENOTSUP, "no freezer in any cgroup hierarchy", self.name)
        version, path = found
        deadline = time.monotonic() + timeout_seconds
        _write(path, b"1" if version == 2 else b"FROZEN")
        while not (
            "frozen 1" in _read(f"{self.unified_directory}/cgroup.events").splitlines()
            if version == 2
            else _read(path).strip() == "FROZEN"
        ):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
            if version == 1:
                # Processes that were being forked are frozen by another attempt (freezer-subsystem.txt).
                _write(path, b"FROZEN")
        return True

    def thaw(self) -> None:
        """Let the processes of the group go on."""
        found = self.freezer
        if found is not None:
            _write_if_there(found[1], b"0" if found[0] == 2 else b"THAWED")

    def is_frozen(self) -> bool:
        """Whether the group's processes are to stand still."""
        found = self.freezer
        return found is not None and _read(found[1]).strip() not in {"0", "THAWED"}

    def pids(self) -> set[int]:
        """Numbers of the processes in the group and below it."""
        found: set[int] = set()
        for directory in self.directories():
            for path in _walk(directory):
                try:
                    found.update(int(item) for item in _read(f"{path}/cgroup.procs").split())
                except OSError as e:
                    if e.errno not in _GONE:
                        raise
        return found

    def has_member(self, pid: int) -> bool:
        """Whether a process is in the group or below it, in any hierarchy.

        Raises:
            OSError: it is gone.
        """
        members = _read(f"/proc/{pid}/cgroup").splitlines()
        paths = [path for _, path, _ in self._paths]
        return any((line.split(":", 2)[2] + "/").startswith(path + "/") for line in members for path in paths)

    def kill(self, timeout_seconds: float = 10.0, *, again: bool = False) -> bool:
        """Kill every process in the group and below, but not the caller; False when some are left at the end.

        Version 2's ``cgroup.kill`` is atomic. Without it, new processes are forbidden by the pids controller, then
        members are killed until there are none.

        Args:
            timeout_seconds: how long to wait for their end.
            again: the group is to be used again. What is born by ``clone3`` in a group that ``cgroup.kill`` has seen is
                killed too: Linux 6.14 compares the group's count of kills with that of the parent's group
                (cgroup_css_set_fork). So the group is frozen instead, and members are killed.
        """
        unified = self.unified_directory
        if again and not self.pids():
            return True
        if unified is not None:
            _write_if_there(f"{unified}/{'cgroup.freeze' if again else 'cgroup.kill'}", b"1")
        try:
            return self._kill_all(timeout_seconds)
        finally:
            if unified is not None and again:
                _write_if_there(f"{unified}/cgroup.freeze", b"0")

    def _kill_all(self, timeout_seconds: float) -> bool:
        deadline = time.monotonic() + timeout_seconds
        pause = 0.0005
        pids = None
        ceiling = b""
        while left := self.pids() - {os.getpid()}:
            # Not before: a group that somebody else has removed meanwhile has no controllers to ask for.
            try:
                pids = pids or self._find("pids")
                if pids is not None and not ceiling:
                    ceiling = _read(f"{pids[1]}/pids.max").encode()
                    _write(f"{pids[1]}/pids.max", b"0")
            except OSError as e:
                if e.errno not in _GONE:
                    raise
            for pid in left:
                self._kill_one(pid)
            if (freezer := self.freezer) is not None and freezer[0] == 1:
                self.thaw()
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        if pids is not None and ceiling:
            try:
                _write(f"{pids[1]}/pids.max", ceiling)
            except OSError as e:
                if e.errno not in _GONE:
                    raise
        return True

    def _kill_one(self, pid: int) -> None:
        from rkt.linux import pidfd

        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return
        try:
            # The descriptor pins the process; only then is its membership checked (invariant EN4).
            if self.has_member(pid):
                pidfd.send_signal(fd, 9)
        except OSError:
            return
        finally:
            os.close(fd)

    def remove(self, timeout_seconds: float = 2.0) -> list[str]:
        """Remove the directories, deepest first, waiting for processes that are about to be gone.

        Returns:
            Directories that could not be removed, each with the reason; absent ones are fine.
        """
        deadline = time.monotonic() + timeout_seconds
        left = []
        for hierarchy, _, directory in self._paths:
            for path in reversed(_walk(directory)):
                left += _remove_directory(path, deadline)
            if hierarchy.version == 2:
                # The supervisor may be this very process; then a later gc takes it.
                _remove_directory(directory + SUPERVISOR_SUFFIX, 0)
        return left


class Cgroups:
    """The host's cgroup hierarchies as the caller sees them."""

    __slots__ = ("hierarchies",)

    def __init__(self, hierarchies: list[Hierarchy]) -> None:
        self.hierarchies = hierarchies

    @classmethod
    def detect(cls, mountinfo: bytes | None = None, membership: bytes | None = None) -> Cgroups:
        """Find the hierarchies.

        Args:
            mountinfo: content of ``/proc/self/mountinfo``, read if not given.
            membership: content of ``/proc/self/cgroup``, read if not given.
        """
        if mountinfo is None:
            mountinfo = _read_all("/proc/self/mountinfo")
        if membership is None:
            membership = _read_all("/proc/self/cgroup")
        own: dict[str, str] = {}
        for line in membership.decode("utf-8", "surrogateescape").splitlines():
            _, names, path = line.split(":", 2)
            # The kernel's order here is not always that of the mount options.
            own[",".join(sorted(names.split(",")))] = path
        hierarchies: dict[str, Hierarchy] = {}
        for entry in mountinfo.splitlines():
            if b" - cgroup" not in entry:
                continue
            left, _, right = entry.decode("utf-8", "surrogateescape").partition(" - ")
            fields, tail = left.split(" "), right.split(" ")
            if tail[0] == "cgroup2":
                version, controllers = 2, []
            elif tail[0] == "cgroup":
                version, controllers = 1, sorted(filter(_is_controller, tail[2].split(",")))
            else:
                continue
            key = ",".join(controllers)
            # Mounted several times, the first mount counts in which the caller's own cgroup can be seen.
            if key not in own or (key in hierarchies and hierarchies[key].directory(own[key])):
                continue
            hierarchies[key] = Hierarchy(version, controllers, _octal(fields[4]), _octal(fields[3]), own[key])
        return cls(list(hierarchies.values()))

    @property
    def unified(self) -> Hierarchy | None:
        """The version 2 hierarchy, None without."""
        return next((item for item in self.hierarchies if item.version == 2), None)

    def create_pod(self, name: str, controllers: Iterable[str] = DEFAULT_CONTROLLERS) -> Group:
        """Make the group of a pod.

        Args:
            name: one path component, unique on the host.
            controllers: those that are wanted; the version 2 cgroup is always made where there is one.
        Returns:
            The group; what the host does not have or does not allow is in its ``warnings`` and not an error.
        Raises:
            OSError: the kernel has no room for it now; nothing of it is left.
        """
        if "/" in name or name in {"", ".", ".."}:
            raise ValueError(f"not a name for a cgroup: {name!r}")
        wanted = tuple(controllers)
        group = Group(name, [], [])
        version_1 = {item for item in wanted if any(each.offers(item) for each in self.hierarchies)}
        for hierarchy in self.hierarchies:
            if hierarchy.version == 1 and not any(hierarchy.offers(item) for item in wanted):
                continue
            parent = hierarchy.directory(hierarchy.own_path)
            path = hierarchy.own_path.rstrip("/")
            if parent is None:
                group.warnings.append(f"no cgroup in {hierarchy.mount_point}: {path} is not visible there")
                continue
            try:
                if hierarchy.version == 2:
                    needed = [item for item in wanted if item not in version_1 and item != "devices"]
                    parent, path = _make_room(hierarchy, parent, path, name, needed, group.warnings)
                _make(hierarchy, parent, f"{parent}/{name}")
            except OSError as e:
                if e.errno in _NO_ROOM:
                    group.remove()
                    raise OSError(e.errno, f"cannot make a cgroup: {e.strerror}", f"{parent}/{name}") from e
                group.warnings.append(f"no cgroup {parent}/{name}: {e.strerror}")
                continue
            group._paths.append((hierarchy, f"{path}/{name}", f"{parent}/{name}"))  # noqa: SLF001 - same module
        for item in wanted:
            if item not in {"devices", "cpuacct", FREEZER} and not group.has(item):
                group.warnings.append(f"cgroup controller {item} is not available on this host")
        return group

    def extend_pod(
        self,
        group: Group,
        children: Iterable[Group],
        controllers: Iterable[str],
        record: Callable[[], None],
    ) -> None:
        """Give a running pod a directory in version 1 hierarchies that nobody had asked for when it was made.

        Args:
            group: the pod's.
            children: the groups below it, which inherit the new ones.
            controllers: those that are wanted.
            record: called when the group's record has changed, before there is a directory.
        Raises:
            OSError: as for ``Group.extend``.
        """
        wanted = tuple(controllers)
        have = {hierarchy.key for hierarchy, _, _ in group._paths}  # noqa: SLF001 - same module
        for hierarchy in self.hierarchies:
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
            group._paths.append(place)  # noqa: SLF001 - same module
            record()
            _make(hierarchy, parent, place[2])
            _gather(place[2], group.pids)
            for child in children:
                child._inherited.append(place)  # noqa: SLF001 - same module

    def open_pod(self, record: str, name: str) -> Group:
        """Find a pod's group from its record, in any later process.

        Args:
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
        for hierarchy in self.hierarchies:
            path = exceptions.get(hierarchy.key, default)
            parts = path.split("/")
            if parts[-1] != name or ".." in parts or not name:
                raise ValueError(f"not a cgroup of {name}: {path!r}")
            directory = hierarchy.directory(path)
            if directory is not None and os.path.isdir(directory):
                group._paths.append((hierarchy, path, directory))  # noqa: SLF001 - same module
            elif directory is not None and hierarchy.version == 2:
                _remove_directory(directory + SUPERVISOR_SUFFIX, 0)
        return group

    def search_pod(self, name: str) -> Group:
        """Find a pod's group by its name alone, wherever it is; for a run that was killed before it wrote the record.

        Reads every directory of every hierarchy, so it is only for when there is no record.
        """
        group = Group(name, [], [])
        for hierarchy in self.hierarchies:
            root = hierarchy.root.rstrip("/")
            for directory in _walk(hierarchy.mount_point):
                base = directory.rpartition("/")[2]
                if base == name:
                    path = root + directory[len(hierarchy.mount_point) :]
                    group._paths.append((hierarchy, path, directory))  # noqa: SLF001 - same module
                elif base == name + SUPERVISOR_SUFFIX:
                    _remove_directory(directory, 0)
        return group


def membership(pid: int) -> dict[str, str]:
    """A process's group in each hierarchy, as ``/proc/PID/cgroup`` names both; ``{}`` when it is gone."""
    try:
        text = _read_all(f"/proc/{pid}/cgroup").decode("utf-8", "surrogateescape")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = (line.split(":", 2) for line in text.splitlines())
    return {",".join(sorted(names.split(","))): path for _, names, path in fields}


def limit_of(text: str) -> int:
    """The number of a file that holds a limit, of either version; 0 for no limit."""
    text = text.strip()
    return 0 if text == "max" or int(text) >= _NO_LIMIT else int(text)


def weight_of_shares(shares: int) -> int:
    """Version 2 weight (1 to 10000) of version 1 shares (2 to 262144); the defaults 1024 and 100 correspond.

    A linear conversion gives 39 for 1024, less than half of what any other group has. This curve goes through both
    defaults and both ends.

    Source: runtime-spec, config-linux.md, and runc's and crun's conversion since 2025.
    """
    import math

    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    x = math.log2(shares)
    return math.ceil(10 ** ((x * x + 125 * x) / 612 - 7 / 34))


def _make_room(
    hierarchy: Hierarchy, directory: str, path: str, name: str, wanted: Sequence[str], warnings: list[str]
) -> tuple[str, str]:
    """Find where in version 2 a pod's group gets its controllers: (directory, cgroup path) of the parent."""
    start = directory, path
    available = wanted and _read(f"{hierarchy.mount_point}/cgroup.controllers").split()
    needed = [item for item in wanted if item in available]
    if not needed:
        return start
    while True:
        try:
            _enable(directory, needed, hierarchy.mount_point)
            return directory, path
        except OSError as e:
            if e.errno != errno.EBUSY:
                warnings.append(f"no controllers below {directory}: {e.strerror}")
                return start
        if _read(f"{directory}/cgroup.procs").split() == [str(os.getpid())]:
            leaf = f"{directory}/{name}{SUPERVISOR_SUFFIX}"
            try:
                os.mkdir(leaf, 0o755)
            except FileExistsError:
                pass
            _write(f"{leaf}/cgroup.procs", b"0")
            continue
        if directory == hierarchy.mount_point:
            warnings.append(f"no controllers below {start[0]}: other processes are in the way")
            return start
        directory, path = directory.rpartition("/")[0], path.rpartition("/")[0]


def _enable(directory: str, wanted: Sequence[str], mount_point: str) -> None:
    """Give controllers to the children of a version 2 cgroup, from the root down where needed."""
    have = _read(f"{directory}/cgroup.subtree_control").split()
    missing = [item for item in wanted if item not in have]
    if not missing:
        return
    offered = _read(f"{directory}/cgroup.controllers").split()
    absent = [item for item in missing if item not in offered]
    if absent and directory != mount_point:
        _enable(directory.rpartition("/")[0], absent, mount_point)
        offered = _read(f"{directory}/cgroup.controllers").split()
    missing = [item for item in missing if item in offered]
    if missing:
        _write(f"{directory}/cgroup.subtree_control", " ".join([f"+{item}" for item in missing]).encode())


def _make(hierarchy: Hierarchy, parent: str, directory: str) -> None:
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        return  # left by a run that was killed; the same pod, as names are unique
    try:
        if "memory" in hierarchy.controllers:
            # Before 5.11 a group does not count what is in its children unless told so.
            _write_if_there(f"{directory}/memory.use_hierarchy", b"1")
        if "cpuset" in hierarchy.controllers:
            # Empty at birth, and no process may join before both are set.
            for item in ("cpuset.cpus", "cpuset.mems"):
                _write(f"{directory}/{item}", _read(f"{parent}/{item}").strip().encode())
    except BaseException:
        # Nobody will know of it.
        os.rmdir(directory)
        raise


def _gather(directory: str, members: Callable[[], set[int]]) -> None:
    """Move processes into a version 1 cgroup until all are there, also those born meanwhile."""
    path = f"{directory}/cgroup.procs"
    gone: set[int] = set()
    for _ in range(_GATHER_ATTEMPTS):
        missing = members() - {int(item) for item in _read(path).split()} - gone
        if not missing:
            return
        for pid in missing:
            try:
                _write(path, b"%d" % pid)
            except ProcessLookupError:
                gone.add(pid)
    raise OSError(errno.EAGAIN, "its processes are born faster than they can be moved", directory)


def _count(path: str) -> int:
    """``oom_kill`` of a file of counters; -1 without the file."""
    try:
        lines = _read(path).splitlines()
    except FileNotFoundError:
        return -1
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


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


def _walk(directory: str) -> list[str]:
    """A directory and all below it, parents first."""
    found = [directory]
    for path in found:  # grows while it is walked
        try:
            with os.scandir(path) as entries:
                found += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            continue
    return found


def _is_controller(option: str) -> bool:
    # Mount options of version 1 that are not names of controllers, see cgroup1_show_options() in the kernel.
    return option not in {
        "rw",
        "ro",
        "noprefix",
        "xattr",
        "cpuset_v2_mode",
        "clone_children",
        "favordynmods",
        "none",
        "seclabel",
    } and not option.startswith("release_agent=")


def _octal(field: str) -> str:
    if "\\" not in field:
        return field
    from rkt.linux.mount import unescape

    return unescape(field.encode("utf-8", "surrogateescape"))


def _read_all(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while chunk := os.read(fd, _READ_LIMIT_BYTES):
            text += chunk
        return text.decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    except OSError as e:
        raise OSError(e.errno, f"cannot write {data.decode()!r}: {e.strerror}", path) from None
    finally:
        os.close(fd)


def _write_if_there(path: str, data: bytes) -> None:
    try:
        _write(path, data)
    except FileNotFoundError:
        return

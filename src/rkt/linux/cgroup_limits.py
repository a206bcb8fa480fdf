# SPDX-License-Identifier: Apache-2.0
"""Limits of a cgroup: setting them, reading them, and what the kernel counts against them.

Every setter raises ``OSError``: ``ENOTSUP`` without the controller, or what the kernel says.

Source: Documentation/admin-guide/cgroup-v1/, Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import errno
import os

from rkt.linux import cgroupfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rkt.linux.cgroup import Group

#: Version 1 writes a number near 2⁶³ where there is no limit.
_NO_LIMIT = 1 << 60
_CFS_PERIOD_US = 100_000
_CFS_MINIMUM_US = 1000
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


def set_memory_limit(group: Group, size_bytes: int) -> None:
    """Ceiling of memory and, where the kernel counts it, of memory and swap together.

    Raises:
        OSError: ``ENOTSUP`` without the controller, or what the kernel says.
    """
    version, directory = group.need("memory")
    value = b"%d" % size_bytes
    if version == 2:
        cgroupfs.write(f"{directory}/memory.max", value)
        cgroupfs.write_if_there(f"{directory}/memory.swap.max", b"0")
        # A pod that loses one process to the OOM killer is broken: let it take the whole group (RN24).
        cgroupfs.write_if_there(f"{directory}/memory.oom.group", b"1")
        return
    swap = f"{directory}/memory.memsw.limit_in_bytes"
    try:
        cgroupfs.write(f"{directory}/memory.limit_in_bytes", value)
        cgroupfs.write_if_there(swap, value)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        # Memory alone may not exceed memory and swap: when raising a limit, the other order is needed.
        cgroupfs.write(swap, value)
        cgroupfs.write(f"{directory}/memory.limit_in_bytes", value)


def set_memory_request(group: Group, size_bytes: int) -> None:
    """Memory to leave alone when it gets short: protected in version 2, reclaimed from later in version 1.

    Version 2 protects a child only as far as its ancestors are protected.

    Raises:
        OSError: ``ENOTSUP`` without the controller.
    """
    version, directory = group.need("memory")
    name = "memory.low" if version == 2 else "memory.soft_limit_in_bytes"
    cgroupfs.write(f"{directory}/{name}", b"%d" % size_bytes)


def set_cpu_limit(group: Group, millicores: int) -> None:
    """Ceiling of CPU time, in thousandths of one CPU.

    Raises:
        OSError: ``ENOTSUP`` without the controller, ``EINVAL`` for more than an ancestor has.
    """
    version, directory = group.need("cpu")
    quota = max(millicores * _CFS_PERIOD_US // 1000, _CFS_MINIMUM_US)
    if version == 2:
        cgroupfs.write(f"{directory}/cpu.max", b"%d %d" % (quota, _CFS_PERIOD_US))
        return
    cgroupfs.write(f"{directory}/cpu.cfs_period_us", b"%d" % _CFS_PERIOD_US)
    try:
        cgroupfs.write(f"{directory}/cpu.cfs_quota_us", b"%d" % quota)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        raise OSError(e.errno, f"{millicores}m is more than the cgroup above has", directory) from None


def set_cpu_shares(group: Group, shares: int) -> None:
    """Weight of CPU time against other groups, 2 to 262144; 1024 is usual.

    Raises:
        OSError: ``ENOTSUP`` without the controller.
    """
    version, directory = group.need("cpu")
    if version == 2:
        cgroupfs.write(f"{directory}/cpu.weight", b"%d" % weight_of_shares(shares))
    else:
        cgroupfs.write(f"{directory}/cpu.shares", b"%d" % shares)


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


def set_cpus(group: Group, cpus: str, wanted: frozenset[int]) -> None:
    """CPUs to run on.

    Args:
        group: the cgroup.
        cpus: a list as the kernel reads it, ``0-3,6``.
        wanted: the same as numbers; version 2 would take CPUs that are not there and use others.
    Raises:
        OSError: ``ENOTSUP`` without the controller, ``ERANGE`` for a CPU that the parent does not have.
    """
    version, directory = group.need("cpuset")
    text = cgroupfs.read(f"{directory}/{'cpuset.cpus.effective' if version == 2 else 'cpuset.cpus'}").strip()
    available: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        available.update(range(int(first), int(last or first) + 1))
    if missing := sorted(wanted - available):
        numbers = ",".join(str(number) for number in missing)
        raise OSError(errno.ERANGE, f"no CPU {numbers} among {text}", directory)
    cgroupfs.write(f"{directory}/cpuset.cpus", cpus.encode())


def set_pids_limit(group: Group, count: int) -> None:
    """Ceiling of processes and threads.

    Raises:
        OSError: ``ENOTSUP`` without the controller.
    """
    _, directory = group.need("pids")
    cgroupfs.write(f"{directory}/pids.max", b"%d" % count)


def set_io_limit(group: Group, device: tuple[int, int], rates: dict[str, int]) -> None:
    """Ceilings of a block device.

    Args:
        group: the cgroup.
        device: major and minor number of a whole disk.
        rates: ``read-bps``, ``write-bps`` in bytes, ``read-iops``, ``write-iops`` in operations per second.
    Raises:
        OSError: ``ENOTSUP`` without the controller, ``ENODEV`` for what is no disk.
    """
    version, directory = group.need("io")
    number = f"{device[0]}:{device[1]}"
    if version == 2:
        words = [f"{name[0]}{name.partition('-')[2]}={rate}" for name, rate in rates.items()]
        cgroupfs.write(f"{directory}/io.max", " ".join([number, *words]).encode())
        return
    for name, rate in rates.items():
        file_name = f"blkio.throttle.{name.replace('-', '_')}_device"
        cgroupfs.write(f"{directory}/{file_name}", f"{number} {rate}".encode())


def set_io_weight(group: Group, weight: int) -> None:
    """Weight against other groups on disks whose scheduler knows weights, 1 to 10000; 100 is usual.

    Raises:
        OSError: ``ENOTSUP`` without the controller, or where the kernel has no such scheduler.
    """
    version, directory = group.need("io")
    # BFQ has 1000 where version 2 has 10000; the usual weight is 100 for both (systemd converts likewise).
    bfq = weight if weight <= 100 else 100 + (weight - 100) * 900 // 9900
    names = {"io.weight": weight, "io.bfq.weight": bfq} if version == 2 else {"blkio.bfq.weight": bfq}
    there = {name: value for name, value in names.items() if os.path.exists(f"{directory}/{name}")}
    if not there:
        raise OSError(errno.ENOTSUP, "this kernel has no io weights", directory)
    for name, value in there.items():
        cgroupfs.write(f"{directory}/{name}", b"%d" % value)


def read_limits(group: Group, controllers: Iterable[str]) -> list[tuple[str, str]]:
    """The files in which these controllers keep the group's limits, with what is in them."""
    found = []
    for controller in controllers:
        place = group.find(controller)
        for name in _LIMIT_FILES[place[0]].get(controller, ()) if place is not None else ():
            path = f"{place[1]}/{name}"  # type: ignore[index]
            if os.path.exists(path):
                found.append((path, cgroupfs.read(path).strip()))
    return found


def restore_limits(found: list[tuple[str, str]]) -> None:
    """Put back what ``read_limits`` found."""
    # Of memory, and memory and swap, either may have to come first.
    for path, text in (*found, *reversed(found)):
        try:
            cgroupfs.write(path, text.encode())
        except OSError:
            continue


def memory_limit(group: Group) -> int:
    """The ceiling of memory that was set on this group itself; 0 for none."""
    found = group.find("memory")
    if found is None:
        return 0
    return limit_of(cgroupfs.read(f"{found[1]}/{'memory.max' if found[0] == 2 else 'memory.limit_in_bytes'}"))


def limit_of(text: str) -> int:
    """The number of a file that holds a limit, of either version; 0 for no limit."""
    text = text.strip()
    return 0 if text == "max" or int(text) >= _NO_LIMIT else int(text)


def memory_in_use(group: Group) -> int:
    """Memory that the kernel cannot take back by forgetting files, in bytes; 0 where it is not counted."""
    found = group.find("memory")
    if found is None:
        return 0
    version, directory = found
    lines = cgroupfs.read(f"{directory}/memory.stat").splitlines()
    counts = {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
    if version == 1:
        return counts.get("total_rss", 0) + counts.get("total_shmem", 0)
    return sum(counts.get(name, 0) for name in ("anon", "shmem", "kernel_stack", "pagetables"))


def out_of_memory_kills(group: Group) -> tuple[str, int]:
    """How many processes the kernel has killed for want of memory, and the directory for which it counts them.

    That is the parent's where the group has no counter of its own.
    """
    for hierarchy, _, directory in (*group.places, *group.inherited):
        if hierarchy.version == 1 and hierarchy.offers("memory"):
            return directory, max(0, _count(f"{directory}/memory.oom_control"))
    own = group.unified_directory
    for directory in (own, own.rpartition("/")[0]) if own else ():
        kills = _count(f"{directory}/memory.events")
        if kills >= 0:
            return directory, kills
    return "", 0


def _count(path: str) -> int:
    """``oom_kill`` of a file of counters; -1 without the file."""
    try:
        lines = cgroupfs.read(path).splitlines()
    except FileNotFoundError:
        return -1
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

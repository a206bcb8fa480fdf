# SPDX-License-Identifier: Apache-2.0
"""What a running pod and its apps use, as the kernel counts it for their cgroups.

=========  ==========================================  ==========================================  ====================
what       version 2                                   version 1                                   without a counter
=========  ==========================================  ==========================================  ====================
CPU        ``cpu.stat``, in every cgroup               ``cpuacct.usage``                           times of processes
memory     ``memory.current`` less the file cache      ``memory.usage_in_bytes`` less the file     anonymous memory of
           that nobody uses                            cache that nobody uses                      processes
pids       ``pids.current``                            ``pids.current``                            threads of processes
block IO   ``io.stat``                                 ``blkio.throttle.io_service_bytes``         ``/proc/PID/io``
=========  ==========================================  ==========================================  ====================

A cgroup has a counter where it has the controller: a pod always for memory and pids where the host has them, an app
where something is limited for it alone. What is summed up over processes instead is near the truth, and marked.
"""

from __future__ import annotations

import errno
import os
import time

from rkt.errors import PodError
from rkt.linux.cgroup_limits import limit_of
from rkt.pod import lifecycle, processes, status
from rkt.schema.record import Record
from rkt.values import PodUUID, is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rkt.linux.cgroup import Group
    from rkt.pod.lifecycle import Pod
    from rkt.pod.processes import Process

CPU = "cpu"
MEMORY = "memory"
PIDS = "pids"
IO = "io"
_FILE_BYTES = 64 << 10
#: How it shows that a cgroup, or a process, has ended while it was looked at.
_GONE = frozenset((errno.ENODEV, errno.ENOENT, errno.ESRCH))


class Usage(Record):
    """A pod, or an app of it, at one moment.

    Attributes:
        uuid, name: of the pod.
        app: empty for the whole pod.
        at_ns: by the monotonic clock.
        cpu_ns: CPU time used since the start.
        memory_bytes: used now; ``memory_limit_bytes`` and ``pids_limit`` are 0 for no limit.
        pids: processes and threads.
        read_bytes, write_bytes: from and to block devices since the start.
        estimated: which of ``cpu``, ``memory``, ``pids``, ``io`` were summed up over processes.
    """

    uuid: str
    name: str
    app: str
    at_ns: int
    cpu_ns: int
    memory_bytes: int
    memory_limit_bytes: int
    pids: int
    pids_limit: int
    read_bytes: int
    write_bytes: int
    estimated: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """What stays the same from sample to sample."""
        return self.uuid, self.app


def running(pods_dir: str) -> list[PodUUID]:
    """Pods that run, sorted."""
    found = []
    for uuid in sorted(lifecycle.uuids_in(pods_dir, lifecycle.RUN)):
        pod = lifecycle.open_pod_at(pods_dir, PodUUID(uuid), lifecycle.RUN)
        if pod is not None:
            with pod:
                if pod.is_running:
                    found.append(pod.uuid)
    return found


def sample(pods_dir: str, uuids: Iterable[PodUUID], *, with_apps: bool) -> list[Usage]:
    """What each pod uses now; those that do not run any more are left out.

    Args:
        pods_dir: ``$DATA/pods``.
        uuids: the pods.
        with_apps: whether each app of a pod follows it.
    """
    found: list[Usage] = []
    for uuid in uuids:
        pod = lifecycle.open_pod_at(pods_dir, uuid, lifecycle.RUN)
        if pod is None:
            continue
        with pod:
            try:
                found += examine(pod, with_apps=with_apps)
            except PodError:
                continue  # its cgroups are being made, or gone
            except OSError as e:
                if e.errno not in _GONE:
                    raise
    return found


def examine(pod: Pod, *, with_apps: bool) -> list[Usage]:
    """A running pod, and its apps if they are wanted.

    Raises:
        PodError: it does not run.
        OSError: its cgroups went away meanwhile.
    """
    glance = status.read_summary(pod)
    group = processes.open_group(pod)
    members = processes.processes(pod, group, [app.name for app in glance.apps])
    whole = _usage(pod, glance.name, "", group, members, None)
    found = [whole]
    for app in glance.apps if with_apps else ():
        own = [process for process in members if process.app == app.name]
        if own:
            found.append(_usage(pod, glance.name, app.name, _group_of(pod, group, app.name), own, whole))
    return found


def _group_of(pod: Pod, group: Group, app: str) -> Group:
    """An app's cgroups; in version 2 some flavours leave name and place to somebody else, and the app's first process tells."""
    own = group.open_child(app)
    words = (pod.read_text(f"appsinfo/{app}/pid") or "").split()
    if group.unified_directory is None or not words or not is_number(words[0]):
        return own
    actual = group.open_child(app, int(words[0]))
    # An app may have gone on into a cgroup of its own making.
    is_named = f"{actual.unified_directory}/".startswith(f"{own.unified_directory}/")
    return own if is_named else actual


def _usage(pod: Pod, name: str, app: str, group: Group, members: list[Process], whole: Usage | None) -> Usage:
    estimated = []
    at_ns = time.monotonic_ns()
    cpu_ns = _cpu_ns(group)
    if cpu_ns is None:
        estimated.append(CPU)
        seconds = sum(process.cpu_seconds + process.waited_cpu_seconds for process in members)
        cpu_ns = int(seconds * 1e9)
    memory = _memory(group)
    if memory is None:
        estimated.append(MEMORY)
        memory = sum(process.anonymous_bytes for process in members), 0
    pids = _pids(group)
    if pids is None:
        estimated.append(PIDS)
        pids = sum(process.threads for process in members), 0
    moved = _io(group)
    if moved is None:
        estimated.append(IO)
        moved = _io_of_processes(members)
    return Usage(
        uuid=str(pod.uuid),
        name=name,
        app=app,
        at_ns=at_ns,
        cpu_ns=cpu_ns,
        memory_bytes=memory[0],
        memory_limit_bytes=_tightest(memory[1], whole.memory_limit_bytes if whole else 0),
        pids=pids[0],
        pids_limit=_tightest(pids[1], whole.pids_limit if whole else 0),
        read_bytes=moved[0],
        write_bytes=moved[1],
        estimated=tuple(estimated),
    )


def _tightest(own: int, above: int) -> int:
    return min(own, above) if own and above else own or above


def _cpu_ns(group: Group) -> int | None:
    unified = group.unified_directory
    if unified is not None:
        microseconds = _fields(f"{unified}/cpu.stat").get("usage_usec")
        if microseconds is not None:
            return microseconds * 1000
    place = group.find("cpuacct")
    return None if place is None else int(_read(f"{place[1]}/cpuacct.usage"))


def _memory(group: Group) -> tuple[int, int] | None:
    """Used bytes and limit."""
    place = group.find("memory")
    if place is None:
        return None
    version, directory = place
    # What was read from files and is not in use goes away when somebody needs room.
    if version == 2:
        used = int(_read(f"{directory}/memory.current"))
        idle = _fields(f"{directory}/memory.stat").get("inactive_file", 0)
        return max(0, used - idle), limit_of(_read(f"{directory}/memory.max"))
    used = int(_read(f"{directory}/memory.usage_in_bytes"))
    idle = _fields(f"{directory}/memory.stat").get("total_inactive_file", 0)
    return max(0, used - idle), limit_of(_read(f"{directory}/memory.limit_in_bytes"))


def _pids(group: Group) -> tuple[int, int] | None:
    place = group.find("pids")
    if place is None:
        return None
    return int(_read(f"{place[1]}/pids.current")), limit_of(_read(f"{place[1]}/pids.max"))


def _io(group: Group) -> tuple[int, int] | None:
    """Bytes read and written."""
    place = group.find("io")
    if place is None:
        return None
    version, directory = place
    read = written = 0
    if version == 2:
        for line in _read(f"{directory}/io.stat").splitlines():
            members = dict(word.split("=", 1) for word in line.split()[1:])
            read += int(members.get("rbytes", 0))
            written += int(members.get("wbytes", 0))
        return read, written
    for line in _read(f"{directory}/blkio.throttle.io_service_bytes").splitlines():
        words = line.split()
        if len(words) == 3:
            read += int(words[2]) if words[1] == "Read" else 0
            written += int(words[2]) if words[1] == "Write" else 0
    return read, written


def _io_of_processes(members: list[Process]) -> tuple[int, int]:
    """Of living processes, with the children that they have waited for."""
    read = written = 0
    for process in members:
        try:
            counts = _fields(f"/proc/{process.pid}/io")
        except OSError:
            continue
        read += counts.get("read_bytes:", 0)
        written += counts.get("write_bytes:", 0)
    return read, written


def _fields(path: str) -> dict[str, int]:
    """Lines of a name and a number."""
    pairs = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _FILE_BYTES).decode("ascii", "replace")
    finally:
        os.close(fd)


def cpu_percent(before: Usage | None, now: Usage) -> float:
    """Share of one CPU between two samples; 0 without an earlier one."""
    if before is None or now.at_ns <= before.at_ns:
        return 0.0
    return max(0.0, 100.0 * (now.cpu_ns - before.cpu_ns) / (now.at_ns - before.at_ns))


def to_json(before: Usage | None, now: Usage) -> dict[str, object]:
    """One object of ``--format=json``."""
    members: dict[str, object] = {"uuid": now.uuid}
    if now.name:
        members["pod_name"] = now.name
    if now.app:
        members["app"] = now.app
    members |= {
        "cpu_percent": round(cpu_percent(before, now), 2),
        "cpu_ns": now.cpu_ns,
        "memory_bytes": now.memory_bytes,
        "memory_limit_bytes": now.memory_limit_bytes or None,
        "pids": now.pids,
        "pids_limit": now.pids_limit or None,
        "read_bytes": now.read_bytes,
        "write_bytes": now.write_bytes,
        "estimated": list(now.estimated),
    }
    return members

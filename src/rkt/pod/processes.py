# SPDX-License-Identifier: Apache-2.0
"""Processes of a running pod, seen from the host (invariant EN2): its cgroups say which, ``/proc`` says what they are.

Nothing of the pod is executed and no file of it is read. Names and arguments of processes are the pod's own words: what
comes from here is escaped and bounded.
"""

from __future__ import annotations

import os
import time

from rkt.errors import PodError
from rkt.linux import cgroup, cgroup_processes, cgroupfs
from rkt.schema.record import Record
from rkt.stage0 import contract
from rkt.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from rkt.pod.lifecycle import Pod

#: Of a command line, in bytes; more is cut.
_COMMAND_BYTES = 4096
_FILE_BYTES = 8192
#: A process may have 65536 supplementary groups, which come before what is looked for: it must not be able to hide.
_STATUS_BYTES = 1 << 20
#: Who everybody is that a user namespace does not have.
_NOBODY = 65534
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Process(Record):
    """One process.

    Attributes:
        app: whose cgroup it is in; empty for the pod's own, its first process and what runs that.
        pid, pod_pid: its number on the host, and in the pod.
        uid, pod_uid: effective user on the host, and in the pod's user namespace.
        state: the kernel's letter, such as ``S`` or ``R``.
        threads: how many it has.
        cpu_seconds: time it has used, without its children.
        waited_cpu_seconds: time used by children that are gone.
        cpu_percent: of one CPU, over the time since it was started.
        rss_bytes: resident memory; ``anonymous_bytes``: what of it is not of files and cannot be shared with others.
        started_ns: since the epoch.
        comm: the kernel's name for it, escaped.
        command: the command line, escaped, arguments separated by spaces.
    """

    app: str
    pid: int
    pod_pid: int
    uid: int
    pod_uid: int
    state: str
    threads: int
    cpu_seconds: float
    waited_cpu_seconds: float
    cpu_percent: float
    rss_bytes: int
    anonymous_bytes: int
    started_ns: int
    comm: str
    command: str


def open_group(pod: Pod) -> cgroup.Group:
    """The cgroups of a running pod.

    Raises:
        PodError: it does not run, or has no cgroups.
    """
    if not pod.is_running:
        raise not_running(pod)
    record = (pod.read(contract.SUBCGROUP) or b"").decode("utf-8", "replace")
    name = record.partition("\n")[0].rpartition("/")[2]
    if not name.endswith(pod.uuid):
        raise PodError(f'pod "{pod.uuid}" has no cgroups of its own', hint="try again in a moment")
    try:
        return cgroup.open_pod(cgroupfs.detect(), record, name)
    except ValueError as e:
        raise PodError(f'pod "{pod.uuid}": the record of its cgroups is damaged: {e}') from e


def not_running(pod: Pod) -> PodError:
    """For a pod that does not run, or whose cgroups went away while they were looked at."""
    return PodError(f'pod "{pod.uuid}" is not running', hint=f"rkt status {pod.uuid.short}")


def processes(pod: Pod, group: cgroup.Group, apps: Collection[str]) -> list[Process]:
    """What runs in a pod, in the order of numbers; a process that ends meanwhile is left out.

    Args:
        pod: a running pod.
        group: its cgroups.
        apps: names of its apps.
    """
    clock = _Clock()
    first_uid = _first_uid(pod)
    spaces = _mount_namespaces(pod, apps)
    found = []
    for pid in sorted(cgroup_processes.pids(group)):
        try:
            fd = os.open(f"/proc/{pid}", _DIRECTORY_FLAGS)
        except OSError:
            continue
        try:
            # Read through one descriptor: all of it is about one process, whoever gets the number next (EN4).
            process = _read(fd, pid, group.name, apps, spaces, clock, first_uid)
        except (OSError, ValueError, IndexError, KeyError):
            continue
        finally:
            os.close(fd)
        if process is not None:
            found.append(process)
    return found


class _Clock:
    """What converts the kernel's times."""

    __slots__ = ("boot_ns", "now_ns", "page_bytes", "ticks")

    def __init__(self) -> None:
        self.ticks = os.sysconf("SC_CLK_TCK")
        self.page_bytes = os.sysconf("SC_PAGE_SIZE")
        self.now_ns = time.time_ns()
        self.boot_ns = self.now_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _read(
    fd: int,
    pid: int,
    group_name: str,
    apps: Collection[str],
    spaces: dict[str, str],
    clock: _Clock,
    first_uid: int,
) -> Process | None:
    is_member, app = _app_of(_file(fd, "cgroup"), group_name, apps)
    if not is_member:
        return None
    if not app:
        app = spaces.get(os.readlink("ns/mnt", dir_fd=fd), "")
    head, _, tail = _file(fd, "stat").rpartition(b")")
    fields = tail.split()
    status = dict(
        line.split(b":", 1) for line in _file(fd, "status", _STATUS_BYTES).splitlines() if b":" in line
    )
    uid = int(status[b"Uid"].split()[1])
    started_ns = clock.boot_ns + int(fields[19]) * 1_000_000_000 // clock.ticks
    cpu_seconds = (int(fields[11]) + int(fields[12])) / clock.ticks
    age = max((clock.now_ns - started_ns) / 1e9, 1 / clock.ticks)
    comm = escape(head.partition(b"(")[2])
    words = _file(fd, "cmdline", _COMMAND_BYTES).rstrip(b"\0")
    return Process(
        app=app,
        pid=pid,
        pod_pid=int(status[b"NSpid"].split()[-1]),
        uid=uid,
        pod_uid=uid - first_uid if uid >= first_uid else _NOBODY,
        state=fields[0].decode("ascii", "replace"),
        threads=int(fields[17]),
        cpu_seconds=cpu_seconds,
        waited_cpu_seconds=(int(fields[13]) + int(fields[14])) / clock.ticks,
        cpu_percent=round(100 * cpu_seconds / age, 1),
        rss_bytes=int(fields[21]) * clock.page_bytes,
        anonymous_bytes=int(status.get(b"RssAnon", b"0").split()[0]) << 10,
        started_ns=started_ns,
        comm=comm,
        # Kernel threads and zombies have no command line; as ps shows them.
        command=escape(words.replace(b"\0", b" ")) if words else f"[{comm}]",
    )


def _app_of(membership: bytes, group_name: str, apps: Collection[str]) -> tuple[bool, str]:
    """Whether a process is in the pod's cgroups, and in which app's."""
    is_member = False
    mark = f"/{group_name}/"
    for line in membership.decode("utf-8", "surrogateescape").splitlines():
        _, found, below = (line + "/").partition(mark)
        if found:
            is_member = True
            name = below.partition("/")[0]
            if name in apps:
                return True, name
    return is_member, ""


def _mount_namespaces(pod: Pod, apps: Collection[str]) -> dict[str, str]:
    """Mount namespace -> app: where version 1 alone is mounted an app without limits has no cgroup of its own."""
    found = {}
    for app in apps:
        text = pod.read_text(f"appsinfo/{app}/pid")
        if text:
            try:
                found[os.readlink(f"/proc/{int(text.split()[0])}/ns/mnt")] = app
            except (OSError, ValueError):
                continue
    return found


def _first_uid(pod: Pod) -> int:
    """The host's id of the pod's root."""
    first = (pod.read_text(contract.PRIVATE_USERS_PREPARED) or "0").partition(":")[0]
    return int(first) if is_number(first) else 0


def _file(fd: int, name: str, limit_bytes: int = _FILE_BYTES) -> bytes:
    file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd)
    data = b""
    try:
        while len(data) < limit_bytes and (chunk := os.read(file, min(_FILE_BYTES, limit_bytes - len(data)))):
            data += chunk
    finally:
        os.close(file)
    return data


def escape(data: bytes) -> str:
    """Bytes of the pod as one line that no terminal acts on (invariant LG3)."""
    text = data.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def to_json(process: Process) -> dict[str, object]:
    """One process of ``--format=json``."""
    return {
        "app": process.app,
        "pid": process.pid,
        "pod_pid": process.pod_pid,
        "uid": process.uid,
        "pod_uid": process.pod_uid,
        "state": process.state,
        "threads": process.threads,
        "cpu_seconds": process.cpu_seconds,
        "cpu_percent": process.cpu_percent,
        "rss_bytes": process.rss_bytes,
        "started_at": process.started_ns,
        "comm": process.comm,
        "command": process.command,
    }

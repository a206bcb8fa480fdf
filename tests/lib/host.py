# SPDX-License-Identifier: Apache-2.0
"""What the host looks like before and after a test: mounts, cgroups, processes, network interfaces."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass, field

from tests.lib.pace import SLOWNESS

#: How long what is being torn down may take to vanish, in seconds.
SETTLE_SECONDS = 5.0
#: Name of the directory that an engine of a test has.
_TEST_DIRECTORY = re.compile(rb"/(rkt-test-[^/\0]+)")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    mount_id: int
    point: str
    kind: str
    line: str


@dataclass(frozen=True, slots=True)
class Process:
    """A process that cannot be confused with a later one of the same number."""

    pid: int
    start_ticks: int
    command: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of the host at one moment."""

    mounts: frozenset[str]
    cgroups: frozenset[str]
    processes: frozenset[Process]
    interfaces: frozenset[str]

    def added_since(self, before: Snapshot) -> list[str]:
        """What is there now and was not then, in words."""
        return [
            *(f"mount: {line}" for line in sorted(self.mounts - before.mounts)),
            *(f"cgroup: {path}" for path in sorted(self.cgroups - before.cgroups)),
            *(
                f"process {process.pid}: {process.command}"
                for process in sorted(self.processes - before.processes, key=lambda p: p.pid)
            ),
            *(f"interface: {name}" for name in sorted(self.interfaces - before.interfaces)),
        ]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return b""


def _unescape(text: str) -> str:
    return text.encode().decode("unicode_escape").encode("latin-1").decode("utf-8", "surrogateescape")


def mounts(pid: int | str = "self") -> list[Mount]:
    """Mounts that ``pid`` sees."""
    found = []
    for line in _read(f"/proc/{pid}/mountinfo").decode(errors="surrogateescape").splitlines():
        words = line.split(" ")
        kind = words[words.index("-") + 1]
        found.append(Mount(mount_id=int(words[0]), point=_unescape(words[4]), kind=kind, line=line))
    return found


def cgroup_roots() -> dict[str, str]:
    """Mount point of each cgroup hierarchy of the host: controllers (or empty for version 2) -> path."""
    roots = {}
    for mount in mounts():
        if mount.kind == "cgroup2":
            roots[""] = mount.point
        elif mount.kind == "cgroup":
            roots[mount.line.rsplit(" ", 1)[1]] = mount.point
    return roots


def cgroups() -> frozenset[str]:
    """Every cgroup directory of every hierarchy."""
    found: set[str] = set()
    for root in cgroup_roots().values():
        for directory, names, _ in os.walk(root):
            found.update(os.path.join(directory, name) for name in names)
    return frozenset(found)


def _start_ticks(pid: int) -> int | None:
    stat = _read(f"/proc/{pid}/stat")
    if not stat:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    # A zombie holds nothing; whoever should reap it is not always ours.
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def _parent(pid: int) -> int:
    """Number of the parent process, 0 for none or when it is gone."""
    stat = _read(f"/proc/{pid}/stat")
    return int(stat[stat.rindex(b")") + 2 :].split()[1]) if stat else 0


def _ancestors(pid: int) -> list[int]:
    """The process and its parents, itself first."""
    found = []
    while pid and pid not in found:
        found.append(pid)
        pid = _parent(pid)
    return found


def _has_mounted(pid: int, mark: bytes) -> bool:
    """Whether a process sees ``mark`` mounted in a mount namespace that is not ours."""
    try:
        foreign = os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
    except OSError:
        return False
    return foreign and mark in _read(f"/proc/{pid}/mountinfo")


def _is_nobody_elses(pid: int, mark: bytes) -> bool:
    """Whether a process that has ``mark`` mounted is there because of us.

    A mount namespace made by anybody while a test has something mounted on the host shows that mount too, and so does
    that of a service of systemd. Ours are younger than we are, and our descendants or orphans: going up from those,
    there is nobody but their like before an ancestor of ours. Orphans of another test may go up to the same ancestor;
    they name the directory of theirs.
    """
    if (_start_ticks(pid) or 0) < (_start_ticks(os.getpid()) or 0):
        return False
    if set(_TEST_DIRECTORY.findall(_read(f"/proc/{pid}/cmdline"))) - {os.path.basename(mark)}:
        return False
    own = _ancestors(os.getpid())
    for each in _ancestors(pid):
        if each in own:
            return True
        if not _has_mounted(each, mark):
            return False
    return True


def processes(mark: str = "") -> frozenset[Process]:
    """Processes that have to do with ``mark``, a directory: by command line, environment, or what they have mounted."""
    encoded = os.fsencode(mark)
    found = set()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        pid = int(name)
        ticks = _start_ticks(pid)
        if ticks is None:
            continue
        command = _read(f"/proc/{pid}/cmdline")
        if (
            not mark
            or encoded in command
            or encoded in _read(f"/proc/{pid}/environ")
            or (_has_mounted(pid, encoded) and _is_nobody_elses(pid, encoded))
        ):
            found.add(Process(pid, ticks, command.replace(b"\0", b" ").decode(errors="replace").strip()))
    return frozenset(found)


class Presence:
    """Says that a test is under way on this host, to others that run meanwhile.

    What bears no mark of a test, such as a network interface, can be held against a test only if it was alone.
    """

    def __init__(self, directory: str = "") -> None:
        path = os.path.join(directory or tempfile.gettempdir(), "rkt-tests.lock")
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def is_alone(self) -> bool:
        """Whether no other test is under way."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone = False
        else:
            alone = True
        # A conversion gives the old lock up first, so it has to be taken again either way.
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        return alone

    def end(self) -> None:
        """Say that the test is over."""
        os.close(self._descriptor)


def snapshot(mark: str = "") -> Snapshot:
    """The host now; ``mark`` limits processes to those that have to do with that directory."""
    return Snapshot(
        # Everything from the mount point on: mount IDs and peer groups are numbered anew.
        mounts=frozenset(f"{mount.point} {mount.line.split(' - ', 1)[1]}" for mount in mounts()),
        cgroups=cgroups(),
        processes=processes(mark),
        interfaces=frozenset(os.listdir("/sys/class/net")),
    )


def wait_until_gone(before: Snapshot, mark: str, *, seconds: float = SETTLE_SECONDS) -> list[str]:
    """What was added since ``before`` and is still there after ``seconds``; empty is good."""
    deadline = time.monotonic() + seconds * SLOWNESS
    while True:
        left = snapshot(mark).added_since(before)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def missing(*programs: str) -> str:
    """Reason to skip when one of the programs is not installed, else empty."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [program for program in programs if shutil.which(program, path=path) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def has_overlay() -> bool:
    """Whether the kernel knows overlayfs."""
    return b"\toverlay\n" in _read("/proc/filesystems")


def is_cgroup2_only() -> bool:
    """Whether version 2 is the only hierarchy."""
    return set(cgroup_roots()) == {""}


def is_open_to_others(path: str) -> bool:
    """Whether every user of the host may read a file, as far as the modes of its directories say."""
    directory = os.path.dirname(os.path.realpath(path))
    while directory != "/":
        if os.stat(directory).st_mode & 0o005 != 0o005:
            return False
        directory = os.path.dirname(directory)
    return True

# SPDX-License-Identifier: Apache-2.0
"""Which limits a pod of this caller can have: groups are made where pods would have them, used, and removed."""

from __future__ import annotations

import os
import signal

from rkt.linux import cgroup_freezer, cgroup_limits, libc
from rkt.linux.cgroup import DEFAULT_CONTROLLERS, FREEZER, Group
from rkt.stage0.host.attempt import attempt
from rkt.stage0.host.facts import UNSEEN, Trial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.linux.cgroupfs import Hierarchies, Hierarchy

#: What pods can be given limits of.
CONTROLLERS = (*DEFAULT_CONTROLLERS, "cpu", "cpuset", "io")


def layout(hierarchies: Hierarchies) -> str:
    """Which kind of host this is."""
    versions = {each.version for each in hierarchies if each.version == 2 or not _is_named(each)}
    if versions == {1, 2}:
        return "hybrid"
    return f"version {versions.pop()}" if versions else ""


def _is_named(hierarchy: Hierarchy) -> bool:
    return all(each.startswith("name=") for each in hierarchy.controllers)


def controllers(hierarchies: Hierarchies) -> dict[str, Trial]:
    """Controller to whether a pod can have limits of it."""
    found = {}
    for name in CONTROLLERS:
        old = next((each for each in hierarchies if each.version == 1 and each.offers(name)), None)
        if old is not None:
            found[name] = attempt(lambda old=old, name=name: _try_old(old, name))  # type: ignore[misc]
        elif name == "devices":
            continue  # of version 2: a program, which is tried by itself
        elif hierarchies.unified is not None:
            found[name] = _look_at_new(hierarchies.unified, name)
        else:
            found[name] = Trial(text="no hierarchy is mounted")
    return found


def _group(hierarchy: Hierarchy) -> str:
    """Where a group of an attempt is made: below the caller's own, as a pod's is."""
    parent = hierarchy.directory(hierarchy.own_path)
    if parent is None:
        raise OSError(0, f"the caller's cgroup {hierarchy.own_path} is not below {hierarchy.mount_point}")
    return f"{parent}/rkt-check-host-{os.getpid()}"


def _try_old(hierarchy: Hierarchy, controller: str) -> str:
    """Make a group, give it a limit that changes nothing, remove it."""
    path = _group(hierarchy)
    os.mkdir(path, 0o755)
    try:
        group = Group(path.rpartition("/")[2], [(hierarchy, hierarchy.own_path, path)], [])
        if controller == "memory":
            cgroup_limits.set_memory_limit(group, 1 << 40)
        elif controller == "pids":
            _write(f"{path}/pids.max", "max")
        elif controller == "devices":
            _write(f"{path}/devices.deny", "a")
        elif controller == "cpu":
            cgroup_limits.set_cpu_shares(group, 1024)
            if not os.path.exists(f"{path}/cpu.cfs_quota_us"):
                return "weights only: the kernel has no CPU quotas"
    finally:
        os.rmdir(path)
    return f"version 1, {hierarchy.mount_point}"


def _look_at_new(hierarchy: Hierarchy, controller: str) -> Trial:
    """Whether version 2 would give a controller to a group of the caller.

    Looked at, not tried: to enable one for a pod is a change of the groups above, which stays.
    """
    root = hierarchy.mount_point
    if controller not in _words(f"{root}/cgroup.controllers"):
        return Trial(text="the kernel, or who set up this container, does not offer it")
    directory = hierarchy.directory(hierarchy.own_path)
    while directory and directory != root:
        if controller in _words(f"{directory}/cgroup.controllers"):
            break
        directory = os.path.dirname(directory)
    else:
        directory = root
    if os.access(f"{directory}/cgroup.subtree_control", os.W_OK):
        return Trial(done=True, text=f"version 2, {root}")
    return UNSEEN if os.geteuid() != 0 else Trial(text=f"{directory} cannot be written to")


def unified(hierarchy: Hierarchy) -> dict[str, Trial]:
    """Try what version 2 can do with a group: born in it, frozen, killed at once."""
    return {
        "birth in a cgroup": attempt(lambda: _in_group(hierarchy, "birth")),
        "freezer": attempt(lambda: _in_group(hierarchy, "freeze")),
        "cgroup.kill": attempt(lambda: _in_group(hierarchy, "kill")),
    }


def old_freezer(hierarchies: Hierarchies) -> Trial:
    """The freezer of version 1."""
    found = next((each for each in hierarchies if each.offers(FREEZER)), None)
    return attempt(lambda: _try_old(found, FREEZER)) if found else Trial(text="there is none")


def _in_group(hierarchy: Hierarchy, what: str) -> str:
    path = _group(hierarchy)
    os.mkdir(path, 0o755)
    pid = 0
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        pid, _ = libc.clone3(0, cgroup_fd=directory)
        if not pid:
            # Before the parent can end: it would take a dead parent for its own.
            libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
            signal.pause()
        group = Group(path.rpartition("/")[2], [(hierarchy, hierarchy.own_path, path)], [])
        if what == "freeze":
            if not cgroup_freezer.freeze(group, 5.0):
                raise OSError(0, "a process was not frozen within 5 seconds")
            cgroup_freezer.thaw(group)
        elif what == "kill":
            _write(f"{path}/cgroup.kill", "1")
            os.waitpid(pid, 0)
            pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.rmdir(path)
    return ""


def _words(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as stream:
            return stream.read().split()
    except OSError:
        return []


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as stream:
        stream.write(text)

# SPDX-License-Identifier: Apache-2.0
"""The processes of a cgroup and of all below it: which they are, and the end of them."""

from __future__ import annotations

import os
import time

from rkt.linux import cgroupfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.linux.cgroup import Group


def pids(group: Group) -> set[int]:
    """Numbers of the processes in the group and below it."""
    found: set[int] = set()
    for directory in group.directories():
        for path in cgroupfs.walk(directory):
            try:
                found.update(int(item) for item in cgroupfs.read(f"{path}/cgroup.procs").split())
            except OSError as e:
                if e.errno not in cgroupfs.GONE:
                    raise
    return found


def has_member(group: Group, pid: int) -> bool:
    """Whether a process is in the group or below it, in any hierarchy.

    Raises:
        OSError: it is gone.
    """
    members = cgroupfs.read(f"/proc/{pid}/cgroup").splitlines()
    paths = [path for _, path, _ in group.places]
    return any((line.split(":", 2)[2] + "/").startswith(path + "/") for line in members for path in paths)


def kill(group: Group, timeout_seconds: float = 10.0, *, again: bool = False) -> bool:
    """Kill every process in the group and below, but not the caller; False when some are left at the end.

    Version 2's ``cgroup.kill`` is atomic. Without it, new processes are forbidden by the pids controller, then
    members are killed until there are none.

    Args:
        group: the cgroup.
        timeout_seconds: how long to wait for their end.
        again: the group is to be used again. What is born by ``clone3`` in a group that ``cgroup.kill`` has seen is
            killed too: Linux 6.14 compares the group's count of kills with that of the parent's group
            (cgroup_css_set_fork). So the group is frozen instead, and members are killed.
    """
    unified = group.unified_directory
    if again and not pids(group):
        return True
    if unified is not None:
        cgroupfs.write_if_there(f"{unified}/{'cgroup.freeze' if again else 'cgroup.kill'}", b"1")
    try:
        return _kill_all(group, timeout_seconds)
    finally:
        if unified is not None and again:
            cgroupfs.write_if_there(f"{unified}/cgroup.freeze", b"0")


def _kill_all(group: Group, timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    pause = 0.0005
    place = None
    ceiling = b""
    while left := pids(group) - {os.getpid()}:
        # Not before: a group that somebody else has removed meanwhile has no controllers to ask for.
        try:
            place = place or group.find("pids")
            if place is not None and not ceiling:
                ceiling = cgroupfs.read(f"{place[1]}/pids.max").encode()
                cgroupfs.write(f"{place[1]}/pids.max", b"0")
        except OSError as e:
            if e.errno not in cgroupfs.GONE:
                raise
        for pid in left:
            _kill_one(group, pid)
        from rkt.linux import cgroup_freezer

        if (freezer := cgroup_freezer.freezer_of(group)) is not None and freezer[0] == 1:
            cgroup_freezer.thaw(group)
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
    if place is not None and ceiling:
        try:
            cgroupfs.write(f"{place[1]}/pids.max", ceiling)
        except OSError as e:
            if e.errno not in cgroupfs.GONE:
                raise
    return True


def _kill_one(group: Group, pid: int) -> None:
    from rkt.linux import pidfd

    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # The descriptor pins the process; only then is its membership checked (invariant EN4).
        if has_member(group, pid):
            pidfd.send_signal(fd, 9)
    except OSError:
        return
    finally:
        os.close(fd)

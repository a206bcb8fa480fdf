# SPDX-License-Identifier: Apache-2.0
"""The processes of a unit, by the cgroup in which the pod's systemd keeps them; imported when they are asked for."""

from __future__ import annotations

import _signal
import os
import time

from rkt.errors import Stage1Error, quoted
from rkt.linux import cgroupfs, pidfd

_PAUSE_SECONDS = 0.001


def kill_others(pid: int, unit: str, *, all_of_them: bool, seconds: float) -> bool:
    """Kill the processes of a unit, but not its main one.

    Args:
        pid: of the main process, on the host.
        unit: name of the unit.
        all_of_them: those that have started after the main process, too.
        seconds: how long to wait for their end.
    Returns:
        whether they have ended.
    Raises:
        Stage1Error: the unit has no cgroup of its own.
    """
    directory = _directory(pid, unit)
    started = pidfd.start_time(pid)
    deadline = time.monotonic() + seconds
    while others := [each for each in _members(directory) if each != pid]:
        if not all_of_them:
            others = [each for each in others if 0 < pidfd.start_time(each) < started]
            if not others:
                return True
        if time.monotonic() > deadline:
            return False
        for each in others:
            _kill(each, directory)
        time.sleep(_PAUSE_SECONDS)
    return True


def _directory(pid: int, unit: str) -> str:
    """The cgroup of a unit, with a process of it, in version 2 or in systemd's own hierarchy."""
    # systemd puts a line before a name that would be a file's (cg_escape).
    names = {unit, f"_{unit}"}
    membership = cgroupfs.membership(pid)
    for hierarchy in cgroupfs.detect():
        path = membership.get(hierarchy.key, "/")
        directory = hierarchy.directory(path)
        if directory is not None and path.rpartition("/")[2] in names:
            return directory
    raise Stage1Error(f"{quoted(unit)} has no cgroup of its own")


def _members(directory: str) -> list[int]:
    try:
        with open(f"{directory}/cgroup.procs", "rb", buffering=0) as file:
            return [int(word) for word in file.readall().split()]
    except OSError:
        return []  # the unit is over


def _kill(pid: int, directory: str) -> None:
    """Kill a process if it is still a member: the number may be another's by now."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if pid in _members(directory):
            pidfd.send_signal(fd, _signal.SIGKILL)
    finally:
        os.close(fd)

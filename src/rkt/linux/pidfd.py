# SPDX-License-Identifier: Apache-2.0
"""Processes by descriptor, and by number only together with their start time (invariant EN4)."""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal  # ``signal`` itself builds enumerations, 4 ms

#: PF_EXITING, <linux/sched.h>: ninth field of /proc/PID/stat.
_PF_EXITING = 0x4


def open_pid(pid: int, start: int = 0) -> int:
    """A descriptor of a process that the caller owns.

    Args:
        pid: its number.
        start: its start time when the number was written down, 0 if that is not known.
    Raises:
        ProcessLookupError: no such process, or the number belongs to another one now.
    """
    fd = os.pidfd_open(pid)
    # The descriptor pins the process, so a start time that fits now cannot be a later process's.
    if start and start_time(pid) != start:
        os.close(fd)
        raise ProcessLookupError(3, "the process number belongs to another process now", str(pid))
    return fd


def send_signal(fd: int, number: int) -> bool:
    """Send a signal; False when the process is gone."""
    try:
        _signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    return True


def wait_exit(fd: int, timeout_seconds: float | None) -> bool:
    """Wait until a process, not necessarily a child, has ended; False when the time is over."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout_seconds is None else max(0.0, timeout_seconds * 1000)))


def start_time(pid: int | str) -> int:
    """Clock ticks from boot to the start of a process, 0 when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            # The command is in parentheses and may hold anything; 22nd field in all, 20th after it.
            return int(file.read(4096).rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def is_exiting(pid: int) -> bool:
    """Whether a process is on its way out, or gone: nothing of a program runs in it any more."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(4096).rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return bool(int(fields[6]) & _PF_EXITING)


def is_alive(pid: int, start: int) -> bool:
    """Whether the process that had this number and start time still runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(4096).rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(fields[19]) == start and fields[0] not in {b"Z", b"X"}

# SPDX-License-Identifier: Apache-2.0
"""Who looks at a process of an app when its program is executed, before the program does anything.

systemd enters the working directory as the app's user, but with all capabilities of the pod, and follows whatever link is
there. For user 0 one that an image, a handler or another app on the same volume has put there leads through ``/proc/PID/root``
out of the app's root: beside systemd, whose socket is there, and to the other apps (invariants RN2, RN6). No directive
forbids that, and to look before or afterwards is a race. So a child of the supervisor's traces such a process, which waits
for its output to be opened, up to the moment of its execution, compares, and lets it go.

Source: ptrace(2), PTRACE_SEIZE and PTRACE_O_TRACEEXEC.
"""

from __future__ import annotations

import _signal
import errno
import os

from rkt.errors import Stage1Error
from rkt.linux import files, libc, pidfd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from rkt.stage2.exec import ExecPlan

_READY, _ASTRAY = b"+", b"-"
#: __WALL, <linux/wait.h>: whatever signal it will end with.
_WALL = 0x40000000
_GROUP_STOPS = frozenset((_signal.SIGSTOP, _signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU))
_MAX_MOUNTS_BYTES = 16 << 20
_MAX_FDINFO_BYTES = 4096
_REPORT_BYTES = 512


def is_needed(execute: ExecPlan) -> bool:
    """Whether a process could be led astray: others than user 0 get no further by such a link than the app would by itself."""
    return execute.uid == 0 and os.path.normpath(execute.working_directory).strip(b"/") != b""


class Witness:
    """One that waits for the execution; it dies with the supervisor, and the process with it.

    Attributes:
        fd: readable when there is something to ``hear``.
        is_over: whether it was waited for.
    """

    __slots__ = ("_pid", "fd", "is_over")

    def __init__(self, pid: int, leader: int) -> None:
        """Have a process looked at that has not got to its working directory.

        Args:
            pid: of the process, which systemd has forked.
            leader: the pod's systemd.
        Raises:
            Stage1Error: this cannot be done, or comes too late.
            ProcessLookupError: it is gone.
        """
        self.is_over = False
        self.fd, report_fd = os.pipe()
        supervisor = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _testify(supervisor, pid, leader, report_fd)
        os.close(report_fd)
        answer = os.read(self.fd, _REPORT_BYTES)
        if answer[:1] != _READY:
            self.close()
            if answer == b"%d" % errno.ESRCH:
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), str(pid))
            raise Stage1Error(
                f"it cannot be seen where its process starts: {answer.decode(errors='replace') or 'the witness was killed'}"
            )
        os.set_blocking(self.fd, False)

    def hear(self) -> bool:
        """Take what it has to say: whether the process was outside its root, and is killed for that."""
        if self.is_over:
            return False
        try:
            answer = os.read(self.fd, _REPORT_BYTES)
        except BlockingIOError:
            return False
        if answer != _ASTRAY:
            self.close()
        return answer == _ASTRAY

    def close(self) -> None:
        """Wait for its end; the process was executed, or is dead."""
        if not self.is_over:
            os.close(self.fd)
            os.waitpid(self._pid, 0)
            self.is_over = True


def _testify(supervisor: int, pid: int, leader: int, report_fd: int) -> NoReturn:
    """In the child: everything."""
    try:
        libc.die_with(supervisor)
        os.setsid()
        for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT):
            _signal.signal(number, _signal.SIG_IGN)
        libc.close_range(0, report_fd - 1)
        libc.close_range(report_fd + 1, 0xFFFFFFFF)
        process = os.pidfd_open(pid)
        libc.ptrace(libc.PTRACE_SEIZE, pid, libc.PTRACE_O_TRACEEXEC | libc.PTRACE_O_EXITKILL)
        # As long as it has the root of the pod's systemd it has not got to its working directory.
        if not _has_root_of(pid, leader):
            os.write(report_fd, b"it has come too far")
            os._exit(1)
        os.write(report_fd, _READY)
        _wait_executed(pid, leader)
        if is_inside(pid):
            libc.ptrace(libc.PTRACE_DETACH, pid)
        else:
            os.write(report_fd, _ASTRAY)
            pidfd.send_signal(process, _signal.SIGKILL)
    except ChildProcessError:
        pass  # it has ended before
    except OSError as e:
        os.write(
            report_fd, b"%d" % errno.ESRCH if e.errno == errno.ESRCH else str(e).encode(errors="replace")
        )
    finally:
        # What is still traced is killed by that.
        os._exit(0)


def _wait_executed(pid: int, leader: int) -> None:
    """Let a traced process go on until it executes a program in a root of its own, and return when it stands there.

    Raises:
        ChildProcessError: it is gone.
    """
    while True:
        _, status = os.waitpid(pid, _WALL)
        if not os.WIFSTOPPED(status):
            raise ChildProcessError
        event, number = status >> 16, os.WSTOPSIG(status)
        # A newer systemd executes a program of its own first.
        if event == libc.PTRACE_EVENT_EXEC and not _has_root_of(pid, leader):
            return
        try:
            if event == libc.PTRACE_EVENT_STOP and number in _GROUP_STOPS:
                libc.ptrace(libc.PTRACE_LISTEN, pid)
            else:
                libc.ptrace(libc.PTRACE_CONT, pid, 0 if event else number)
        except ProcessLookupError:
            continue  # it was killed meanwhile


def _has_root_of(pid: int, other: int) -> bool:
    return os.path.samestat(os.stat(f"/proc/{pid}/root"), os.stat(f"/proc/{other}/root"))


def is_inside(pid: int) -> bool:
    """Whether a process's working directory is below its root.

    It is if its mount is one of those that the process sees. The way up is no proof: the same directory is there a second
    time, in the pod's own root.
    """
    fd = os.open(f"/proc/{pid}/cwd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        text = files.read_bounded(f"/proc/self/fdinfo/{fd}", _MAX_FDINFO_BYTES)
    finally:
        os.close(fd)
    number = next(line.split()[1] for line in text.splitlines() if line.startswith(b"mnt_id:"))
    mounts = files.read_bounded(f"/proc/{pid}/mountinfo", _MAX_MOUNTS_BYTES)
    return any(line.split(b" ", 1)[0] == number for line in mounts.splitlines())

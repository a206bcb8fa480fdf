# SPDX-License-Identifier: Apache-2.0
"""The process of systemd-nspawn: forked, made ready in the pod's namespaces and cgroup, executed, listened to, ended.

It dies with the supervisor, and the pod with it. How far it is it says on a socket in the pod directory, which only root
can reach and where only its own word counts.
"""

from __future__ import annotations

import _signal
import _socket
import errno
import os
import select
import struct
import time

from rkt.errors import Stage1Error
from rkt.linux import libc, pidfd
from rkt.stage1.common import report
from rkt.stage2.exec import EXIT_EXEC_FAILED, reset_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from rkt.linux.cgroup import Joiner

#: In the pod directory, while the pod starts.
_NOTIFY = "nspawn-notify"
_LEADER = b"X_NSPAWN_LEADER_PID="
_READY = b"READY=1"
#: Directories of systemd-nspawn's own in which a machine has one.
_LEFT = ("/run/systemd/nspawn/propagate", "/run/systemd/nspawn/unix-export")
#: It says so of these directories, which are not in memory everywhere, whatever it was that failed.
_NO_REASON = "Attempted to remove disk file system "
_UCRED = struct.Struct("iII")
_MESSAGE_BYTES = 4096
#: How long systemd may take until the pod is up, in seconds.
START_SECONDS = 60.0
#: How long nspawn may take to clean up when its pod is gone.
_END_SECONDS = 10.0


class Machine:
    """One systemd-nspawn.

    Attributes:
        pid, pidfd: of systemd-nspawn.
        leader, leader_pidfd: of the pod's pid 1, -1 before it is known.
        is_over: whether systemd-nspawn was waited for.
    """

    __slots__ = (
        "_errors",
        "_guard",
        "_hold",
        "_name",
        "_notify",
        "_said",
        "is_over",
        "leader",
        "leader_pidfd",
        "pid",
        "pidfd",
    )

    def __init__(
        self,
        name: str,
        prepare: Callable[[str], tuple[list[str], dict[str, str]]],
        joiner: Joiner,
        *,
        debug: bool,
    ) -> None:
        """Fork; the caller is in the namespaces that the pod is to have.

        Args:
            name: of the machine.
            prepare: run in the child; given the address to notify it returns arguments and environment.
            joiner: of the cgroups to be in.
            debug: whether what it says goes to the operator at once.
        """
        self._name = name
        try:
            os.unlink(_NOTIFY)
        except FileNotFoundError:
            pass
        self._notify = _socket.socket(
            _socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        )
        old = os.umask(0o177)
        try:
            self._notify.bind(_NOTIFY)
        finally:
            os.umask(old)
        self._notify.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        self._said = -1 if debug else os.memfd_create("nspawn")
        self._errors, error_w = os.pipe()
        self.leader = self.leader_pidfd = -1
        self._guard = self._hold = -1
        self.is_over = False
        supervisor = os.getpid()
        try:
            self.pid, self.pidfd = libc.clone3(0, cgroup_fd=joiner.cgroup_fd)
            if self.pid == 0:
                self._become(supervisor, prepare, joiner, error_w)
        finally:
            os.close(error_w)

    def _become(
        self,
        supervisor: int,
        prepare: Callable[[str], tuple[list[str], dict[str, str]]],
        joiner: Joiner,
        error_fd: int,
    ) -> None:
        """In the child; never returns."""
        try:
            libc.die_with(supervisor)
            # What is typed on the operator's terminal is for the supervisor.
            os.setsid()
            joiner.join(unified=False)
            words, environment = prepare(f"/proc/{supervisor}/cwd/{_NOTIFY}")
            # With ids of the pod's execution would change them back, and the kernel forgets the signal with each change.
            libc.set_file_system_ids(0, 0)
            libc.die_with(supervisor)
            reset_signals()
            null_fd = os.open("/dev/null", os.O_RDWR)
            os.dup2(null_fd, 0)
            os.dup2(2 if self._said < 0 else null_fd, 1)
            if self._said >= 0:
                os.dup2(self._said, 2)
            os.execve(words[0], words, environment)
        except BaseException as e:  # noqa: BLE001 - a forked child must not unwind into the supervisor's frames
            report.send(error_fd, e)
        finally:
            os._exit(EXIT_EXEC_FAILED)

    def wait_ready(self, wake_fd: int) -> bool:
        """Return when the pod's systemd is up; false when ``wake_fd`` became readable before.

        Raises:
            Stage1Error: it does not come up; why, in the words of whoever failed.
        """
        said = report.receive(self._errors)
        self._errors = -1
        if said:
            self.wait()
            raise report.error(said)
        deadline = time.monotonic() + START_SECONDS
        poll = select.poll()
        for fd in (self._notify.fileno(), self.pidfd, wake_fd):
            poll.register(fd, select.POLLIN)
        while True:
            events = dict(poll.poll(max(0, int((deadline - time.monotonic()) * 1000))))
            if not events:
                raise Stage1Error(
                    f"the pod's systemd is not up after {START_SECONDS:.0f} s{self._explain()}",
                    hint="rkt run --debug shows what it does",
                )
            if self._notify.fileno() in events and self._listen():
                return True
            if self.pidfd in events:
                self.wait()
                raise self._failed()
            if wake_fd in events:
                return False

    def _listen(self) -> bool:
        """Take what it has said; whether the pod is ready."""
        is_ready = False
        while True:
            try:
                data, ancillary, _, _ = self._notify.recvmsg(
                    _MESSAGE_BYTES, _socket.CMSG_SPACE(_UCRED.size) * 4
                )
            except BlockingIOError:
                return is_ready and self.leader_pidfd >= 0
            senders = [
                _UCRED.unpack(value[: _UCRED.size])[0]
                for level, kind, value in ancillary
                if level == _socket.SOL_SOCKET and kind == _socket.SCM_CREDENTIALS
            ]
            if senders == [self.pid]:
                for line in data.split(b"\n"):
                    is_ready = is_ready or line == _READY
                    self._learn(line)

    def _learn(self, line: bytes) -> None:
        number = line[len(_LEADER) :]
        if not line.startswith(_LEADER) or not number.isdigit() or self.leader >= 0:
            return
        try:
            self.leader_pidfd = os.pidfd_open(int(number))
        except ProcessLookupError:
            return  # dead already; nspawn will say so
        self.leader = int(number)
        self._post_guard()

    def _post_guard(self) -> None:
        """Fork who kills the pod's pid 1 when the supervisor is killed: systemd-nspawn dies then, and leaves it behind."""
        # Nobody writes: it hangs up with the supervisor.
        hold_r, self._hold = os.pipe()
        self._guard = os.fork()
        if self._guard == 0:
            _stand_guard(hold_r, self.leader_pidfd)
        os.close(hold_r)

    def _failed(self) -> Stage1Error:
        """Why there is no pod; of the pod's systemd only systemd-nspawn hears the reason, and there is one that is common."""
        from rkt.linux import inotify

        try:
            inotify.try_room()
        except OSError as e:
            if e.errno != errno.EMFILE:
                raise
            return Stage1Error(
                "systemd-nspawn did not start the pod: its systemd wants "
                f"{inotify.OF_SYSTEMD} inotify instances, and of the {inotify.limit()} that a user may have not as many are free",
                hint=f"sysctl -w {inotify.LIMIT}=1024, or fewer pods at once",
            )
        return Stage1Error(
            f"systemd-nspawn did not start the pod{self._explain()}",
            hint="rkt run --debug shows what it does",
        )

    def _explain(self) -> str:
        """What systemd-nspawn said, to follow a sentence."""
        if self._said < 0:
            return ""
        text = os.pread(self._said, _MESSAGE_BYTES, 0).decode(errors="replace")
        lines = [
            line.strip() for line in text.splitlines() if line.strip() and not line.startswith(_NO_REASON)
        ]
        return f": {' / '.join(lines)}" if lines else ""

    def kill(self) -> None:
        """Kill every process of the pod; nspawn cleans up behind them, or is killed too before it has a pod."""
        if self.is_over:
            return
        target = self.leader_pidfd if self.leader_pidfd >= 0 else self.pidfd
        pidfd.send_signal(target, _signal.SIGKILL)

    def wait(self) -> None:
        """Return when systemd-nspawn is gone, which it is soon when its pod is."""
        if self.is_over:
            return
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if not poll.poll(int(_END_SECONDS * 1000)):
            pidfd.send_signal(self.pidfd, _signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.is_over = True
        if self._guard >= 0:
            os.close(self._hold)
            os.waitpid(self._guard, 0)
        self.forget()
        sweep(self._name)

    def forget(self) -> None:
        """Nobody is listened to any more."""
        self._notify.close()
        try:
            os.unlink(_NOTIFY)
        except FileNotFoundError:
            pass

    def host_pid(self, number: int) -> int:
        """The host's number of a process that the pod's systemd has started, by the pod's; -1 when it is gone.

        Its father is looked at: a number by itself could be another process by now. Orphans of namespaces that an app has made
        are children of the same father, with the numbers that they have there.
        """
        depth = len(_numbers(self.leader))
        for pid in self._children():
            numbers = _numbers(pid)
            if numbers and len(numbers) == depth and int(numbers[-1]) == number:
                return pid
        return -1

    def _children(self) -> list[int]:
        try:
            with open(f"/proc/{self.leader}/task/{self.leader}/children", "rb", buffering=0) as stream:
                return [int(word) for word in stream.readall().split()]
        except FileNotFoundError:
            return []


def _numbers(pid: int) -> list[bytes]:
    """Those of a process in each namespace, from ours to its own; none when it is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as stream:
            text = stream.readall()  # of an app with many groups it is long
    except OSError:
        return []
    return next((line.split()[1:] for line in text.splitlines() if line.startswith(b"NSpid:")), [])


def sweep(name: str) -> None:
    """Remove what systemd-nspawn may leave of a machine on the host: empty directories."""
    for parent in _LEFT:
        try:
            os.rmdir(f"{parent}/{name}")
        except OSError:
            continue


def _stand_guard(hold_fd: int, leader_pidfd: int) -> NoReturn:
    """In a child of the supervisor: wait for the end of one of the two, and see to the other.

    Not with the pod's lock: the pod is over with its supervisor, and gc and start kill what is left before they do anything.
    """
    try:
        os.setsid()
        for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT):
            _signal.signal(number, _signal.SIG_IGN)
        first = 0
        for fd in sorted((hold_fd, leader_pidfd)):
            if fd > first:
                libc.close_range(first, fd - 1)
            first = fd + 1
        libc.close_range(first, 0xFFFFFFFF)
        poll = select.poll()
        for fd in (hold_fd, leader_pidfd):
            poll.register(fd, select.POLLIN)
        poll.poll()
        pidfd.send_signal(leader_pidfd, _signal.SIGKILL)
        pidfd.wait_exit(leader_pidfd, _END_SECONDS)
    finally:
        os._exit(0)

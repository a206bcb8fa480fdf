# SPDX-License-Identifier: Apache-2.0
"""A process of an app, from fork to exec."""

from __future__ import annotations

import _signal
import os

from rkt.linux import libc
from rkt.stage1.common import report, steps
from rkt.stage2.exec import EXIT_EXEC_FAILED, become

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage1.ns.plan import AppPlan


class Starting:
    """A process of an app between fork and exec."""

    __slots__ = ("error_fd", "pid", "pidfd", "plan", "stderr_fd", "stdout_fd", "streams")

    def __init__(self, plan: AppPlan, stdin_fd: int) -> None:
        self.plan = plan
        self.streams = plan.streams
        if self.streams is not None:
            try:
                stdin_fd = self.streams.open(stdin_fd)
            except BaseException:
                plan.release()
                raise
        ends: list[int] = []
        try:
            for _ in range(3):
                ends += os.pipe()
            self.error_fd, error_w, self.stdout_fd, stdout_w, self.stderr_fd, stderr_w = ends
            self.pid, self.pidfd = libc.clone3(0, cgroup_fd=plan.cgroup_fd)
            if self.pid == 0:
                _child(plan, error_w, (stdin_fd, stdout_w, stderr_w))
        except BaseException:
            self._close(*ends[::2])
            if self.streams is not None:
                self.streams.close()
            raise
        finally:
            self._close(*ends[1::2])
            plan.release()
            if self.streams is not None:
                self.streams.opened()

    def wait(self) -> None:
        """Return when the program has been executed.

        Raises:
            Stage1Error: a step was refused.
        """
        if said := report.receive(self.error_fd):
            self.abandon()
            raise report.error(said, what=f"app {self.plan.name!r}: ")

    def abandon(self) -> None:
        """End the process, and take leave of it: pid 1 of the pod would wait for that."""
        _signal.pidfd_send_signal(self.pidfd, _signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._close(self.pidfd, self.stdout_fd, self.stderr_fd)
        if self.streams is not None:
            self.streams.close()

    @staticmethod
    def _close(*fds: int) -> None:
        for fd in fds:
            os.close(fd)


def _child(plan: AppPlan, error_fd: int, stdio: tuple[int, int, int]) -> None:
    """Carry out the plan and become the app; never returns."""
    step: steps.Step | None = None
    try:
        # ^C reaches this process as well; the supervisor is to hear of it once.
        _signal.set_wakeup_fd(-1)
        for number, fd in enumerate(stdio):
            if fd >= 0:
                os.dup2(fd, number)
        for each in plan.steps if stdio[0] >= 0 else (*plan.steps, steps.EmptyInput()):
            step = each
            each.apply(plan.root_fd)
        step = None
        become(plan.execute)
    except BaseException as e:  # noqa: BLE001 - a forked child must not unwind into the supervisor's frames
        report.send(error_fd, e, step)
    finally:
        os._exit(EXIT_EXEC_FAILED)

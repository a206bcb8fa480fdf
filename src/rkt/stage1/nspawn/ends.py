# SPDX-License-Identifier: Apache-2.0
"""How an app has ended, by what systemd says of its unit and of the handlers in it, and what the operator is told of that."""

from __future__ import annotations

import _signal
import os

from rkt.errors import EXIT_FAILURE, RktError
from rkt.linux import libc
from rkt.schema.appc import EVENT_POST_STOP, EVENT_PRE_START
from rkt.stage1.common.signals import stop_signal
from rkt.stage1.nspawn.root import APPS
from rkt.stage2.exec import EXIT_EXEC_FAILED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rkt.stage1.nspawn.app_state import App
    from rkt.stage1.nspawn.pod_systemd import PodSystemd
    from rkt.stage2.exec import ExecPlan

#: ``si_code`` of a process that ended by itself, <asm-generic/siginfo.h>.
_CLD_EXITED = 1
#: States of a unit in which its post-stop handler runs, or is ended.
_POST_STOP_STATES = frozenset(("stop-post", "final-watchdog", "final-sigterm", "final-sigkill"))
_NO_DIRECTORY = 200
#: Statuses of what systemd does before it executes a program, but for the execution itself (systemd.exec(5)).
SET_UP = {
    _NO_DIRECTORY: "its working directory cannot be entered",
    206: "its root cannot be entered",
    208: "its standard input cannot be opened",
    209: "its standard output cannot be opened",
    216: "its group cannot be taken",
    217: "its user cannot be taken",
    218: "its capabilities cannot be had",
    226: "its mounts cannot be made",
    228: "its system call filter cannot be had",
}


class Ends:
    """Finds out how apps of one pod have ended."""

    __slots__ = ("_report", "_systemd")

    def __init__(self, systemd: PodSystemd, report: Callable[[str], None]) -> None:
        """Prepare.

        Args:
            systemd: the pod's.
            report: says something to the operator.
        """
        self._systemd = systemd
        self._report = report

    def look(self, app: App, *, is_told: bool) -> int:
        """Look at an app whose unit is over; handlers that failed are reported.

        Args:
            app: it.
            is_told: whether it was asked to end.
        Returns:
            its exit status.
        """
        status = self._status(app, is_told=is_told)
        if status == EXIT_EXEC_FAILED and app.known.get("ExecMainCode") and not app.has_been_executed:
            self._explain(app, app.launch.execute)
        if EVENT_POST_STOP in app.launch.handlers:
            code, number = self._end_of_handler(app, EVENT_POST_STOP, "ExecStopPost")
            if number:
                failure = _as_status(code, number)
                self._report(f"app {app.name!r}: the post-stop handler ended with status {failure}")
        return status

    def look_at_killed(self, app: App, *, is_told: bool) -> int:
        """As ``look``, at an app that ended with its pod, maybe only after its program, or before there was one."""
        killed = 128 + int(_signal.SIGKILL)
        in_handler = app.known.get("SubState") in _POST_STOP_STATES and EVENT_POST_STOP in app.launch.handlers
        if in_handler and (app.known.get("ExecMainCode") or is_told):
            self._report(f"app {app.name!r}: the post-stop handler ended with status {killed}")
        elif not (app.has_result and app.known.get("ExecMainCode")):
            return killed
        return self._status(app, is_told=is_told)

    def _status(self, app: App, *, is_told: bool) -> int:
        """Exit status as a shell would say it; an app that a stop ended by its signal has done what it was told: 0.

        One that was to run again, and was ended before its program did, keeps the status of its last end.
        """
        code, number = int(app.known.get("ExecMainCode", 0)), int(app.known.get("ExecMainStatus", 0))
        if not code:
            # Its program never ran: a handler before it failed, or systemd could not set it up.
            return self._status_without_program(app, is_told=is_told)
        if code == _CLD_EXITED:
            if number in SET_UP and not app.has_been_executed:
                if number == _NO_DIRECTORY:
                    where = os.fsdecode(app.launch.execute.working_directory)
                    self._report(f"app {app.name!r}: working directory {where}: it cannot be entered")
                else:
                    self._report(f"app {app.name!r} could not be started: {SET_UP[number]}")
                return EXIT_FAILURE
            return number
        if is_told and number == stop_signal(app.launch.app):
            return 0 if app.has_been_executed else app.status
        return _as_status(code, number)

    def _status_without_program(self, app: App, *, is_told: bool) -> int:
        result = app.known.get("Result", "success")
        if result == "success":
            return app.status
        code, number = self._end_of_handler(app, EVENT_PRE_START, "ExecStartPre")
        if is_told and (not code or (code != _CLD_EXITED and number == stop_signal(app.launch.app))):
            return app.status
        if not code:
            self._report(f"app {app.name!r} could not be started: {result}")
            return EXIT_FAILURE
        status = _as_status(code, number)
        self._report(
            f"app {app.name!r}: the pre-start handler ended with status {status}, so the app is not started"
        )
        return status

    def _end_of_handler(self, app: App, event: str, directive: str) -> tuple[int, int]:
        """``si_code`` and status, or signal, of an app's handler that has failed, else zeroes; why it could not be executed is said."""
        try:
            commands: Any = self._systemd.bus.properties(app.unit).get(directive)
        except (OSError, RktError):
            return 0, 0  # the pod is gone with it
        for command in commands or ():
            code, number = int(command[-2]), int(command[-1])
            if code and number:
                if code == _CLD_EXITED and number == EXIT_EXEC_FAILED:
                    self._explain(app, app.launch.handlers[event])
                return code, number
        return 0, 0

    def _explain(self, app: App, execute: ExecPlan) -> None:
        """Say why the program of an app, or of its handler, could not be executed, as the app's own output."""
        reason = self._reason(app, execute)
        outlets = [each for each in app.outlets.values() if each[0] == b"stderr"]
        if reason and outlets:
            stream, prefixer, outlet = outlets[0]
            text = reason.encode(errors="surrogateescape") + b"\n"
            app.log.write(stream, text)
            outlet.add(prefixer.rest() + prefixer.mark(text))

    def _reason(self, app: App, execute: ExecPlan) -> str:
        from rkt.stage1.nspawn import programs

        root_fd = os.open(
            f"/proc/{self._systemd.machine.leader}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        )
        try:
            path = f"{APPS}/{app.name}/rootfs".encode()
            app_fd = libc.openat2(root_fd, path, os.O_PATH | os.O_DIRECTORY, libc.RESOLVE_IN_ROOT)
            try:
                return programs.find_program(app_fd, execute)[1]
            finally:
                os.close(app_fd)
        except OSError:
            return ""
        finally:
            os.close(root_fd)


def _as_status(code: int, number: int) -> int:
    """As a shell would say it."""
    return number if code == _CLD_EXITED else 128 + number

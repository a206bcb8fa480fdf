# SPDX-License-Identifier: Apache-2.0
"""What supervisors of every flavour do alike: one poll(2) loop, the apps' output, their exit statuses, what clients ask of apps."""

from __future__ import annotations

import os
import select
import time

from rkt.errors import RktError, reason_of
from rkt.linux import disk, files
from rkt.stage1.common.out_of_memory import MemoryKills
from rkt.stage1.common.reception import Reception
from rkt.stage1.common.streams import READ_BYTES, let_go

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Collection
    from typing import Any, Protocol

    from rkt.stage1.common.app_state import AppState
    from rkt.stage1.common.interactive import Interactive
    from rkt.stage1.common.streams import Outlet

    class Ticker(Protocol):
        """Something that has its own things to do in the supervisor's loop."""

        def next_at(self) -> float:
            """When ``tick`` is due, by the monotonic clock; 0 for never."""

        def tick(self, *, is_stopping: bool) -> None:
            """Called in each turn."""


class Supervision(Reception):
    """Looks after apps; how they are started and ended is the flavour's."""

    #: Whether the pod goes on without apps, and its status says nothing of theirs: see ``live``.
    _outlives_apps = False

    def __init__(
        self,
        server: _socket.socket,
        *,
        status_directory: str,
        report: Callable[[str], None],
        thaw: Callable[[], None],
        interactive: Interactive | None = None,
    ) -> None:
        """Take over signals and the control socket.

        Args:
            server: the socket to listen on.
            status_directory: where exit statuses are written.
            report: says something to the operator.
            thaw: lets the pod's processes go on if they are frozen.
            interactive: the operator's terminal, for the only app.
        """
        super().__init__(server, report, interactive)
        self._status_directory = status_directory
        self._thaw = thaw
        self._memory = MemoryKills(report)
        #: Whether lines of output say whose they are.
        self._several = False
        self.tickers: list[Ticker] = []
        self._first_failure = 0
        self._kill_at = 0.0

    def _all_apps(self) -> Collection[AppState]:
        """The apps that there are, also those that are over."""
        raise NotImplementedError

    def _update(self, name: object) -> dict[str, Any]:
        """Answer to ``rkt update``."""
        raise NotImplementedError

    def _report_failure(self, app: AppState, e: OSError | RktError) -> None:
        """Say what failed about an app of a pod that goes on, and what would help."""
        hint = e.hint if isinstance(e, RktError) else disk.remedy(e.errno)
        about, text = f"app {app.name!r}", reason_of(e)
        self._report(text if text.startswith(about) else f"{about}: {text}")
        if hint:
            self._report(f"hint: {hint}")

    # The loop ------------------------------------------------------------------------------------------------------

    @property
    def _goes_on(self) -> bool:
        """Whether the pod is not over yet."""
        if any(app.goes_on for app in self._all_apps()):
            return True
        return self._outlives_apps and not self._is_stopping

    def _deadlines(self) -> list[float]:
        """When something is due, by the monotonic clock."""
        deadlines = [at for at in (self._kill_at, *(ticker.next_at() for ticker in self.tickers)) if at]
        # Not before its post-stop handler has ended.
        deadlines += [
            app.restarts.at
            for app in self._all_apps()
            if app.restarts and app.restarts.at and not app.is_running
        ]
        return deadlines

    def _timeout_ms(self) -> int | None:
        """How long the next turn may wait."""
        deadlines = self._deadlines()
        if not deadlines:
            return None
        return max(0, int((min(deadlines) - time.monotonic()) * 1000) + 1)

    def _channels(self) -> tuple[dict[int, Callable[[], None]], list[Outlet]]:
        """See ``Reception``; with the apps' output, and who is attached to them."""
        readers, outlets = super()._channels()
        for app in self._all_apps():
            if app.streams is not None:
                app.streams.watch(app, readers, outlets)
            if not app.is_read:
                continue
            for fd, (_, _, outlet) in app.outlets.items():
                if not outlet.is_full:
                    readers[fd] = lambda a=app, f=fd: self._carry(a, f)  # type: ignore[misc, assignment]
        return readers, outlets

    def _turn(self, timeout_ms: int | None) -> None:
        """Wait for something to happen and deal with it."""
        readers, outlets = self._channels()
        writers = {outlet.fd: outlet for outlet in outlets if outlet.pending}
        poll = select.poll()
        for fd in {*readers, *writers}:
            poll.register(
                fd, (select.POLLIN if fd in readers else 0) | (select.POLLOUT if fd in writers else 0)
            )
        for fd, event in poll.poll(timeout_ms):
            if fd in writers and event & ~select.POLLIN:
                writers[fd].flush()
            if fd in readers and event & ~select.POLLOUT:
                readers[fd]()
        self._catch_up()
        for ticker in self.tickers:
            ticker.tick(is_stopping=self._is_stopping)

    def _catch_up(self) -> None:
        """Deal with what no descriptor tells of any more."""

    # Output and statuses -------------------------------------------------------------------------------------------

    def _carry(self, app: AppState, fd: int) -> bool:
        """Take what an app said to its log and to our own stream; false when there is nothing more for now."""
        if fd not in app.outlets:
            return False  # the app was over in the turn in which its last words came
        stream, prefixer, outlet = app.outlets[fd]
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            # A terminal that nobody holds any more answers EIO.
            data = b""
        if not data:
            self._let_go(app, fd)
            return False
        app.log.write(stream, data)
        if not app.log.covers(outlet.fd):
            outlet.add(prefixer.mark(data))
        return True

    def _empty(self, app: AppState, fd: int) -> None:
        """Take what is left where nobody writes any more, and close it; it does not block."""
        while self._carry(app, fd):
            pass
        if fd in app.outlets:
            self._let_go(app, fd)

    def _let_go(self, app: AppState, fd: int) -> None:
        """Close what output came from; a line that it left unfinished is one, whoever speaks next."""
        stream = app.outlets[fd][0]
        let_go(app.outlets, fd)
        if all(other != stream for other, _, _ in app.outlets.values()):
            app.log.complete(stream)

    def _write_status(self, app: AppState) -> None:
        """Write down how an app ended."""
        path = f"{self._status_directory}/{app.name}"
        files.replace_file(path, b"%d\n" % app.status, 0o644, sync=False)
        if not self._outlives_apps:
            self._first_failure = self._first_failure or app.status

    # Requests on the control socket --------------------------------------------------------------------------------

    def _answer(self, client: _socket.socket, message: dict[str, Any]) -> dict[str, Any] | None:
        """See ``Reception``."""
        operation = str(message.get("op"))
        if operation.startswith("attach-"):
            return self._attached(client, message)
        if operation == "app-update":
            return self._update(message.get("app"))
        if operation.startswith("app-"):
            return {"ok": False, "error": "immutable pod"}
        return {"ok": False, "error": f"unknown request {message.get('op')!r}"}

    def _attached(self, client: _socket.socket, message: dict[str, Any]) -> dict[str, Any]:
        """Answer to ``rkt attach``."""
        name = message.get("app")
        app = next((app for app in self._all_apps() if app.name == name and app.runs_program), None)
        if app is None:
            return {"ok": False, "error": f"app {name!r} is not running"}
        if app.streams is None:
            return {"ok": True, "pid": app.pid, "targets": []}
        return app.streams.answer(client, message, app)

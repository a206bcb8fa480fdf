# SPDX-License-Identifier: Apache-2.0
"""The supervisor of a pod whose apps are units: carries their output, keeps the score, stops them, ends the pod.

It is the process that ``rkt run`` became; systemd-nspawn is its child, systemd in the pod starts and ends the apps. What
becomes of them the supervisor hears from systemd itself over D-Bus, and by nothing that an app could write. One poll(2)
loop over that connection, the FIFOs of the apps' output, systemd-nspawn's pidfd, the control socket and a signal pipe.

An app that ends with a status other than 0 takes the pod down with it; the first such status is the pod's (spec runtime
§3.4). SIGTERM, SIGINT, SIGHUP and SIGQUIT stop the units, with their stop time, then the pod. When the supervisor itself is
killed, systemd-nspawn is killed by the kernel, and with it every process of the pod.
"""

from __future__ import annotations

import _signal
import os
import select
import time

from rkt.errors import EXIT_FAILURE, RktError
from rkt.linux import files, pidfd
from rkt.stage0 import contract
from rkt.stage1.common import control
from rkt.stage1.common.log import find_driver, open_log
from rkt.stage1.common.streams import READ_BYTES, Outlet, Prefixer
from rkt.stage1.nspawn import dbus
from rkt.stage1.nspawn.root import STREAMS
from rkt.stage1.nspawn.units import STOP_SECONDS, unit_name
from rkt.stage2.exec import EXIT_EXEC_FAILED

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any, Protocol

    from rkt.stage1.common.pod import PodApp
    from rkt.stage1.nspawn.dbus import Manager
    from rkt.stage1.nspawn.machine import Machine

    class Ticker(Protocol):
        """Something that has its own things to do in the supervisor's loop."""

        def next_at(self) -> float:
            """When ``tick`` is due, by the monotonic clock; 0 for never."""

        def tick(self, *, is_stopping: bool) -> None:
            """Called in each turn."""


#: How long the pod's systemd may take to answer, in seconds.
_ANSWER_SECONDS = 30.0
#: How long the last output may wait for a slow reader, in seconds.
_DRAIN_SECONDS = 2.0
#: What systemd may take beyond the stop time before the pod is killed.
_GRACE_SECONDS = 5.0
_STOP_SIGNALS = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT)
_OVER = frozenset(("inactive", "failed"))
#: ``si_code`` of a process that ended by itself, <asm-generic/siginfo.h>.
_CLD_EXITED = 1


class App:
    """An app of a running pod.

    Attributes:
        app: what it is in the manifest.
        unit: name of its unit.
        pid: of its program on the host, 0 before there is one, -1 when it was gone before it was seen.
        is_running: whether its unit is not over.
        has_begun: whether systemd has said that something of it runs.
        was_active: whether systemd has said so of its unit.
        known: what systemd has said of its unit so far.
        status: its exit status.
        stop_signal: what it is asked to end by.
        outlets: end of a FIFO -> (stream name, marker of lines, where it goes).
    """

    __slots__ = ("app", "has_begun", "is_running", "known", "log", "name", "outlets", "pid", "status", "stop_signal", "unit", "was_active")

    def __init__(self, app: PodApp, stop_signal: int) -> None:
        self.app = app
        self.name = app.name
        self.unit = unit_name(app.name)
        self.stop_signal = stop_signal
        self.pid = 0
        self.status = 0
        self.is_running = True
        self.has_begun = self.was_active = False
        self.known: dict[str, Any] = {}
        self.log = open_log(app, find_driver(app))
        self.outlets: dict[int, tuple[bytes, Prefixer, Outlet]] = {}


class Supervisor:
    """Runs the apps of one pod until the pod is over."""

    #: Whether the pod goes on without apps, and its status says nothing of theirs.
    _outlives_apps = False

    def __init__(
        self,
        server: _socket.socket,
        *,
        status_directory: str,
        report: Callable[[str], None],
        thaw: Callable[[], None],
        explain: Callable[[str], str],
    ) -> None:
        """Take over signals and the control socket; the pod is to come.

        Args:
            server: the socket to listen on.
            status_directory: where exit statuses are written.
            report: says something to the operator.
            thaw: lets the pod's processes go on if they are frozen.
            explain: tells why the program of an app, named by it, could not be executed; empty when it knows no reason.
        """
        self._server = server
        self._status_directory = status_directory
        self._report = report
        self._thaw = thaw
        self._explain = explain
        self._machine: Machine | None = None
        self._bus: Manager | None = None
        self._apps: dict[str, App] = {}
        self._clients: dict[int, _socket.socket] = {}
        self._outlets = (Outlet(1), Outlet(2))
        self._several = False
        self.tickers: list[Ticker] = []
        self._first_failure = 0
        self._is_stopping = False
        self._kill_at = 0.0
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        _signal.set_wakeup_fd(self._wake_w)
        for number in _STOP_SIGNALS:
            # Who used nohup(1) wants the pod to outlive the terminal.
            if number != _signal.SIGHUP or _signal.getsignal(number) != _signal.SIG_IGN:
                _signal.signal(number, lambda _number, _frame: None)

    @property
    def bus(self) -> Manager:
        """The pod's systemd, once there is one."""
        if self._bus is None:
            raise ConnectionError("the pod's systemd is not connected")
        return self._bus

    def boot(self, machine: Machine, root_uid: int) -> bool:
        """Wait for the pod's systemd and connect to it; false when the pod is to stop before that.

        Args:
            machine: systemd-nspawn, just started; from here on it is ended by ``finish``.
            root_uid: of the pod's root on the host.
        Raises:
            Stage1Error: it does not come up.
        """
        self._machine = machine
        if not machine.wait_ready(self._wake_r):
            self._is_stopping = True
            return False
        deadline = time.monotonic() + _ANSWER_SECONDS
        self._bus = dbus.connect(machine.leader, machine.leader_pidfd, uid=root_uid, deadline=deadline)
        self._bus.subscribe()
        return True

    def start(self, apps: list[tuple[PodApp, int]]) -> None:
        """Start apps whose units and FIFOs are there.

        Args:
            apps: each with the signal by which it is asked to end.
        Raises:
            RktError, OSError: one could not be started.
        """
        self._several = self._several or len(apps) > 1
        for each, stop_signal in apps:
            app = App(each, stop_signal)
            self._apps[app.unit] = app
            for stream in ("stdout", "stderr"):
                # Both ends, so that it never ends before the app's unit does; read when the app's number is known.
                fd = os.open(f"{STREAMS}/{app.name}-{stream}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
                outlet = self._outlets[0 if stream == "stdout" else 1]
                app.outlets[fd] = (stream.encode(), Prefixer(b""), outlet)
        for each, _ in apps:
            self.bus.start(unit_name(each.name))

    def run(self) -> int:
        """Supervise until every app has ended; returns the pod's exit status."""
        while any(app.is_running for app in self._apps.values()) or (
            self._outlives_apps and not self._is_stopping
        ):
            self._turn(self._timeout_ms())
            if self._kill_at and time.monotonic() >= self._kill_at:
                self._kill_at = 0.0
                self._machine_of().kill()
        self.finish()
        return self._first_failure

    def finish(self) -> None:
        """End every process of the pod and let the last output out."""
        machine = self._machine
        if machine is not None:
            machine.kill()
            self._thaw()
            machine.wait()
        for app in self._apps.values():
            if app.is_running:
                self._over(app, 128 + _signal.SIGKILL)
            app.log.finish()
        if self._bus is not None:
            self._bus.close()
            self._bus = None
        deadline = time.monotonic() + _DRAIN_SECONDS
        for outlet in self._outlets:
            outlet.flush(max(0, int((deadline - time.monotonic()) * 1000)))

    def abandon(self, machine: Machine) -> None:
        """End a pod that did not come up."""
        self._machine = machine
        machine.kill()
        self._thaw()
        machine.wait()

    def _machine_of(self) -> Machine:
        if self._machine is None:
            raise ConnectionError("there is no pod yet")
        return self._machine

    def _timeout_ms(self) -> int | None:
        deadlines = [at for at in (self._kill_at, *(ticker.next_at() for ticker in self.tickers)) if at]
        if self._bus is not None and self._bus.has_queued:
            return 0
        if not deadlines:
            return None
        return max(0, int((min(deadlines) - time.monotonic()) * 1000) + 1)

    def _turn(self, timeout_ms: int | None) -> None:
        """Wait for something to happen and deal with it."""
        readers: dict[int, Callable[[], None]] = {
            self._wake_r: self._signals,
            self._server.fileno(): self._accept,
        }
        machine = self._machine
        if machine is not None and not machine.is_over:
            readers[machine.pidfd] = self._machine_ended
        if self._bus is not None:
            readers[self._bus.fileno()] = self._listen
        for fd, client in self._clients.items():
            readers[fd] = lambda c=client: self._request(c)  # type: ignore[misc]
        outlets = list(self._outlets)
        self._watch(readers, outlets)
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
        if self._bus is not None and self._bus.has_queued:
            self._listen()
        for ticker in self.tickers:
            ticker.tick(is_stopping=self._is_stopping)

    def _watch(self, readers: dict[int, Callable[[], None]], _outlets: list[Outlet]) -> None:
        """Add the apps' output to what is polled."""
        for app in self._apps.values():
            if not app.has_begun:
                continue
            for fd, (_, _, outlet) in app.outlets.items():
                if not outlet.is_full:
                    readers[fd] = lambda a=app, f=fd: self._carry_some(a, f)  # type: ignore[misc]

    # What systemd says ---------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Take what the pod's systemd says of its units."""
        try:
            for unit, changed in self.bus.receive():
                app = self._apps.get(unit)
                if app is not None and app.is_running:
                    self._heard(app, changed)
        except ConnectionError:
            # Its end is seen by that of systemd-nspawn.
            self.bus.close()
            self._bus = None

    def _heard(self, app: App, changed: dict[str, Any]) -> None:
        """Something of an app's unit has changed."""
        number = changed.get("MainPID") or changed.get("ControlPID")
        if number:
            self._begun(app, int(number), is_program=bool(changed.get("MainPID")))
        app.known.update(changed)
        state = changed.get("ActiveState")
        if state not in _OVER:
            app.was_active = app.was_active or state is not None
        elif app.was_active or app.known.get("ExecMainCode") or app.known.get("Result", "success") != "success":
            # Else it is only about to begin: that is what systemd says first.
            self._ended(app)

    def _begun(self, app: App, number: int, *, is_program: bool) -> None:
        """A process of an app has been forked."""
        app.has_begun = True
        if app.pid > 0 or (app.pid < 0 and not is_program):
            return
        pid = self._machine_of().host_pid(number)
        if self._several:
            mark = f"{app.name}[{pid if pid > 0 else number}]: ".encode()
            for fd, (stream, _, outlet) in app.outlets.items():
                app.outlets[fd] = (stream, Prefixer(mark), outlet)
        if not is_program:
            return
        app.pid = pid
        if pid > 0:
            _record_pid(app)

    def _ended(self, app: App) -> None:
        """An app's unit is over, and so are its processes."""
        status = self._status(app)
        if status == EXIT_EXEC_FAILED and (reason := self._explain(app.name)):
            stream, prefixer, outlet = next(each for each in app.outlets.values() if each[0] == b"stderr")
            text = reason.encode(errors="surrogateescape") + b"\n"
            app.log.write(stream, text)
            outlet.add(prefixer.mark(text))
        self._over(app, status)
        if status and not self._is_stopping and not self._outlives_apps and any(
            other.is_running for other in self._apps.values()
        ):
            self._report(f"app {app.name!r} exited with status {status}, stopping the pod")
            self._stop()

    def _status(self, app: App) -> int:
        """Exit status as a shell would say it; an app that a stop ended by its signal has done what it was told: 0."""
        code, number = int(app.known.get("ExecMainCode", 0)), int(app.known.get("ExecMainStatus", 0))
        if not code:
            # Its program never ran: a handler before it failed, or systemd could not set it up.
            return self._setup_status(app)
        if code == _CLD_EXITED:
            return number
        return 0 if self._is_stopping and number == app.stop_signal else 128 + number

    def _setup_status(self, app: App) -> int:
        result = app.known.get("Result", "success")
        if self._is_stopping or result == "success":
            return 0
        for command in self.bus.properties(app.unit).get("ExecStartPre") or ():
            code, number = int(command[-2]), int(command[-1])
            if code and (number or code != _CLD_EXITED):
                status = number if code == _CLD_EXITED else 128 + number
                self._report(
                    f"app {app.name!r}: the pre-start handler ended with status {status}, so the app is not started"
                )
                return status
        self._report(f"app {app.name!r} could not be started: {result}")
        return EXIT_FAILURE

    def _over(self, app: App, status: int) -> None:
        """Take note of how an app ended, and of its last words."""
        app.is_running = False
        app.status = status
        for fd in list(app.outlets):
            try:
                while fd in app.outlets:
                    self._carry(app, fd)
            except BlockingIOError:
                pass
            os.close(fd)
        app.outlets.clear()
        files.replace_file(f"{self._status_directory}/{app.name}", b"%d\n" % status, 0o644, sync=False)
        if not self._outlives_apps:
            self._first_failure = self._first_failure or status

    def _carry_some(self, app: App, fd: int) -> None:
        try:
            self._carry(app, fd)
        except BlockingIOError:
            return

    def _carry(self, app: App, fd: int) -> None:
        """Take what an app said to its log and to our own stream.

        Raises:
            BlockingIOError: there is nothing more.
        """
        if fd not in app.outlets:
            return  # the app was over in the turn in which its last words came
        stream, prefixer, outlet = app.outlets[fd]
        data = os.read(fd, READ_BYTES)
        app.log.write(stream, data)
        if not app.log.covers(outlet.fd):
            outlet.add(prefixer.mark(data))

    def _machine_ended(self) -> None:
        """The pod is gone, by our hand or by somebody else's."""
        if self._bus is not None:
            # What systemd said last comes before its end.
            self._listen()
        self._machine_of().wait()
        for app in self._apps.values():
            if app.is_running:
                self._over(app, 128 + _signal.SIGKILL)
        self._is_stopping = True

    # Stopping ------------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Ask every app to end; a second request kills at once."""
        if self._is_stopping:
            self._machine_of().kill()
            return
        self._is_stopping = True
        self._kill_at = time.monotonic() + STOP_SECONDS + _GRACE_SECONDS
        # A paused pod meets its signals before it does anything else, and its systemd may stand still too.
        self._thaw()
        for app in self._apps.values():
            if app.is_running:
                self._stop_unit(app)

    def _stop_unit(self, app: App) -> None:
        try:
            self.bus.stop(app.unit)
        except (OSError, RktError) as e:
            self._report(f"app {app.name!r}: {e}")
            self._machine_of().kill()

    def _signals(self) -> None:
        try:
            numbers = os.read(self._wake_r, 64)
        except BlockingIOError:
            return
        for number in numbers:
            if number in _STOP_SIGNALS:
                self._stop()

    # The control socket --------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        client = control.accept(self._server)
        if client is not None:
            self._clients[client.fileno()] = client

    def _request(self, client: _socket.socket) -> None:
        """One request of a client; it stays connected, and the end of the pod hangs up on it."""
        try:
            message = control.receive(client)
            if message is None:
                del self._clients[client.fileno()]
                client.close()
                return
            if message.get("op") == "stop":
                if not self._is_stopping:
                    self._stop()
                control.send(client, {"ok": True, "stop_seconds": STOP_SECONDS})
            elif (answer := self._answer(client, message)) is not None:
                control.send(client, answer)
        except (OSError, RktError) as e:
            self._report(f"control socket: {e}")
            self._clients.pop(client.fileno(), None)
            client.close()

    def _answer(self, _client: _socket.socket, message: dict[str, Any]) -> dict[str, Any] | None:
        """Answer to a request other than stop; ``None`` when it is given later."""
        if str(message.get("op")).startswith("app-"):
            return {"ok": False, "error": "immutable pod"}
        return {"ok": False, "error": f"unknown request {message.get('op')!r}"}


def _record_pid(app: App) -> None:
    """``appsinfo/APP/pid``: pid and start time, by which ``enter`` finds the app and knows it for the same process."""
    started = pidfd.start_time(app.pid)
    if started:
        files.replace_file(f"appsinfo/{app.name}/pid", b"%d %d\n" % (app.pid, started), 0o640, sync=False)

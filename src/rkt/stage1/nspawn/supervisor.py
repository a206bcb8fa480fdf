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

import time

from rkt.errors import EXIT_FAILURE, RktError, Stage1Error
from rkt.schema import isolators
from rkt.schema.appc import EVENT_POST_STOP, EVENT_PRE_START
from rkt.stage1.common.announce import announce_app
from rkt.stage1.common.signals import STOP_SECONDS
from rkt.stage1.common.streams import Prefixer, let_go
from rkt.stage1.common.supervision import Supervision
from rkt.stage1.nspawn import dbus, dbus_wire, units
from rkt.stage1.nspawn.app_state import App
from rkt.stage1.nspawn.ends import Ends
from rkt.stage1.nspawn.entrance import Entrance
from rkt.stage1.nspawn.pod_journal import open_pod_journal
from rkt.stage1.nspawn.pod_systemd import ANSWER_SECONDS, PodSystemd

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Collection
    from typing import Any

    from rkt.linux.cgroup import Group
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.interactive import Interactive
    from rkt.stage1.common.pod import LoadedPod, PodApp
    from rkt.stage1.common.restart import Restarts
    from rkt.stage1.common.streams import Outlet
    from rkt.stage1.nspawn.dbus import Manager
    from rkt.stage1.nspawn.machine import Machine
    from rkt.stage1.nspawn.prepare import Launch
    from rkt.stage1.nspawn.streams import UnitStreams

    LaunchMaker = Callable[[LoadedPod, PodApp, list[Launch]], tuple[Launch, Group | None]]

#: How long the last output may wait for a slow reader, in seconds.
_DRAIN_SECONDS = 2.0
#: What systemd may take beyond the stop time before the pod is killed.
_GRACE_SECONDS = 5.0
_OVER = frozenset(("inactive", "failed"))
#: What a unit without one has.
_NO_JOB = (0, "/")


class Supervisor(Supervision):
    """Runs the apps of one pod until the pod is over."""

    #: What there is as soon as systemd-nspawn has been started: see ``boot``.
    _systemd: PodSystemd
    _arguments: RunArguments
    _entrance: Entrance
    _ends: Ends

    def __init__(
        self,
        server: _socket.socket,
        *,
        status_directory: str,
        report: Callable[[str], None],
        thaw: Callable[[], None],
        make_streams: Callable[[PodApp], UnitStreams | None],
        interactive: Interactive | None = None,
    ) -> None:
        """Take over signals and the control socket; the pod is to come.

        Args:
            server: the socket to listen on.
            status_directory: where exit statuses are written.
            report: says something to the operator.
            thaw: lets the pod's processes go on if they are frozen.
            make_streams: the standard streams of an app that is about to start, where they are not the usual ones.
            interactive: the operator's terminal, for the only app.
        """
        super().__init__(
            server, status_directory=status_directory, report=report, thaw=thaw, interactive=interactive
        )
        self._make_streams = make_streams
        self._apps: dict[str, App] = {}

    def able_to_launch(self, make_launch: LaunchMaker) -> None:
        """Say how an app that comes later is made ready, beside those that are there."""
        self._make_launch = make_launch

    def _all_apps(self) -> Collection[App]:
        """See ``Supervision``; one may be forgotten while they are gone through."""
        return list(self._apps.values())

    @property
    def bus(self) -> Manager:
        """See ``PodSystemd``."""
        return self._systemd.bus

    def boot(self, machine: Machine, arguments: RunArguments, root_uid: int) -> bool:
        """Wait for the pod's systemd and connect to it; false when the pod is to stop before that.

        Args:
            machine: systemd-nspawn, just started; from here on it is ended by ``finish``.
            arguments: of ``run``.
            root_uid: of the pod's root on the host.
        Raises:
            Stage1Error: it does not come up.
        """
        self._systemd = PodSystemd(machine, root_uid)
        self._arguments = arguments
        self._entrance = Entrance(machine, arguments, self._outlets, self._fail)
        self._ends = Ends(self._systemd, self._report)
        if not machine.wait_ready(self._wake_r):
            self._is_stopping = True
            return False
        self._systemd.connect(time.monotonic() + ANSWER_SECONDS)
        return True

    def start(self, launches: list[tuple[Launch, Group | None]]) -> None:
        """Start apps whose units and FIFOs are there.

        Args:
            launches: each with the cgroups that are not systemd's to make.
        Raises:
            RktError, OSError: one could not be started.
        """
        self._several = self._several or len(launches) > 1
        apps = [App(launch, group) for launch, group in launches]
        for app in apps:
            self._apps[app.unit] = app
            app.log.journal = journal = open_pod_journal(app, self._systemd)
            self.tickers.append(journal)
        for app in apps:
            self._begin(app)
        deadline = time.monotonic() + ANSWER_SECONDS
        while not all(app.is_under_way for app in apps) and time.monotonic() < deadline:
            timeout_ms = self._timeout_ms()
            # 0 is an answer: what systemd has told meanwhile is waiting.
            self._turn(int(ANSWER_SECONDS * 1000) if timeout_ms is None else timeout_ms)

    def _begin(self, app: App) -> None:
        """Have an app's unit started."""
        if app.launch.execute.sockets:
            from rkt.stage1.nspawn import sockets

            sockets.confirm(self._systemd.machine.leader, app.name, app.launch.execute.sockets)
        app.due_streams = self._make_streams(app.launch.app)
        if app.due_streams is not None:
            app.due_streams.open(is_gated=app.is_gated)
        if not app.is_gated:
            self._entrance.open_outlets(app)
        app.job = self.bus.start(app.unit)

    def run(self) -> int:
        """Supervise until every app has ended; returns the pod's exit status."""
        try:
            self._supervise()
        except RktError as e:
            self._fail(e.message)
        except OSError as e:
            self._fail(f"the pod cannot be supervised: {e.strerror or e}")
        self.finish()
        return self._first_failure

    def _supervise(self) -> None:
        while self._goes_on:
            self._turn(self._timeout_ms())
            if self._kill_at and time.monotonic() >= self._kill_at:
                self._kill_at = 0.0
                self._systemd.machine.kill()
            for app in self._all_apps():
                if app.restarts is not None and 0 < app.restarts.at <= time.monotonic():
                    self._start_again(app, app.restarts)

    def finish(self) -> None:
        """End every process of the pod and let the last output out."""
        self._end_machine(self._systemd.machine)
        for app in self._all_apps():
            if app.is_running:
                self._over(app, self._ends.look_at_killed(app, is_told=self._is_told(app)))
            if app.streams is not None:
                app.streams.finish(app)
            self._close(app)
        if self._interactive is not None:
            self._interactive.restore()
        self._systemd.close()
        deadline = time.monotonic() + _DRAIN_SECONDS
        for outlet in self._outlets:
            outlet.flush(max(0, int((deadline - time.monotonic()) * 1000)))

    def abandon(self, machine: Machine) -> None:
        """End a pod that did not come up, or that nobody can look after any more."""
        self._end_machine(machine)
        if self._interactive is not None:
            self._interactive.restore()

    def _end_machine(self, machine: Machine) -> None:
        """Kill every process of the pod."""
        machine.kill()
        self._thaw()
        machine.wait()

    def _timeout_ms(self) -> int | None:
        """See ``Supervision``; what systemd has told while somebody waited for an answer of its is not waited for."""
        return 0 if self._systemd.is_connected and self.bus.has_queued else super()._timeout_ms()

    def _channels(self) -> tuple[dict[int, Callable[[], None]], list[Outlet]]:
        """See ``Supervision``; with the pod's end, its systemd, and who witnesses the starts of apps."""
        readers, outlets = super()._channels()
        machine = self._systemd.machine
        if not machine.is_over:
            readers[machine.pidfd] = self._machine_ended
        if self._systemd.is_connected:
            readers[self.bus.fileno()] = self._listen
        for app in self._apps.values():
            for each in app.witnesses:
                readers[each.fd] = lambda a=app: self._entrance.hear_witnesses(a)  # type: ignore[misc, assignment]
        return readers, outlets

    def _catch_up(self) -> None:
        """See ``Supervision``."""
        if self._systemd.is_connected and self.bus.has_queued:
            self._listen()

    # What systemd says ---------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Take what the pod's systemd says of its units."""
        try:
            for unit, changed in self.bus.receive():
                app = self._apps.get(unit)
                if app is not None and app.is_running:
                    self._heard(app, changed)
        except ConnectionError:
            try:
                self._systemd.connect_again(self._ask)
            except Stage1Error as e:
                self._fail(e.message)
        except dbus_wire.WireError as e:
            # What comes after it means nothing either.
            self._systemd.close()
            self._fail(f"what the pod's systemd says cannot be read: {e.message}")

    def _ask(self) -> None:
        """Ask how things are with the units of all apps."""
        for app in [each for each in self._all_apps() if each.is_running]:
            found = self.bus.properties(app.unit)
            self._heard(app, found)
            if app.is_running and found.get("ActiveState") in _OVER and found.get("Job") == _NO_JOB:
                self._not_begun(app)

    def _heard(self, app: App, changed: dict[str, Any]) -> None:
        """Something of an app's unit has changed."""
        number = changed.get("MainPID") or changed.get("ControlPID")
        if number:
            self._begun(app, int(number), is_program=bool(changed.get("MainPID")))
        app.known.update(changed)
        state = changed.get("ActiveState")
        if state not in _OVER:
            app.was_active = app.was_active or state is not None
            if state == "active":
                self._executed(app)
        elif app.was_active or app.has_result:
            self._ended(app)
        if changed.get(dbus.ENDED_JOB) == app.job and not (app.was_active or app.has_result):
            self._not_begun(app)

    def _begun(self, app: App, number: int, *, is_program: bool) -> None:
        """A process of an app has been forked."""
        app.has_begun = True
        if app.pid > 0 or (app.pid < 0 and not is_program):
            if not is_program and number != app.handler:
                self._post_stop_begun(app, number)
            return
        if number == app.handler:
            return  # told once more
        pid = self._systemd.machine.host_pid(number)
        is_first_handler = not is_program and not app.handler and EVENT_PRE_START in app.launch.handlers
        event = "" if is_program else EVENT_PRE_START if is_first_handler else EVENT_POST_STOP
        execute = app.launch.handlers.get(event, app.launch.execute)
        self._entrance.receive(app, pid, execute, is_wanted=not self._is_told(app))
        if app.due_streams is not None:
            app.due_streams.admit()
        if is_first_handler:
            app.handler = number
            self._entrance.let_in(app, pid)
        else:
            if is_program and app.handler:
                self._entrance.end_leftovers(app, pid)
            self._pass_barrier(app)
            if is_program and app.has_later and app.due_streams is None:
                self._entrance.let_in(app, pid)
            self._entrance.open_outlets(app)
        self._mark(app, pid if pid > 0 else number)
        if not is_program:
            return
        app.pid = pid

    def _post_stop_begun(self, app: App, number: int) -> None:
        """The post-stop handler of an app whose program is over has been forked."""
        app.handler = number
        pid = self._systemd.machine.host_pid(number)
        execute = app.launch.handlers[EVENT_POST_STOP]
        self._entrance.receive(app, pid, execute, is_wanted=not self._is_told(app))
        if app.barrier:
            self._pass_barrier(app)
            self._entrance.open_outlets(app)
            self._mark(app, app.pid if app.pid > 0 else number)

    def _fail(self, message: str) -> None:
        """End the pod for a reason of our own."""
        self._report(message)
        self._first_failure = self._first_failure or EXIT_FAILURE
        self._is_stopping = True
        self._systemd.machine.kill()

    def _mark(self, app: App, number: int) -> None:
        """Say whose the lines are, where there are several; an app's own streams mark what goes on to the console themselves."""
        if self._several:
            mark = f"{app.name}[{number}]: ".encode()
            for fd, (stream, old, outlet) in app.outlets.items():
                if outlet not in self._outlets:
                    continue
                outlet.add(old.rest())
                app.outlets[fd] = (stream, Prefixer(mark), outlet)

    def _pass_barrier(self, app: App) -> None:
        """Let go of the FIFOs that the process before had; the next one waits for the first of its own."""
        if app.barrier:
            self._entrance.lift_barrier(app)
            self._take_rest(app)

    def _connect(self, app: App) -> None:
        """Lead the streams of an app that has its first process where they belong."""
        streams, app.due_streams = app.due_streams, None
        if streams is not None:
            outputs = {stream.decode(): fd for fd, (stream, _, _) in app.outlets.items()}
            if problem := streams.connect(app, outputs, self._outlets):
                self._report(problem)

    def _executed(self, app: App) -> None:
        """An app's program runs: it must be as confined as its unit says, and may be entered from here on."""
        app.was_executed = True
        self._connect(app)
        if app.streams is not None:
            app.streams.let_go()
        if app.pid <= 0 or self._entrance.hear_witnesses(app):
            return
        try:
            units.confirm(app.pid, app.launch.app, app.launch.execute, self._arguments)
        except OSError:
            return  # it is over already
        except RktError as e:
            self._fail(e.message)
        else:
            announce_app(app.name, app.pid)

    def _ended(self, app: App) -> None:
        """An app's unit is over, and so are its processes."""
        self._entrance.hear_witnesses(app)
        self._note(app, self._ends.look(app, is_told=self._is_told(app)))

    def _not_begun(self, app: App) -> None:
        """An app's unit is not started after all: its end was asked for before systemd had begun, and nothing more is said of it."""
        if self._is_told(app):
            self._note(app, app.status)
        else:
            self._report(f"app {app.name!r} could not be started: its unit was stopped in the pod")
            self._note(app, EXIT_FAILURE)

    def _note(self, app: App, status: int) -> None:
        """Take note of the end of a run: the app is to run again, or has ended."""
        pause = 0.0 if app.restarts is None or self._is_told(app) else app.restarts.plan(status)
        if pause:
            self._report(f"app {app.name!r} exited with status {status}, starting it again in {pause:.1f} s")
            app.is_running = False
            app.status = status
            self._drain(app)
            self._look_for_memory(app)
            return
        self._over(app, status)
        others = any(other.goes_on for other in self._all_apps())
        if status and not self._is_stopping and not self._outlives_apps and others:
            self._report(f"app {app.name!r} exited with status {status}, stopping the pod")
            self._stop()

    def _is_told(self, app: App) -> bool:
        """Whether the app was asked to end."""
        return self._is_stopping or app.was_told

    def _start_again(self, app: App, restarts: Restarts) -> None:
        restarts.begin()
        app.renew()
        try:
            self.bus.reset_failed(app.unit)
            self._begin(app)
        except (OSError, RktError) as e:
            self._report_failure(app, e)
            self._over(app, EXIT_FAILURE)

    def _over(self, app: App, status: int) -> None:
        """Take note of how an app ended, and of its last words."""
        app.is_running = False
        app.status = status
        if app.restarts is not None:
            app.restarts.at = 0.0
        self._drain(app)
        self._look_for_memory(app)
        self._write_status(app)

    def _drain(self, app: App) -> None:
        """Take what is left in the FIFOs, where nobody writes any more, and close them: the next start waits for who opens them."""
        self._connect(app)
        self._take_rest(app)

    def _take_rest(self, app: App) -> None:
        for fd in list(app.outlets):
            self._empty(app, fd)

    def _close(self, app: App) -> None:
        """Let go of an app that is over."""
        for each in app.witnesses:
            each.close()
        app.witnesses.clear()
        for fd in list(app.outlets):
            let_go(app.outlets, fd)
        self.tickers = [ticker for ticker in self.tickers if id(ticker) != id(app.log.journal)]
        app.log.finish()

    def _look_for_memory(self, app: App) -> None:
        """Say so when an app ended for want of memory."""
        if not app.status:
            return
        if app.cgroup is not None:
            self._memory.look(app, app.cgroup)
        elif app.known.get("Result") == "oom-kill":
            wanted = isolators.last(app.launch.app.app.isolators, isolators.MEMORY)
            self._memory.tell(app, 1, (wanted.limit_amount or 0) if wanted is not None else 0)

    def _machine_ended(self) -> None:
        """The pod is gone, by our hand or by somebody else's."""
        if self._systemd.is_connected:
            # What systemd said last comes before its end.
            self._listen()
        self._systemd.machine.wait()
        for app in self._all_apps():
            if app.is_running:
                self._over(app, self._ends.look_at_killed(app, is_told=self._is_told(app)))
        self._is_stopping = True

    # Stopping ------------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Ask every app to end; a second request kills at once."""
        if self._is_stopping:
            self._systemd.machine.kill()
            return
        self._is_stopping = True
        self._kill_at = time.monotonic() + STOP_SECONDS + _GRACE_SECONDS
        # A paused pod meets its signals before it does anything else, and its systemd may stand still too.
        self._thaw()
        for app in self._all_apps():
            if app.is_running:
                self._stop_unit(app)
            elif app.goes_on:
                self._over(app, app.status)

    def _stop_unit(self, app: App) -> None:
        app.was_told = True
        try:
            self.bus.stop(app.unit)
        except (OSError, RktError) as e:
            self._report_failure(app, e)
            self._systemd.machine.kill()

    # Requests on the control socket --------------------------------------------------------------------------------

    def _update(self, _name: object) -> dict[str, Any]:
        """See ``Supervision``: units have their limits from start to start."""
        return {
            "ok": False,
            "error": "rkt update not implemented for pod's stage1",
            "hint": "run another pod, with the limits that it needs",
        }

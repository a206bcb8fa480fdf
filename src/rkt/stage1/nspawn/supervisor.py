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
import stat
import time

from rkt.errors import EXIT_FAILURE, RktError
from rkt.linux import files, libc, pidfd
from rkt.schema import isolators
from rkt.schema.appc import EVENT_POST_STOP, EVENT_PRE_START
from rkt.schema.quantity import bytes_text
from rkt.stage0 import contract
from rkt.stage1.common.announce import announce_app
from rkt.stage1.common.log import find_driver, journal_fields, open_log
from rkt.stage1.common.reception import Reception
from rkt.stage1.common.signals import STOP_SECONDS, stop_signal
from rkt.stage1.common.streams import READ_BYTES, Outlet, Prefixer, let_go
from rkt.stage1.nspawn import dbus, dbus_wire, units, witness
from rkt.stage1.nspawn.pod_journal import PodJournal
from rkt.stage1.nspawn.root import APPS, STREAMS
from rkt.stage2.exec import EXIT_EXEC_FAILED

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any, Protocol

    from rkt.linux.cgroup import Group
    from rkt.stage1.common.app_streams import AppStreams
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.interactive import Interactive
    from rkt.stage1.common.pod import LoadedPod, PodApp
    from rkt.stage1.common.restart import Restarts
    from rkt.stage1.nspawn.dbus import Manager
    from rkt.stage1.nspawn.machine import Machine
    from rkt.stage1.nspawn.prepare import Launch
    from rkt.stage1.nspawn.streams import UnitStreams
    from rkt.stage1.nspawn.witness import Witness
    from rkt.stage2.exec import ExecPlan

    LaunchMaker = Callable[[LoadedPod, PodApp, list[Launch]], tuple[Launch, Group | None]]

    class Ticker(Protocol):
        """Something that has its own things to do in the supervisor's loop."""

        def next_at(self) -> float:
            """When ``tick`` is due, by the monotonic clock; 0 for never."""

        def tick(self, *, is_stopping: bool) -> None:
            """Called in each turn."""


#: How long the pod's systemd may take to answer, in seconds.
_ANSWER_SECONDS = 30.0
#: How long it may take to be back after it has hung up, and how long its end may take to show, in seconds.
_RETURN_SECONDS = 15.0
_PAUSE_SECONDS = 0.05
#: How long the last output may wait for a slow reader, in seconds.
_DRAIN_SECONDS = 2.0
#: What systemd may take beyond the stop time before the pod is killed.
_GRACE_SECONDS = 5.0
_OVER = frozenset(("inactive", "failed"))
#: ``si_code`` of a process that ended by itself, <asm-generic/siginfo.h>.
_CLD_EXITED = 1
#: How long a handler may take to open its output and what it left to be gone, in seconds.
_HANDLER_SECONDS = 5.0
_POLL_SECONDS = 0.001
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


class App:
    """An app of a running pod.

    Attributes:
        launch: what was planned of it.
        unit: name of its unit.
        handler: number of its last handler in the pod, 0 before there is one.
        barrier: the stream whose FIFO the next process of the unit is to open anew, since the one before has another; else empty.
        cgroup: where it is to be in version 1, ``None`` where systemd sets its limits.
        pid: of its program on the host, 0 before there is one, -1 when it was gone before it was seen.
        is_running: whether its unit is not over.
        has_begun: whether systemd has said that something of it runs.
        was_active: whether systemd has said so of its unit.
        was_executed: whether its program has been executed.
        known: what systemd has said of its unit so far.
        was_told: whether it was asked to end.
        status: its exit status.
        outlets: end of a FIFO -> (stream name, marker of lines, where it goes).
        restarts: of an app that may be started again.
        witnesses: of processes that were not executed when they were last looked at.
        streams: its standard streams, where they are not the usual ones.
        due_streams: those of a start whose program is not there yet.
    """

    __slots__ = (
        "_invocation",
        "barrier",
        "cgroup",
        "due_streams",
        "handler",
        "has_begun",
        "is_running",
        "known",
        "launch",
        "log",
        "name",
        "outlets",
        "pid",
        "restarts",
        "status",
        "streams",
        "unit",
        "was_active",
        "was_executed",
        "was_told",
        "witnesses",
    )

    def __init__(self, launch: Launch, cgroup: Group | None) -> None:
        self.launch = launch
        self.cgroup = cgroup
        self.name = launch.app.name
        self.unit = units.unit_name(self.name)
        self.status = 0
        self.was_told = False
        self.known: dict[str, Any] = {}
        self.log = open_log(launch.app, find_driver(launch.app))
        self.outlets: dict[int, tuple[bytes, Prefixer, Outlet]] = {}
        self.streams: AppStreams | None = None
        self.due_streams: UnitStreams | None = None
        self.restarts: Restarts | None = None
        self.witnesses: list[Witness] = []
        policy = launch.app.runtime.annotations.get(contract.ANNOTATION_RESTART)
        if policy is not None:
            from rkt.stage1.common.restart import Restarts

            self.restarts = Restarts(self.name, policy)
        self.renew()

    def renew(self) -> None:
        """It is about to start."""
        self._invocation = self.known.get("InvocationID", ())
        self.pid = self.handler = 0
        self.barrier = ""
        self.is_running = True
        self.has_begun = self.was_active = self.was_executed = False
        self.known = {}

    @property
    def is_gated(self) -> bool:
        """Whether its first process is to wait: it is to get into cgroups, comes after or before others, or needs a witness."""
        return (
            self.cgroup is not None
            or EVENT_PRE_START in self.launch.handlers
            or witness.is_needed(self.launch.execute)
        )

    @property
    def has_later(self) -> bool:
        """Whether a handler that comes after its program is to wait likewise."""
        handler = self.launch.handlers.get(EVENT_POST_STOP)
        return handler is not None and (self.cgroup is not None or witness.is_needed(handler))

    @property
    def is_under_way(self) -> bool:
        """Whether its program was executed, or its handler runs, or it is over."""
        return self.was_executed or not self.is_running or (self.has_begun and not self.pid)

    @property
    def has_result(self) -> bool:
        """Whether what systemd has said is of this start: first it says how things are before it."""
        if self.known.get("InvocationID", self._invocation) == self._invocation:
            return False
        return bool(self.known.get("ExecMainCode")) or self.known.get("Result", "success") != "success"

    @property
    def runs_program(self) -> bool:
        """Whether its program runs, not a handler."""
        return self.is_running and self.was_executed

    @property
    def has_been_executed(self) -> bool:
        """The same, now that its unit is over: of what is soon over systemd may never say that it is active."""
        entered = int(self.known.get("ActiveEnterTimestampMonotonic", 0))
        began = int(self.known.get("ExecMainStartTimestampMonotonic", 0))
        return self.was_executed or (entered > 0 and entered >= began)

    @property
    def goes_on(self) -> bool:
        """Whether it runs, or is to run again."""
        return self.is_running or (self.restarts is not None and self.restarts.at > 0)


class Supervisor(Reception):
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
        super().__init__(server, report, interactive)
        self._make_streams = make_streams
        self._status_directory = status_directory
        self._thaw = thaw
        self._arguments: RunArguments | None = None
        self._root_uid = 0
        self._machine: Machine | None = None
        self._bus: Manager | None = None
        self._apps: dict[str, App] = {}
        self._several = False
        self.tickers: list[Ticker] = []
        self._first_failure = 0
        #: Directory of a memory cgroup -> processes that were killed there; apps without a limit share the pod's.
        self._memory_kills: dict[str, int] = {}
        self._kill_at = 0.0

    def able_to_launch(self, make_launch: LaunchMaker) -> None:
        """Say how an app that comes later is made ready, beside those that are there."""
        self._make_launch = make_launch

    @property
    def bus(self) -> Manager:
        """The pod's systemd, once there is one."""
        if self._bus is None:
            raise ConnectionError("the pod's systemd is not connected")
        return self._bus

    def boot(self, machine: Machine, arguments: RunArguments, root_uid: int) -> bool:
        """Wait for the pod's systemd and connect to it; false when the pod is to stop before that.

        Args:
            machine: systemd-nspawn, just started; from here on it is ended by ``finish``.
            arguments: of ``run``.
            root_uid: of the pod's root on the host.
        Raises:
            Stage1Error: it does not come up.
        """
        self._machine = machine
        self._arguments = arguments
        self._root_uid = root_uid
        if not machine.wait_ready(self._wake_r):
            self._is_stopping = True
            return False
        deadline = time.monotonic() + _ANSWER_SECONDS
        self._bus = dbus.connect(machine.leader, machine.leader_pidfd, uid=root_uid, deadline=deadline)
        self._bus.subscribe()
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
            self._keep_journal(app)
        for app in apps:
            self._begin(app)
        deadline = time.monotonic() + _ANSWER_SECONDS
        while not all(app.is_under_way for app in apps) and time.monotonic() < deadline:
            timeout_ms = self._timeout_ms()
            # 0 is an answer: what systemd has told meanwhile is waiting.
            self._turn(int(_ANSWER_SECONDS * 1000) if timeout_ms is None else timeout_ms)

    def _keep_journal(self, app: App) -> None:
        """Let the pod's journal have what an app says."""
        journal = PodJournal(
            {**journal_fields(app.launch.app), "OBJECT_SYSTEMD_UNIT": app.unit},
            app.log.journal,
            leader=self._machine_of().leader,
            uid=self._root_uid,
            process=lambda: app.pid,
        )
        app.log.journal = journal
        self.tickers.append(journal)

    def _begin(self, app: App) -> None:
        """Have an app's unit started."""
        if app.launch.execute.sockets:
            from rkt.stage1.nspawn import sockets

            sockets.confirm(self._machine_of().leader, app.name, app.launch.execute.sockets)
        app.due_streams = self._make_streams(app.launch.app)
        if app.due_streams is not None:
            app.due_streams.open(is_gated=app.is_gated)
        if not app.is_gated:
            self._open_outlets(app)
        self.bus.start(app.unit)

    def _open_outlets(self, app: App, streams: tuple[str, ...] = ("stdout", "stderr")) -> None:
        """Open those FIFOs of an app's output that are not open; before that systemd waits, and does not execute anything.

        Both ends, so that they do not end before the app's unit does; they are read when the app's number is known.
        """
        there = {stream.decode() for stream, _, _ in app.outlets.values()}
        for stream, outlet in zip(("stdout", "stderr"), self._outlets, strict=True):
            if stream in there or stream not in streams:
                continue
            fd = os.open(
                f"{STREAMS}/{app.name}-{stream}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
            )
            app.outlets[fd] = (stream.encode(), Prefixer(b""), outlet)

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
        while any(app.goes_on for app in self._apps.values()) or (
            self._outlives_apps and not self._is_stopping
        ):
            self._turn(self._timeout_ms())
            if self._kill_at and time.monotonic() >= self._kill_at:
                self._kill_at = 0.0
                self._machine_of().kill()
            for app in list(self._apps.values()):
                if app.restarts is not None and 0 < app.restarts.at <= time.monotonic():
                    self._start_again(app, app.restarts)

    def finish(self) -> None:
        """End every process of the pod and let the last output out."""
        machine = self._machine
        if machine is not None:
            machine.kill()
            self._thaw()
            machine.wait()
        for app in list(self._apps.values()):
            if app.is_running:
                self._over(app, self._status_of_killed(app))
            if app.streams is not None:
                app.streams.finish(app)
            self._close(app)
        if self._interactive is not None:
            self._interactive.restore()
        if self._bus is not None:
            self._bus.close()
            self._bus = None
        deadline = time.monotonic() + _DRAIN_SECONDS
        for outlet in self._outlets:
            outlet.flush(max(0, int((deadline - time.monotonic()) * 1000)))

    def abandon(self, machine: Machine) -> None:
        """End a pod that did not come up, or that nobody can look after any more."""
        self._machine = machine
        machine.kill()
        self._thaw()
        machine.wait()
        if self._interactive is not None:
            self._interactive.restore()

    def _machine_of(self) -> Machine:
        if self._machine is None:
            raise ConnectionError("there is no pod yet")
        return self._machine

    def _timeout_ms(self) -> int | None:
        deadlines = [at for at in (self._kill_at, *(ticker.next_at() for ticker in self.tickers)) if at]
        deadlines += [app.restarts.at for app in self._apps.values() if app.restarts and app.restarts.at]
        if self._bus is not None and self._bus.has_queued:
            return 0
        if not deadlines:
            return None
        return max(0, int((min(deadlines) - time.monotonic()) * 1000) + 1)

    def _turn(self, timeout_ms: int | None) -> None:
        """Wait for something to happen and deal with it."""
        readers, outlets = self._channels()
        machine = self._machine
        if machine is not None and not machine.is_over:
            readers[machine.pidfd] = self._machine_ended
        if self._bus is not None:
            readers[self._bus.fileno()] = self._listen
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

    def _watch(self, readers: dict[int, Callable[[], None]], outlets: list[Outlet]) -> None:
        """Add the apps' output, and who is attached, to what is polled."""
        for app in self._apps.values():
            if app.streams is not None:
                app.streams.watch(app, readers, outlets)
            for each in app.witnesses:
                readers[each.fd] = lambda a=app: self._hear_witnesses(a)  # type: ignore[misc, assignment]
            if not app.has_begun or (app.pid and app.due_streams is not None):
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
            self.bus.close()
            self._bus = None
            self._connect_again()
        except dbus_wire.WireError as e:
            # What comes after it means nothing either.
            self.bus.close()
            self._bus = None
            self._fail(f"what the pod's systemd says cannot be read: {e.message}")

    def _connect_again(self) -> None:
        """After systemd has hung up: it has ended, which that of systemd-nspawn will show, or somebody had it execute itself anew.

        root in an app can do that, by a signal.
        """
        machine = self._machine_of()
        deadline = time.monotonic() + _RETURN_SECONDS
        while not pidfd.wait_exit(machine.leader_pidfd, _PAUSE_SECONDS):
            try:
                bus = dbus.connect(
                    machine.leader, machine.leader_pidfd, uid=self._root_uid, deadline=deadline
                )
                bus.subscribe()
                self._bus = bus
                for app in [each for each in self._apps.values() if each.is_running]:
                    self._heard(app, bus.properties(app.unit))
            except (OSError, RktError) as e:
                if self._bus is not None:
                    self._bus.close()
                    self._bus = None
                if time.monotonic() < deadline:
                    continue
                self._fail(f"the pod's systemd cannot be reached any more: {e}")
            return

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

    def _begun(self, app: App, number: int, *, is_program: bool) -> None:
        """A process of an app has been forked."""
        app.has_begun = True
        if app.pid > 0 or (app.pid < 0 and not is_program):
            if not is_program and number != app.handler:
                self._post_stop_begun(app, number)
            return
        if number == app.handler:
            return  # told once more
        machine = self._machine_of()
        pid = machine.host_pid(number)
        is_first_handler = not is_program and not app.handler and EVENT_PRE_START in app.launch.handlers
        event = "" if is_program else EVENT_PRE_START if is_first_handler else EVENT_POST_STOP
        self._receive(app, pid, app.launch.handlers.get(event, app.launch.execute))
        if app.due_streams is not None:
            app.due_streams.admit()
        if is_first_handler:
            app.handler = number
            self._let_in(app, pid)
        else:
            if is_program and app.handler:
                self._end_leftovers(app, pid)
            self._pass_barrier(app)
            if is_program and app.has_later and app.due_streams is None:
                self._let_in(app, pid)
            self._open_outlets(app)
        self._mark(app, pid if pid > 0 else number)
        if not is_program:
            return
        app.pid = pid

    def _post_stop_begun(self, app: App, number: int) -> None:
        """The post-stop handler of an app whose program is over has been forked."""
        app.handler = number
        self._receive(app, self._machine_of().host_pid(number), app.launch.handlers[EVENT_POST_STOP])
        if app.barrier:
            self._pass_barrier(app)
            self._open_outlets(app)
            self._mark(app, app.pid if app.pid > 0 else number)

    def _receive(self, app: App, pid: int, execute: ExecPlan) -> None:
        """See to a process of an app that has just been forked, and waits for its output to be opened."""
        if pid <= 0:
            if witness.is_needed(execute) and self._may_restart(app):
                self._fail(f"app {app.name!r}: it cannot be seen where its process starts: it is gone")
            return
        if app.cgroup is not None:
            self._take(app, app.cgroup, pid)
        if witness.is_needed(execute):
            try:
                app.witnesses.append(witness.Witness(pid, self._machine_of().leader))
            except ProcessLookupError:
                return
            except (OSError, RktError) as e:
                self._fail(f"app {app.name!r}: {e}")

    def _hear_witnesses(self, app: App) -> bool:
        """Whether a process of the app was found outside of its root; it is as good as dead by then, and did nothing."""
        is_astray = any([each.hear() for each in app.witnesses])  # noqa: C419 - all have their say
        app.witnesses = [each for each in app.witnesses if not each.is_over]
        if is_astray:
            self._fail(units.astray(app.name, app.launch.execute).message)
        return is_astray

    def _fail(self, message: str) -> None:
        """End the pod for a reason of our own."""
        self._report(message)
        self._first_failure = self._first_failure or EXIT_FAILURE
        self._is_stopping = True
        self._machine_of().kill()

    def _mark(self, app: App, number: int) -> None:
        """Say whose the lines are, where there are several; an app's own streams mark what goes on to the console themselves."""
        if self._several:
            mark = f"{app.name}[{number}]: ".encode()
            for fd, (stream, old, outlet) in app.outlets.items():
                if outlet not in self._outlets:
                    continue
                outlet.add(old.rest())
                app.outlets[fd] = (stream, Prefixer(mark), outlet)

    def _let_in(self, app: App, pid: int) -> None:
        """Open the output of a process, and have the next one of its unit wait for an opening of its own.

        The process is let into its first FIFO and waits for the next one. Meanwhile another FIFO takes the place of the first.
        """
        streams = self._fifos(app)
        if streams and pid > 0 and not app.outlets:
            self._open_outlets(app, streams[:1])
            (fd,) = app.outlets
            if self._has_opened(pid, 1 if streams[0] == "stdout" else 2, fd):
                _renew_fifo(app.name, streams[0])
                app.barrier = streams[0]
        self._open_outlets(app)

    def _fifos(self, app: App) -> tuple[str, ...]:
        """Which of an app's outputs are FIFOs."""
        from rkt.stage1.nspawn.places import Places

        if self._arguments is None:
            return ()
        places = Places(app.launch.app, self._arguments)
        both = (("stdout", places.stdout), ("stderr", places.stderr))
        return tuple(stream for stream, value in both if value.startswith("file:"))

    @staticmethod
    def _has_opened(pid: int, number: int, fd: int) -> bool:
        """Wait until a process that is being set up has a FIFO as one of its standard streams; false if that never comes."""
        wanted = os.fstat(fd)
        deadline = time.monotonic() + _HANDLER_SECONDS
        while time.monotonic() < deadline:
            try:
                there = os.stat(f"/proc/{pid}/fd/{number}")
            except OSError:
                if not pidfd.is_alive(pid, pidfd.start_time(pid)):
                    return False
            else:
                if (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino):
                    return True
            time.sleep(_POLL_SECONDS)
        return False

    def _end_leftovers(self, app: App, pid: int) -> None:
        """Kill what a pre-start handler left running: nothing of it goes on beside the program.

        Where the program waits for its output all of its unit's other processes are meant, else those that are older.
        """
        from rkt.stage1.nspawn.unit_group import kill_others

        try:
            if pid <= 0 or kill_others(
                pid, app.unit, all_of_them=bool(app.barrier), seconds=_HANDLER_SECONDS
            ):
                return
            reason = "it does not end"
        except OSError as e:
            reason = e.strerror or str(e)
        self._fail(f"app {app.name!r}: what its pre-start handler left running cannot be ended: {reason}")

    def _pass_barrier(self, app: App) -> None:
        """Let go of the FIFOs that the process before had; the next one waits for the first of its own."""
        if not app.barrier:
            return
        for stream in self._fifos(app):
            if stream != app.barrier:
                _renew_fifo(app.name, stream)
        app.barrier = ""
        for fd in list(app.outlets):
            self._empty(app, fd)
        app.log.complete()

    def _connect(self, app: App) -> None:
        """Lead the streams of an app that has its first process where they belong."""
        streams, app.due_streams = app.due_streams, None
        if streams is not None:
            outputs = {stream.decode(): fd for fd, (stream, _, _) in app.outlets.items()}
            if problem := streams.connect(app, outputs, self._outlets):
                self._report(problem)

    def _take(self, app: App, group: Group, pid: int) -> None:
        """Put an app's process, which waits for its output to be opened, into the app's cgroups."""
        try:
            group.take(pid)
        except FileNotFoundError:
            return  # it is gone, and its own group too
        except OSError as e:
            self._fail(f"app {app.name!r}: its limits cannot be set: {e.strerror}")

    def _executed(self, app: App) -> None:
        """An app's program runs: it must be as confined as its unit says, and may be entered from here on."""
        app.was_executed = True
        self._connect(app)
        if app.streams is not None:
            app.streams.let_go()
        if app.pid <= 0 or self._arguments is None or self._hear_witnesses(app):
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
        self._hear_witnesses(app)
        status = self._status(app)
        if status == EXIT_EXEC_FAILED and app.known.get("ExecMainCode") and not app.has_been_executed:
            self._explain(app, app.launch.execute)
        if EVENT_POST_STOP in app.launch.handlers:
            self._look_at_post_stop(app)
        pause = app.restarts.plan(status) if app.restarts is not None and self._may_restart(app) else 0.0
        if pause:
            self._report(f"app {app.name!r} exited with status {status}, starting it again in {pause:.1f} s")
            app.is_running = False
            app.status = status
            self._drain(app)
            self._look_for_memory(app)
            return
        self._over(app, status)
        others = any(other.goes_on for other in self._apps.values())
        if status and not self._is_stopping and not self._outlives_apps and others:
            self._report(f"app {app.name!r} exited with status {status}, stopping the pod")
            self._stop()

    def _may_restart(self, app: App) -> bool:
        """Whether nobody wants the app to end."""
        return not self._is_stopping and not app.was_told

    def _start_again(self, app: App, restarts: Restarts) -> None:
        restarts.begin()
        app.renew()
        try:
            self.bus.reset_failed(app.unit)
            self._begin(app)
        except (OSError, RktError) as e:
            self._report(f"app {app.name!r}: {e}")
            self._over(app, EXIT_FAILURE)

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
            f"/proc/{self._machine_of().leader}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
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

    def _status(self, app: App) -> int:
        """Exit status as a shell would say it; an app that a stop ended by its signal has done what it was told: 0.

        One that was to run again, and was ended before its program did, keeps the status of its last end.
        """
        code, number = int(app.known.get("ExecMainCode", 0)), int(app.known.get("ExecMainStatus", 0))
        if not code:
            # Its program never ran: a handler before it failed, or systemd could not set it up.
            return self._setup_status(app)
        if code == _CLD_EXITED:
            if number in SET_UP and not app.has_been_executed:
                if number == _NO_DIRECTORY:
                    where = os.fsdecode(app.launch.execute.working_directory)
                    self._report(f"app {app.name!r}: working directory {where}: it cannot be entered")
                else:
                    self._report(f"app {app.name!r} could not be started: {SET_UP[number]}")
                return EXIT_FAILURE
            return number
        told = self._is_stopping or app.was_told
        if told and number == stop_signal(app.launch.app):
            return 0 if app.has_been_executed else app.status
        return 128 + number

    def _setup_status(self, app: App) -> int:
        result = app.known.get("Result", "success")
        if self._is_stopping or result == "success":
            return app.status
        if status := self._handler_status(app, EVENT_PRE_START, "ExecStartPre"):
            self._report(
                f"app {app.name!r}: the pre-start handler ended with status {status}, so the app is not started"
            )
            return status
        self._report(f"app {app.name!r} could not be started: {result}")
        return EXIT_FAILURE

    def _handler_status(self, app: App, event: str, directive: str) -> int:
        """How an app's handler ended; why it could not be executed is said."""
        try:
            commands: Any = self.bus.properties(app.unit).get(directive)
        except (OSError, RktError):
            return 0  # the pod is gone with it
        for command in commands or ():
            code, number = int(command[-2]), int(command[-1])
            if code and number:
                if code == _CLD_EXITED and number == EXIT_EXEC_FAILED:
                    self._explain(app, app.launch.handlers[event])
                return number if code == _CLD_EXITED else 128 + number
        return 0

    def _look_at_post_stop(self, app: App) -> None:
        if status := self._handler_status(app, EVENT_POST_STOP, "ExecStopPost"):
            self._report(f"app {app.name!r}: the post-stop handler ended with status {status}")

    def _status_of_killed(self, app: App) -> int:
        """Exit status of an app that ended with its pod, maybe only after its program, or before there was one."""
        killed = 128 + int(_signal.SIGKILL)
        in_handler = app.known.get("SubState") in _POST_STOP_STATES and EVENT_POST_STOP in app.launch.handlers
        if not in_handler or not (app.known.get("ExecMainCode") or self._is_stopping):
            return killed
        self._report(f"app {app.name!r}: the post-stop handler ended with status {killed}")
        return self._status(app)

    def _over(self, app: App, status: int) -> None:
        """Take note of how an app ended, and of its last words."""
        app.is_running = False
        app.status = status
        if app.restarts is not None:
            app.restarts.at = 0.0
        self._drain(app)
        self._look_for_memory(app)
        files.replace_file(f"{self._status_directory}/{app.name}", b"%d\n" % status, 0o644, sync=False)
        if not self._outlives_apps:
            self._first_failure = self._first_failure or status

    def _drain(self, app: App) -> None:
        """Take what is left in the FIFOs, where nobody writes any more, and close them: the next start waits for who opens them."""
        self._connect(app)
        for fd in list(app.outlets):
            self._empty(app, fd)
        app.log.complete()

    def _empty(self, app: App, fd: int) -> None:
        try:
            while fd in app.outlets:
                self._carry(app, fd)
        except BlockingIOError:
            let_go(app.outlets, fd)

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
        """Say so when the kernel killed for want of memory: the status alone looks like anybody's SIGKILL."""
        if not app.status:
            return
        new = int(app.known.get("Result") == "oom-kill")
        limit = 0
        if app.cgroup is not None:
            counter, kills = app.cgroup.out_of_memory_kills()
            new = kills - self._memory_kills.get(counter, 0)
            self._memory_kills[counter] = kills
            limit = app.cgroup.memory_limit()
        elif (wanted := isolators.last(app.launch.app.app.isolators, isolators.MEMORY)) is not None:
            limit = wanted.limit_amount or 0
        if not new:
            return
        path = f"appsinfo/{app.name}/{contract.OOM_KILLS}"
        files.replace_file(path, b"%d\n" % new, 0o640, sync=False)
        what = "was killed" if app.status == 128 + _signal.SIGKILL else f"lost {new} of its processes"
        bound = f"limit {bytes_text(limit)}" if limit else "limit of the pod"
        self._report(f"app {app.name!r} {what}: out of memory ({bound})")

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
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            raise
        except OSError:
            # A terminal that nobody holds any more answers EIO.
            let_go(app.outlets, fd)
            return
        app.log.write(stream, data)
        if not app.log.covers(outlet.fd):
            outlet.add(prefixer.mark(data))

    def _machine_ended(self) -> None:
        """The pod is gone, by our hand or by somebody else's."""
        if self._bus is not None:
            # What systemd said last comes before its end.
            self._listen()
        self._machine_of().wait()
        for app in list(self._apps.values()):
            if app.is_running:
                self._over(app, self._status_of_killed(app))
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
        for app in list(self._apps.values()):
            if app.is_running:
                self._stop_unit(app)
            elif app.goes_on:
                self._over(app, app.status)

    def _stop_unit(self, app: App) -> None:
        app.was_told = True
        try:
            self.bus.stop(app.unit)
        except (OSError, RktError) as e:
            self._report(f"app {app.name!r}: {e}")
            self._machine_of().kill()

    # Requests on the control socket --------------------------------------------------------------------------------

    def _answer(self, client: _socket.socket, message: dict[str, Any]) -> dict[str, Any] | None:
        """Answer to a request other than stop; ``None`` when it is given later."""
        operation = str(message.get("op"))
        if operation.startswith("attach-"):
            return self._attached(client, message)
        if operation == "app-update":
            return {
                "ok": False,
                "error": "rkt update not implemented for pod's stage1",
                "hint": "run another pod, with the limits that it needs",
            }
        if operation.startswith("app-"):
            return {"ok": False, "error": "immutable pod"}
        return {"ok": False, "error": f"unknown request {message.get('op')!r}"}

    def _attached(self, client: _socket.socket, message: dict[str, Any]) -> dict[str, Any]:
        """Answer to ``rkt attach``."""
        name = message.get("app")
        app = next((app for app in self._apps.values() if app.name == name and app.runs_program), None)
        if app is None:
            return {"ok": False, "error": f"app {name!r} is not running"}
        if app.streams is None:
            return {"ok": True, "pid": app.pid, "targets": []}
        return app.streams.answer(client, message, app)


def _renew_fifo(app: str, stream: str) -> None:
    """Put another FIFO in the place of one: who has the old one open keeps it."""
    path = f"{STREAMS}/{app}-{stream}"
    there = os.lstat(path)
    os.mkfifo(f"{path}.new", stat.S_IMODE(there.st_mode))
    os.chown(f"{path}.new", there.st_uid, there.st_gid)
    os.rename(f"{path}.new", path)

# SPDX-License-Identifier: Apache-2.0
"""The supervisor: the process that ``rkt run`` became. Starts the apps, carries their output, stops them, keeps the score.

One poll(2) loop over the apps' pidfds and output pipes, the control socket and a signal pipe. An app that ends with a
status other than 0 takes the pod down with it; the first such status is the pod's (spec runtime §3.4). SIGTERM, SIGINT,
SIGHUP and SIGQUIT stop the pod: apps get SIGTERM, or what their image wants instead, their stop time, then SIGKILL. When the supervisor itself is killed,
the pod's pid 1 is killed by the kernel, and with it every process of the pod.

An app may have a restart policy (``restart``): as long as it is to run again it has not ended.

An app may have event handlers (``launch``). One that is to run before the app and fails keeps the app from starting, and
counts as the app's own failure; one that runs after the app has a bounded time, and its status is reported only.
"""

from __future__ import annotations

import _signal
import os
import select
import time

from rkt.errors import EXIT_FAILURE, RktError, Stage1Error, reason_of
from rkt.linux import files, libc
from rkt.schema.quantity import bytes_text
from rkt.stage0 import contract
from rkt.stage1.common import steps
from rkt.stage1.common.announce import announce_app
from rkt.stage1.common.reception import Reception
from rkt.stage1.common.signals import STOP_SECONDS
from rkt.stage1.common.streams import READ_BYTES, Outlet, Prefixer, let_go
from rkt.stage1.ns.launch import MAIN, POST_STOP, PRE_START
from rkt.stage2.exec import EXIT_EXEC_FAILED, become

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Iterable
    from typing import Any, Protocol

    from rkt.stage1.common.app_streams import AppStreams
    from rkt.stage1.common.interactive import Interactive
    from rkt.stage1.common.isolation import PodNamespaces
    from rkt.stage1.common.restart import Restarts
    from rkt.stage1.ns.init import Init
    from rkt.stage1.ns.launch import Launch
    from rkt.stage1.ns.plan import AppPlan

    class Ticker(Protocol):
        """Something that has its own things to do in the supervisor's loop."""

        def started(self, app: App) -> None:
            """The program of an app has been executed."""

        def next_at(self) -> float:
            """When ``tick`` is due, by the monotonic clock; 0 for never."""

        def readers(self) -> dict[int, Callable[[], None]]:
            """Descriptors to poll and what to do then."""

        def tick(self, *, is_stopping: bool) -> None:
            """Called in each turn."""

        def finish(self) -> None:
            """Every process of the pod has been killed."""


#: How long a post-stop handler may take, in seconds.
POST_STOP_SECONDS = 10.0
#: How long output may still arrive after the last process is gone, in seconds.
_DRAIN_SECONDS = 2.0


class App:
    """A started app.

    Attributes:
        stage: what runs of it now, see ``launch``.
        pid, pidfd: of the first process of that stage.
        deadline: when a post-stop handler is killed, by the monotonic clock; 0 for never.
        is_running: whether something of it runs.
        restarts: of an app that may be started again.
        status: the app's exit status.
        outlets: read end of a pipe -> (stream name, marker of lines, where it goes).
        streams: its standard streams, where they are not the usual ones.
    """

    __slots__ = (
        "deadline",
        "is_running",
        "launch",
        "log",
        "name",
        "outlets",
        "pid",
        "pidfd",
        "restarts",
        "stage",
        "status",
        "streams",
    )

    def __init__(self, launch: Launch) -> None:
        self.name = launch.name
        self.launch = launch
        self.stage = launch.first
        self.pid = self.pidfd = -1
        self.deadline = 0.0
        self.status = 0
        self.is_running = True
        self.restarts: Restarts | None = launch.restarts
        self.log = launch.open_log()
        self.outlets: dict[int, tuple[bytes, Prefixer, Outlet]] = {}
        self.streams: AppStreams | None = None

    @property
    def goes_on(self) -> bool:
        """Whether something of it runs, or is to run again."""
        return self.is_running or (self.restarts is not None and self.restarts.at > 0)

    @property
    def runs_program(self) -> bool:
        """Whether its program runs, not a handler."""
        return self.is_running and self.stage == MAIN


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
        report = b""
        while chunk := os.read(self.error_fd, 4096):
            report += chunk
        os.close(self.error_fd)
        if report:
            self.abandon()
            raise Stage1Error(f"app {self.plan.name!r}: {report.decode(errors='replace')}")

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
        for number, fd in enumerate(stdio):
            if fd >= 0:
                os.dup2(fd, number)
        for each in plan.steps if stdio[0] >= 0 else (*plan.steps, steps.EmptyInput()):
            step = each
            each.apply(plan.root_fd)
        step = None
        become(plan.execute)
    except BaseException as e:  # noqa: BLE001 - a forked child must not unwind into the supervisor's frames
        os.write(error_fd, steps.failure(step, e).encode(errors="replace")[:4096])
    finally:
        os._exit(EXIT_EXEC_FAILED)


class Supervisor(Reception):
    """Runs the apps of one pod until the pod is over."""

    #: Whether the pod goes on without apps, and its status says nothing of theirs: see ``live``.
    _outlives_apps = False

    def __init__(
        self,
        init: Init,
        shared: PodNamespaces,
        server: _socket.socket,
        *,
        status_directory: str,
        report: Callable[[str], None],
        thaw: Callable[[], None],
        set_limits: Callable[[App, list[App]], None],
        interactive: Interactive | None = None,
        stdin_fd: int = -1,
    ) -> None:
        """Take over a pod that has its first process.

        Args:
            init: the first process.
            shared: the pod's namespaces.
            server: the socket to listen on.
            status_directory: where exit statuses are written.
            report: says something to the operator.
            thaw: lets the pod's processes go on if they are frozen.
            set_limits: gives an app of several its limits anew.
            interactive: the operator's terminal, for the only app.
            stdin_fd: standard input of the apps, -1 for nothing; their handlers have nothing.
        """
        super().__init__(server, report, interactive)
        self._init = init
        self._shared = shared
        self._status_directory = status_directory
        self._thaw = thaw
        self._set_limits = set_limits
        self._apps: list[App] = []
        #: Processes that were started and belong to no app, because something failed meanwhile.
        self._forlorn: list[int] = []
        self._several = False
        self.tickers: list[Ticker] = []
        self._stdin_fd = stdin_fd
        self._first_failure = 0
        #: Directory of a memory cgroup -> processes that were killed there; apps without a limit share the pod's.
        self._memory_kills: dict[str, int] = {}
        self._kill_at = 0.0

    def start(self, launches: list[Launch]) -> None:
        """Start all apps; to be called in the pod's namespaces, which it leaves.

        Args:
            launches: the apps.
        Raises:
            Stage1Error: one could not be started; ``finish`` ends the others.
        """
        self._several = len(launches) > 1
        starting: list[tuple[Launch, Starting]] = []
        failure: RktError | None = None
        try:
            for launch in launches:
                each = Starting(launch.plan(launch.first), self._stdin_of(launch.first))
                starting.append((launch, each))
                self._forlorn.append(each.pid)
        finally:
            # When the first process of a pid namespace is gone nothing can be forked there, so its word comes first.
            self._init.wait_ready()
        self._shared.leave()
        for launch, each in starting:
            try:
                each.wait()
            except RktError as e:
                self._forlorn.remove(each.pid)
                failure = failure or e
                continue
            app = App(launch)
            self._forlorn.remove(each.pid)
            self._apps.append(app)
            self._attach(app, each)
        if failure is not None:
            raise failure

    def _begin(self, app: App, stage: str) -> None:
        """Start the next stage of an app while the pod runs.

        Raises:
            RktError, OSError: it could not be started.
        """
        plan = app.launch.plan(stage)
        self._shared.enter()
        try:
            starting = Starting(plan, self._stdin_of(stage))
        finally:
            self._shared.leave()
        starting.wait()
        app.stage = stage
        self._attach(app, starting)

    def _stdin_of(self, stage: str) -> int:
        return -1 if stage else self._stdin_fd

    def _attach(self, app: App, starting: Starting) -> None:
        """Take over a process that has been started."""
        app.pid, app.pidfd = starting.pid, starting.pidfd
        prefix = f"{app.name}[{app.pid}]: ".encode() if self._several else b""
        for fd, stream, outlet in (
            (starting.stdout_fd, b"stdout", self._outlets[0]),
            (starting.stderr_fd, b"stderr", self._outlets[1]),
        ):
            app.outlets[fd] = (stream, Prefixer(prefix), outlet)
        if app.stage == MAIN:
            announce_app(app.name, app.pid)
            for ticker in self.tickers:
                ticker.started(app)
            if self._interactive is not None:
                self._interactive.connect()
                app.outlets[self._interactive.master] = (b"stdout", Prefixer(b""), self._outlets[0])
        if starting.streams is not None:
            outputs = {"stdout": starting.stdout_fd, "stderr": starting.stderr_fd}
            if problem := starting.streams.connect(app, outputs, self._outlets):
                self._report(problem)

    def run(self) -> int:
        """Supervise until every app has ended; returns the pod's exit status."""
        while any(app.goes_on for app in self._apps) or (self._outlives_apps and not self._is_stopping):
            self._turn(self._timeout_ms())
            now = time.monotonic()
            if self._kill_at and now >= self._kill_at:
                self._kill_at = 0.0
                self._kill(app for app in self._apps if app.stage != POST_STOP)
            overdue = [app for app in self._apps if app.deadline and now >= app.deadline]
            for app in overdue:
                app.deadline = 0.0
                self._report(
                    f"app {app.name!r}: the post-stop handler did not end within {POST_STOP_SECONDS:.0f} s"
                )
            self._kill(overdue)
            for app in self._apps:
                if app.restarts is not None and 0 < app.restarts.at <= now and not app.is_running:
                    self._start_again(app, app.restarts)
        self.finish()
        return self._first_failure

    def finish(self) -> None:
        """End every process of the pod and let the last output out."""
        self._init.kill()
        self._thaw()
        for app in self._apps:
            if app.is_running:
                self._end(app)
        for pid in self._forlorn:
            os.waitpid(pid, 0)
        for ticker in self.tickers:
            ticker.finish()
        # Last: the kernel lets pid 1 go when we have taken leave of all others.
        self._init.wait()
        deadline = time.monotonic() + _DRAIN_SECONDS
        while any(app.outlets for app in self._apps) and time.monotonic() < deadline:
            self._turn(100)
        for app in self._apps:
            for fd in list(app.outlets):
                let_go(app.outlets, fd)
        for outlet in self._outlets:
            outlet.flush(int(_DRAIN_SECONDS * 1000))
        for app in self._apps:
            if app.streams is not None:
                app.streams.finish(app)
            app.log.finish()
        if self._interactive is not None:
            self._interactive.restore()

    def _timeout_ms(self) -> int | None:
        deadlines = [at for at in (self._kill_at, *(app.deadline for app in self._apps)) if at]
        # Not before its post-stop handler has ended.
        deadlines += [
            app.restarts.at for app in self._apps if app.restarts and app.restarts.at and not app.is_running
        ]
        deadlines += [at for ticker in self.tickers if (at := ticker.next_at())]
        if not deadlines:
            return None
        return max(0, int((min(deadlines) - time.monotonic()) * 1000) + 1)

    def _turn(self, timeout_ms: int | None) -> None:
        """Wait for something to happen and deal with it."""
        readers, outlets = self._channels()
        for app in self._apps:
            if app.is_running:
                readers[app.pidfd] = lambda a=app: self._reap(a)  # type: ignore[misc]
            for fd, (_, _, outlet) in app.outlets.items():
                if not outlet.is_full:
                    readers[fd] = lambda a=app, f=fd: self._carry(a, f)  # type: ignore[misc]
            if app.streams is not None:
                app.streams.watch(app, readers, outlets)
        for ticker in self.tickers:
            readers.update(ticker.readers())
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
        for ticker in self.tickers:
            ticker.tick(is_stopping=self._is_stopping)

    def _carry(self, app: App, fd: int) -> None:
        """Take what an app said to its log and to our own stream."""
        stream, prefixer, outlet = app.outlets[fd]
        try:
            data = os.read(fd, READ_BYTES)
        except OSError:
            # A terminal that nobody holds any more answers EIO.
            data = b""
        if not data:
            let_go(app.outlets, fd)
            return
        app.log.write(stream, data)
        if not app.log.covers(outlet.fd):
            outlet.add(prefixer.mark(data))

    def _reap(self, app: App) -> None:
        """A stage of an app is over: go on with the next one."""
        status = self._wait(app)
        if app.stage == POST_STOP:
            app.is_running = False
            app.deadline = 0.0
            if self._outlives_apps or any(other.goes_on for other in self._apps):
                app.launch.cgroup.kill(again=True)
            if status:
                self._report(f"app {app.name!r}: the post-stop handler ended with status {status}")
            return
        if app.stage == PRE_START and status:
            self._report(
                f"app {app.name!r}: the pre-start handler ended with status {status}, so the app is not started"
            )
        elif app.stage == PRE_START and not self._is_stopping:
            # Nothing of the handler goes on beside the app.
            app.launch.cgroup.kill(again=True)
            try:
                self._begin(app, MAIN)
            except (OSError, RktError) as e:
                self._report(f"app {app.name!r}: {reason_of(e)}" if isinstance(e, OSError) else e.message)
                status = EXIT_FAILURE
            else:
                return
        self._ended(app, status)

    def _ended(self, app: App, status: int) -> None:
        """The app's program is over, or could not be started: it is to run again, or has ended."""
        pause = app.restarts.plan(status) if app.restarts is not None and self._may_restart(app) else 0.0
        again = pause > 0
        if again:
            self._report(f"app {app.name!r} exited with status {status}, starting it again in {pause:.1f} s")
            app.status = status
            if status:
                self._look_for_memory(app)
        else:
            self._record(app, status)
        others = any(other.goes_on for other in self._apps if other is not app)
        if others or app.launch.has_post_stop or self._outlives_apps or again:
            # At the pod's end its pid 1 takes every process along; until then the app's orphans would live on.
            app.launch.cgroup.kill(again=True)
        if status and not again and not self._is_stopping and others and not self._outlives_apps:
            self._report(f"app {app.name!r} exited with status {status}, stopping the pod")
            self._stop(besides=app)
        app.is_running = app.launch.has_post_stop and self._begin_post_stop(app)

    def _may_restart(self, app: App) -> bool:
        """Whether nobody wants the app to end."""
        return not self._is_stopping

    def _start_again(self, app: App, restarts: Restarts) -> None:
        restarts.begin()
        app.is_running = True
        try:
            self._begin(app, app.launch.first)
        except (OSError, RktError) as e:
            self._report(f"app {app.name!r}: {reason_of(e)}" if isinstance(e, OSError) else e.message)
            app.is_running = False
            self._ended(app, EXIT_FAILURE)

    def _give_up(self, app: App) -> None:
        """Do not start an app again that waits for it: it has ended when it did."""
        if app.restarts is not None and app.restarts.at:
            app.restarts.at = 0.0
            self._record(app, app.status)

    def _begin_post_stop(self, app: App) -> bool:
        try:
            self._begin(app, POST_STOP)
        except (OSError, RktError) as e:
            self._report(f"post-stop handler: {reason_of(e)}")
            return False
        app.deadline = time.monotonic() + POST_STOP_SECONDS
        return True

    def _end(self, app: App) -> None:
        """Take note of an app that was killed with the pod."""
        status = self._wait(app)
        app.is_running = False
        if app.stage != POST_STOP:
            self._record(app, status)

    def _wait(self, app: App) -> int:
        """Reap the process that has ended; its status."""
        _, raw = os.waitpid(app.pid, 0)
        os.close(app.pidfd)
        return self._status(raw, app.launch.stop_signal)

    def _record(self, app: App, status: int) -> None:
        """Write down how an app ended."""
        app.status = status
        if status:
            self._look_for_memory(app)
        files.replace_file(f"{self._status_directory}/{app.name}", b"%d\n" % status, 0o644, sync=False)
        if not self._outlives_apps:
            self._first_failure = self._first_failure or status

    def _look_for_memory(self, app: App) -> None:
        """Say so when the kernel killed for want of memory: the status alone looks like anybody's SIGKILL."""
        counter, kills = app.launch.cgroup.out_of_memory_kills()
        new = kills - self._memory_kills.get(counter, 0)
        if not new:
            return
        self._memory_kills[counter] = kills
        path = f"appsinfo/{app.name}/{contract.OOM_KILLS}"
        files.replace_file(path, b"%d\n" % new, 0o640, sync=False)
        what = "was killed" if app.status == 128 + _signal.SIGKILL else f"lost {new} of its processes"
        limit = app.launch.cgroup.memory_limit()
        bound = f"limit {bytes_text(limit)}" if limit else "limit of the pod"
        self._report(f"app {app.name!r} {what}: out of memory ({bound})")

    def _status(self, raw: int, stop_signal: int) -> int:
        """Exit status as a shell would say it; an app that a stop ended by its signal has done what it was told: 0."""
        if os.WIFSIGNALED(raw):
            number = os.WTERMSIG(raw)
            return 0 if self._is_stopping and number == stop_signal else 128 + number
        return os.WEXITSTATUS(raw)

    def _stop(self, besides: App | None = None) -> None:
        """Ask every app to end and set the deadline; a second request kills at once.

        A post-stop handler that runs already is part of ending and left alone, and so is ``besides``, which has ended.
        """
        if self._is_stopping:
            self._kill(self._apps)
            return
        self._is_stopping = True
        self._kill_at = time.monotonic() + STOP_SECONDS
        for app in self._apps:
            self._give_up(app)
            if app.is_running and app.stage != POST_STOP and app is not besides:
                _signal.pidfd_send_signal(app.pidfd, app.launch.stop_signal)
        # A paused pod meets its signals before it does anything else.
        self._thaw()

    def _kill(self, apps: Iterable[App]) -> None:
        for app in apps:
            if app.is_running:
                _signal.pidfd_send_signal(app.pidfd, _signal.SIGKILL)

    def _answer(self, client: _socket.socket, message: dict[str, Any]) -> dict[str, Any] | None:
        """Answer to a request other than stop; ``None`` when it is given later."""
        operation = str(message.get("op"))
        if operation.startswith("attach-"):
            return self._attached(client, message)
        if operation == "app-update":
            return self._update(message.get("app"))
        if operation.startswith("app-"):
            return {"ok": False, "error": "immutable pod"}
        return {"ok": False, "error": f"unknown request {message.get('op')!r}"}

    def _update(self, name: object) -> dict[str, Any]:
        """Set an app's limits as the manifest has them now; one that does not run gets them when it starts."""
        app = next((app for app in self._apps if app.name == name and app.goes_on), None)
        try:
            if app is not None:
                self._set_limits(app, self._apps)
        except RktError as e:
            return {"ok": False, "error": e.message, "hint": e.hint}
        except OSError as e:
            return {"ok": False, "error": f"app {name!r}: {e.strerror}"}
        return {"ok": True}

    def _attached(self, client: _socket.socket, message: dict[str, Any]) -> dict[str, Any]:
        """Answer to ``rkt attach``."""
        name = message.get("app")
        app = next((app for app in self._apps if app.name == name and app.is_running), None)
        if app is None or app.stage != MAIN:
            return {"ok": False, "error": f"app {name!r} is not running"}
        if app.streams is None:
            return {"ok": True, "pid": app.pid, "targets": []}
        return app.streams.answer(client, message, app)

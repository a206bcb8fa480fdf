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
import stat
import time

from rkt.errors import EXIT_FAILURE, RktError, reason_of
from rkt.stage1.common.announce import announce_app
from rkt.stage1.common.signals import STOP_SECONDS
from rkt.stage1.common.streams import Prefixer, let_go
from rkt.stage1.common.supervision import Supervision
from rkt.stage1.ns.app_state import App
from rkt.stage1.ns.launch import MAIN, POST_STOP, PRE_START
from rkt.stage1.ns.starting import Starting

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Collection, Iterable
    from typing import Any

    from rkt.stage1.common.interactive import Interactive
    from rkt.stage1.common.isolation import PodNamespaces
    from rkt.stage1.common.restart import Restarts
    from rkt.stage1.common.streams import Outlet
    from rkt.stage1.ns.init import Init
    from rkt.stage1.ns.launch import Launch
    from rkt.stage1.ns.probes import Prober


#: How long a post-stop handler may take, in seconds.
POST_STOP_SECONDS = 10.0
#: How long output may still arrive after the last process is gone, in seconds.
_DRAIN_SECONDS = 2.0


class Supervisor(Supervision):
    """Runs the apps of one pod until the pod is over."""

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
        super().__init__(
            server, status_directory=status_directory, report=report, thaw=thaw, interactive=interactive
        )
        self._init = init
        self._shared = shared
        self._set_limits = set_limits
        self._apps: list[App] = []
        #: Processes that were started and belong to no app, because something failed meanwhile.
        self._forlorn: list[int] = []
        self._stdin_fd = stdin_fd
        self._prober: Prober | None = None

    def probe_by(self, prober: Prober) -> None:
        """Have apps probed; to be called before they start."""
        self._prober = prober
        self.tickers.append(prober)

    def _all_apps(self) -> Collection[App]:
        """See ``Supervision``."""
        return self._apps

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
        self._take_rest(app)
        plan = app.launch.plan(stage)
        self._shared.enter()
        try:
            starting = Starting(plan, self._stdin_of(stage))
        finally:
            self._shared.leave()
        starting.wait()
        app.stage = stage
        self._attach(app, starting)

    def _take_rest(self, app: App) -> None:
        """Take what the stage before has said last; whoever could go on there is dead."""
        for fd in list(app.outlets):
            # A terminal says itself that there is nothing more, and maybe not at once.
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.set_blocking(fd, False)
                self._empty(app, fd)

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
            if self._prober is not None:
                self._prober.started(app)
            if self._interactive is not None:
                self._interactive.connect()
                app.outlets[self._interactive.master] = (b"stdout", Prefixer(b""), self._outlets[0])
        if starting.streams is not None:
            outputs = {"stdout": starting.stdout_fd, "stderr": starting.stderr_fd}
            if problem := starting.streams.connect(app, outputs, self._outlets):
                self._report(problem)

    def run(self) -> int:
        """Supervise until every app has ended; returns the pod's exit status."""
        while self._goes_on:
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
        if self._prober is not None:
            self._prober.finish()
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

    def _deadlines(self) -> list[float]:
        """See ``Supervision``."""
        return super()._deadlines() + [app.deadline for app in self._apps if app.deadline]

    def _channels(self) -> tuple[dict[int, Callable[[], None]], list[Outlet]]:
        """See ``Supervision``; with the ends of apps, and of their probes."""
        readers, outlets = super()._channels()
        for app in self._apps:
            if app.is_running:
                readers[app.pidfd] = lambda a=app: self._reap(a)  # type: ignore[misc]
        if self._prober is not None:
            readers.update(self._prober.readers())
        return readers, outlets

    def _reap(self, app: App) -> None:
        """A stage of an app is over: go on with the next one."""
        status = self._wait(app)
        if app.stage == POST_STOP:
            app.is_running = False
            app.deadline = 0.0
            if self._outlives_apps or any(other.goes_on for other in self._apps):
                _kill_left(app)
            if status:
                self._report(f"app {app.name!r}: the post-stop handler ended with status {status}")
            return
        if app.stage == PRE_START and status:
            self._report(
                f"app {app.name!r}: the pre-start handler ended with status {status}, so the app is not started"
            )
        elif app.stage == PRE_START and self._is_told(app):
            # Its program is not started: it has ended as it did the last time.
            status = app.status
        elif app.stage == PRE_START:
            # Nothing of the handler goes on beside the app.
            _kill_left(app)
            try:
                self._begin(app, MAIN)
            except (OSError, RktError) as e:
                self._report_failure(app, e)
                status = EXIT_FAILURE
            else:
                return
        self._ended(app, status)

    def _ended(self, app: App, status: int) -> None:
        """The app's program is over, or could not be started: it is to run again, or has ended."""
        pause = 0.0 if app.restarts is None or self._is_told(app) else app.restarts.plan(status)
        again = pause > 0
        if again:
            self._report(f"app {app.name!r} exited with status {status}, starting it again in {pause:.1f} s")
            self._note(app, status)
        else:
            self._record(app, status)
        others = any(other.goes_on for other in self._apps if other is not app)
        if others or app.launch.has_post_stop or self._outlives_apps or again:
            # At the pod's end its pid 1 takes every process along; until then the app's orphans would live on.
            _kill_left(app)
        if status and not again and not self._is_stopping and others and not self._outlives_apps:
            self._report(f"app {app.name!r} exited with status {status}, stopping the pod")
            self._stop(besides=app)
        app.is_running = app.launch.has_post_stop and self._begin_post_stop(app)

    def _is_told(self, _app: App) -> bool:
        """Whether the app was asked to end."""
        return self._is_stopping

    def _start_again(self, app: App, restarts: Restarts) -> None:
        restarts.begin()
        app.is_running = True
        try:
            self._begin(app, app.launch.first)
        except (OSError, RktError) as e:
            self._report_failure(app, e)
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
        return self._status(app, raw)

    def _record(self, app: App, status: int) -> None:
        """Write down how an app ended."""
        self._note(app, status)
        self._write_status(app)

    def _note(self, app: App, status: int) -> None:
        """Take note of how a run of an app ended."""
        app.status = status
        if status:
            self._memory.look(app, app.launch.cgroup)

    def _status(self, app: App, raw: int) -> int:
        """Exit status as a shell would say it; what a stop ended by its signal has done what it was told: 0."""
        if not os.WIFSIGNALED(raw):
            return os.WEXITSTATUS(raw)
        number = os.WTERMSIG(raw)
        has_obeyed = app.stage != POST_STOP and self._is_told(app) and number == app.launch.stop_signal
        return 0 if has_obeyed else 128 + number

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

    def _update(self, name: object) -> dict[str, Any]:
        """See ``Supervision``: limits as the manifest has them now; an app that does not run gets them when it starts."""
        app = next((app for app in self._apps if app.name == name and app.goes_on), None)
        try:
            if app is not None:
                self._set_limits(app, self._apps)
        except RktError as e:
            return {"ok": False, "error": e.message, "hint": e.hint}
        except OSError as e:
            return {"ok": False, "error": f"app {name!r}: {e.strerror}"}
        return {"ok": True}


def _kill_left(app: App) -> None:
    """End what an app has left behind; its cgroup is used again."""
    from rkt.linux import cgroup_processes

    cgroup_processes.kill(app.launch.cgroup, again=True)

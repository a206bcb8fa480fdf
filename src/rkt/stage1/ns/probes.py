# SPDX-License-Identifier: Apache-2.0
"""Probes of apps: whether they are ready, whether they are alive; loaded only for pods that have some.

A probe is one process of the app: in its namespaces, root and cgroup, with its user, capabilities and filter, like a
command that enters. For ``tcp`` and ``http`` it is a process of ours that is confined in the same way before it connects,
so what the app answers is never read by anybody with more rights than the app. The supervisor sees how the process ended and
the first bytes of what it said, and never waits for it.

``notify`` is no process: the app gets a socket, as from systemd, and says ``READY=1`` itself (sd_notify(3)).

What was found is in ``rkt/status/APP-health``; see ``_Health``. While the pod is paused nothing is probed, and what
was under way does not count.
"""

from __future__ import annotations

import _signal
import _socket
import os
import time

from rkt.errors import RktError, Stage1Error, reason_of
from rkt.linux import files, libc
from rkt.schema import jsontext, probes
from rkt.stage0 import contract
from rkt.stage1.common import limits, steps
from rkt.stage1.common.exec_plan import build_exec_plan
from rkt.stage1.common.pod import load_pod
from rkt.stage1.ns import probe_calls
from rkt.stage1.ns.launch import MAIN
from rkt.stage1.ns.plan import AppPlan
from rkt.stage1.ns.starting import Starting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rkt.linux.userns import UserNamespace
    from rkt.schema.probes import Probe
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.isolation import PodNamespaces
    from rkt.stage1.common.pod import PodApp
    from rkt.stage1.ns.app_state import App

#: Until it succeeds for the first time, a probe is made at least this often, in seconds.
_SOON_SECONDS = 1.0
#: What a probe says is shown up to here.
_MESSAGE_BYTES = 256
_READ_BYTES = 4096
#: Messages of one app that are read in one turn.
_MESSAGES = 16
#: The address of a socket has 108 bytes.
_MAX_NAME = 80
_SOCKETS = f"{contract.STAGE1_ROOTFS}/{contract.NOTIFY_DIR}"
_IN_APP = b"run/rkt-notify"
#: <linux/time.h>
_CLOCK_REALTIME_COARSE = 5


class EnterApp(steps.Step):
    """Join the mount and cgroup namespaces of a running app; its root becomes the process's."""

    __slots__ = ("pidfd",)

    def __init__(self, pidfd: int) -> None:
        self.pidfd = os.dup(pidfd)

    def describe(self) -> str:
        """See ``Step``."""
        return "enter the app"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        # No process of the pod may look into this one before it is confined (CVE-2016-9962).
        libc.prctl(libc.PR_SET_DUMPABLE, 0)
        libc.setns(self.pidfd, libc.CLONE_NEWNS | libc.CLONE_NEWCGROUP)
        os.fchdir(root_fd)
        os.chroot(".")

    def release(self) -> None:
        """See ``Step``."""
        os.close(self.pidfd)


class _Health:
    """What is known of one app, and its file: a JSON object with what is not ``None``.

    Attributes:
        ready: ``None`` without a readiness probe.
        alive: ``None`` without a liveness probe, and before the first answer.
        ready_ns, unready_ns, unhealthy_ns: when that was found last, since the epoch; 0 for never.
        message: why not.
    """

    __slots__ = ("alive", "message", "path", "ready", "ready_ns", "unhealthy_ns", "unready_ns", "written")

    def __init__(self, path: str) -> None:
        self.path = path
        self.ready: bool | None = None
        self.alive: bool | None = None
        self.ready_ns = self.unready_ns = self.unhealthy_ns = 0
        self.message = ""
        self.written = ""

    def write(self) -> None:
        """Write, if something has changed."""
        values: dict[str, Any] = {
            "ready": self.ready,
            "alive": self.alive,
            "ready_ns": self.ready_ns or None,
            "unready_ns": self.unready_ns or None,
            "unhealthy_ns": self.unhealthy_ns or None,
            "message": self.message or None,
        }
        text = jsontext.dump({name: value for name, value in values.items() if value is not None})
        if text != self.written:
            self.written = text
            try:
                files.replace_file(self.path, text.encode(), 0o644, sync=False)
            except OSError:
                return  # a full disk must not end the pod


class _Run:
    """A probe under way."""

    __slots__ = ("deadline", "fds", "said", "starting")

    def __init__(self, starting: Starting, deadline: float) -> None:
        self.starting = starting
        self.deadline = deadline
        self.said = b""
        #: Where it speaks.
        self.fds = {starting.stdout_fd, starting.stderr_fd}
        for fd in self.fds:
            os.set_blocking(fd, False)

    def listen(self, fd: int) -> None:
        """Take what it says."""
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return
        self.said = (self.said + data)[:_MESSAGE_BYTES]
        if not data:
            self.fds.discard(fd)
            os.close(fd)

    def kill(self) -> None:
        """End it with what it has started in its own session."""
        try:
            os.killpg(self.starting.pid, _signal.SIGKILL)
        except ProcessLookupError:
            _signal.pidfd_send_signal(self.starting.pidfd, _signal.SIGKILL)

    def end(self) -> tuple[bool, str]:
        """Reap it; whether it succeeded, and what there is to say."""
        _, raw = os.waitpid(self.starting.pid, 0)
        for fd in list(self.fds):
            self.listen(fd)
        while self.fds:
            os.close(self.fds.pop())
        os.set_blocking(self.starting.error_fd, False)
        try:
            refusal = os.read(self.starting.error_fd, _MESSAGE_BYTES)
        except BlockingIOError:
            refusal = b""
        os.close(self.starting.error_fd)
        os.close(self.starting.pidfd)
        code = os.waitstatus_to_exitcode(raw)
        said = (refusal or self.said).decode("utf-8", "replace").strip()
        if code == 0:
            return True, ""
        how = f"status {code}" if code > 0 else f"signal {-code}"
        return False, f"{how}: {said}" if said else how


class _Watch:
    """One probe of an app that runs."""

    __slots__ = (
        "app",
        "failures",
        "has_news",
        "health",
        "next_at",
        "pid",
        "pod_app",
        "probe",
        "run",
        "says_ready",
        "socket",
        "started",
        "succeeded",
    )

    def __init__(self, app: App, pod_app: PodApp, probe: Probe, health: _Health, now: float) -> None:
        self.app = app
        self.pid = app.pid
        self.pod_app = pod_app
        self.probe = probe
        self.health = health
        self.failures = 0
        self.succeeded = False
        self.started = self.next_at = now
        self.run: _Run | None = None
        self.socket: _socket.socket | None = None
        #: What the app has said of itself, and whether something of it is not written down yet.
        self.says_ready: bool | None = None
        self.has_news = False

    @property
    def is_over(self) -> bool:
        """Whether the process that was to be probed is gone."""
        return not self.app.is_running or self.app.stage != MAIN or self.app.pid != self.pid


class Prober:
    """All probes of a pod; what the supervisor calls in each of its turns (``supervisor.Ticker``)."""

    def __init__(
        self,
        arguments: RunArguments,
        shared: PodNamespaces,
        users: UserNamespace | None,
        *,
        status_directory: str,
        report: Callable[[str], None],
    ) -> None:
        """Prepare.

        Args:
            arguments: of ``run``.
            shared: the pod's namespaces.
            users: its user namespace, if it has one.
            status_directory: where the findings are written.
            report: says something to the operator.
        """
        self._arguments = arguments
        self._shared = shared
        self._users = users
        self._directory = status_directory
        self._report = report
        self._watches: list[_Watch] = []
        self._health: dict[str, _Health] = {}
        self._sockets: dict[str, _socket.socket] = {}
        self._awaited: set[str] = set()
        self._when_ready: Callable[[], None] | None = None

    def expect(self, apps: list[PodApp]) -> None:
        """Wait for those of these apps that have a readiness probe; to be called before anything of the pod is announced."""
        for app in apps:
            if any(probe.kind == probes.READINESS for probe in probes.parse_probes(app.runtime.annotations)):
                self._awaited.add(app.name)
                self._health_of(app.name, ready=False).write()

    def when_ready(self, call: Callable[[], None]) -> None:
        """Call back when all that is waited for has been ready, which may be at once."""
        self._when_ready = call
        self._announce()

    def prepare(self, app: PodApp, plan: AppPlan) -> None:
        """Give an app that speaks for itself a socket; called with the plan of its program."""
        if all(probe.method != probes.NOTIFY for probe in probes.parse_probes(app.runtime.annotations)):
            return
        if len(app.name) > _MAX_NAME:
            raise Stage1Error(f"the name of app {app.name!r} is too long for a readiness of notify")
        path = f"{_SOCKETS}/{app.name}"
        os.makedirs(_SOCKETS, mode=0o700, exist_ok=True)
        old = self._sockets.pop(app.name, None)
        if old is not None:
            old.close()
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        server = _socket.socket(
            _socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        )
        server.bind(path)
        # Whoever has it in its root may use it; the directory is nobody's but the engine's.
        os.chmod(path, 0o666)
        self._sockets[app.name] = server
        place = next(index for index, step in enumerate(plan.steps) if isinstance(step, steps.PivotRoot))
        plan.steps.insert(place, steps.BindFile(os.getcwdb() + b"/" + path.encode(), _IN_APP))
        plan.execute.environment[b"NOTIFY_SOCKET"] = b"/" + _IN_APP

    def _health_of(self, name: str, *, ready: bool | None) -> _Health:
        health = self._health.setdefault(name, _Health(f"{self._directory}/{name}-health"))
        health.ready = ready
        health.alive = None
        health.message = ""
        return health

    # --- what the supervisor calls -----------------------------------------------------------------------------------

    def started(self, app: App) -> None:
        """The program of an app has been executed, for the first time or again."""
        pod_app = load_pod().app(app.name)
        found = probes.parse_probes(pod_app.runtime.annotations)
        if not found:
            return
        has_readiness = any(probe.kind == probes.READINESS for probe in found)
        health = self._health_of(app.name, ready=False if has_readiness else None)
        health.write()
        now = time.monotonic()
        for probe in found:
            watch = _Watch(app, pod_app, probe, health, now)
            if probe.method == probes.NOTIFY:
                watch.socket = self._sockets[app.name]
            self._watches.append(watch)

    def next_at(self) -> float:
        """When ``tick`` is due, by the monotonic clock; 0 for never."""
        times = [
            watch.run.deadline if watch.run is not None else watch.next_at
            for watch in self._watches
            if (watch.socket is None or watch.has_news) and not watch.is_over
        ]
        return min(times, default=0.0)

    def readers(self) -> dict[int, Callable[[], None]]:
        """Descriptors to poll and what to do then."""
        found: dict[int, Callable[[], None]] = {}
        for watch in self._watches:
            if watch.socket is not None:
                found[watch.socket.fileno()] = lambda w=watch: self._hear(w)  # type: ignore[misc]
            elif watch.run is not None:
                found[watch.run.starting.pidfd] = lambda w=watch: self._ended(w)  # type: ignore[misc]
                for fd in watch.run.fds:
                    found[fd] = lambda r=watch.run, f=fd: r.listen(f) if f in r.fds else None  # type: ignore[misc]
        return found

    def tick(self, *, is_stopping: bool) -> None:
        """Start what is due, end what takes too long, forget what is over."""
        now = time.monotonic()
        for watch in list(self._watches):
            if watch.is_over or is_stopping:
                self._drop(watch)
            elif watch.run is not None:
                if now >= watch.run.deadline and _is_paused():
                    # Frozen, it could not even die.
                    watch.run.deadline = now + _SOON_SECONDS
                elif now >= watch.run.deadline:
                    watch.run.kill()
                    watch.run.end()
                    watch.run = None
                    self._judge(watch, False, f"no answer within {watch.probe.timeout_seconds:g} s")
            elif now < watch.next_at:
                continue
            elif watch.socket is None:
                self._begin(watch)
            elif watch.has_news:
                self._note(watch)

    def finish(self) -> None:
        """The pod is over, and every process of it has been killed."""
        for watch in list(self._watches):
            self._drop(watch)
        for server in self._sockets.values():
            server.close()

    # --- one probe ---------------------------------------------------------------------------------------------------

    def _drop(self, watch: _Watch) -> None:
        self._watches.remove(watch)
        if watch.run is not None:
            watch.run.kill()
            watch.run.end()
            watch.run = None

    def _begin(self, watch: _Watch) -> None:
        if _is_paused():
            watch.next_at = time.monotonic() + _SOON_SECONDS
            return
        try:
            plan = self._plan(watch)
            self._shared.enter()
            try:
                starting = Starting(plan, -1)
            finally:
                self._shared.leave()
        except (OSError, RktError) as e:
            self._judge(watch, False, reason_of(e))
            return
        watch.run = _Run(starting, time.monotonic() + watch.probe.timeout_seconds)

    def _plan(self, watch: _Watch) -> AppPlan:
        probe, app = watch.probe, watch.app
        root_fd = os.open(f"/proc/{app.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            argv = probe.words or [f"rkt-probe-{probe.method}"]
            execute = build_exec_plan(watch.pod_app, root_fd, self._arguments, argv=argv, entering=True)
            joiner = app.launch.cgroup.joiner()
        except BaseException:
            os.close(root_fd)
            raise
        if probe.method == probes.TCP:
            execute = execute.replace(instead=lambda: probe_calls.connect(probe.port))
        elif probe.method == probes.HTTP:
            execute = execute.replace(instead=lambda: probe_calls.ask(probe.port, probe.path))
        plan: list[steps.Step] = [
            steps.NewSession(),
            steps.JoinCgroup(joiner, unified=True),
            *limits.oom_score_steps(watch.pod_app),
            EnterApp(app.pidfd),
        ]
        users = self._users
        owner = execute.uid if users is None else users.ids.outside(execute.uid)
        if owner:
            plan.append(steps.OwnStreams(owner, (1, 2)))
        if users is not None:
            from rkt.stage1.common.private_users import JoinUsers

            plan.append(JoinUsers(users))
        return AppPlan(
            name=app.name, root_fd=root_fd, joiner=joiner, cgroup_fd=-1, steps=plan, execute=execute
        )

    def _ended(self, watch: _Watch) -> None:
        run = watch.run
        if run is None:
            return
        watch.run = None
        succeeded, message = run.end()
        self._judge(watch, succeeded, message)

    def _hear(self, watch: _Watch) -> None:
        """Messages of the app; descriptors that come with them are dropped by the kernel."""
        assert watch.socket is not None
        for _ in range(_MESSAGES):
            try:
                message = watch.socket.recv(_READ_BYTES)
            except OSError:
                return
            lines = message.split(b"\n")
            for line in lines:
                if line.startswith(b"STATUS="):
                    watch.health.message = line[7 : 7 + _MESSAGE_BYTES].decode("utf-8", "replace")
            if b"READY=1" in lines:
                watch.says_ready = True
            elif b"RELOADING=1" in lines or b"STOPPING=1" in lines:
                watch.says_ready = False
            watch.has_news = True

    def _note(self, watch: _Watch) -> None:
        """Take down what an app said last; an app that talks without end costs a file and a word a second."""
        watch.has_news = False
        watch.next_at = time.monotonic() + _SOON_SECONDS
        if watch.says_ready is not None:
            self._set_ready(watch, ready=watch.says_ready)
        watch.health.write()

    def _judge(self, watch: _Watch, succeeded: bool, message: str) -> None:
        now = time.monotonic()
        probe, health = watch.probe, watch.health
        soon = min(probe.interval_seconds, _SOON_SECONDS)
        if watch.is_over:
            return
        if _is_paused():
            watch.next_at = now + soon
            return
        if succeeded:
            watch.failures = 0
            watch.succeeded = True
            health.message = ""
        else:
            in_time = now - watch.started < probe.start_period_seconds and not watch.succeeded
            watch.failures += 0 if in_time else 1
            health.message = f"{probe.kind}: {message}"
        watch.next_at = now + (probe.interval_seconds if watch.succeeded else soon)
        if probe.kind == probes.READINESS:
            if succeeded:
                self._set_ready(watch, ready=True)
            elif watch.failures >= probe.retries:
                self._set_ready(watch, ready=False)
        elif succeeded:
            health.alive = True
        elif watch.failures >= probe.retries:
            self._kill(watch, message)
        health.write()

    def _set_ready(self, watch: _Watch, *, ready: bool) -> None:
        health = watch.health
        if health.ready == ready:
            return
        health.ready = ready
        if not ready:
            health.unready_ns = _now_ns()
            self._report(f"app {watch.app.name!r} is not ready any more: {health.message or 'it says so'}")
            return
        health.ready_ns = _now_ns()
        health.write()
        self._awaited.discard(watch.app.name)
        self._announce()

    def _announce(self) -> None:
        if not self._awaited and self._when_ready is not None:
            call, self._when_ready = self._when_ready, None
            call()

    def _kill(self, watch: _Watch, message: str) -> None:
        """An app that does not live does not end by being asked; what follows is as for any app that was killed."""
        watch.health.alive = False
        watch.health.unhealthy_ns = _now_ns()
        self._report(f"app {watch.app.name!r} is killed, its liveness probe failed: {message}")
        _signal.pidfd_send_signal(watch.app.pidfd, _signal.SIGKILL)


def _now_ns() -> int:
    """Since the epoch, by the clock that files get their times from: it is a little behind the exact one."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def _is_paused() -> bool:
    return os.path.lexists(contract.PAUSED)

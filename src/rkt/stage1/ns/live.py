# SPDX-License-Identifier: Apache-2.0
"""The supervisor of a pod whose apps come and go (spec runtime §5.1): it also takes ``app-…`` requests.

The pod outlives its apps and ends when it is stopped, with status 0. stage0 has written the manifest and mounted the
app's root before it asks for anything, see ``common/live``.
"""

from __future__ import annotations

import _signal
import os
import time

from rkt.errors import Stage1Error
from rkt.stage1.common import live
from rkt.stage1.common.pod import load_pod
from rkt.stage1.common.signals import STOP_SECONDS
from rkt.stage1.ns.app_state import App
from rkt.stage1.ns.launch import POST_STOP
from rkt.stage1.ns.starting import Starting
from rkt.stage1.ns.supervisor import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any, Self

    from rkt.stage1.common.pod import LoadedPod, PodApp
    from rkt.stage1.common.restart import Restarts
    from rkt.stage1.common.volumes import Volumes
    from rkt.stage1.ns.launch import Launch


class LiveSupervisor(Supervisor):
    """Runs a pod until it is told to stop."""

    _outlives_apps = True

    def able_to_launch(self, make_launch: Callable[[LoadedPod, PodApp], tuple[Launch, Volumes]]) -> Self:
        """Say how an app is made ready; to be called first."""
        self._make_launch = make_launch
        self._several = True
        #: Of apps that run: closed when nothing more of the app is to be started.
        self._volumes: dict[str, Volumes] = {}
        #: Apps that were told to stop, with the time at which they are killed, by the monotonic clock.
        self._told: dict[str, float] = {}
        self._waiting: dict[str, list[_socket.socket]] = {}
        return self

    def start(self, launches: list[Launch]) -> None:
        """See ``Supervisor``; the apps' output is marked also when there is one app."""
        super().start(launches)
        self._several = True

    def _answer(self, client: _socket.socket, message: dict[str, Any]) -> dict[str, Any] | None:
        operations = {
            "app-add": self._add,
            "app-start": self._start_app,
            "app-stop": self._stop_app,
            "app-rm": self._remove,
        }
        name = message.get("app")
        operation = operations.get(str(message.get("op")))
        if operation is None or not isinstance(name, str):
            return super()._answer(client, message)
        return live.perform(operation, client, name, is_stopping=self._is_stopping)

    def _find(self, name: str) -> App | None:
        return next((app for app in self._apps if app.name == name), None)

    def _mark(self, name: str, which: str) -> None:
        live.mark(self._status_directory, name, which)

    def _unmark(self, name: str, *which: str) -> None:
        live.unmark(self._status_directory, name, *which)

    def _add(self, _client: _socket.socket, name: str) -> dict[str, Any]:
        if self._find(name) is not None:
            raise Stage1Error(f"app {name!r} is there already")
        live.check_root(name)
        self._unmark(name, live.STARTED, live.ENDED)
        self._mark(name, live.CREATED)
        return {"ok": True}

    def _start_app(self, _client: _socket.socket, name: str) -> dict[str, Any]:
        """Start an app that was added, or is over; one that runs already is left alone."""
        old = self._find(name)
        if old is not None:
            if old.is_running:
                return {"ok": True}
            if old.goes_on:
                self._give_up(old)
                self._settle(old)
            self._forget(old)
        self._unmark(name, live.STARTED, live.ENDED)
        pod = load_pod()
        launch, volumes = self._make_launch(pod, pod.app(name))
        try:
            self._shared.enter()
            try:
                starting = Starting(launch.plan(launch.first), -1)
            finally:
                self._shared.leave()
            starting.wait()
            try:
                app = App(launch)
            except BaseException:
                starting.abandon()
                raise
        except BaseException:
            volumes.close()
            launch.release()
            from rkt.linux import cgroup_processes

            cgroup_processes.kill(launch.cgroup)
            launch.cgroup.remove()
            raise
        self._apps.append(app)
        self._volumes[name] = volumes
        self._attach(app, starting)
        self._mark(name, live.STARTED)
        return {"ok": True}

    def _stop_app(self, client: _socket.socket, name: str) -> dict[str, Any] | None:
        """Ask an app to end; the answer is given when it has ended."""
        app = self._find(name)
        if app is None or not app.goes_on:
            return {"ok": False, "error": f"app {name!r} is not running", "code": "not-running"}
        self._give_up(app)
        if not app.is_running:
            self._settle(app)
            return {"ok": True}
        self._waiting.setdefault(name, []).append(client)
        if name not in self._told:
            self._told[name] = time.monotonic() + STOP_SECONDS
            if app.stage != POST_STOP:
                _signal.pidfd_send_signal(app.pidfd, app.launch.stop_signal)
        return None

    def _remove(self, _client: _socket.socket, name: str) -> dict[str, Any]:
        app = self._find(name)
        if app is not None:
            if app.is_running:
                raise Stage1Error(f"app {name!r} is still running", hint=f"rkt app stop UUID --app={name}")
            self._forget(app)
        self._unmark(name, live.STARTED, live.ENDED, live.HEALTH, live.CREATED)
        return {"ok": True}

    def _forget(self, app: App) -> None:
        """Let go of an app that is over."""
        for fd in list(app.outlets):
            # Whoever held the other end is dead: what was said is in the pipe.
            os.set_blocking(fd, False)
            self._empty(app, fd)
        if app.streams is not None:
            app.streams.finish(app)
        app.log.finish()
        app.launch.cgroup.remove()
        self._apps.remove(app)

    def _reap(self, app: App) -> None:
        super()._reap(app)
        if not app.goes_on:
            self._settle(app)

    def _is_told(self, app: App) -> bool:
        return super()._is_told(app) or app.name in self._told

    def _start_again(self, app: App, restarts: Restarts) -> None:
        super()._start_again(app, restarts)
        if app.is_running:
            self._mark(app.name, live.STARTED)
        elif not app.goes_on:
            self._settle(app)

    def _settle(self, app: App) -> None:
        """Nothing of the app runs any more, and nothing is due."""
        app.launch.release()
        self._volumes.pop(app.name).close()
        self._told.pop(app.name, None)
        live.tell(self._waiting.pop(app.name, []), {"ok": True}, self._report)

    def _deadlines(self) -> list[float]:
        return [*super()._deadlines(), *self._told.values()]

    def _turn(self, timeout_ms: int | None) -> None:
        super()._turn(timeout_ms)
        now = time.monotonic()
        for name, at in self._told.items():
            app = self._find(name)
            if now >= at and app is not None:
                # A post-stop handler has a time of its own.
                self._told[name] = now + STOP_SECONDS
                self._kill([app] if app.stage != POST_STOP else [])

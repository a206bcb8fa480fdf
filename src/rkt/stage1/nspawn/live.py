# SPDX-License-Identifier: Apache-2.0
"""The supervisor of a pod whose apps come and go (spec runtime §5.1), as units that come and go; see ``common/live``.

The root of an app is made like those that are there from the start, by a child of the supervisor's; from there its mounts
reach the running pod. It goes when the app has ended: a start is always of a fresh view of the app's root and volumes.
"""

from __future__ import annotations

import _signal
import os

from rkt.errors import EXIT_FAILURE, Stage1Error
from rkt.linux import libc
from rkt.stage1.common import live, report
from rkt.stage1.common.pod import load_pod
from rkt.stage1.nspawn import root, units
from rkt.stage1.nspawn.app_state import App
from rkt.stage1.nspawn.ends import SET_UP
from rkt.stage1.nspawn.supervisor import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any

    from rkt.stage1.nspawn.supervisor import LaunchMaker


class LiveSupervisor(Supervisor):
    """Runs a pod until it is told to stop."""

    _outlives_apps = True

    def able_to_launch(self, make_launch: LaunchMaker) -> None:
        """See ``Supervisor``."""
        super().able_to_launch(make_launch)
        self._several = True
        #: Who waits for an app to have begun, and to have ended.
        self._starting: dict[str, list[_socket.socket]] = {}
        self._ending: dict[str, list[_socket.socket]] = {}

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
        return self._apps.get(units.unit_name(name))

    def _add(self, _client: _socket.socket, name: str) -> dict[str, Any]:
        if self._find(name) is not None:
            raise Stage1Error(f"app {name!r} is there already")
        live.check_root(name)
        live.unmark(self._status_directory, name, live.STARTED, live.ENDED)
        live.mark(self._status_directory, name, live.CREATED)
        return {"ok": True}

    def _start_app(self, client: _socket.socket, name: str) -> dict[str, Any] | None:
        """Start an app that was added, or is over; one that runs already is left alone. The answer waits for its first process."""
        old = self._find(name)
        if old is not None:
            if old.is_running:
                return {"ok": True}
            if old.goes_on:
                self._over(old, old.status)
            self._forget(old)
        live.unmark(self._status_directory, name, live.STARTED, live.ENDED)
        pod = load_pod()
        others = [app.launch for app in self._apps.values()]
        try:
            launch, group = self._make_launch(pod, pod.app(name), others)
            self.bus.reload()
            self._starting[name] = [client]
            app = App(launch, group)
            if old is not None:
                # systemd may say once more how it ended before.
                app.known = old.known
                app.renew()
            self._apps[app.unit] = app
            self._begin(app)
        except BaseException:
            self._starting.pop(name, None)
            if (new := self._find(name)) is not None:
                self._forget(new)
            take_back(name)
            raise
        return None

    def _begun(self, app: App, number: int, *, is_program: bool) -> None:
        super()._begun(app, number, is_program=is_program)
        if app.is_under_way:
            self._has_started(app)

    def _executed(self, app: App) -> None:
        super()._executed(app)
        self._has_started(app)

    def _has_started(self, app: App) -> None:
        live.mark(self._status_directory, app.name, live.STARTED)
        self._tell(self._starting.pop(app.name, []), {"ok": True})

    def _stop_app(self, client: _socket.socket, name: str) -> dict[str, Any] | None:
        """Ask an app to end; the answer is given when it has ended."""
        app = self._find(name)
        if app is None or not app.goes_on:
            return {"ok": False, "error": f"app {name!r} is not running", "code": "not-running"}
        if not app.is_running:
            self._over(app, app.status)
            return {"ok": True}
        self._ending.setdefault(name, []).append(client)
        if not app.was_told:
            self._stop_unit(app)
        return None

    def _over(self, app: App, status: int) -> None:
        super()._over(app, status)
        if app.cgroup is not None:
            from rkt.linux import cgroup_processes

            cgroup_processes.kill(app.cgroup, again=True)
        if not self._is_stopping:
            take_back(app.name)
        clients = self._starting.pop(app.name, [])
        if clients and status == EXIT_FAILURE and not app.has_been_executed:
            self._forget(app)
            live.unmark(self._status_directory, app.name, live.ENDED)
            reason = SET_UP.get(int(app.known.get("ExecMainStatus", 0)), "rkt app sandbox has said why")
            self._tell(clients, {"ok": False, "error": f"app {app.name!r} could not be started: {reason}"})
            return
        live.mark(self._status_directory, app.name, live.STARTED)
        self._tell(clients, {"ok": True})
        self._tell(self._ending.pop(app.name, []), {"ok": True})

    def _remove(self, _client: _socket.socket, name: str) -> dict[str, Any]:
        app = self._find(name)
        if app is not None:
            if app.is_running:
                raise Stage1Error(f"app {name!r} is still running", hint=f"rkt app stop UUID --app={name}")
            self._forget(app)
            self.bus.reload()
        live.unmark(self._status_directory, name, live.STARTED, live.ENDED, live.HEALTH, live.CREATED)
        return {"ok": True}

    def _forget(self, app: App) -> None:
        """Let go of an app that is over."""
        if app.streams is not None:
            app.streams.finish(app)
        self._close(app)
        if app.cgroup is not None:
            app.cgroup.remove()
        del self._apps[app.unit]
        remove_files(app.name)

    def _tell(self, clients: list[_socket.socket], answer: dict[str, Any]) -> None:
        live.tell(clients, answer, self._report)


def take_back(name: str, base: str = root.POD_ROOT) -> None:
    """Unmount the root of an app that is over, here and so in the pod."""
    place = f"{base}/{root.APPS}/{name}"
    try:
        libc.umount2(f"{place}/rootfs".encode(), libc.MNT_DETACH | libc.UMOUNT_NOFOLLOW)
    except OSError:
        pass  # it never got there
    for path in (f"{place}/rootfs", place):
        try:
            os.rmdir(path)
        except OSError:
            return


def remove_files(name: str) -> None:
    """Remove whatever there is of an app's units and FIFOs."""
    paths = [
        f"{root.UNITS}/{units.unit_name(name)}",
        f"{root.UNITS}/default.target.d/{name}.conf",
        f"{root.SHARED}/env/{name}",
    ]
    paths += [f"{root.STREAMS}/{name}-{each}" for each in ("stdin", "stdout", "stderr", "tty")]
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue


def in_child(work: Callable[[], None]) -> None:
    """Do something in a process of its own, which may become what there is no way back from.

    Raises:
        Stage1Error: it failed; in its words.
    """
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            # ^C reaches this process as well; the supervisor is to hear of it once.
            _signal.set_wakeup_fd(-1)
            os.close(read_fd)
            work()
            status = 0
        except BaseException as e:  # noqa: BLE001 - a forked child must not unwind into the supervisor's frames
            report.send(write_fd, e)
        finally:
            os._exit(status)
    os.close(write_fd)
    said = report.receive(read_fd)
    _, raw = os.waitpid(pid, 0)
    if raw:
        raise report.error(said or b"a process that makes an app ready was killed")

# SPDX-License-Identifier: Apache-2.0
"""The standard streams of an app that are not the usual ones: nothing, streams or a terminal for ``rkt attach``, a plain log.

Made with the plan of the app's program and asked along its way: ``open`` before the fork, ``TakeStreams`` in the child,
``opened`` and ``connect`` in the supervisor, then ``watch`` in each turn until the last client has gone. Output of streams
and terminals goes to the app's log as well, and not to the console.

The terminal has the size that was set last, by whoever is still attached.
"""

from __future__ import annotations

import _socket
import os

from rkt.errors import Stage1Error
from rkt.linux import files, libc
from rkt.schema import jsontext
from rkt.schema.streams import LOG, NULL, STREAM, TTY, parse_log_mode, parse_log_path, parse_streams
from rkt.stage0 import contract
from rkt.stage1.common.endpoints import Endpoint, socket_name
from rkt.stage1.common.steps import Step
from rkt.stage1.common.streams import Outlet, Prefixer
from rkt.stage1.ns.launch import MAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any, TypeGuard

    from rkt.schema.streams import Streams
    from rkt.stage1.common.interactive import Interactive
    from rkt.stage1.common.plain_log import PlainLog
    from rkt.stage1.common.pod import LoadedPod, PodApp
    from rkt.stage1.ns.plan import AppPlan
    from rkt.stage1.ns.supervisor import App

#: Until somebody attaches.
_ROWS, _COLUMNS = 24, 80
_MOST_CELLS = 0xFFFF
#: Where plain logs go when the operator names no directory.
_LOG_DIRECTORY = f"{contract.STAGE1_ROOTFS}/rkt/kubernetes/log"
#: How long the last output of a pod waits for clients that take it, in milliseconds.
_LAST_MS = 500
_BENEATH = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS


class TakeStreams(Step):
    """In the child: nothing, or a terminal of the app's devpts, in place of some of the pipes."""

    __slots__ = ("channel", "modes", "terminal", "uid")

    def __init__(self, modes: tuple[str, ...], uid: int, terminal: ModuleType | None) -> None:
        self.modes = modes
        self.uid = uid
        #: ``stage1.common.terminal``, if needed; nothing can be imported any more when this is done.
        self.terminal = terminal
        self.channel: _socket.socket | None = None

    def describe(self) -> str:
        """See ``Step``."""
        return f"standard streams are {', '.join(self.modes)}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        silent = [number for number in (1, 2) if self.modes[number] == NULL]
        if silent:
            here = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            fd = libc.openat2(here, b"dev/null", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK, _BENEATH)
            status = os.fstat(fd)
            if status.st_mode & 0o170000 != 0o020000 or status.st_rdev != os.makedev(1, 3):
                raise OSError("/dev/null of the app is something else, so its output cannot go there")
            for number in silent:
                os.dup2(fd, number)
        if self.terminal is not None and self.channel is not None:
            master, slave = self.terminal.open_pty(self.uid)
            self.terminal.send_descriptor(self.channel, master)
            chosen = tuple(number for number, mode in enumerate(self.modes) if mode == TTY)
            self.terminal.take_terminal(slave, chosen)


class Sink(Outlet):
    """Where the supervisor carries one output: to clients, to a plain log, or both, and maybe on to the console."""

    __slots__ = ("_console", "_prefixer", "_stream", "endpoint", "plain")

    def __init__(
        self,
        stream: bytes,
        endpoint: Endpoint | None,
        plain: PlainLog | None,
        console: Outlet | None,
        prefixer: Prefixer,
    ) -> None:
        super().__init__(-1)
        self.endpoint = endpoint
        self.plain = plain
        self._stream = stream
        self._console = console
        self._prefixer = prefixer

    def add(self, data: bytes) -> None:
        """See ``Outlet``."""
        if self.plain is not None:
            self.plain.write(self._stream, data)
        if self.endpoint is not None:
            self.endpoint.say(data)
        if self._console is not None:
            self._console.add(self._prefixer.mark(data))

    @property
    def is_full(self) -> bool:
        """Only the console makes apps wait."""
        return self._console is not None and self._console.is_full


class AppStreams:
    """The streams of one start of one app."""

    def __init__(self, pod: LoadedPod, app: PodApp, uid: int, owner: int, shared: Interactive | None) -> None:
        """Check what is asked for.

        Args:
            pod: with the log mode.
            app: with the modes of its streams.
            uid: of its program, in the pod.
            owner: the same on the host.
            shared: the operator's terminal, which is the app's then.
        Raises:
            RktError: it cannot be.
        """
        self._name = app.name
        self._streams: Streams = parse_streams(app.runtime.annotations)
        self._owner = owner
        self._shared = shared
        self._terminal: ModuleType | None = None
        self._stdin = self._child_stdin = self.master = self._peer = -1
        self._channel: tuple[_socket.socket, _socket.socket] | None = None
        self._inlet: Outlet | None = None
        self._endpoints: dict[str, Endpoint] = {}
        #: Descriptor that output of the app comes from -> where it goes, until that has ended.
        self._sinks: dict[int, Sink] = {}
        self._directory_fd = -1
        self._problem = ""
        self._plain: PlainLog | None = None
        self._log_directory, self._log_name = self._find_log(pod, app)
        #: Who asked for which size, the last one last.
        self._sizes: list[tuple[_socket.socket, int, int]] = []
        if TTY in self._streams.modes:
            from rkt.stage1.common import terminal

            self._terminal = terminal
        if shared is not None and set(self._streams.modes) not in ({TTY}, {NULL, LOG}):
            raise Stage1Error(f"app {self._name!r} has the caller's terminal, and its streams say otherwise")
        own_terminal = None if shared is not None else self._terminal
        self._step = TakeStreams(self._streams.modes, uid, own_terminal)

    def _find_log(self, pod: LoadedPod, app: PodApp) -> tuple[str, str]:
        is_plain, directory = parse_log_mode(pod.manifest.annotations)
        name = parse_log_path(app.runtime.annotations)
        if not is_plain or not name:
            return "", ""
        # Imported here: nothing may be once the app has started.
        from rkt.stage1.common import plain_log  # noqa: F401

        return directory or _LOG_DIRECTORY, name

    def add_to(self, plan: AppPlan) -> AppPlan:
        """The plan with what the child has to do."""
        plan.steps.append(self._step)
        if self._terminal is not None:
            # Whoever attaches has one that understands this; docker and podman say the same.
            plan.execute.environment.setdefault(b"TERM", b"xterm")
        return plan.replace(streams=self)

    def open(self, stdin_fd: int) -> int:
        """Make what the child inherits; returns its standard input, ``stdin_fd`` where there is nothing to be said.

        Raises:
            Stage1Error: the plain log cannot be written.
        """
        if self._log_name:
            from rkt.stage1.common.plain_log import PlainLog

            if self._log_directory == _LOG_DIRECTORY:
                _make_directories(_LOG_DIRECTORY, 0o750)
            self._plain = PlainLog(self._log_directory, self._log_name)
        if self._shared is not None:
            return stdin_fd
        if self._step.terminal is not None:
            self._channel = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
            self._step.channel = self._channel[1]
        if self._streams.stdin == STREAM:
            self._child_stdin, self._stdin = os.pipe()
            os.fchown(self._child_stdin, self._owner, -1)
            os.set_blocking(self._stdin, False)
        elif self._streams.stdin == TTY:
            # Until the terminal takes its place.
            self._child_stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        return self._child_stdin if self._child_stdin >= 0 else stdin_fd

    def opened(self) -> None:
        """After the fork: let go of what is the child's."""
        if self._child_stdin >= 0:
            os.close(self._child_stdin)
            self._child_stdin = -1
        if self._channel is not None:
            self._channel[1].close()

    def connect(self, app: App, outputs: dict[str, int], console: tuple[Outlet, Outlet]) -> str:
        """The app has started: listen, and lead its output where it belongs.

        It runs, so it goes on where that fails: without anybody who can attach.

        Args:
            app: whose ``outlets`` are changed.
            outputs: ``stdout`` and ``stderr`` -> the pipe it comes from.
            console: of the supervisor.
        Returns:
            What failed, empty for nothing.
        """
        if app.streams is not None:
            app.streams.finish(app)
        app.streams = self
        master = self._connect_terminal()
        if self._stdin >= 0:
            self._inlet = Outlet(self._stdin)
        if self._streams.endpoints:
            try:
                self._listen(self._streams.endpoints)
            except OSError as e:
                self._problem = f"app {self._name!r} cannot be attached to: {e.strerror or e}"
        for number, (name, fd) in enumerate(outputs.items()):
            is_logged = self._streams.modes[number + 1] == LOG
            self._lead(app, fd, self._endpoints.get(name), console[number] if is_logged else None)
        if master >= 0:
            operator = console[0] if self._shared is not None else None
            self._lead(app, master, self._endpoints.get(TTY), operator)
        return self._problem

    def _lead(self, app: App, fd: int, endpoint: Endpoint | None, console: Outlet | None) -> None:
        stream, prefixer, _ = app.outlets.get(fd, (b"stdout", Prefixer(b""), None))
        sink = Sink(stream, endpoint, self._plain, console, prefixer)
        app.outlets[fd] = (stream, Prefixer(b""), sink)
        self._sinks[fd] = sink

    def _connect_terminal(self) -> int:
        """The descriptor that the terminal's output comes from, -1 without terminal."""
        master = -1
        if self._shared is not None:
            master = self._shared.master
        elif self._channel is not None and self._terminal is not None:
            received = self._terminal.receive_descriptor(self._channel[0])
            self._channel[0].close()
            if received is None:
                self._problem = f"app {self._name!r} has no terminal"
                return -1
            master = received
            os.set_blocking(master, False)
            self._terminal.set_window_size(master, _ROWS, _COLUMNS)
            # An app that lets go of its terminal has not ended: without this it would be hung up on.
            self._peer = self._terminal.open_peer(master)
        if master >= 0 and self._terminal is not None:
            # Of our own: who reads the other one closes it at the end.
            self.master = os.dup(master)
            self._inlet = Outlet(self.master)
        return master

    def _listen(self, names: list[str]) -> None:
        path = f"{contract.ENDPOINTS}/{self._name}"
        files.remove_tree(path)
        _make_directories(path, 0o700)
        self._directory_fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # The supervisor's umask is empty; nobody but root gets here anyway.
        old = os.umask(0o177)
        try:
            for name in names:
                takes_input = name in {"stdin", TTY}
                self._endpoints[name] = Endpoint(
                    name,
                    self._directory_fd,
                    self._inlet if takes_input else None,
                    self._set_size if name == TTY else None,
                )
        finally:
            os.umask(old)
        text = jsontext.dump({"version": 1, "targets": self._targets()}).encode()
        files.replace_file(f"{path}/endpoints", text, 0o600, sync=False)

    def _targets(self) -> list[dict[str, str]]:
        directory = f"{os.getcwd()}/{contract.ENDPOINTS}/{self._name}"
        return [
            {"name": name, "domain": "unix", "address": f"{directory}/{socket_name(name)}"}
            for name, endpoint in self._endpoints.items()
            if endpoint.is_open
        ]

    def watch(self, app: App, readers: dict[int, Callable[[], None]], outlets: list[Outlet]) -> None:
        """Say what is waited for, and end what has come to its end."""
        for fd, sink in list(self._sinks.items()):
            # The number may have been given away again.
            if fd not in app.outlets or app.outlets[fd][2] is not sink:
                del self._sinks[fd]
                if sink.endpoint is not None:
                    sink.endpoint.end()
                    if sink.endpoint.name == TTY:
                        self._close_inlet()
        if app.stage != MAIN or not app.is_running:
            self._close_peer()
            if self._stdin >= 0:
                self._close_inlet()
        self._forget_sizes()
        if self._inlet is not None:
            outlets.append(self._inlet)
        busy = False
        for endpoint in self._endpoints.values():
            endpoint.watch(readers, outlets)
            busy = busy or endpoint.is_open or bool(endpoint.clients)
        if self._directory_fd >= 0 and not any(endpoint.is_open for endpoint in self._endpoints.values()):
            self._remove_files()
        if not busy and not self._sinks:
            self.finish(app)

    def _close_peer(self) -> None:
        if self._peer >= 0:
            os.close(self._peer)
            self._peer = -1

    def _close_inlet(self) -> None:
        """Nothing can be said to the app any more."""
        if self._inlet is None:
            return
        self._inlet.is_closed = True
        self._inlet.pending.clear()
        os.close(self._inlet.fd)
        self._inlet = None
        self._stdin = self.master = -1
        if "stdin" in self._endpoints:
            self._endpoints["stdin"].end()

    def finish(self, app: App) -> None:
        """Nothing more comes of the app: give clients that take it what there is, hang up, and let go."""
        if app.streams is self:
            app.streams = None
        for endpoint in self._endpoints.values():
            endpoint.end()
        self._wait_for_clients()
        for endpoint in self._endpoints.values():
            endpoint.close()
        for sink in self._sinks.values():
            sink.endpoint = sink.plain = None
        self._sinks.clear()
        self._close_inlet()
        self._remove_files()
        self.close()

    def _wait_for_clients(self) -> None:
        import select

        left_ms = _LAST_MS
        while left_ms > 0:
            poll = select.poll()
            waiting = {
                client.fd: client for endpoint in self._endpoints.values() for client in endpoint.clients
            }
            for fd in waiting:
                poll.register(fd, select.POLLOUT)
            if not waiting:
                return
            ready = poll.poll(50)
            for fd, _ in ready:
                waiting[fd].flush()
            left_ms -= 50 if not ready else 1

    def close(self) -> None:
        """Let go of what is left; also of an app that was not started."""
        self._close_peer()
        if self._plain is not None:
            self._plain.finish()
            self._plain = None
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1
        if self._channel is not None:
            self._channel[0].close()

    def _remove_files(self) -> None:
        if self._directory_fd >= 0:
            os.close(self._directory_fd)
            self._directory_fd = -1
            files.remove_tree(f"{contract.ENDPOINTS}/{self._name}")

    def answer(self, client: _socket.socket, message: dict[str, Any], app: App) -> dict[str, Any]:
        """Answer what ``rkt attach`` asks on the control socket."""
        if self._problem:
            return {"ok": False, "error": self._problem}
        if message.get("op") == "attach-state":
            return {"ok": True, "pid": app.pid, "targets": self._targets()}
        rows, columns = message.get("rows"), message.get("columns")
        if not (_is_size(rows) and _is_size(columns)):
            return {"ok": False, "error": "not a window size"}
        self._sizes = [size for size in self._sizes if size[0] is not client]
        self._sizes.append((client, rows, columns))
        self._set_size(rows, columns)
        return {"ok": True}

    def _forget_sizes(self) -> None:
        """The size of who has left gives way to the one that was set before."""
        gone = [size for size in self._sizes if size[0].fileno() < 0]
        if not gone:
            return
        was_last = self._sizes[-1] in gone
        self._sizes = [size for size in self._sizes if size not in gone]
        if was_last and self._sizes:
            self._set_size(*self._sizes[-1][1:])
        elif was_last and self._shared is not None and self.master >= 0:
            self._shared.resize()

    def _set_size(self, rows: int = 0, columns: int = 0) -> None:
        """Give the terminal a size, or the one that it has once more."""
        if self.master < 0 or self._terminal is None:
            return
        try:
            if not rows:
                rows, columns = self._terminal.window_size(self.master)
            self._terminal.set_window_size(self.master, rows, columns)
        except OSError:
            return  # nobody holds it any more


def _make_directories(path: str, mode: int) -> None:
    """Whatever of a path below the pod directory is missing; the supervisor's umask is empty."""
    made = ""
    for part in path.split("/"):
        made = f"{made}/{part}" if made else part
        try:
            os.mkdir(made, mode)
        except FileExistsError:
            continue


def _is_size(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and 0 < value <= _MOST_CELLS

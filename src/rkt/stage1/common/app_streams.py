# SPDX-License-Identifier: Apache-2.0
"""The standard streams of an app that are not the usual ones: nothing, streams or a terminal for ``rkt attach``, a plain log.

How the app comes to its streams is the flavour's; it asks for ``open_log`` before the app starts and for ``connect`` when it
has, then for ``watch`` in each turn until the last client has gone. Output of streams and terminals goes to the app's log as
well, and not to the console.

The terminal has the size that was set last, by whoever is still attached.
"""

from __future__ import annotations

import os

from rkt.errors import Stage1Error
from rkt.linux import files
from rkt.schema import jsontext
from rkt.schema.streams import LOG, NULL, TTY, parse_log_mode, parse_log_path, parse_streams
from rkt.stage0 import contract
from rkt.stage1.common.endpoints import Endpoint, socket_name
from rkt.stage1.common.streams import Outlet, Prefixer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any, Protocol, TypeGuard

    from rkt.schema.streams import Streams
    from rkt.stage1.common.interactive import Interactive
    from rkt.stage1.common.plain_log import PlainLog
    from rkt.stage1.common.pod import LoadedPod, PodApp

    class App(Protocol):
        """What a flavour's supervisor knows of an app."""

        streams: AppStreams | None
        outlets: dict[int, tuple[bytes, Prefixer, Outlet]]

        @property
        def pid(self) -> int:
            """Of its first process."""

        @property
        def runs_program(self) -> bool:
            """Whether its program runs, not a handler."""


#: Until somebody attaches.
_ROWS, _COLUMNS = 24, 80
_MOST_CELLS = 0xFFFF
#: Where plain logs go when the operator names no directory.
_LOG_DIRECTORY = f"{contract.STAGE1_ROOTFS}/rkt/kubernetes/log"
#: How long the last output of a pod waits for clients that take it, in milliseconds.
_LAST_MS = 500


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

    def last(self, rest: bytes) -> None:
        """See ``Outlet``."""
        super().last(rest)
        if self._console is not None:
            self._console.add(self._prefixer.rest())

    @property
    def is_full(self) -> bool:
        """Only the console makes apps wait."""
        return self._console is not None and self._console.is_full


class AppStreams:
    """The streams of one start of one app."""

    def __init__(self, pod: LoadedPod, app: PodApp, shared: Interactive | None) -> None:
        """Check what is asked for.

        Args:
            pod: with the log mode.
            app: with the modes of its streams.
            shared: the operator's terminal, which is the app's then.
        Raises:
            RktError: it cannot be.
        """
        self._name = app.name
        self._streams: Streams = parse_streams(app.runtime.annotations)
        self._shared = shared
        self._terminal: ModuleType | None = None
        #: Where what clients say goes: the other end of the app's standard input, or its terminal's master.
        self._stdin = self.master = self._peer = -1
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

    @property
    def _has_own_terminal(self) -> bool:
        """Whether the app has a terminal that is not the operator's."""
        return self._shared is None and self._terminal is not None

    def _take_master(self) -> int | None:
        """The controlling side of the app's own terminal, which is the caller's then; ``None`` if there is none."""
        raise NotImplementedError

    def _find_log(self, pod: LoadedPod, app: PodApp) -> tuple[str, str]:
        is_plain, directory = parse_log_mode(pod.manifest.annotations)
        name = parse_log_path(app.runtime.annotations)
        if not is_plain or not name:
            return "", ""
        # Imported here: nothing may be once the app has started.
        from rkt.stage1.common import plain_log  # noqa: F401

        return directory or _LOG_DIRECTORY, name

    def let_go(self) -> None:
        """Of what only had to be there until the app had opened it."""

    def open_log(self) -> None:
        """Open the plain log, if there is one.

        Raises:
            Stage1Error: it cannot be written.
        """
        if self._log_name:
            from rkt.stage1.common.plain_log import PlainLog

            if self._log_directory == _LOG_DIRECTORY:
                _make_directories(_LOG_DIRECTORY, 0o750)
            self._plain = PlainLog(self._log_directory, self._log_name)

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
        if app.streams is not None and app.streams is not self:
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
        elif self._terminal is not None:
            received = self._take_master()
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
        if not app.runs_program:
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

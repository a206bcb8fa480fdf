# SPDX-License-Identifier: Apache-2.0
"""The ``attach`` entrypoint: carry the caller's streams to and from those of an app (spec runtime §3.9).

Bytes go over the sockets of ``endpoints``. Beside them a connection to the control socket says which size the caller's
terminal has; the size counts as long as that connection is there.
"""

from __future__ import annotations

import _signal
import _socket
import errno
import os
import select
import sys
import time

from rkt.errors import Stage1Error
from rkt.schema import jsontext
from rkt.schema.streams import DETACH_KEYS, parse_detach_keys
from rkt.stage0 import contract
from rkt.stage1.common import control, terminal
from rkt.stage1.common.endpoints import socket_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: How long a supervisor may take to accept, in seconds.
_DIAL_SECONDS = 15.0
_DIAL_PAUSE_SECONDS = 0.05
_CHUNK_BYTES = 32 << 10
_ENDING = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT)
#: Words of the contract, in the order in which they are spoken of.
_ENDPOINTS = ("stdin", "stdout", "stderr", "tty-in", "tty-out")
_DESCRIPTORS = {"stdout": 1, "stderr": 2, "tty": 1}


def main(argv: list[str]) -> int:
    """List the endpoints of ``--app=NAME``, or attach to some; returns the exit status.

    Raises:
        RktError: it cannot be.
    """
    flags = dict(word[2:].partition("=")[::2] for word in argv)
    name = flags.get("app", "")
    link = control.connect()
    state = _ask(link, {"op": "attach-state", "app": name})
    if state is None or not state.get("ok"):
        raise Stage1Error(str(state.get("error")) if state else "the pod ended meanwhile")
    action = flags.get("action")
    if action == "list":
        text = jsontext.dump_pretty({"version": 1, "targets": state["targets"]})
        os.write(1, f"{text}\n".encode())
        return 0
    offered = _words([str(target["name"]) for target in state["targets"]])
    wanted = (
        offered if action == "auto-attach" else [word for word in _ENDPOINTS if flags.get(word) == "true"]
    )
    if not offered:
        raise Stage1Error(
            f"app {name!r} has nothing to attach to",
            hint="rkt run IMAGE --stdin=tty --stdout=tty --stderr=tty, or =stream; rkt logs shows what it wrote",
        )
    for word in wanted:
        if word not in offered:
            raise Stage1Error(f"app {name!r} does not offer {word}", hint=f"--mode={','.join(offered)}")
    keys = parse_detach_keys(flags.get("detach-keys", DETACH_KEYS))
    return _Attachment(name, link, int(state["pid"]), wanted, keys).run()


def _words(names: list[str]) -> list[str]:
    return [word for name in names for word in (("tty-in", "tty-out") if name == "tty" else (name,))]


def _ask(link: _socket.socket, message: dict[str, Any]) -> dict[str, Any] | None:
    """One question; no answer when the pod is over."""
    try:
        control.send(link, message)
        return control.receive(link)
    except OSError:
        return None


class Keys:
    """Looks for the detach keys in what is typed."""

    __slots__ = ("_held", "_keys")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def look_for(self, data: bytes) -> tuple[bytes, bool]:
        """What is to be passed on, and whether the keys came; what may be their beginning is held back."""
        if not self._keys:
            return data, False
        passed = bytearray()
        for byte in data:
            held = self._held + bytes((byte,))
            if held == self._keys:
                return bytes(passed), True
            # What turned out not to be them is passed on, but for an end that may begin them anew.
            while not self._keys.startswith(held):
                passed += held[:1]
                held = held[1:]
            self._held = held
        return bytes(passed), False


class _Ended(BaseException):
    """A signal wants this to end, whatever it waits for."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _end(number: int, _frame: object) -> None:
    for each in _ENDING:
        _signal.signal(each, _signal.SIG_IGN)
    raise _Ended(number)


class _Attachment:
    """One client of one app."""

    def __init__(self, name: str, link: _socket.socket, pid: int, words: list[str], keys: bytes) -> None:
        self._name = name
        self._link = link
        self._pid = pid
        self._takes_input = bool({"stdin", "tty-in"} & set(words))
        self._has_terminal = "tty-in" in words and os.isatty(0)
        self._keys = Keys(keys if self._has_terminal else b"")
        self._pending = b""
        names = dict.fromkeys("tty" if word.startswith("tty") else word for word in words)
        self._sockets = {each: _dial(name, each) for each in names}
        #: Of ``tty-in`` alone the output is not shown, but read.
        self._shown = {"tty" if word == "tty-out" else word for word in words}
        self._has_left = self._has_read = self._was_left_behind = False

    def run(self) -> int:
        """Carry until the outputs end, or the caller leaves."""
        wake_r, wake_w = os.pipe()
        for fd in (wake_r, wake_w):
            os.set_blocking(fd, False)
        _signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGWINCH, lambda _number, _frame: None)
        try:
            for number in _ENDING:
                _signal.signal(number, _end)
            if not self._has_terminal:
                self._carry(wake_r)
            else:
                with terminal.RawTerminal(0):
                    self._tell_size()
                    self._carry(wake_r)
        except _Ended as e:
            return 128 + e.number
        except BrokenPipeError:
            return int(128 + _signal.SIGPIPE)
        return self._farewell()

    def _farewell(self) -> int:
        if self._has_left:
            self._say(f"detached from app {self._name!r}, which goes on")
            return 0
        if self._was_left_behind and self._has_read:
            raise Stage1Error(
                f"app {self._name!r} wrote faster than this was read, so it was detached",
                hint="rkt logs UUID",
            )
        if self._was_left_behind:
            raise Stage1Error(f"app {self._name!r} has too many clients already")
        return 0

    def _say(self, text: str) -> None:
        # The cursor is wherever the app has left it.
        start = "\n" if self._has_terminal else ""
        sys.stderr.write(f"{start}attach: {text}\n")

    def _carry(self, wake_r: int) -> None:
        names = {connection.fileno(): each for each, connection in self._sockets.items()}
        reads_input = self._takes_input
        inlet = next((each for each in ("stdin", "tty") if each in self._sockets), "")
        while not self._is_over(reads_input=reads_input):
            poll = select.poll()
            poll.register(wake_r, select.POLLIN)
            if reads_input and not self._pending:
                poll.register(0, select.POLLIN)
            for each, connection in self._sockets.items():
                out = select.POLLOUT if self._pending and each == inlet else 0
                poll.register(connection.fileno(), select.POLLIN | out)
            for fd, event in poll.poll():
                if fd == wake_r:
                    os.read(wake_r, 64)
                    if self._has_terminal:
                        self._tell_size()
                elif fd == 0:
                    data = _read(0)
                    if not data:
                        reads_input = False
                    elif self._type(data):
                        return
                else:
                    each = names[fd]
                    if event & select.POLLOUT:
                        self._send(inlet)
                    if event & ~select.POLLOUT and each in self._sockets:
                        self._show(each)
            if inlet not in self._sockets:
                reads_input = False
            elif inlet == "stdin" and not (reads_input or self._pending):
                # Its last line is one, finished or not.
                self._sockets.pop(inlet).close()

    def _is_over(self, *, reads_input: bool) -> bool:
        """Whether everything that is shown has ended; where nothing is, whether there is nothing more to say."""
        if self._shown.isdisjoint(_DESCRIPTORS):
            return not self._sockets or not (reads_input or self._pending)
        return self._shown.isdisjoint(self._sockets)

    def _tell_size(self) -> None:
        try:
            rows, columns = terminal.window_size(0)
        except OSError:
            return
        if rows and columns:
            _ask(self._link, {"op": "attach-size", "app": self._name, "rows": rows, "columns": columns})

    def _type(self, data: bytes) -> bool:
        """Pass on what was typed; true when it meant to leave."""
        passed, self._has_left = self._keys.look_for(data)
        self._pending += passed
        return self._has_left

    def _send(self, inlet: str) -> None:
        try:
            sent = self._sockets[inlet].send(self._pending)
        except BlockingIOError:
            return
        except OSError:
            # The app is over, or does not read any more; its last output may still come.
            self._pending = b""
            return
        self._pending = self._pending[sent:]

    def _show(self, each: str) -> None:
        try:
            data = self._sockets[each].recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._has_read = self._has_read or bool(data)
        if not data:
            self._sockets.pop(each).close()
            self._was_left_behind = self._was_left_behind or self._is_offered(each)
        elif each in self._shown:
            _write(_DESCRIPTORS[each], data)

    def _is_offered(self, each: str) -> bool:
        """Whether the app goes on with what has ended here."""
        state = _ask(self._link, {"op": "attach-state", "app": self._name})
        if state is None or not state.get("ok") or state.get("pid") != self._pid:
            return False
        return any(target["name"] == each for target in state["targets"])


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK_BYTES)
    except OSError:
        return b""  # a terminal that is gone


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody else's terminal or pipe may be so
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()


def _dial(app: str, endpoint: str) -> _socket.socket:
    """Connect to an endpoint.

    Raises:
        Stage1Error: nobody listens, or nobody accepts in time.
    """
    deadline = time.monotonic() + _DIAL_SECONDS
    connection = _socket.socket(
        _socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    )
    try:
        directory = os.open(f"{contract.ENDPOINTS}/{app}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        while True:
            try:
                connection.connect(f"/proc/self/fd/{directory}/{socket_name(endpoint)}")
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
                time.sleep(_DIAL_PAUSE_SECONDS)
        os.close(directory)
    except OSError as e:
        connection.close()
        raise Stage1Error(f"cannot attach to {endpoint} of app {app!r}: {e.strerror}") from e
    return connection

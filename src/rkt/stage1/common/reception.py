# SPDX-License-Identifier: Apache-2.0
"""What every supervisor is told from outside its pod: signals, requests on the control socket, what the operator types."""

from __future__ import annotations

import _signal
import os

from rkt.errors import RktError
from rkt.stage1.common import control
from rkt.stage1.common.signals import STOP_SECONDS, STOP_SIGNALS
from rkt.stage1.common.streams import Outlet

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any

    from rkt.stage1.common.interactive import Interactive


class Reception:
    """Takes over signals and the control socket; a supervisor is one that knows what to do about them."""

    _is_stopping = False

    def __init__(
        self, server: _socket.socket, report: Callable[[str], None], interactive: Interactive | None
    ) -> None:
        """Listen.

        Args:
            server: the control socket.
            report: says something to the operator.
            interactive: the operator's terminal, for the only app.
        """
        self._server = server
        self._report = report
        self._interactive = interactive
        self._clients: dict[int, _socket.socket] = {}
        self._outlets = (Outlet(1), Outlet(2))
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        _signal.set_wakeup_fd(self._wake_w)
        for number in STOP_SIGNALS:
            # Who used nohup(1) wants the pod to outlive the terminal.
            if number != _signal.SIGHUP or _signal.getsignal(number) != _signal.SIG_IGN:
                _signal.signal(number, lambda _number, _frame: None)

    def _stop(self) -> None:
        """Ask every app to end."""
        raise NotImplementedError

    def _answer(self, client: _socket.socket, message: dict[str, Any]) -> dict[str, Any] | None:
        """Answer to a request other than stop; ``None`` when it is given later."""
        raise NotImplementedError

    def _channels(self) -> tuple[dict[int, Callable[[], None]], list[Outlet]]:
        """What to poll for reading, with what to do then, and what may have something to write."""
        readers: dict[int, Callable[[], None]] = {
            self._wake_r: self._signals,
            self._server.fileno(): self._accept,
        }
        for fd, client in self._clients.items():
            readers[fd] = lambda c=client: self._request(c)  # type: ignore[misc]
        outlets = list(self._outlets)
        terminal = self._interactive
        if terminal is not None and terminal.master >= 0 and not terminal.input.is_closed:
            outlets.append(terminal.input)
            if not terminal.input.is_full:
                readers[0] = lambda: terminal.type(self._stop)
        return readers, outlets

    def _signals(self) -> None:
        try:
            numbers = os.read(self._wake_r, 64)
        except BlockingIOError:
            return
        for number in numbers:
            if number in STOP_SIGNALS:
                self._stop()
            elif number == _signal.SIGWINCH and self._interactive is not None:
                self._interactive.resize()

    def _accept(self) -> None:
        client = control.accept(self._server)
        if client is not None:
            self._clients[client.fileno()] = client

    def _request(self, client: _socket.socket) -> None:
        """One request of a client; it stays connected, and the end of the pod hangs up on it."""
        try:
            message = control.receive(client)
            if message is None:
                del self._clients[client.fileno()]
                client.close()
                return
            if message.get("op") == "stop":
                if not self._is_stopping:
                    self._stop()
                control.send(client, {"ok": True, "stop_seconds": STOP_SECONDS})
            elif (answer := self._answer(client, message)) is not None:
                control.send(client, answer)
        except (OSError, RktError) as e:
            self._report(f"control socket: {e}")
            self._clients.pop(client.fileno(), None)
            client.close()

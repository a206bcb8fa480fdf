# SPDX-License-Identifier: Apache-2.0
"""What ``rkt attach`` connects to: a socket for each of an app's streams, or one for its terminal (spec runtime §3.9).

They lie in ``iottymux/APP`` of the pod directory, which only root can look into, and whoever connects must be root by the
kernel's word. The bytes are the app's own, without any framing, so that other programs can use them too. A client that
sends no more has left. What waits for one that does not read is bounded, so that its speed is neither the app's nor another
client's: on a stream it is hung up on, since a reader of lines must not miss some unawares; on a terminal what is old is left
out, and the app is asked to draw its screen anew when the client has caught up.
"""

from __future__ import annotations

import _socket

from rkt.stage1.common import control
from rkt.stage1.common.streams import READ_BYTES, Outlet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: What may wait for a client of a stream, and of a terminal, beyond what the kernel holds, in bytes.
STREAM_BYTES = 1 << 20
TTY_BYTES = 64 << 10
#: Clients of one endpoint; more are hung up on.
MAX_CLIENTS = 32
#: A line longer than this is not kept together, in bytes.
MAX_LINE_BYTES = 16 << 10
_SOCKET_PREFIX = "sock-"


class Client(Outlet):
    """A connection; an outlet whose other side may go away, and which nobody waits for.

    Attributes:
        line: the beginning of a line that it has not sent the rest of.
    """

    __slots__ = ("_connection", "_has_gap", "_is_leaving", "_redraw", "line")

    def __init__(self, connection: _socket.socket, redraw: Callable[[], None] | None) -> None:
        """A new client.

        Args:
            connection: its own, not blocking.
            redraw: called when it has been left out of some output and has caught up; ``None`` to hang up instead.
        """
        super().__init__(connection.fileno())
        self._connection = connection
        self._redraw = redraw
        self._has_gap = False
        self._is_leaving = False
        self.line = bytearray()

    @property
    def takes_input(self) -> bool:
        """Whether it may still say something."""
        return not self.is_closed and not self._is_leaving

    def add(self, data: bytes) -> None:
        """Send what can be sent now and keep the rest, within bounds."""
        if not self.takes_input:
            return
        self.pending += data
        self.flush()
        if self._redraw is None:
            if len(self.pending) > STREAM_BYTES:
                self.close()
        elif len(self.pending) > TTY_BYTES:
            start = len(self.pending) - TTY_BYTES // 2
            # From the beginning of a line, if there is one: not in the middle of a control sequence.
            del self.pending[: self.pending.find(b"\n", start) + 1 or start]
            self._has_gap = True

    def flush(self, timeout_ms: int = 0) -> None:
        """See ``Outlet``; never waits."""
        while self.pending and not self.is_closed:
            try:
                sent = self._connection.send(self.pending[:READ_BYTES])
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            del self.pending[:sent]
        if self._is_leaving and not self.pending:
            self.close()
        elif self._has_gap and not self.pending and self._redraw is not None:
            self._has_gap = False
            self._redraw()

    def receive(self) -> bytes | None:
        """What it sent; ``None`` when there is nothing yet, nothing when it has left."""
        try:
            return self._connection.recv(READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def leave(self) -> None:
        """Hang up when it has got what waits for it."""
        self._is_leaving = True
        self.flush()

    def close(self) -> None:
        """Hang up now."""
        if not self.is_closed:
            self.is_closed = True
            self.pending.clear()
            self._connection.close()


class Endpoint:
    """One socket and its clients.

    Attributes:
        name: ``stdin``, ``stdout``, ``stderr`` or ``tty``.
    """

    __slots__ = ("_clients", "_inlet", "_line", "_redraw", "_server", "name")

    def __init__(
        self, name: str, directory_fd: int, inlet: Outlet | None, redraw: Callable[[], None] | None
    ) -> None:
        """Listen.

        Args:
            name: of the endpoint.
            directory_fd: where its socket is made.
            inlet: where what clients send goes; what they send to an output goes nowhere.
            redraw: of a terminal, asks the app to draw its screen anew; ``None`` for what goes by lines.
        """
        self.name = name
        self._inlet = inlet
        self._redraw = redraw
        self._clients: list[Client] = []
        self._line = b""
        self._server = _socket.socket(
            _socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        )
        # The name of a socket has 108 bytes; that of an app may have more.
        self._server.bind(f"/proc/self/fd/{directory_fd}/{socket_name(name)}")
        self._server.listen(MAX_CLIENTS)

    @property
    def is_open(self) -> bool:
        """Whether it can be attached to."""
        return self._server.fileno() >= 0

    @property
    def clients(self) -> list[Client]:
        """Those that are connected."""
        self._clients = [client for client in self._clients if not client.is_closed]
        return self._clients

    def say(self, data: bytes) -> None:
        """Send what the app said to every client; one that comes in the middle of a line gets the line."""
        for client in self._clients:
            client.add(data)
        if self._redraw is None:
            line = self._line + data
            self._line = line[line.rfind(b"\n") + 1 :]
            if len(self._line) > MAX_LINE_BYTES:
                self._line = b""

    def watch(self, readers: dict[int, Callable[[], None]], outlets: list[Outlet]) -> None:
        """Say what it waits for."""
        if self.is_open:
            readers[self._server.fileno()] = self._accept
        listens = self._inlet is None or not self._inlet.is_full
        for client in self.clients:
            outlets.append(client)
            if listens and client.takes_input:
                readers[client.fd] = lambda c=client: self._receive(c)  # type: ignore[misc]

    def end(self) -> None:
        """Take no more clients, and hang up on those that are there when they have got everything."""
        self._server.close()
        for client in self._clients:
            client.leave()

    def close(self) -> None:
        """Hang up on everybody."""
        self._server.close()
        for client in self._clients:
            client.close()

    def _accept(self) -> None:
        if not self.is_open:
            return
        connection = control.accept(self._server)
        if connection is None:
            return
        client = Client(connection, self._redraw)
        if len(self.clients) >= MAX_CLIENTS:
            client.close()
            return
        self._clients.append(client)
        client.add(self._line)

    def _receive(self, client: Client) -> None:
        if not client.takes_input:
            return
        data = client.receive()
        if data is None:
            return
        if not data:
            if self._inlet is not None and client.line:
                # A line that is never finished is a line, lest the next client's be its end.
                self._inlet.add(bytes(client.line) + b"\n")
            client.leave()
        elif self._inlet is None:
            pass  # whoever talks to an output is not heard
        elif self._redraw is None:
            client.line += data
            end = client.line.rfind(b"\n") + 1
            if not end and len(client.line) > MAX_LINE_BYTES:
                end = len(client.line)
            if end:
                self._inlet.add(bytes(client.line[:end]))
                del client.line[:end]
        else:
            self._inlet.add(data)


def socket_name(endpoint: str) -> str:
    """Name of an endpoint's socket in its directory."""
    return _SOCKET_PREFIX + endpoint

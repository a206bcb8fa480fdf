# SPDX-License-Identifier: Apache-2.0
"""What goes between a command and its worker: one JSON object per line over a socket pair; never pickle.

The command sends one request. The worker sends any number of ``{"event": …}`` objects, then one ``{"result": …}`` or one
``{"error": {"code", "message", "hint"}}``.
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, RktError
from rkt.schema import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Connection(Protocol):
        """The part of a socket that is used."""

        def recv(self, count: int, /) -> bytes:
            """Up to so many bytes, none at the end."""

        def sendall(self, data: bytes, /) -> None:
            """Every byte."""


#: Longest line, in bytes.
MAX_LINE_BYTES = 1 << 20
#: Longest text of a worker that is shown to people, in characters.
_MAX_TEXT = 2000
_READ_BYTES = 1 << 16
#: Largest size and time of the kernel's.
_MAX_COUNT = (1 << 63) - 1


class WireError(RktError):
    """The other side said something that is not in the protocol."""

    code = "privsep"


def send(connection: Connection, message: dict[str, Any]) -> None:
    """Send one message."""
    # A lone surrogate, from a name that is not UTF-8, becomes a question mark.
    connection.sendall(jsontext.dump(message).encode("utf-8", "replace") + b"\n")


class Receiver:
    """Cuts a stream into messages."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._buffer = bytearray()

    def fill(self) -> bool:
        """Read once; False at the end of the stream.

        Raises:
            WireError: a line is too long.
        """
        data = self._connection.recv(_READ_BYTES)
        self._buffer += data
        if len(self._buffer) > MAX_LINE_BYTES and b"\n" not in self._buffer:
            raise WireError("a worker sent too long a message")
        return bool(data)

    def take(self) -> dict[str, Any] | None:
        """The next message that has arrived whole, None when there is none yet.

        Raises:
            WireError: a line is not a JSON object.
        """
        end = self._buffer.find(b"\n")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            message = jsontext.parse(line, what="message of a worker", limit_bytes=MAX_LINE_BYTES)
        except InvalidManifest as e:
            raise WireError(e.message) from e
        if not isinstance(message, dict):
            raise WireError("a worker sent something that is not an object")
        return message

    def receive(self) -> dict[str, Any] | None:
        """Wait for the next message; None at the end of the stream.

        Raises:
            WireError: as ``fill`` and ``take``.
        """
        while (message := self.take()) is None:
            if not self.fill():
                return None
        return message


def foreign_count(value: Any) -> int | None:
    """A number of bytes or seconds that a worker reported; None for anything else, and for what no file could have."""
    return value if type(value) is int and 0 <= value <= _MAX_COUNT else None


def foreign_text(value: Any) -> str:
    """Text that a worker sent, made safe to show: bounded, and nothing that moves the cursor (invariant LG3)."""
    text = value if isinstance(value, str) else repr(value)
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_TEXT])

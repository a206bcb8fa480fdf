# SPDX-License-Identifier: Apache-2.0
"""The supervisor's socket in the pod directory: one JSON request, one JSON answer, end of file when the pod is over.

A path socket of mode 0600 whose peers must be root by the kernel's word (invariant NT6). Relative path: the pod
directory is the working directory on both sides, and ``sun_path`` has only 108 bytes.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct

from rkt.errors import InvalidManifest, Stage1Error
from rkt.schema import jsontext
from rkt.stage0 import contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_MESSAGE_BYTES = 64 << 10
_UCRED = struct.Struct("iII")


def listen() -> _socket.socket:
    """Bind and listen; what an earlier run of the pod left is replaced."""
    try:
        os.unlink(contract.CONTROL_SOCKET)
    except FileNotFoundError:
        pass
    server = _socket.socket(
        _socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    )
    old = os.umask(0o177)
    try:
        server.bind(contract.CONTROL_SOCKET)
    finally:
        os.umask(old)
    server.listen(16)
    return server


def accept(server: _socket.socket) -> _socket.socket | None:
    """The next client; None when it is not root's, which is hung up on."""
    try:
        fd, _ = server._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - ``socket`` costs 6 ms
    except OSError:
        return None  # gone already, or no descriptor is left
    os.set_inheritable(fd, False)
    client = _socket.socket(fileno=fd)
    if peer(client)[1] != os.geteuid():
        client.close()
        return None
    client.setblocking(False)
    return client


def peer(connection: _socket.socket) -> tuple[int, int, int]:
    """(pid, uid, gid) of the other side; of a server, who called listen(2)."""
    raw = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    return pid, uid, gid


def receive(connection: _socket.socket) -> dict[str, Any] | None:
    """One message; None when the other side has hung up.

    Raises:
        InvalidManifest: not a JSON object.
    """
    try:
        data = connection.recv(_MAX_MESSAGE_BYTES)
    except ConnectionResetError:
        data = b""  # with a message of ours that was not read
    if not data:
        return None
    message = jsontext.parse(data, what="message to the supervisor")
    if not isinstance(message, dict):
        raise InvalidManifest("message to the supervisor is not an object")
    return message


def send(connection: _socket.socket, message: dict[str, Any]) -> None:
    """One message."""
    connection.send(jsontext.dump(message).encode())


def ask(connection: _socket.socket, message: dict[str, Any]) -> dict[str, Any] | None:
    """The answer to one message; None when the other side has hung up.

    Raises:
        InvalidManifest: not a JSON object.
    """
    try:
        send(connection, message)
    except (BrokenPipeError, ConnectionResetError):
        return None
    return receive(connection)


def connect() -> _socket.socket:
    """Connect to the supervisor of the pod whose directory is the working directory.

    Raises:
        Stage1Error: nobody listens.
    """
    client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        client.connect(contract.CONTROL_SOCKET)
    except OSError as e:
        client.close()
        if e.errno in {errno.ENOENT, errno.ECONNREFUSED}:
            raise Stage1Error("the pod's supervisor does not answer", hint="rkt stop --force UUID") from e
        raise
    return client

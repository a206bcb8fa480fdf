# SPDX-License-Identifier: Apache-2.0
"""What the process of a probe does in its app, as confined as the app; it ends with the status that is returned.

Nothing can be imported there: the supervisor has, before there is a pod.
"""

from __future__ import annotations

import _socket
import os

_ANSWER_BYTES = 1024


def _open(port: int) -> _socket.socket:
    """A connection to a port of the pod itself, by either address of it."""
    refusal = OSError()
    for family, address in ((_socket.AF_INET, "127.0.0.1"), (_socket.AF_INET6, "::1")):
        try:
            connection = _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
            connection.connect((address, port))
        except OSError as e:
            refusal = refusal if refusal.errno else e
        else:
            return connection
    raise refusal


def connect(port: int) -> int:
    """Whether a port takes connections."""
    try:
        _open(port).close()
    except OSError as e:
        return _fail(f"port {port}: {e.strerror}")
    return 0


def ask(port: int, path: str) -> int:
    """Whether a port answers a request of HTTP with a status that is no failure."""
    try:
        connection = _open(port)
        request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: rkt-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        answer = b""
        while (
            b"\n" not in answer and len(answer) < _ANSWER_BYTES and (data := connection.recv(_ANSWER_BYTES))
        ):
            answer += data
    except OSError as e:
        return _fail(f"port {port}: {e.strerror}")
    words = answer.split(b"\n")[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or len(words[1]) != 3 or not words[1].isdigit():
        return _fail(f"port {port} does not speak HTTP")
    status = int(words[1])
    return 0 if 200 <= status < 400 else _fail(f"port {port} answers with status {status}")


def _fail(text: str) -> int:
    os.write(2, text.encode(errors="replace"))
    return 1

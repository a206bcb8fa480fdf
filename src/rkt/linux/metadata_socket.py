# SPDX-License-Identifier: Apache-2.0
"""Asks the metadata service of this host, on the socket where root registers pods (spec runtime §5.6)."""

from __future__ import annotations

import _socket

SOCKET_PATH = "/run/rkt/metadata-svc.sock"
#: Where the service answers pods, unless it says otherwise.
DEFAULT_PORT = 18112
_MAX_ANSWER_BYTES = 64 << 10


def ask(method: str, target: str, body: bytes = b"", *, seconds: float) -> tuple[int, str]:
    """One request.

    Args:
        method: of HTTP.
        target: path and query, without anything that would have to be escaped.
        body: sent as it is.
        seconds: how long any step may take.
    Returns:
        status and text of the answer.
    Raises:
        OSError: nobody listens, or whoever does says nothing that makes sense.
    """
    client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        client.settimeout(seconds)
        client.connect(SOCKET_PATH)
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode("ascii") + body)
        data = b""
        while len(data) <= _MAX_ANSWER_BYTES and (chunk := client.recv(_MAX_ANSWER_BYTES)):
            data += chunk
    finally:
        client.close()
    first, _, rest = data.partition(b"\r\n")
    words = first.split(b" ")
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ConnectionError("whoever listens there is no metadata service")
    return int(words[1]), rest.partition(b"\r\n\r\n")[2].decode("utf-8", "replace").strip()

# SPDX-License-Identifier: Apache-2.0
"""``rkt-metadata``: what answers pods. It has no rights, no files and no network but the sockets it is given.

One poll(2) loop, one request for each connection. Whoever is slow, sends garbage or opens many connections costs himself:
a connection has a time to live, a client a number of connections, and the oldest goes when there are too many.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import select
import socket
import struct
import time
from urllib.parse import parse_qsl

from rkt.errors import RktError, quoted
from rkt.metadata.http import JSON, Answer, Head, Refused, end_of_head, parse_head, render, text_answer
from rkt.values import PodUUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: How long a connection may take in all, in seconds.
CONNECTION_SECONDS = 10.0
#: Largest form that is accepted, in bytes.
MAX_BODY_BYTES = 1 << 20
MAX_CONNECTIONS = 128
MAX_PER_CLIENT = 16
_PREFIX = "acMetadata/v1/"
_FLAVOR = "AppContainer"
_READ_BYTES = 64 << 10
_HEADER = struct.Struct("!I")


class Book:
    """Who may ask, and what each is answered.

    Args:
        key: what pods sign by.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        #: SHA-256 of a token -> (UUID, path -> (kind, text)).
        self._pods: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {}

    def put(self, uuid: str, token: str, answers: dict[str, Any]) -> None:
        """A pod is there, or has changed."""
        self.remove(uuid)
        self._pods[token] = (uuid, {path: (kind, text) for path, (kind, text) in answers.items()})

    def remove(self, uuid: str) -> None:
        """A pod is gone."""
        for token in [token for token, (known, _) in self._pods.items() if known == uuid]:
            del self._pods[token]

    def answer(self, head: Head, body: bytes) -> tuple[Answer, str]:
        """What a request gets, and what of it may be written down: never its token.

        Args:
            head: of the request.
            body: whole.
        """
        token, _, path = head.path.removeprefix("/").partition("/")
        uuid, found = self._pods.get(hashlib.sha256(token.encode()).hexdigest(), ("", {}))
        if not uuid:
            return text_answer("unknown token\n", 401), f"{head.method} - {401}"
        try:
            answer = self._answer(uuid, found, head, path, body)
        except Refused as e:
            answer = text_answer(f"{e.reason}\n", e.status)
        known = path if token not in path else "-"
        return answer, f"{head.method} {quoted('/' + known)[1:-1]} - {answer.status}, pod {uuid}"

    def _answer(
        self, uuid: str, found: dict[str, tuple[str, str]], head: Head, path: str, body: bytes
    ) -> Answer:
        if head.headers.get("metadata-flavor", _FLAVOR) != _FLAVOR:
            raise Refused(400, f"Metadata-Flavor is {_FLAVOR} here")
        if not path.startswith(_PREFIX):
            raise Refused(404, "not found")
        path = path.removeprefix(_PREFIX).removesuffix("/")
        signs: dict[str, Callable[[str, bytes, Head], Answer]] = {
            "pod/hmac/sign": self._sign,
            "pod/hmac/verify": self._verify,
        }
        method = "POST" if path in signs else "GET"
        if path not in signs and path not in found:
            raise Refused(404, "not found")
        if head.method != method:
            raise Refused(405, f"the method is {method}")
        if path in signs:
            return signs[path](uuid, body, head)
        kind, text = found[path]
        return Answer(status=200, body=text.encode(), kind=JSON) if kind == "json" else text_answer(text)

    def _sign(self, uuid: str, body: bytes, head: Head) -> Answer:
        form = _form(body, head)
        return text_answer(base64.b64encode(self._mac(uuid, _field(form, b"content"))).decode())

    def _verify(self, _uuid: str, body: bytes, head: Head) -> Answer:
        form = _form(body, head)
        content = _field(form, b"content")
        try:
            signer = PodUUID.parse(_field(form, b"uuid").decode())
            # Who writes a form by hand leaves a plus as it is.
            signature = base64.b64decode(_field(form, b"signature").replace(b" ", b"+"), validate=True)
        except (RktError, UnicodeDecodeError, binascii.Error):
            raise Refused(400, "malformed uuid or signature") from None
        if not hmac.compare_digest(signature, self._mac(signer, content)):
            raise Refused(403, "the signature is not that pod's")
        return text_answer("")

    def _mac(self, uuid: str, content: bytes) -> bytes:
        return hmac.digest(self._key, bytes.fromhex(uuid.replace("-", "")) + content, "sha512")


def _form(body: bytes, head: Head) -> dict[bytes, bytes]:
    kind = head.headers.get("content-type", "application/x-www-form-urlencoded")
    if kind.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise Refused(415, "a form is application/x-www-form-urlencoded")
    try:
        pairs = parse_qsl(body, keep_blank_values=True, strict_parsing=bool(body), max_num_fields=8)
    except ValueError:
        raise Refused(400, "malformed form") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Refused(400, "a field appears twice")
    return fields


def _field(form: dict[bytes, bytes], name: bytes) -> bytes:
    if name not in form:
        raise Refused(400, f"the field {name.decode()} is missing")
    return form[name]


class _Connection:
    """One client, from its first byte to its last."""

    def __init__(self, handle: socket.socket, client: str, end: float) -> None:
        self.handle = handle
        self.client = client
        self.end = end
        self._in = bytearray()
        self._head: Head | None = None
        self._start = 0
        self._out = b""
        self._answered = False

    @property
    def events(self) -> int:
        """What to wait for."""
        return select.POLLOUT if self._out else select.POLLIN

    def go_on(self, book: Book, log: Callable[[str], None]) -> bool:
        """Do what can be done now; false when the connection is over."""
        try:
            if self._out:
                self._out = self._out[self.handle.send(self._out) :]
                if not self._out and self._answered:
                    # Who still sends is heard to the end, or the answer would be lost with the rest.
                    self.handle.shutdown(socket.SHUT_WR)
                return True
            data = self.handle.recv(_READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data or self._answered:
            return bool(data)
        self._in += data
        try:
            self._read(book, log)
        except Refused as e:
            self._answer(text_answer(f"{e.reason}\n", e.status))
            log(f"- - {e.status}")
        return True

    def _read(self, book: Book, log: Callable[[str], None]) -> None:
        if self._head is None:
            self._start = end_of_head(self._in)
            if not self._start:
                return
            self._head = parse_head(bytes(self._in[: self._start]), max_body_bytes=MAX_BODY_BYTES)
            if self._head.wants_continue and len(self._in) == self._start:
                self._out = b"HTTP/1.1 100 Continue\r\n\r\n"
        if len(self._in) - self._start < self._head.length:
            return
        body = bytes(self._in[self._start : self._start + self._head.length])
        answer, line = book.answer(self._head, body)
        self._answer(answer)
        log(line)

    def _answer(self, answer: Answer) -> None:
        self._out = render(answer)
        self._answered = True
        self._in.clear()


class Server:
    """The loop.

    Args:
        master: the service, which says what there is to know.
        log: writes a line.
    """

    def __init__(self, master: socket.socket, log: Callable[[str], None]) -> None:
        self._master = master
        self._log = log
        self._book = Book(b"")
        self._listeners: dict[str, socket.socket] = {}
        self._connections: dict[int, _Connection] = {}

    def run(self) -> None:
        """Serve until the service is gone."""
        while True:
            poll = select.poll()
            poll.register(self._master, select.POLLIN)
            for listener in self._listeners.values():
                poll.register(listener, select.POLLIN)
            for fd, connection in self._connections.items():
                poll.register(fd, connection.events)
            by_fd = {listener.fileno(): listener for listener in self._listeners.values()}
            for fd, _ in poll.poll(self._timeout_ms()):
                if fd == self._master.fileno():
                    if not self._obey():
                        for each in list(self._connections):
                            self._close(each)
                        return
                elif fd in by_fd:
                    self._accept(by_fd[fd])
                elif fd in self._connections and not self._connections[fd].go_on(self._book, self._log):
                    self._close(fd)
            now = time.monotonic()
            for fd in [fd for fd, each in self._connections.items() if now >= each.end]:
                self._close(fd)

    def _timeout_ms(self) -> int | None:
        if not self._connections:
            return None
        end = min(each.end for each in self._connections.values())
        return max(0, int((end - time.monotonic()) * 1000) + 1)

    def _obey(self) -> bool:
        message, fds = receive(self._master)
        if message is None:
            return False
        match message["op"]:
            case "key":
                self._book = Book(bytes.fromhex(message["key"]))
            case "put":
                self._book.put(message["uuid"], message["token"], message["answers"])
            case "remove":
                self._book.remove(message["uuid"])
            case "listen":
                listener = socket.socket(fileno=fds[0])
                listener.setblocking(False)
                self._listeners[message["address"]] = listener
            case "close":
                self._listeners.pop(message["address"]).close()
        self._master.sendall(b"1")
        return True

    def _accept(self, listener: socket.socket) -> None:
        try:
            handle, address = listener.accept()
        except OSError:
            return  # gone already
        handle.setblocking(False)
        client = str(address[0])
        own = [fd for fd, each in self._connections.items() if each.client == client]
        # In the order in which they came: the oldest first.
        if len(own) >= MAX_PER_CLIENT:
            self._close(own[0])
        elif len(self._connections) >= MAX_CONNECTIONS:
            self._close(next(iter(self._connections)))
        end = time.monotonic() + CONNECTION_SECONDS
        self._connections[handle.fileno()] = _Connection(handle, client, end)

    def _close(self, fd: int) -> None:
        self._connections.pop(fd).handle.close()


def send(channel: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """One message of the service, with descriptors.

    Raises:
        OSError: the worker is gone.
    """
    data = json.dumps(message).encode()
    socket.send_fds(channel, [_HEADER.pack(len(data))], fds)
    channel.sendall(data)
    if channel.recv(1) != b"1":
        raise ConnectionResetError("rkt-metadata has ended")


def receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message; ``None`` when the service is gone."""
    header, fds, _, _ = socket.recv_fds(channel, _HEADER.size, 1)
    if len(header) < _HEADER.size:
        return None, []
    left = _HEADER.unpack(header)[0]
    chunks = []
    while left:
        chunk = channel.recv(min(left, 1 << 20))
        if not chunk:
            return None, []
        chunks.append(chunk)
        left -= len(chunk)
    message: dict[str, Any] = json.loads(b"".join(chunks))
    return message, fds


def write_line(text: str) -> None:
    """A line on the standard error output, whatever that is."""
    try:
        os.write(2, f"{text}\n".encode())
    except OSError:
        pass

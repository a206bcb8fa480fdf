# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import hmac
import socket
import threading
import uuid
from typing import TYPE_CHECKING

import pytest

from rkt.metadata import worker
from rkt.metadata.http import parse_head
from rkt.metadata.registry import token_digest

if TYPE_CHECKING:
    from collections.abc import Iterator

UUID = "6733c088-a507-4694-aabf-bf80d7f1f9f4"
TOKEN = "ab" * 32
KEY = b"k" * 64
ANSWERS = {
    "pod/uuid": ("text", UUID),
    "pod/annotations": ("json", "[]"),
    "apps/web/annotations/example.com/a": ("text", "b"),
}
GOOD = base64.b64encode(hmac.digest(KEY, uuid.UUID(UUID).bytes + b"x y", "sha512")).decode()


def book() -> worker.Book:
    """One pod."""
    made = worker.Book(KEY)
    made.put(UUID, token_digest(TOKEN), dict(ANSWERS))
    return made


def ask(
    method: str, path: str, body: str = "", *, token: str = TOKEN, headers: str = ""
) -> tuple[int, str, str]:
    """Status, text, and the line that is written down."""
    request = f"{method} /{token}{path} HTTP/1.1\r\n{headers}\r\n"
    answer, line = book().answer(parse_head(request.encode(), max_body_bytes=100), body.encode())
    return answer.status, answer.body.decode(), line


@pytest.mark.parametrize("headers", ["", "Metadata-Flavor: AppContainer\r\n"])
def test_a_pod_looks_itself_up(headers: str) -> None:
    """By its token, with or without the flavor, with or without a last slash; what is written down has no token."""
    assert ask("GET", "/acMetadata/v1/pod/uuid", headers=headers) == (
        200,
        UUID,
        f"GET /acMetadata/v1/pod/uuid - 200, pod {UUID}",
    )
    assert ask("GET", "/acMetadata/v1/pod/annotations/", headers=headers)[:2] == (200, "[]")
    assert ask("GET", "/acMetadata/v1/apps/web/annotations/example.com%2Fa", headers=headers)[:2] == (
        200,
        "b",
    )


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/acMetadata/v1/pod/nothing", 404),
        ("GET", "/acMetadata/v1/apps/other/image/id", 404),
        ("GET", "/acMetadata/v2/pod/uuid", 404),
        ("GET", "", 404),
        ("POST", "/acMetadata/v1/pod/uuid", 405),
        ("GET", "/acMetadata/v1/pod/hmac/sign", 405),
    ],
)
def test_what_is_not_there(method: str, path: str, status: int) -> None:
    """404 and 405 are told apart."""
    assert ask(method, path)[0] == status


def test_tokens_are_secret() -> None:
    """A wrong token is told nothing, and no token is written down, wherever in the path it stands."""
    wrong = "cd" * 32
    status, text, line = ask("GET", "/acMetadata/v1/pod/uuid", token=wrong)
    assert (status, text) == (401, "unknown token\n")
    assert wrong not in line
    assert ask("GET", "/acMetadata/v1/pod/hmac/verify", token="")[0] == 401
    assert TOKEN not in ask("GET", f"/{TOKEN}/x")[2]
    assert ask("GET", "/acMetadata/v1/pod/uuid", headers="Metadata-Flavor: Google\r\n")[0] == 400
    assert "\x1b" not in ask("GET", "/%1b[31m%0a")[2]
    assert "\n" not in ask("GET", "/%1b[31m%0a")[2]


def test_signatures_are_known_again() -> None:
    """What a pod signed is good for its UUID and its content, and for nothing else."""
    sign, verify = "/acMetadata/v1/pod/hmac/sign", "/acMetadata/v1/pod/hmac/verify"
    assert ask("POST", sign, "content=x+y")[:2] == (200, GOOD)
    quoted = GOOD.replace("+", "%2B")
    for signature in (GOOD, quoted):
        assert ask("POST", verify, f"uuid={UUID}&content=x%20y&signature={signature}")[0] == 200
    assert ask("POST", verify, f"uuid={UUID}&content=x&signature={quoted}")[0] == 403
    assert ask("POST", verify, f"uuid={uuid.uuid4()}&content=x%20y&signature={quoted}")[0] == 403
    assert ask("POST", verify, f"uuid={UUID}&content=x%20y&signature={quoted}", token="0" * 64)[0] == 401


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ("", "", 400),
        ("other=x", "", 400),
        ("content", "", 400),
        ("content=a&content=b", "", 400),
        ("&".join(f"a{i}=1" for i in range(20)), "", 400),
        ("content=x", "Content-Type: multipart/form-data\r\n", 415),
    ],
)
def test_malformed_forms(body: str, headers: str, status: int) -> None:
    """A form that could be read in two ways, or not at all, is refused."""
    assert ask("POST", "/acMetadata/v1/pod/hmac/sign", body, headers=headers)[0] == status


@pytest.mark.parametrize(
    "form", ["uuid=x&content=&signature=", f"uuid={UUID}&content=&signature=!", "content=x"]
)
def test_malformed_signatures(form: str) -> None:
    """What is no signature is a mistake, not a wrong signature."""
    assert ask("POST", "/acMetadata/v1/pod/hmac/verify", form)[0] == 400


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """Where a server with short limits answers."""
    monkeypatch.setattr(worker, "CONNECTION_SECONDS", 0.3)
    monkeypatch.setattr(worker, "MAX_PER_CLIENT", 3)
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=worker.Server(theirs, lambda _: None).run)
    thread.start()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as listener:
        worker.send(ours, {"op": "key", "key": KEY.hex()})
        worker.send(ours, {"op": "put", "uuid": UUID, "token": token_digest(TOKEN), "answers": ANSWERS})
        worker.send(ours, {"op": "listen", "address": "127.0.0.1"}, (listener.fileno(),))
        yield listener.getsockname()
        worker.send(ours, {"op": "close", "address": "127.0.0.1"})
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    assert not thread.is_alive()


def answer_to(address: tuple[str, int], *parts: bytes) -> bytes:
    """Everything that comes back for some bytes."""
    with socket.create_connection(address, timeout=10) as client:
        for part in parts:
            client.sendall(part)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def test_slow_and_greedy_clients_cost_themselves(address: tuple[str, int]) -> None:
    """Half a request ends with its time, a client's oldest connection when it opens too many, garbage at once; others are answered meanwhile."""
    good = f"GET /{TOKEN}/acMetadata/v1/pod/uuid HTTP/1.1\r\n\r\n".encode()
    idle = [socket.create_connection(address, timeout=10) for _ in range(4)]
    try:
        assert idle[0].recv(1) == b"", "the oldest of four is closed at once"
        assert answer_to(address, good[:20], good[20:]).endswith(UUID.encode())
        assert b"HTTP/1.1 400 " in answer_to(address, b"\0\xff garbage\r\n\r\n")
        assert b"HTTP/1.1 431 " in answer_to(address, b"x" * (20 << 10))
        assert b"HTTP/1.1 413 " in answer_to(address, b"POST / HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n")
        for client in idle[1:]:
            assert client.recv(1) == b"", "its time is over"
    finally:
        for client in idle:
            client.close()


def test_a_large_form_is_taken_in_pieces(address: tuple[str, int]) -> None:
    """A client that waits for its head to be accepted is told to go on."""
    body = b"content=" + b"x" * 200_000
    head = f"POST /{TOKEN}/acMetadata/v1/pod/hmac/sign HTTP/1.1\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(head.encode())
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")

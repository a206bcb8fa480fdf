# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.metadata.http import (
    MAX_HEAD_BYTES,
    TEXT,
    Answer,
    Refused,
    end_of_head,
    parse_head,
    render,
    text_answer,
)


def head(text: str) -> bytes:
    """A head with the line ends of HTTP."""
    return text.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n"


def test_a_request_is_parsed() -> None:
    """Method, decoded path, query, headers without regard to case, length."""
    parsed = parse_head(
        head("POST /a%20b/c?x=%20 HTTP/1.1\nContent-length: 12\nX:  y \nExpect: 100-Continue"),
        max_body_bytes=12,
    )
    assert (parsed.method, parsed.path, parsed.query, parsed.length) == ("POST", "/a b/c", "x=%20", 12)
    assert parsed.headers["x"] == "y"
    assert parsed.wants_continue


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", 400),
        ("GET /", 400),
        ("GET / HTTP/1.1 x", 400),
        ("GET  / HTTP/1.1", 400),
        ("G\x00T / HTTP/1.1", 400),
        ("EAT / HTTP/1.1", 501),
        ("get / HTTP/1.1", 501),
        ("GET / SPDY/1", 400),
        ("GET / HTTP/2.0", 505),
        ("GET http://host/ HTTP/1.1", 400),
        ("GET /\x7f HTTP/1.1", 400),
        ("GET /\xe9 HTTP/1.1", 400),
        ("GET /%ff HTTP/1.1", 400),
        ("GET / HTTP/1.1\nno colon", 400),
        ("GET / HTTP/1.1\nname : x", 400),
        ("GET / HTTP/1.1\n folded: x", 400),
        ("GET / HTTP/1.1\nA: x\x00", 400),
        ("GET / HTTP/1.1\nHost: a\nHost: b", 400),
        ("POST / HTTP/1.1\nContent-Length: 1\nContent-Length: 1", 400),
        ("POST / HTTP/1.1\nContent-Length: +1", 400),
        ("POST / HTTP/1.1\nContent-Length: -1", 400),
        ("POST / HTTP/1.1\nContent-Length: 11", 413),
        ("POST / HTTP/1.1\nContent-Length: 99999999999999999999", 413),
        ("POST / HTTP/1.1\nTransfer-Encoding: chunked", 501),
    ],
)
def test_what_is_malformed_is_refused(text: str, status: int) -> None:
    """Nothing is guessed at."""
    with pytest.raises(Refused) as refused:
        parse_head(head(text), max_body_bytes=10)
    assert refused.value.status == status


def test_a_head_has_an_end() -> None:
    """The body begins behind the empty line; a head that is too long is refused before its end has come."""
    assert end_of_head(b"GET / HTTP/1.1\r\n") == 0
    assert end_of_head(b"GET / HTTP/1.1\r\n\r\nbody") == 18
    for data in (b"x" * (MAX_HEAD_BYTES + 1), b"x" * (MAX_HEAD_BYTES + 1) + b"\r\n\r\n"):
        with pytest.raises(Refused):
            end_of_head(data)


def test_an_answer_says_what_it_is() -> None:
    """Text that is ASCII is called so, other text is not."""
    assert text_answer("x").kind == TEXT
    assert "utf-8" in text_answer("\N{SNOWMAN}").kind
    rendered = render(Answer(status=200, body=b"abc"))
    assert rendered.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=us-ascii\r\n")
    assert rendered.endswith(
        b"Content-Length: 3\r\nCache-Control: no-store\r\nMetadata-Flavor: AppContainer\r\nConnection: close\r\n\r\nabc"
    )

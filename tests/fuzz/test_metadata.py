# SPDX-License-Identifier: Apache-2.0
"""Bytes that nobody meant: what reads the requests of pods answers with a request, a refusal or an answer, and quickly."""

import os
import random
import time

import pytest

from rkt.metadata.http import Refused, end_of_head, parse_head
from rkt.metadata.registry import token_digest
from rkt.metadata.worker import Book

ROUNDS = int(os.environ.get("RKT_FUZZ_ROUNDS", "2000"))
TOKEN = "ab" * 32
UUID = "6733c088-a507-4694-aabf-bf80d7f1f9f4"
FORM = b"content=a%20b&uuid=" + UUID.encode() + b"&signature=YQ=="
SAMPLES = (
    f"GET /{TOKEN}/acMetadata/v1/pod/uuid HTTP/1.1\r\nHost: x:1\r\nMetadata-Flavor: AppContainer\r\n\r\n".encode(),
    f"POST /{TOKEN}/acMetadata/v1/pod/hmac/sign HTTP/1.1\r\nContent-Length: {len(FORM)}\r\n\r\n".encode()
    + FORM,
    f"POST /{TOKEN}/acMetadata/v1/pod/hmac/verify HTTP/1.0\r\ncontent-length: {len(FORM)}\r\n\r\n".encode()
    + FORM,
)
#: What breaks readers of HTTP and of forms.
PIECES = (
    b"\r\n", b"\n", b"\r", b"\0", b"\xff", b" ", b"  ", b":", b"%", b"%00", b"%ff", b"%2f", b"%zz", b"/", b"//", b"/../", b"?", b"#",
    b"&", b"=", b"+", b";", b"HTTP/1.1", b"HTTP/0.9", b"Content-Length: 1\r\n", b"Content-Length: -1\r\n", b"9" * 400,
    b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"content", b"signature", b"uuid", TOKEN.encode(), b"x" * 17000,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_requests_that_nobody_meant(seed: int) -> None:
    """Nothing but ``Refused`` comes out of the parser, and no line that is written down has the token or another line in it."""
    source = random.Random(seed)
    book = Book(b"k" * 64)
    book.put(UUID, token_digest(TOKEN), {"pod/uuid": ("text", UUID)})
    understood = 0
    started = time.monotonic()
    for _ in range(ROUNDS):
        value = bytearray(source.choice(SAMPLES))
        for _ in range(source.randint(0, 3)):
            at = source.randrange(len(value) + 1)
            value[at : at + source.choice((0, 1, 4))] = source.choice(PIECES)
        try:
            start = end_of_head(value)
            if not start:
                continue
            head = parse_head(bytes(value[:start]), max_body_bytes=1 << 20)
        except Refused:
            continue
        answer, line = book.answer(head, bytes(value[start : start + head.length]))
        understood += answer.status == 200
        assert line.isprintable()
        assert TOKEN not in line
    assert understood > ROUNDS / 20
    assert time.monotonic() - started < 30

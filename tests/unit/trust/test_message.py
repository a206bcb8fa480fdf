# SPDX-License-Identifier: Apache-2.0
"""Signed OpenPGP messages are taken apart, or refused, each for a reason of its own (invariant SG8)."""

from __future__ import annotations

import bz2
import contextlib
import zlib

import pytest

from rkt.trust import packets
from rkt.trust.message import MAX_MESSAGE_BYTES, MAX_PAYLOAD_BYTES, open_message
from rkt.trust.packets import Malformed
from tests.lib.openpgp import compressed, literal, literal_body, packet

PAYLOAD = b'{"critical":{}}'


def in_parts(tag: int, body: bytes, power: int = 9) -> bytes:
    """In parts of a power of two, as who writes to a pipe makes it."""
    data = bytes([0xC0 | tag])
    while len(body) > 1 << power:
        data += bytes([0xE0 | power]) + body[: 1 << power]
        body = body[1 << power :]
    return data + b"\xff" + len(body).to_bytes(4, "big") + body


ONE_PASS = packet(packets.TAG_ONE_PASS, b"\x03\x00\x08\x16" + bytes(8) + b"\x01")
SIGNATURE = packet(packets.TAG_SIGNATURE, b"\x04\x00\x16\x08" + bytes(12))
LITERAL = literal(PAYLOAD)
MESSAGE = ONE_PASS + LITERAL + SIGNATURE


@pytest.mark.parametrize(
    "message",
    [
        MESSAGE,
        SIGNATURE + LITERAL,
        compressed(MESSAGE),
        packet(packets.TAG_COMPRESSED, b"\x02" + zlib.compress(MESSAGE)),
        ONE_PASS + literal(PAYLOAD, name=b"\n[GNUPG:] GOODSIG") + SIGNATURE,
        ONE_PASS + in_parts(packets.TAG_LITERAL, literal_body(PAYLOAD)) + SIGNATURE,
        in_parts(packets.TAG_COMPRESSED, b"\x02" + zlib.compress(MESSAGE), 4),
    ],
    ids=["plain", "signature-first", "deflate", "zlib", "file-name", "last-part", "parts"],
)
def test_message_is_taken_apart(message: bytes) -> None:
    """However it is wrapped, what comes out is the content of the literal packet and the whole signature packet."""
    opened = open_message(message)
    assert opened.payload == PAYLOAD
    assert opened.signature == SIGNATURE


def test_payload_in_parts_is_joined() -> None:
    """The parts of a literal packet are one content."""
    content = bytes(range(256)) * 9
    message = ONE_PASS + in_parts(packets.TAG_LITERAL, literal_body(content)) + SIGNATURE
    assert open_message(message).payload == content


BIG = bytes(MAX_PAYLOAD_BYTES + 1)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "it is empty"),
        (b"garbage", "not OpenPGP data"),
        (b"\xff" * (MAX_MESSAGE_BYTES + 1), "at most 65536 are read"),
        (b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nx\n", "a clear-signed text"),
        (b"-----BEGIN PGP MESSAGE-----\n\nAAAA\n-----END PGP MESSAGE-----\n", "it is armoured"),
        (SIGNATURE, "a detached signature"),
        (LITERAL, "nothing signs what is in it"),
        (compressed(LITERAL), "nothing signs what is in it"),
        (ONE_PASS + MESSAGE + SIGNATURE, "it has 2 signatures"),
        (ONE_PASS + LITERAL + LITERAL + SIGNATURE, "not one signed message"),
        (LITERAL + SIGNATURE, "not one signed message"),
        (MESSAGE + MESSAGE, "not one signed message"),
        (MESSAGE + b"x", "not OpenPGP data"),
        (compressed(MESSAGE) + MESSAGE, "followed by"),
        (compressed(MESSAGE) + b"x", "followed by 1 other bytes"),
        (compressed(MESSAGE)[:-9], "it is truncated"),
        (MESSAGE[:-1], "truncated packet"),
        (compressed(compressed(MESSAGE)), "not one signed message"),
        (packet(packets.TAG_COMPRESSED, b"\x03" + bz2.compress(MESSAGE)), "algorithm 3"),
        (packet(packets.TAG_COMPRESSED, b""), "algorithm 0"),
        (packet(packets.TAG_COMPRESSED, b"\x01\xff\xff"), "cannot be decompressed"),
        (compressed(bytes(1 << 20)), "it is too large"),
        (ONE_PASS + literal(BIG) + SIGNATURE, "at most 16384 are read"),
        (ONE_PASS + literal(PAYLOAD, kind=b"t") + SIGNATURE, "not binary data"),
        (ONE_PASS + packet(packets.TAG_LITERAL, b"b\xff") + SIGNATURE, "truncated packet"),
        (ONE_PASS + LITERAL + in_parts(packets.TAG_SIGNATURE, bytes(1000)), "packet in parts"),
        (packet(packets.TAG_PUBLIC_KEY, b"") + MESSAGE, "not one signed message"),
    ],
)
def test_anything_else_is_refused(message: bytes, reason: str) -> None:
    """What is not one binary message around one text, signed once, is refused and says why (SG8)."""
    with pytest.raises(Malformed, match=reason):
        open_message(message)


def test_no_changed_byte_breaks_it() -> None:
    """Whatever one byte becomes, the message is refused or taken apart, and nothing else happens."""
    for message in (
        MESSAGE,
        compressed(MESSAGE),
        ONE_PASS + in_parts(packets.TAG_LITERAL, literal_body(bytes(600))) + SIGNATURE,
    ):
        for position in range(len(message)):
            for value in (0, 0x7F, 0x80, 0xC8, 0xE0, 0xFF, message[position] ^ 1):
                changed = message[:position] + bytes([value]) + message[position + 1 :]
                with contextlib.suppress(Malformed):
                    opened = open_message(changed)
                    assert len(opened.payload) + len(opened.signature) <= len(changed) + 100


def test_every_truncation_is_refused() -> None:
    """A message that misses any part of its end is none."""
    for message in (MESSAGE, compressed(MESSAGE)):
        for length in range(len(message)):
            with pytest.raises(Malformed):
                open_message(message[:length])

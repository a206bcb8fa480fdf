# SPDX-License-Identifier: Apache-2.0
"""Takes a signed OpenPGP message apart: the signed bytes, and the one signature of them.

Simple signing puts a payload into such a message (containers-signature(5)), mostly compressed. It is taken apart by
``rkt-fetch``, which can do nothing with what it finds, and from then on it is what an ACI has: bytes and a detached signature
of them, for a signature of a binary document is one over the content of the literal packet and nothing else. So the same
few lines of ``trust.openpgp`` decide about both, and the bytes that ``gpgv`` hashed are the bytes that are read.

Given to ``gpgv`` as they are, such messages would be refused less often than they should: bytes behind a compressed packet
without a length, a whole second message even, go unnoticed (GnuPG 2.2.40).

Source: RFC 9580, sections 5.4, 5.6, 5.9 and 10.3; containers-signature(5), "OpenPGP signature verification".
"""

from __future__ import annotations

import zlib

from rkt.schema.record import Record
from rkt.trust import packets
from rkt.trust.packets import Malformed

#: Largest message and largest payload, in bytes; real ones have some hundred.
MAX_MESSAGE_BYTES = 64 * 1024
MAX_PAYLOAD_BYTES = 16 * 1024

#: Compression algorithm to the window of zlib: raw deflate, and zlib's own format (RFC 9580, 9.4).
_UNCOMPRESSED = 0
_WINDOWS = {1: -15, 2: 15}
_BINARY = ord("b")
#: What may be in it, outermost first (RFC 9580, 10.3, "Signed Message").
_ONE_PASS = [packets.TAG_ONE_PASS, packets.TAG_LITERAL, packets.TAG_SIGNATURE]
_SIGNATURE_FIRST = [packets.TAG_SIGNATURE, packets.TAG_LITERAL]


class SignedMessage(Record):
    """What was in a message.

    Attributes:
        payload: what is signed.
        signature: the signature packet, whole.
    """

    payload: bytes
    signature: bytes


def open_message(data: bytes) -> SignedMessage:
    """Take a message apart; nothing of it is checked.

    Raises:
        Malformed: it is anything but one binary message around one text, signed once (invariant SG8).
    """
    if not data:
        raise Malformed("it is empty")
    if len(data) > MAX_MESSAGE_BYTES:
        raise Malformed(f"it has {len(data)} bytes, at most {MAX_MESSAGE_BYTES} are read")
    if data.lstrip().startswith(b"-----BEGIN PGP SIGNED MESSAGE-----"):
        raise Malformed("it is a clear-signed text, but a binary signed message is asked for")
    if packets.is_armoured(data):
        raise Malformed("it is armoured, but a binary signed message is asked for")
    found = packets.parse_packets(data, streamed=True)
    if [packet.tag for packet in found] == [packets.TAG_COMPRESSED]:
        found = packets.parse_packets(_decompress(found[0].body), streamed=True)
    tags = [packet.tag for packet in found]
    if tags not in (_ONE_PASS, _SIGNATURE_FIRST):
        raise Malformed(_describe(tags))
    literal = next(packet.body for packet in found if packet.tag == packets.TAG_LITERAL)
    signature = next(packet.raw for packet in found if packet.tag == packets.TAG_SIGNATURE)
    return SignedMessage(payload=_content(literal), signature=signature)


def _describe(tags: list[int]) -> str:
    """Why packets are no message that is signed once."""
    if set(tags) == {packets.TAG_SIGNATURE}:
        return "it is a detached signature, without what it signs"
    if tags == [packets.TAG_LITERAL]:
        return "nothing signs what is in it"
    if tags.count(packets.TAG_SIGNATURE) > 1 and tags.count(packets.TAG_LITERAL) == 1:
        return f"it has {tags.count(packets.TAG_SIGNATURE)} signatures, but exactly one is asked for"
    return (
        f"it is not one signed message: it holds packets with tags {', '.join(str(tag) for tag in tags[:16])}"
    )


def _decompress(body: bytes) -> bytes:
    algorithm = body[0] if body else _UNCOMPRESSED
    if algorithm not in _WINDOWS:
        raise Malformed(f"it is compressed by algorithm {algorithm}, which is not supported")
    # Room for a signature beside the largest payload.
    limit = 2 * MAX_PAYLOAD_BYTES
    decompressor = zlib.decompressobj(_WINDOWS[algorithm])
    try:
        content = decompressor.decompress(body[1:], limit + 1)
    except zlib.error as e:
        raise Malformed(f"it cannot be decompressed: {e}") from None
    if len(content) > limit:
        raise Malformed(f"it is too large: more than {limit} bytes once it is decompressed")
    if not decompressor.eof:
        raise Malformed("it is truncated")
    if decompressor.unused_data:
        raise Malformed(f"it is followed by {len(decompressor.unused_data)} other bytes")
    return content


def _content(body: bytes) -> bytes:
    """What a literal packet holds: behind its kind, a file name and a time, which nothing signs."""
    if len(body) < 2 or len(body) < body[1] + 6:
        raise Malformed("truncated packet")
    if body[0] != _BINARY:
        raise Malformed(f"what is signed is not binary data, but of kind {body[:1]!r}")
    content = body[body[1] + 6 :]
    if len(content) > MAX_PAYLOAD_BYTES:
        raise Malformed(f"what is signed has {len(content)} bytes, at most {MAX_PAYLOAD_BYTES} are read")
    return content

# SPDX-License-Identifier: Apache-2.0
"""OpenPGP framing: ASCII armour, packet headers, and the fields of a signature packet that name its maker.

Only framing is read here, to see what a file consists of before an OpenPGP program gets it, and to see which key claims
to have made a signature. Nothing here is believed: whether a signature is good is said by ``trust.openpgp``.

Source: RFC 9580 (which contains RFC 4880's formats), sections 4.2, 5.2 and 6.
"""

from __future__ import annotations

import binascii

from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

TAG_SIGNATURE = 2
TAG_ONE_PASS = 4
TAG_SECRET_KEY = 5
TAG_PUBLIC_KEY = 6
TAG_SECRET_SUBKEY = 7
TAG_COMPRESSED = 8
TAG_MARKER = 10
TAG_LITERAL = 11
TAG_TRUST = 12
TAG_USER_ID = 13
TAG_PUBLIC_SUBKEY = 14
TAG_USER_ATTRIBUTE = 17
TAG_PADDING = 21

LABEL_SIGNATURE = b"SIGNATURE"
LABEL_PUBLIC_KEY = b"PUBLIC KEY BLOCK"
LABEL_PRIVATE_KEY = b"PRIVATE KEY BLOCK"

#: Public-key algorithms (RFC 9580, 9.1).
ALGORITHM_DSA = 17
#: Hash algorithms that count: SHA-256, -384, -512, SHA3-256, SHA3-512 (RFC 9580, 9.5; invariant SG5).
STRONG_HASHES = {8: "SHA256", 9: "SHA384", 10: "SHA512", 12: "SHA3-256", 14: "SHA3-512"}

#: Kinds of signature (RFC 9580, 5.2.1).
SIGNATURE_BINARY = 0x00
SIGNATURE_CERTIFICATIONS = (0x10, 0x11, 0x12, 0x13)
SIGNATURE_SUBKEY_BINDING = 0x18
SIGNATURE_DIRECT_KEY = 0x1F
SIGNATURE_KEY_REVOCATION = 0x20
SIGNATURE_SUBKEY_REVOCATION = 0x28
SIGNATURE_CERTIFICATION_REVOCATION = 0x30

_SUBPACKET_CREATED = 2
_SUBPACKET_KEY_EXPIRES = 9
_SUBPACKET_ISSUER_KEY_ID = 16
_SUBPACKET_KEY_FLAGS = 27
_SUBPACKET_ISSUER_FINGERPRINT = 33

_CRC24_INITIAL = 0xB704CE
_CRC24_POLYNOMIAL = 0x1864CFB
_MAX_PACKETS = 10_000
_STREAMED = frozenset((TAG_COMPRESSED, TAG_LITERAL))


class Malformed(ValueError):
    """Not OpenPGP data of the expected form; the zone's border turns it into an error for people."""


class Packet(Record):
    """One packet; ``raw`` includes the header."""

    tag: int
    body: bytes
    raw: bytes


class Signature(Record):
    """What a signature packet says about itself.

    Attributes:
        kind: one of ``SIGNATURE_…``.
        created: seconds since the epoch, 0 if absent.
        key_expires_after: seconds after the creation of the key, ``None`` if not said.
        key_flags: first octet of the key flags, ``None`` if absent.
        issuer_fingerprints: hex digits in lower case, hashed and unhashed claims; ``issuer_key_ids`` likewise.
        raw: the packet with its header.
    """

    version: int
    kind: int
    algorithm: int
    hash_algorithm: int
    created: int
    key_expires_after: int | None
    key_flags: int | None
    issuer_fingerprints: list[str]
    issuer_key_ids: list[str]
    raw: bytes

    def is_claimed_by(self, fingerprint: str) -> bool:
        """Whether it says that the key (primary or sub-key) with this fingerprint made it."""
        return fingerprint in self.issuer_fingerprints or key_id(fingerprint) in self.issuer_key_ids

    @property
    def issuer(self) -> str:
        """Fingerprint or key ID of the claimed maker, for messages."""
        return next(iter([*self.issuer_fingerprints, *self.issuer_key_ids]), "unknown")

    @classmethod
    def parse(cls, packet: Packet) -> Self:
        """Read a packet of tag 2.

        Raises:
            Malformed: truncated, or of a version older than 4.
        """
        reader = _Reader(packet.body)
        version = reader.number(1)
        if version not in {4, 5, 6}:
            raise Malformed(f"signature of version {version}")
        kind, algorithm, hash_algorithm = reader.number(1), reader.number(1), reader.number(1)
        width = 4 if version == 6 else 2
        hashed = _subpackets(reader.take(reader.number(width)))
        unhashed = _subpackets(reader.take(reader.number(width)))
        fingerprints, key_ids = [], []
        for subpacket, value in [*hashed, *unhashed]:
            if subpacket == _SUBPACKET_ISSUER_FINGERPRINT and len(value) in {21, 33}:
                fingerprints.append(value[1:].hex())
            elif subpacket == _SUBPACKET_ISSUER_KEY_ID and len(value) == 8:
                key_ids.append(value.hex())
        # Only what is hashed is covered by the signature.
        covered = dict(hashed)
        expires = covered.get(_SUBPACKET_KEY_EXPIRES)
        flags = covered.get(_SUBPACKET_KEY_FLAGS)
        return cls(
            version=version,
            kind=kind,
            algorithm=algorithm,
            hash_algorithm=hash_algorithm,
            created=int.from_bytes(covered.get(_SUBPACKET_CREATED, b""), "big"),
            key_expires_after=None if expires is None else int.from_bytes(expires, "big"),
            key_flags=flags[0] if flags else None,
            issuer_fingerprints=fingerprints,
            issuer_key_ids=key_ids,
            raw=packet.raw,
        )


def key_id(fingerprint: str) -> str:
    """The 16 hex digits that older programs call a key by (RFC 9580, 5.5.4)."""
    return fingerprint[-16:] if len(fingerprint) == 40 else fingerprint[:16]


class _Reader:
    """A cursor that never reads past the end."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        chunk = self.data[self.position : self.position + count]
        if len(chunk) != count:
            raise Malformed("truncated packet")
        self.position += count
        return chunk

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def at_end(self) -> bool:
        return self.position == len(self.data)


def _subpackets(data: bytes) -> list[tuple[int, bytes]]:
    reader = _Reader(data)
    found = []
    while not reader.at_end():
        length = reader.number(1)
        if 192 <= length < 255:
            length = ((length - 192) << 8) + reader.number(1) + 192
        elif length == 255:
            length = reader.number(4)
        if length == 0:
            raise Malformed("empty subpacket")
        content = reader.take(length)
        found.append((content[0] & 0x7F, content[1:]))
    return found


def parse_packets(data: bytes, *, streamed: bool = False) -> list[Packet]:
    """Cut binary data into packets, nothing left over.

    Args:
        data: the packets.
        streamed: packets that hold data may be in parts, or end where the data ends, as who writes to a pipe makes them.

    Raises:
        Malformed: not packets, truncated, or of a length that is not known beforehand.
    """
    reader = _Reader(data)
    packets: list[Packet] = []
    while not reader.at_end():
        start = reader.position
        header = reader.number(1)
        if not header & 0x80:
            raise Malformed("not OpenPGP data")
        if header & 0x40:
            tag = header & 0x3F
            body = _take_new(reader, streamed=streamed and tag in _STREAMED)
        else:
            tag = (header >> 2) & 0x0F
            if header & 3 != 3:
                body = reader.take(reader.number(1 << (header & 3)))
            elif streamed and tag in _STREAMED:
                body = reader.take(len(data) - reader.position)
            else:
                raise Malformed("packet without a length")
        packets.append(Packet(tag=tag, body=body, raw=data[start : reader.position]))
        if len(packets) > _MAX_PACKETS:
            raise Malformed(f"more than {_MAX_PACKETS} packets")
    return packets


def _take_new(reader: _Reader, *, streamed: bool) -> bytes:
    """Length and body of a packet in the new format (RFC 9580, 4.2.1)."""
    parts = []
    while True:
        length = reader.number(1)
        if 192 <= length < 224:
            length = ((length - 192) << 8) + reader.number(1) + 192
        elif length == 255:
            length = reader.number(4)
        elif length >= 224:
            if not streamed:
                raise Malformed("packet in parts")
            parts.append(reader.take(1 << (length & 0x1F)))
            continue
        return b"".join([*parts, reader.take(length)])


def _crc24_table() -> list[int]:
    table = []
    for octet in range(256):
        value = octet << 16
        for _ in range(8):
            value <<= 1
            if value & 0x1000000:
                value ^= _CRC24_POLYNOMIAL
        table.append(value)
    return table


def _crc24(data: bytes) -> int:
    table = _crc24_table()
    value = _CRC24_INITIAL
    for octet in data:
        value = ((value << 8) & 0xFFFFFF) ^ table[(value >> 16) ^ octet]
    return value


def is_armoured(data: bytes) -> bool:
    """Whether the data holds the first line of an armoured block."""
    return data.startswith(b"-----BEGIN PGP ") or b"\n-----BEGIN PGP " in data


def remove_armour(data: bytes, *, text_outside: bool) -> list[tuple[bytes, bytes]]:
    """The armoured blocks of a file.

    Args:
        data: the whole file.
        text_outside: whether lines before, between and after the blocks are tolerated; headers never matter.

    Returns:
        tuples (label, binary content), the label without ``BEGIN PGP`` and dashes.

    Raises:
        Malformed: a block is not closed, has a wrong checksum, is not base64, or there is text outside.
    """
    blocks = []
    lines = iter(data.replace(b"\r\n", b"\n").split(b"\n"))
    for line in lines:
        text = line.rstrip()
        if not (text.startswith(b"-----BEGIN PGP ") and text.endswith(b"-----")):
            if text and not text_outside:
                raise Malformed("text outside the armour")
            continue
        label = text[len(b"-----BEGIN PGP ") : -len(b"-----")]
        for header in lines:
            if not header.strip():
                break
            if b":" not in header:
                raise Malformed("armour without an empty line after its headers")
        encoded = []
        checksum = None
        for content in lines:
            text = content.strip()
            if text.startswith(b"-----"):
                break
            if checksum is not None and text:
                raise Malformed("text after the armour's checksum")
            if text.startswith(b"="):
                checksum = text[1:]
            else:
                encoded.append(text)
        if text != b"-----END PGP " + label + b"-----":
            raise Malformed("armour is not closed")
        try:
            binary = binascii.a2b_base64(b"".join(encoded), strict_mode=True)
            if checksum is not None and binascii.a2b_base64(checksum, strict_mode=True) != _crc24(
                binary
            ).to_bytes(3, "big"):
                raise Malformed("armour has a wrong checksum")
        except binascii.Error as e:
            raise Malformed(f"armour is not base64: {e}") from None
        blocks.append((label, binary))
    return blocks


def armour(data: bytes, label: bytes) -> bytes:
    """ASCII armour around binary data."""
    encoded = binascii.b2a_base64(data, newline=False)
    lines = [encoded[i : i + 64] for i in range(0, len(encoded), 64)]
    checksum = binascii.b2a_base64(_crc24(data).to_bytes(3, "big"), newline=False)
    return b"\n".join(
        [
            b"-----BEGIN PGP " + label + b"-----",
            b"",
            *lines,
            b"=" + checksum,
            b"-----END PGP " + label + b"-----",
            b"",
        ]
    )


def parse_detached_signatures(data: bytes) -> list[Signature]:
    """The signatures of a detached signature file, armoured or binary.

    Signatures of unknown form (version 3, truncated fields) are left out: they can never count.

    Raises:
        Malformed: the file is empty, or holds anything but signature packets (invariant SG8).
    """
    if is_armoured(data):
        blocks = remove_armour(data, text_outside=False)
        if any(label != LABEL_SIGNATURE for label, _ in blocks):
            raise Malformed("not a detached signature")
        data = b"".join(content for _, content in blocks)
    packets = parse_packets(data)
    if not packets:
        raise Malformed("empty")
    for packet in packets:
        if packet.tag != TAG_SIGNATURE:
            raise Malformed(f"not a detached signature: it holds a packet with tag {packet.tag}")
    signatures = []
    for packet in packets:
        try:
            signatures.append(Signature.parse(packet))
        except Malformed:
            continue
    return signatures

# SPDX-License-Identifier: Apache-2.0
"""OpenPGP keys, signatures and messages that GnuPG would not make, byte by byte, with real cryptography; milliseconds each."""

from __future__ import annotations

import hashlib
import time
import zlib
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

SIGNATURE, ONE_PASS, PUBLIC_KEY, COMPRESSED, LITERAL, USER_ID = 2, 4, 6, 8, 11, 13
#: Subpackets (RFC 9580, 5.2.3.7).
CREATED, EXPIRES, KEY_EXPIRES, ISSUER, NOTATION, POLICY, FLAGS, SIGNER, FINGERPRINT = (
    *(2, 3, 9, 16, 20, 26, 27, 28),
    33,
)
BINARY, CERTIFICATION, REVOCATION = 0x00, 0x13, 0x20
_EDDSA = 22
_ED25519 = bytes.fromhex("092b06010401da470f01")
#: OpenPGP's number of a hash algorithm to its name.
HASHES = {2: "sha1", 8: "sha256", 10: "sha512"}
SHA1, SHA256, SHA512 = tuple(HASHES)


def packet(tag: int, body: bytes) -> bytes:
    """In the new format, with a length of five octets."""
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body


def subpacket(kind: int, content: bytes) -> bytes:
    """Part of what a signature says about itself."""
    return b"\xff" + (len(content) + 1).to_bytes(4, "big") + bytes([kind]) + content


def notation(name: bytes, value: bytes) -> bytes:
    """One that is said to be text for people."""
    head = b"\x80\0\0\0" + len(name).to_bytes(2, "big") + len(value).to_bytes(2, "big")
    return subpacket(NOTATION, head + name + value)


def literal(content: bytes, *, kind: bytes = b"b", name: bytes = b"") -> bytes:
    """A packet of data, with the name of the file that they are from."""
    return packet(LITERAL, literal_body(content, kind=kind, name=name))


def literal_body(content: bytes, *, kind: bytes = b"b", name: bytes = b"") -> bytes:
    """What is in such a packet."""
    return kind + bytes([len(name)]) + name + bytes(4) + content


def compressed(data: bytes) -> bytes:
    """A packet that ends where the data ends, as GnuPG writes it."""
    compressor = zlib.compressobj(wbits=-15)
    return b"\xa3\x01" + compressor.compress(data) + compressor.flush()


def _integer(data: bytes) -> bytes:
    number = int.from_bytes(data, "big")
    return number.bit_length().to_bytes(2, "big") + number.to_bytes((number.bit_length() + 7) // 8, "big")


class Signer:
    """An Ed25519 key of version 4 with one identity.

    Attributes:
        fingerprint: in lower case.
        public: the key as a binary file holds it.
    """

    def __init__(
        self,
        identity: bytes,
        *,
        certify_hash: int = SHA512,
        says: Sequence[bytes] = (),
        revoked: bool = False,
    ) -> None:
        """``says`` are more subpackets of the signature that binds the identity."""
        self._key = Ed25519PrivateKey.generate()
        self.created = int(time.time()) - 100_000
        point = b"\x40" + self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        body = b"\x04" + self.created.to_bytes(4, "big") + bytes([_EDDSA]) + _ED25519 + _integer(point)
        head = b"\x99" + len(body).to_bytes(2, "big") + body
        self.fingerprint = hashlib.sha1(head, usedforsecurity=False).hexdigest()
        named = b"\xb4" + len(identity).to_bytes(4, "big") + identity
        bound = self._sign(head + named, CERTIFICATION, [*says, subpacket(FLAGS, b"\x03")], certify_hash)
        self.public = (
            packet(PUBLIC_KEY, body)
            + (self._sign(head, REVOCATION, [], SHA512) if revoked else b"")
            + packet(USER_ID, identity)
            + bound
        )

    def sign(
        self, data: bytes, *says: bytes, kind: int = BINARY, digest: int = SHA512, unhashed: bytes = b""
    ) -> bytes:
        """A detached signature; ``says`` are more of its subpackets, ``unhashed`` those that it does not cover."""
        return self._sign(data, kind, says, digest, unhashed)

    def message(self, data: bytes, *says: bytes, name: bytes = b"", digest: int = SHA512) -> bytes:
        """A signed message around the data."""
        one_pass = bytes([3, BINARY, digest, _EDDSA]) + bytes.fromhex(self.fingerprint[-16:]) + b"\x01"
        return packet(ONE_PASS, one_pass) + literal(data, name=name) + self.sign(data, *says, digest=digest)

    def _sign(
        self, data: bytes, kind: int, says: Sequence[bytes], digest: int, unhashed: bytes = b""
    ) -> bytes:
        # Of two subpackets of a kind GnuPG takes the first.
        covered = b"".join(
            [
                *says,
                subpacket(CREATED, (self.created + 1000).to_bytes(4, "big")),
                subpacket(FINGERPRINT, b"\x04" + bytes.fromhex(self.fingerprint)),
            ]
        )
        head = bytes([4, kind, _EDDSA, digest]) + len(covered).to_bytes(2, "big") + covered
        found = hashlib.new(HASHES[digest], data + head + b"\x04\xff" + len(head).to_bytes(4, "big")).digest()
        signature = self._key.sign(found)
        rest = subpacket(ISSUER, bytes.fromhex(self.fingerprint[-16:])) + unhashed
        return packet(
            SIGNATURE,
            b"".join(
                (
                    head,
                    len(rest).to_bytes(2, "big"),
                    rest,
                    found[:2],
                    _integer(signature[:32]),
                    _integer(signature[32:]),
                )
            ),
        )

# SPDX-License-Identifier: Apache-2.0
"""NaCl's secret box: XSalsa20 and Poly1305, in which cosign keeps private keys; no installed library of ours has Salsa20.

A few hundred bytes at a time, in the process of whoever owns the key. Sources: D. J. Bernstein, "Salsa20 specification"
and "Cryptography in NaCl", whose example is a test.
"""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.poly1305 import Poly1305

KEY_BYTES = 32
NONCE_BYTES = 24
_TAG_BYTES = 16
_BLOCK_BYTES = 64
_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
_MASK = 0xFFFFFFFF
#: Columns, then rows, of the four by four words of the state.
_QUARTERS = (
    (0, 4, 8, 12),
    (5, 9, 13, 1),
    (10, 14, 2, 6),
    (15, 3, 7, 11),
    (0, 1, 2, 3),
    (5, 6, 7, 4),
    (10, 11, 8, 9),
    (15, 12, 13, 14),
)


def seal(key: bytes, nonce: bytes, message: bytes) -> bytes:
    """Tag and cipher text of a message."""
    one_time, cipher = _apply(key, nonce, message)
    return Poly1305.generate_tag(one_time, cipher) + cipher


def open_box(key: bytes, nonce: bytes, box: bytes) -> bytes:
    """The message of ``seal``.

    Raises:
        ValueError: another key, or other bytes.
    """
    tag, cipher = box[:_TAG_BYTES], box[_TAG_BYTES:]
    one_time, message = _apply(key, nonce, cipher)
    try:
        Poly1305.verify_tag(one_time, cipher, tag)
    except InvalidSignature:
        raise ValueError("wrong key") from None
    return message


def _apply(key: bytes, nonce: bytes, data: bytes) -> tuple[bytes, bytes]:
    """The key of Poly1305, and the data with the rest of the stream over it."""
    words = _rounds(_state(key, nonce[:16]))
    sub_key = struct.pack("<8I", *(words[i] for i in (0, 5, 10, 15, 6, 7, 8, 9)))
    stream = b""
    for counter in range(-(-(len(data) + 32) // _BLOCK_BYTES)):
        state = _state(sub_key, nonce[16:] + struct.pack("<Q", counter))
        words = [(a + b) & _MASK for a, b in zip(_rounds(state), state, strict=True)]
        stream += struct.pack("<16I", *words)
    return stream[:32], bytes(a ^ b for a, b in zip(data, stream[32:], strict=False))


def _state(key: bytes, middle: bytes) -> list[int]:
    k, m = struct.unpack("<8I", key), struct.unpack("<4I", middle)
    return [_SIGMA[0], *k[:4], _SIGMA[1], *m, _SIGMA[2], *k[4:], _SIGMA[3]]


def _rounds(state: list[int]) -> list[int]:
    x = list(state)
    for _ in range(10):
        for a, b, c, d in _QUARTERS:
            x[b] ^= _rotate(x[a] + x[d], 7)
            x[c] ^= _rotate(x[b] + x[a], 9)
            x[d] ^= _rotate(x[c] + x[b], 13)
            x[a] ^= _rotate(x[d] + x[c], 18)
    return x


def _rotate(value: int, count: int) -> int:
    value &= _MASK
    return (value << count | value >> 32 - count) & _MASK

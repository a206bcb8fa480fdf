# SPDX-License-Identifier: Apache-2.0
"""Small random changes of inputs that are known, the same ones for the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence


def changed(source: random.Random, data: bytes, others: Sequence[bytes], pieces: Sequence[bytes]) -> bytes:
    """``data`` with a few pieces cut, copied, swapped or put in."""
    value = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(value) + 1)
        end = min(len(value), at + source.choice((0, 1, 2, 8, 40)))
        match source.randrange(5):
            case 0 if pieces:
                value[at:end] = source.choice(pieces)
            case 1:
                del value[at:end]
            case 2:
                other = source.choice(others)
                start = source.randrange(len(other) + 1)
                value[at:at] = other[start : start + source.randint(1, 60)]
            case 3:
                value[at:end] = value[at:end] * source.randint(2, 5)
            case _:
                if at < len(value):
                    value[at] ^= 1 << source.randrange(8)
    return bytes(value)

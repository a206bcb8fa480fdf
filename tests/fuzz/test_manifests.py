# SPDX-License-Identifier: Apache-2.0
"""Bytes that nobody meant: the manifest parsers answer with a record or with ``InvalidManifest``, and quickly.

The corpus is in ``tests/data/fuzz``. For a longer run: ``RKT_FUZZ_ROUNDS=100000 pytest tests/fuzz``.
"""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rkt.errors import InvalidManifest
from rkt.schema import jsontext
from rkt.schema.appc import parse_image_manifest, parse_pod_manifest

CORPUS = Path(__file__).parent.parent / "data" / "fuzz"
ROUNDS = int(os.environ.get("RKT_FUZZ_ROUNDS", "2000"))
#: Longest time that one small document may take.
PATIENCE_SECONDS = 1.0
PARSERS: dict[str, Callable[[bytes], Any]] = {
    "image-manifest": parse_image_manifest,
    "pod-manifest": parse_pod_manifest,
}
#: What breaks parsers: structure, names, numbers, and text that is none.
PIECES = (
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u0000", b"\\ud800", b"\0", b"\xff", b"\xef\xbb\xbf",
    b"null", b"true", b"-1", b"0", b"1e999", b"1e-999", b"4294967295", b"18446744073709551616", b"9" * 400, b"NaN",
    b'""', b"[]", b"{}", b'"name"', b'"NAME"', b'"acKind"', b'"ackind"', b'"value"', b'"app"', b'"set"',
    b'"../../etc"', b'"a//b"', b'"sha512-"', b'"CAP_"', b'"@appc.io/all"', b"[" * 70, b'{"a":' * 70,
)  # fmt: skip


def samples(kind: str) -> list[bytes]:
    """The corpus of one parser."""
    return [path.read_bytes() for path in sorted((CORPUS / kind).iterdir())]


def mutated(source: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """``data`` with a few pieces cut, copied, swapped or put in."""
    value = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(value) + 1)
        end = min(len(value), at + source.choice((0, 1, 2, 8, 40)))
        match source.randrange(5):
            case 0:
                value[at:end] = source.choice(PIECES)
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


@pytest.mark.parametrize("kind", PARSERS)
def test_corpus_is_alive(kind: str) -> None:
    """The corpus holds documents that are accepted and others that are refused."""
    verdicts = set()
    for data in samples(kind):
        try:
            PARSERS[kind](data)
            verdicts.add("accepted")
        except InvalidManifest:
            verdicts.add("refused")
    assert verdicts == {"accepted", "refused"}


@pytest.mark.parametrize("kind", PARSERS)
def test_mutations(kind: str) -> None:
    """No mutation escapes as another exception, takes long, or is accepted but cannot be written and read again."""
    parse = PARSERS[kind]
    corpus = samples(kind)
    source = random.Random(20)
    accepted = 0
    messages: list[str] = []
    for _ in range(ROUNDS):
        data = mutated(source, source.choice(corpus), corpus)
        start = time.monotonic()
        try:
            manifest = parse(data)
        except InvalidManifest as e:
            messages.append(str(e))
            continue
        finally:
            assert time.monotonic() - start < PATIENCE_SECONDS, data
        accepted += 1
        assert parse(jsontext.dump(manifest.to_json()).encode()) == manifest, data
    assert accepted > ROUNDS // 100
    assert not [message for message in messages if not message.isprintable() or len(message) > 1000]

# SPDX-License-Identifier: Apache-2.0
"""Framing of OpenPGP files: what counts as a detached signature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rkt.trust import packets
from rkt.trust.packets import Malformed
from tests.lib.keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = b"signed bytes\n"


@pytest.fixture(scope="module")
def files() -> Iterator[dict[str, bytes]]:
    """Files made by GnuPG, by what they are."""
    with KeyRing() as ring:
        key = ring.make("one@example.com")
        other = ring.make("two@example.com", "rsa2048")
        yield {
            "fingerprint": key.fingerprint.encode(),
            "armoured": ring.sign(key, DATA),
            "binary": ring.sign(key, DATA, armour=False),
            "other": ring.sign(other, DATA, armour=False),
            "inline": ring.sign(key, DATA, armour=False, mode="--sign"),
            "clear": ring.sign(key, DATA, mode="--clearsign"),
            "key": ring.export(key),
            "key binary": ring.export(key, armour=False),
        }


@pytest.mark.parametrize("form", ["armoured", "binary"])
def test_detached_signature_is_read(files: dict[str, bytes], form: str) -> None:
    """A detached signature names its maker, its kind and its hash, armoured or not."""
    (signature,) = packets.parse_detached_signatures(files[form])
    assert signature.issuer_fingerprints == [files["fingerprint"].decode()]
    assert (signature.kind, signature.hash_algorithm) == (packets.SIGNATURE_BINARY, 10)


def test_several_signatures_are_read(files: dict[str, bytes]) -> None:
    """Signatures one after the other, or armoured blocks one after the other, are all read."""
    assert len(packets.parse_detached_signatures(files["binary"] + files["other"])) == 2
    assert len(packets.parse_detached_signatures(files["armoured"] + b"\n" + files["armoured"])) == 2


@pytest.mark.parametrize("form", ["inline", "clear", "key", "key binary"])
def test_other_openpgp_messages_are_no_detached_signature(files: dict[str, bytes], form: str) -> None:
    """Messages that carry their own text, and keys, are refused (SG8)."""
    with pytest.raises(Malformed):
        packets.parse_detached_signatures(files[form])


@pytest.mark.parametrize(
    ("form", "head", "tail"),
    [
        ("binary", b"", b"x"),
        ("binary", b"", b"\xcb\x03tx"),
        ("binary", b"\xca\x03PGP", b""),
        ("armoured", b"Believe me\n", b""),
        ("armoured", b"", b"and this too\n"),
    ],
)
def test_anything_beside_signatures_is_refused(
    files: dict[str, bytes], form: str, head: bytes, tail: bytes
) -> None:
    """Leading and trailing data, and packets of other kinds, make the file unusable (SG8)."""
    with pytest.raises(Malformed):
        packets.parse_detached_signatures(head + files[form] + tail)


@pytest.mark.parametrize(
    "data", [b"", b"\n \n", b"garbage", b"\x88", b"\xff" * 100, b"-----BEGIN PGP SIGNATURE-----\n"]
)
def test_garbage_is_refused(data: bytes) -> None:
    """Empty files and noise are refused, not crashed on (SG6)."""
    with pytest.raises(Malformed):
        packets.parse_detached_signatures(data)


def test_every_truncation_is_refused_or_harmless(files: dict[str, bytes]) -> None:
    """No prefix of a signature file yields a signature."""
    whole = files["binary"]
    for length in range(len(whole)):
        with pytest.raises(Malformed):
            packets.parse_detached_signatures(whole[:length])


def test_armour_with_a_wrong_checksum_is_refused(files: dict[str, bytes]) -> None:
    """The checksum of the armour is looked at."""
    block = packets.armour(files["binary"], packets.LABEL_SIGNATURE)
    assert packets.remove_armour(block, text_outside=False) == [(packets.LABEL_SIGNATURE, files["binary"])]
    at = block.index(b"\n=") + 2
    broken = block[:at] + (b"A" if block[at : at + 1] != b"A" else b"B") + block[at + 1 :]
    with pytest.raises(Malformed, match="checksum"):
        packets.remove_armour(broken, text_outside=False)


def test_armour_headers_mean_nothing(files: dict[str, bytes]) -> None:
    """A header of the armour changes nothing in what is read (SG8)."""
    block = files["armoured"].replace(b"-----\n\n", b"-----\nHash: MD5\nComment: trust me\n\n", 1)
    assert packets.parse_detached_signatures(block) == packets.parse_detached_signatures(files["armoured"])


def test_packet_in_parts_is_refused() -> None:
    """Packets of a length that is not known beforehand are refused."""
    for header in (b"\xc2\xe0", b"\x8b"):
        with pytest.raises(Malformed):
            packets.parse_packets(header + b"x" * 10)

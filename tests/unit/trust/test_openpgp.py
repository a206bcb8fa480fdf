# SPDX-License-Identifier: Apache-2.0
"""Which signatures are good, with real keys and the real program."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from rkt.errors import CannotVerify, SignatureMismatch
from rkt.trust import openpgp
from rkt.trust.keys import parse_keys
from rkt.trust.keystore import TrustedKey
from rkt.trust.openpgp import choose_signatures, judge_status, verify_detached
from tests.lib.keys import LONG_AGO, Key, KeyRing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = b"an image, more or less\n" * 1000


@pytest.fixture(scope="module")
def ring() -> Iterator[KeyRing]:
    """A key ring for the module."""
    with KeyRing() as made:
        yield made


@pytest.fixture(scope="module")
def alice(ring: KeyRing) -> Key:
    """A good key."""
    return ring.make("Alice <alice@example.com>")


@pytest.fixture(scope="module")
def bob(ring: KeyRing) -> Key:
    """Another good key."""
    return ring.make("Bob <bob@example.com>", "rsa2048")


@pytest.fixture
def blob(tmp_path: Path) -> str:
    """The signed file."""
    path = tmp_path / "blob"
    path.write_bytes(DATA)
    return str(path)


def trusted(ring: KeyRing, *keys: Key) -> list[TrustedKey]:
    """Keys as the key store gives them."""
    return [
        TrustedKey(key=key, path="", rule="root")
        for key in parse_keys(ring.export(*keys, armour=False), what="keys")
    ]


@pytest.mark.parametrize("armour", [True, False])
@pytest.mark.parametrize("digest", ["SHA256", "SHA384", "SHA512"])
def test_good_signature_is_verified(
    ring: KeyRing, alice: Key, bob: Key, blob: str, digest: str, *, armour: bool
) -> None:
    """A signature by a key that counts is good, and says by whom and when."""
    signature = ring.sign(alice, DATA, armour=armour, digest=digest)
    verified = verify_detached(blob, signature, trusted(ring, bob, alice))
    assert verified.fingerprint == verified.signing_fingerprint == alice.fingerprint
    assert verified.identities == ["Alice <alice@example.com>"]
    assert verified.rule == "root"
    assert abs(verified.signed_at - time.time()) < 300


def test_open_file_is_verified_without_moving_its_offset(ring: KeyRing, bob: Key, blob: str) -> None:
    """A descriptor may be open for writing and at any offset."""
    fd = os.open(blob, os.O_RDWR)
    try:
        os.lseek(fd, 7, os.SEEK_SET)
        assert verify_detached(fd, ring.sign(bob, DATA), trusted(ring, bob)).fingerprint == bob.fingerprint
        assert os.lseek(fd, 0, os.SEEK_CUR) == 7
    finally:
        os.close(fd)


def test_signature_by_a_subkey_counts_for_its_primary_key(ring: KeyRing, blob: str) -> None:
    """The verdict names the primary key, which is what was trusted."""
    key = ring.make("subkey@example.com", usage="cert")
    ring.add_subkey(key)
    verified = verify_detached(blob, ring.sign(key, DATA), trusted(ring, key))
    assert verified.fingerprint == key.fingerprint
    assert verified.signing_fingerprint != key.fingerprint


def test_unknown_signer_is_refused(ring: KeyRing, alice: Key, bob: Key, blob: str) -> None:
    """A signature by a key that does not count is by an unknown entity, whatever other keys count."""
    signature = ring.sign(alice, DATA)
    for keys in (trusted(ring, bob), []):
        with pytest.raises(CannotVerify, match="openpgp: signature made by unknown entity"):
            verify_detached(blob, signature, keys)
        with pytest.raises(CannotVerify, match="openpgp: signature made by unknown entity"):
            choose_signatures(signature, keys)


@pytest.mark.parametrize("position", [0, 5000, -1])
def test_flipped_byte_is_a_mismatch(ring: KeyRing, alice: Key, tmp_path: Path, position: int) -> None:
    """One changed byte anywhere makes the signature wrong."""
    changed = bytearray(DATA)
    changed[position] ^= 1
    path = tmp_path / "changed"
    path.write_bytes(changed)
    with pytest.raises(SignatureMismatch, match="changed after it was signed"):
        verify_detached(str(path), ring.sign(alice, DATA), trusted(ring, alice))


def test_appended_and_missing_bytes_are_a_mismatch(ring: KeyRing, alice: Key, tmp_path: Path) -> None:
    """The whole file is covered, no more and no less."""
    signature = ring.sign(alice, DATA)
    path = tmp_path / "other"
    for content in (DATA + b"\0", DATA[:-1], b""):
        path.write_bytes(content)
        with pytest.raises(SignatureMismatch):
            verify_detached(str(path), signature, trusted(ring, alice))


def test_expired_key_is_refused_though_it_signed_in_time(ring: KeyRing, blob: str) -> None:
    """The program exits 0 for it; we do not (SG4)."""
    key = ring.make_expired("expired@example.com")
    signature = ring.sign(key, DATA, when=LONG_AGO)
    with pytest.raises(CannotVerify, match="expired on 2020-12-31"):
        verify_detached(blob, signature, trusted(ring, key))


def test_key_whose_file_hides_its_expiry_is_refused_by_the_program(
    ring: KeyRing, blob: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cryptographic check stands on its own: without our reading of the key, its status lines refuse it (SG4)."""
    monkeypatch.setattr("rkt.trust.keys.PublicKey.problem", lambda *_: "")
    expired = ring.make_expired("expired2@example.com")
    with pytest.raises(CannotVerify, match="the key has expired"):
        verify_detached(blob, ring.sign(expired, DATA, when=LONG_AGO), trusted(ring, expired))
    revoked = ring.make("revoked2@example.com")
    signature = ring.sign(revoked, DATA)
    ring.revoke(revoked)
    with pytest.raises(CannotVerify, match="the key is revoked"):
        verify_detached(blob, signature, trusted(ring, revoked))
    weak = ring.make("weak2@example.com", certify_hash="SHA1")
    with pytest.raises(CannotVerify, match="gpgv does not call it good"):
        verify_detached(blob, ring.sign(weak, DATA), trusted(ring, weak))


def test_revoked_key_is_refused(ring: KeyRing, blob: str) -> None:
    """A signature made before the revocation does not count either (SG4)."""
    key = ring.make("revoked@example.com")
    signature = ring.sign(key, DATA)
    assert verify_detached(blob, signature, trusted(ring, key)).fingerprint == key.fingerprint
    ring.revoke(key)
    with pytest.raises(CannotVerify, match="the key is revoked"):
        verify_detached(blob, signature, trusted(ring, key))


def test_weak_keys_and_digests_are_refused(ring: KeyRing, alice: Key, blob: str) -> None:
    """SHA-1, small RSA and DSA do not count (SG5)."""
    with pytest.raises(CannotVerify, match="SHA-256 or better"):
        verify_detached(blob, ring.sign(alice, DATA, digest="SHA1"), trusted(ring, alice))
    for algorithm in ("rsa1024", "dsa2048"):
        key = ring.make(f"{algorithm}@example.com", algorithm)
        with pytest.raises(CannotVerify, match="the key is weak"):
            verify_detached(blob, ring.sign(key, DATA, digest="SHA256"), trusted(ring, key))


def test_weak_subkey_of_a_strong_key_is_refused(ring: KeyRing, blob: str) -> None:
    """What counts is the key that made the signature (SG5)."""
    key = ring.make("weak-subkey@example.com", usage="cert")
    ring.add_subkey(key, "rsa1024")
    with pytest.raises(CannotVerify, match="sub-key is weak"):
        verify_detached(blob, ring.sign(key, DATA, digest="SHA256"), trusted(ring, key))


def test_text_signature_is_refused(ring: KeyRing, alice: Key, blob: str) -> None:
    """A signature over text ignores line endings, so it does not cover the bytes."""
    signature = ring.gpg("--textmode", f"--local-user={alice.fingerprint}", "--detach-sign", stdin=DATA)
    with pytest.raises(CannotVerify, match="class 01"):
        verify_detached(blob, signature, trusted(ring, alice))


@pytest.mark.parametrize("mode", ["--sign", "--clearsign"])
def test_messages_that_carry_their_text_are_refused(ring: KeyRing, alice: Key, blob: str, mode: str) -> None:
    """Only detached signatures count (SG8)."""
    for armour in (True, False):
        with pytest.raises(CannotVerify, match="keystore: no valid signatures found in signature file"):
            verify_detached(blob, ring.sign(alice, DATA, armour=armour, mode=mode), trusted(ring, alice))


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x00" * 100_000])
def test_garbage_is_refused(ring: KeyRing, alice: Key, blob: str, data: bytes) -> None:
    """Empty, unreadable and oversized signature files have one message (SG6)."""
    with pytest.raises(CannotVerify, match="keystore: no valid signatures found in signature file"):
        verify_detached(blob, data, trusted(ring, alice))


def test_one_good_signature_of_several_suffices(ring: KeyRing, alice: Key, bob: Key, blob: str) -> None:
    """Unknown signers and different digests beside it do not matter, in either order."""
    by_alice = ring.sign(alice, DATA, armour=False, digest="SHA256")
    by_bob = ring.sign(bob, DATA, armour=False, digest="SHA512")
    for signature in (by_alice + by_bob, by_bob + by_alice):
        for key in (alice, bob):
            assert verify_detached(blob, signature, trusted(ring, key)).fingerprint == key.fingerprint


def test_expired_signer_beside_a_good_one_does_not_matter(ring: KeyRing, alice: Key, blob: str) -> None:
    """A signature that merely does not count leaves the good one good."""
    expired = ring.make_expired("expired3@example.com")
    signature = ring.sign(expired, DATA, armour=False, when=LONG_AGO) + ring.sign(alice, DATA, armour=False)
    assert verify_detached(blob, signature, trusted(ring, expired, alice)).fingerprint == alice.fingerprint


def test_wrong_signature_by_a_key_that_counts_refuses_all(
    ring: KeyRing, alice: Key, bob: Key, blob: str
) -> None:
    """A key that counts and contradicts is not outvoted; one that does not count has no say."""
    signature = ring.sign(alice, DATA, armour=False) + ring.sign(bob, b"other", armour=False)
    with pytest.raises(SignatureMismatch):
        verify_detached(blob, signature, trusted(ring, alice, bob))
    assert verify_detached(blob, signature, trusted(ring, alice)).fingerprint == alice.fingerprint


def test_too_many_signatures_are_refused(ring: KeyRing, alice: Key, blob: str) -> None:
    """The number of passes over an image is bounded."""
    signature = ring.sign(alice, DATA, armour=False) * (openpgp.MAX_SIGNATURES + 1)
    with pytest.raises(CannotVerify, match="at most"):
        verify_detached(blob, signature, trusted(ring, alice))


def test_signature_from_the_future_is_refused(ring: KeyRing, alice: Key, blob: str) -> None:
    """The time of the signature is looked at (SG4)."""
    signature = ring.sign(alice, DATA)
    with pytest.raises(CannotVerify, match="future"):
        verify_detached(blob, signature, trusted(ring, alice), now=int(time.time()) - 10 * 86400)


def test_missing_blob_is_refused(ring: KeyRing, alice: Key, tmp_path: Path) -> None:
    """A file that cannot be read is not verified."""
    with pytest.raises(CannotVerify, match="absent"):
        verify_detached(str(tmp_path / "absent"), ring.sign(alice, DATA), trusted(ring, alice))


def good_status(key: Key) -> bytes:
    """What gpgv says of a good signature."""
    fingerprint = key.fingerprint.upper()
    return (
        f"[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG {fingerprint[-16:]} Alice\n"
        f"[GNUPG:] VALIDSIG {fingerprint} 2026-01-01 1767225600 0 4 0 22 10 00 {fingerprint}\n"
    ).encode()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"", b""),
        (b"GOODSIG", b"EXPKEYSIG"),
        (b"GOODSIG", b"EXPSIG"),
        (b"GOODSIG", b"REVKEYSIG"),
        (b"GOODSIG", b"GOODSIGX"),
        (b"[GNUPG:] GOODSIG", b"gpgv: GOODSIG"),
        (b"VALIDSIG", b"TRUST_FULLY"),
        (b" 10 00 ", b" 2 00 "),
        (b" 10 00 ", b" 10 01 "),
        (b" 10 00 ", b" 10 "),
        (b"1767225600", b"x"),
        (b"1767225600", b"99999999999"),
        (b"NEWSIG\n", b"NEWSIG\n[GNUPG:] KEYREVOKED\n"),
        (b"NEWSIG\n", b"NEWSIG\n[GNUPG:] ERRSIG 0 1 2 00 0 9\n"),
        (b"NEWSIG\n", b"NEWSIG\n[GNUPG:] SOMETHING_NEW\n"),
        (b"NEWSIG\n", b"NEWSIG\n[GNUPG:] GOODSIG 0 Eve\n"),
        (b"NEWSIG\n", b"NEWSIG\nnot a status line\n"),
    ],
)
def test_status_is_read_exactly(ring: KeyRing, alice: Key, old: bytes, new: bytes) -> None:
    """Any line that a good signature does not have, and any that is missing, refuses it (SG4, SG9)."""
    (key,) = trusted(ring, alice)
    now = int(time.time())
    assert judge_status(good_status(alice), 0, key, now).fingerprint == alice.fingerprint
    output = good_status(alice).replace(old, new) if old else b""
    with pytest.raises(openpgp._NotGood):
        judge_status(output, 0, key, now)


def test_exit_status_alone_never_decides(ring: KeyRing, alice: Key, bob: Key) -> None:
    """Good lines with a failed program are refused, and so are good lines about another key."""
    (key,) = trusted(ring, alice)
    for output, exit_status in (
        (good_status(alice), 1),
        (good_status(alice), -9),
        (good_status(bob), 0),
        (b"", 0),
    ):
        with pytest.raises(openpgp._NotGood):
            judge_status(output, exit_status, key, int(time.time()))


def test_bad_signature_status_is_a_mismatch(ring: KeyRing, alice: Key) -> None:
    """BADSIG outweighs everything else that is said."""
    (key,) = trusted(ring, alice)
    with pytest.raises(SignatureMismatch):
        judge_status(good_status(alice) + b"[GNUPG:] BADSIG 0 Alice\n", 0, key, int(time.time()))


def test_identity_cannot_forge_status_lines(ring: KeyRing, blob: str) -> None:
    """An identity with line feeds and status words stays one argument of one line (SG9)."""
    liar = ring.make("liar [GNUPG:] GOODSIG <liar@example.com>")
    (key,) = trusted(ring, liar)
    assert verify_detached(blob, ring.sign(liar, DATA), [key]).fingerprint == liar.fingerprint
    with pytest.raises(SignatureMismatch):
        verify_detached(blob, ring.sign(liar, b"other"), [key])

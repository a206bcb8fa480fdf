# SPDX-License-Identifier: Apache-2.0
"""What is read from files of public keys, and which keys are unsuitable."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from rkt.errors import ConfigError
from rkt.trust.keys import group_fingerprint, load_keys, parse_keys
from tests.lib.keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def ring() -> Iterator[KeyRing]:
    """A key ring for the module."""
    with KeyRing() as made:
        yield made


def now() -> int:
    """The time."""
    return int(time.time())


@pytest.mark.parametrize("algorithm", ["ed25519", "rsa2048", "nistp256"])
def test_suitable_keys_have_no_problem(ring: KeyRing, algorithm: str) -> None:
    """Fingerprint, algorithm and identity are those GnuPG made, and the key may be trusted."""
    made = ring.make(f"Good One <good-{algorithm}@example.com>", algorithm)
    (key,) = parse_keys(ring.export(made), what="file")
    assert key.fingerprint == made.fingerprint
    assert key.primary.algorithm == algorithm
    assert key.identities == [made.address]
    assert not key.problem(now())


def test_binary_and_armoured_files_are_the_same(ring: KeyRing) -> None:
    """The form of the file does not matter, and what is written back is read as the same key."""
    made = ring.make("form@example.com")
    armoured = parse_keys(ring.export(made), what="file")
    assert parse_keys(ring.export(made, armour=False), what="file") == armoured
    assert parse_keys(armoured[0].to_armour(), what="file") == armoured


def test_subkeys_are_listed(ring: KeyRing) -> None:
    """Sub-keys are shown and belong to the primary key."""
    made = ring.make("with-subkey@example.com", usage="cert")
    ring.add_subkey(made)
    (key,) = parse_keys(ring.export(made), what="file")
    assert [subkey.algorithm for subkey in key.subkeys] == ["rsa2048"]
    assert key.subkeys[0].for_signing
    assert not key.subkeys[0].bound_by_weak_hash
    assert not key.problem(now())


def test_several_keys_of_one_file_are_all_read(ring: KeyRing) -> None:
    """Each key of a file is read with its own packets only (SG7)."""
    one, two = ring.make("first@example.com"), ring.make("second@example.com")
    keys = parse_keys(ring.export(one, two), what="file")
    assert [key.fingerprint for key in keys] == [one.fingerprint, two.fingerprint]
    assert [parse_keys(key.binary, what="part") for key in keys] == [[keys[0]], [keys[1]]]


def test_weak_keys_have_a_problem(ring: KeyRing) -> None:
    """Small RSA keys, DSA, and keys bound by SHA-1 cannot be trusted (SG5)."""
    for address, algorithm, certify_hash, problem in (
        ("small@example.com", "rsa1024", "SHA512", "1024"),
        ("dsa@example.com", "dsa2048", "SHA512", "DSA"),
        ("sha1@example.com", "ed25519", "SHA1", "SHA-1"),
    ):
        made = ring.make(address, algorithm, certify_hash=certify_hash)
        (key,) = parse_keys(ring.export(made), what="file")
        assert problem in key.problem(now())


def test_expired_and_revoked_keys_have_a_problem(ring: KeyRing) -> None:
    """Expired and revoked keys cannot be trusted (SG4)."""
    expired, revoked = ring.make_expired("expired@example.com"), ring.make("revoked@example.com")
    assert not parse_keys(ring.export(revoked), what="file")[0].problem(now())
    ring.revoke(revoked)
    assert "expired on 2020-12-31" in parse_keys(ring.export(expired), what="file")[0].problem(now())
    assert "revoked" in parse_keys(ring.export(revoked), what="file")[0].problem(now())


def test_key_from_the_future_has_a_problem(ring: KeyRing) -> None:
    """A key whose creation lies ahead is not believed."""
    made = ring.make("future@example.com")
    assert "future" in parse_keys(ring.export(made), what="file")[0].problem(now() - 10 * 86400)


def test_secret_keys_are_refused(ring: KeyRing) -> None:
    """A file with a secret key is refused with a hint, armoured or not."""
    made = ring.make("secret@example.com")
    for armour in (True, False):
        with pytest.raises(ConfigError, match="secret key"):
            parse_keys(ring.export(made, armour=armour, secret=True), what="file")


def test_other_files_are_refused(ring: KeyRing, tmp_path: Path) -> None:
    """Garbage, empty files, signatures, directories and absent files are errors that name the file."""
    signature = ring.sign(ring.make("signs@example.com"), b"x")
    for data in (b"", b"hello", signature, b"\x99\x01\x0d\x04"):
        with pytest.raises(ConfigError, match="some file"):
            parse_keys(data, what="some file")
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ConfigError, match=str(path)):
            load_keys(str(path))


def test_every_truncation_of_a_key_is_an_error_or_the_key_itself(ring: KeyRing) -> None:
    """Cutting a key file anywhere never yields another fingerprint."""
    made = ring.make("cut@example.com")
    whole = ring.export(made, armour=False)
    for length in range(len(whole)):
        try:
            keys = parse_keys(whole[:length], what="file")
        except ConfigError:
            continue
        assert [key.fingerprint for key in keys] == [made.fingerprint]


def test_fingerprints_are_shown_in_groups() -> None:
    """Groups of four in upper case, two spaces in the middle."""
    shown = group_fingerprint("8b86de38890ddb7291867b025210bd8888182190")
    assert shown == "8B86 DE38 890D DB72 9186  7B02 5210 BD88 8818 2190"

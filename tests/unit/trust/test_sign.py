# SPDX-License-Identifier: Apache-2.0
"""Signing images with the caller's GnuPG."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from rkt.errors import CannotVerify, HostError, NotFound, UsageError
from rkt.trust.keys import parse_keys
from rkt.trust.keystore import TrustedKey
from rkt.trust.openpgp import verify_detached
from rkt.trust.sign import sign_image
from tests.lib.keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def ring() -> Iterator[KeyRing]:
    """A key ring for the module."""
    with KeyRing() as made:
        yield made


@pytest.fixture
def image(tmp_path: Path) -> str:
    """An image file, with a name that a careless command line would misread."""
    path = tmp_path / "-app.aci"
    path.write_bytes(b"image" * 100)
    return str(path)


def test_signature_is_written_and_good(ring: KeyRing, image: str) -> None:
    """The signature is armoured, beside the image, with mode 0644, by SHA-512, and verifies."""
    key = ring.make("Signer <signer@example.com>")
    signed = sign_image(image, "signer@example.com", gpg_home=ring.home)
    assert signed.signature_path == f"{image}.asc"
    assert (signed.fingerprint, signed.hash_algorithm) == (key.fingerprint, "SHA512")
    assert signed.identities == ["Signer <signer@example.com>"]
    assert stat.S_IMODE(os.stat(signed.signature_path).st_mode) == 0o644
    with open(signed.signature_path, "rb") as stream:
        content = stream.read()
    assert content.startswith(b"-----BEGIN PGP SIGNATURE-----")
    keys = [TrustedKey(key=k, path="", rule="root") for k in parse_keys(ring.export(key), what="key")]
    assert verify_detached(image, content, keys).fingerprint == key.fingerprint


def test_environment_names_the_key_ring(ring: KeyRing, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """GNUPGHOME is the caller's own and is honoured."""
    key = ring.make("environment@example.com")
    monkeypatch.setenv("GNUPGHOME", ring.home)
    assert sign_image(image, key.fingerprint).fingerprint == key.fingerprint


def test_signing_by_subkey_names_both(ring: KeyRing, image: str) -> None:
    """The primary key is what others trust."""
    key = ring.make("by-subkey@example.com", usage="cert")
    ring.add_subkey(key)
    signed = sign_image(image, key.address, gpg_home=ring.home)
    assert signed.fingerprint == key.fingerprint != signed.signing_fingerprint


def test_existing_signature_is_kept(ring: KeyRing, image: str, tmp_path: Path) -> None:
    """Nothing is replaced unless asked; a path of one's own choice is used."""
    key = ring.make("again@example.com")
    out = tmp_path / "mine.sig"
    out.write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"mine\.sig") as caught:
        sign_image(image, key.address, signature_path=str(out), gpg_home=ring.home)
    assert "--overwrite" in caught.value.hint
    assert out.read_bytes() == b"precious"
    sign_image(image, key.address, signature_path=str(out), gpg_home=ring.home, overwrite=True)
    assert out.read_bytes().startswith(b"-----BEGIN PGP SIGNATURE-----")
    assert not os.path.exists(f"{image}.asc")


@pytest.mark.parametrize("algorithm", ["rsa1024", "dsa2048"])
def test_weak_keys_do_not_sign(ring: KeyRing, image: str, algorithm: str) -> None:
    """A signature that every rkt would refuse is not written."""
    key = ring.make(f"weak-{algorithm}@example.com", algorithm)
    with pytest.raises(CannotVerify, match="makes no signature that rkt accepts"):
        sign_image(image, key.address, gpg_home=ring.home)
    assert os.listdir(os.path.dirname(image)) == [os.path.basename(image)]


def test_unusable_keys_are_named(ring: KeyRing, image: str) -> None:
    """Unknown and expired keys, and words that are options, are errors that name them (HH4)."""
    expired = ring.make_expired("expired@example.com")
    for address in ("nobody@example.com", expired.address):
        with pytest.raises(HostError, match=address):
            sign_image(image, address, gpg_home=ring.home)
    for word in ("--output=/tmp/x", "-u", ""):
        with pytest.raises(UsageError, match="does not name a key"):
            sign_image(image, word, gpg_home=ring.home)
    assert not os.path.exists(f"{image}.asc")


def test_missing_image_is_named(ring: KeyRing, tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(NotFound, match="absent"):
        sign_image(str(tmp_path / "absent"), "x", gpg_home=ring.home)

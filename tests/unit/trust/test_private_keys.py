# SPDX-License-Identifier: Apache-2.0
"""Keys that sign images: every form of file that is read, the form of cosign to the byte, and what is refused."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from rkt.errors import ConfigError
from rkt.trust import private_keys
from rkt.trust.private_keys import generate_key, load_private_key
from rkt.trust.secretbox import open_box, seal
from tests.lib.cosign import Key

if TYPE_CHECKING:
    from collections.abc import Callable

PASSWORD = b"correct horse"
EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
ED = ed25519.Ed25519PrivateKey.generate()


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords that cost a millisecond."""
    monkeypatch.setattr(private_keys, "_SCRYPT", {"N": 1024, "r": 8, "p": 1})


def test_secret_box() -> None:
    """The example of "Cryptography in NaCl" comes out to the byte, and nothing that was changed is opened."""
    key = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    message = bytes.fromhex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c6129"
        "6cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde"
        "048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705"
    )
    box = bytes.fromhex(
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186a"
        "c0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae"
        "90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74"
        "e355a5"
    )
    assert seal(key, nonce, message) == box
    assert open_box(key, nonce, box) == message
    for changed in (box[:-1], bytes([box[0] ^ 1]) + box[1:], box + b"\0", b""):
        with pytest.raises(ValueError, match="wrong key"):
            open_box(key, nonce, changed)


def _pem(key: object, form: PrivateFormat, *, password: bytes = b"") -> bytes:
    assert isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey))
    return key.private_bytes(
        Encoding.PEM, form, BestAvailableEncryption(password) if password else NoEncryption()
    )


FORMS = {
    "EC, PKCS 8": (_pem(EC, PrivateFormat.PKCS8), "ECDSA P-256"),
    "EC, as OpenSSL wrote it": (_pem(EC, PrivateFormat.TraditionalOpenSSL), "ECDSA P-256"),
    "RSA, PKCS 8": (_pem(RSA, PrivateFormat.PKCS8), "RSA 2048"),
    "RSA, as OpenSSL wrote it": (_pem(RSA, PrivateFormat.TraditionalOpenSSL), "RSA 2048"),
    "Ed25519": (_pem(ED, PrivateFormat.PKCS8), "Ed25519"),
    "EC, encrypted PKCS 8": (_pem(EC, PrivateFormat.PKCS8, password=PASSWORD), "ECDSA P-256"),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    """Every form is read, with the password where there is one, and signs what its public half verifies."""
    data, kind = FORMS[form]
    key = load_private_key(data, PASSWORD, "k")
    assert key.public.kind == kind
    key.public.verify(key.sign(b"data"), b"data")


def test_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is made is read again, by its password only, in the form that cosign and skopeo read."""
    plain, public = generate_key(b"")
    key = load_private_key(plain, b"", "k")
    assert key.public_pem == public
    assert subprocess.run(
        ["openssl", "pkey", "-pubout"], input=plain, check=True, capture_output=True
    ).stdout == (public)

    locked, public = generate_key(PASSWORD)
    first, *lines, last = locked.decode().splitlines()
    assert (first, last) == (
        "-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----",
        "-----END ENCRYPTED COSIGN PRIVATE KEY-----",
    )
    document = json.loads(base64.b64decode("".join(lines)))
    assert document.keys() == {"kdf", "cipher", "ciphertext"}
    assert document["kdf"]["name"] == "scrypt"
    assert document["cipher"]["name"] == "nacl/secretbox"
    assert {
        len(base64.b64decode(document["kdf"]["salt"])),
        len(base64.b64decode(document["cipher"]["nonce"])),
    } == {
        32,
        24,
    }
    assert load_private_key(locked, PASSWORD, "k").public_pem == public
    newer = locked.replace(b"COSIGN", b"SIGSTORE")
    assert load_private_key(newer, PASSWORD, "k").public_pem == public


def _cosign(**changes: object) -> bytes:
    locked, _ = generate_key(PASSWORD)
    document = json.loads(base64.b64decode(b"".join(locked.splitlines()[1:-1])))
    return private_keys._armour(json.dumps({**document, **changes}).encode(), "ENCRYPTED COSIGN PRIVATE KEY")


REFUSED: dict[str, tuple[Callable[[], bytes], bytes, str]] = {
    "nothing": (lambda: b"", PASSWORD, "not one PEM block"),
    "a public key": (lambda: Key().pem, PASSWORD, "holds PUBLIC KEY, no private key"),
    "two keys": (lambda: FORMS["Ed25519"][0] * 2, PASSWORD, "not one PEM block"),
    "something behind": (lambda: FORMS["Ed25519"][0] + b"x", PASSWORD, "not one PEM block"),
    "garbage": (
        lambda: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        b"",
        "cannot be read$",
    ),
    "no password": (lambda: generate_key(PASSWORD)[0], b"", "is encrypted"),
    "no password for PKCS 8": (lambda: FORMS["EC, encrypted PKCS 8"][0], b"", "is encrypted"),
    "a wrong password": (lambda: generate_key(PASSWORD)[0], b"x", "with this password"),
    "a wrong password for PKCS 8": (lambda: FORMS["EC, encrypted PKCS 8"][0], b"x", "with this password"),
    "another cipher": (lambda: _cosign(cipher={"name": "aes", "nonce": ""}), PASSWORD, "with this password"),
    "an enormous scrypt": (
        lambda: _cosign(kdf={"name": "scrypt", "params": {"N": 1 << 30, "r": 8, "p": 1}, "salt": "AAAA"}),
        PASSWORD,
        "with this password",
    ),
    "no nonce": (lambda: _cosign(cipher={"name": "nacl/secretbox", "nonce": "AAAA"}), PASSWORD, "password"),
    "half a document": (lambda: _cosign(kdf={}), PASSWORD, "with this password"),
    "a weak curve": (
        lambda: _pem(ec.generate_private_key(ec.SECP256K1()), PrivateFormat.PKCS8),
        b"",
        "nobody would accept a signature by k: the key is on the curve secp256k1",
    ),
    "a weak RSA key": (
        lambda: _pem(rsa.generate_private_key(65537, 1024), PrivateFormat.PKCS8),
        b"",
        "1024 bits",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    """What is no key, cannot be opened, or signs what nobody accepts is refused with its name and the next command."""
    make, password, text = REFUSED[what]
    with pytest.raises(ConfigError, match=text) as caught:
        load_private_key(make(), password, "k")
    assert caught.value.hint

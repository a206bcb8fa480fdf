# SPDX-License-Identifier: Apache-2.0
"""Private keys that sign images: made, kept in files, and read again.

A file is PEM: PKCS 8 or the older forms of EC and RSA, plain or encrypted as PKCS 8 is; or the form of cosign, skopeo and
podman, in which a password makes a key by scrypt for a secret box around PKCS 8.
"""

from __future__ import annotations

import base64
import hashlib
import os

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from rkt.errors import CannotVerify, ConfigError, InvalidManifest
from rkt.schema import jsontext
from rkt.trust.dsse import decode64
from rkt.trust.public_keys import load_public_key
from rkt.trust.secretbox import KEY_BYTES, NONCE_BYTES, open_box, seal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from rkt.trust.public_keys import PublicKey

    Private: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

#: What cosign writes now and wrote before; what is written is the older, which every version of skopeo reads too.
_COSIGN_LABELS = ("ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
_PLAIN_LABELS = ("PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY")
#: As cosign has it: 64 MiB, a fifth of a second.
_SCRYPT = {"N": 65536, "r": 8, "p": 1}
#: A file may ask for eight times as much, and no more.
_MAX_SCRYPT_WORK = 8 * 65536 * 8
_SCRYPT_MEMORY = 1 << 30
_SALT_BYTES = 32
_LINE = 64
_HINT = "rkt image sign --generate-key=PREFIX makes a key that serves"


class PrivateKey:
    """A key that signs.

    Attributes:
        public: its other half.
        public_pem: the same as a file.
    """

    def __init__(self, key: Private) -> None:
        """Refuse a key whose signatures nobody would accept.

        Raises:
            CannotVerify: it is too weak.
        """
        self._key = key
        self.public_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.public: PublicKey = load_public_key(self.public_pem)

    def sign(self, data: bytes) -> bytes:
        """A signature over SHA-256, or by Ed25519 as it is."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))


def generate_key(password: bytes) -> tuple[bytes, bytes]:
    """A new key on P-256: the private half as a file, encrypted if there is a password, and the public one."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = PrivateKey(key).public_pem
    if not password:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), public
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(NONCE_BYTES)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    document = {
        "kdf": {"name": "scrypt", "params": _SCRYPT, "salt": _encode(salt)},
        "cipher": {"name": "nacl/secretbox", "nonce": _encode(nonce)},
        "ciphertext": _encode(seal(_derive(password, salt, _SCRYPT), nonce, der)),
    }
    return _armour(jsontext.dump(document).encode(), _COSIGN_LABELS[-1]), public


def is_encrypted(data: bytes) -> bool:
    """Whether a key file can only be read with a password."""
    return b"ENCRYPTED" in data


def load_private_key(data: bytes, password: bytes, path: str) -> PrivateKey:
    """The key of a file.

    Args:
        data: the file.
        password: empty for none.
        path: for errors.
    Raises:
        ConfigError: it holds no such key, the password is wrong, or the key is too weak.
    """
    text = data.strip()
    label = (
        text.partition(b"\n")[0].strip().removeprefix(b"-----BEGIN ").removesuffix(b"-----").decode("latin-1")
    )
    end = f"-----END {label}-----".encode("latin-1")
    if text.count(b"-----BEGIN ") != 1 or not text.endswith(end):
        raise ConfigError(f"{path} is not one PEM block of a private key", hint=_HINT)
    if label not in _COSIGN_LABELS + _PLAIN_LABELS:
        raise ConfigError(f"{path} holds {label or 'nothing'}, no private key", hint=_HINT)
    if is_encrypted(text) and not password:
        raise ConfigError(
            f"the key {path} is encrypted",
            hint="--password-file=FILE, or put the password into COSIGN_PASSWORD",
        )
    try:
        if label in _COSIGN_LABELS:
            key = load_der_private_key(_open(text, label, password), None)
        else:
            key = load_pem_private_key(text, password if is_encrypted(text) else None)
    except (
        ValueError,
        TypeError,
        KeyError,
        InternalError,
        UnsupportedAlgorithm,
        CannotVerify,
        InvalidManifest,
    ) as e:
        wrong = " with this password" if is_encrypted(text) else ""
        raise ConfigError(f"the key {path} cannot be read{wrong}", hint=_HINT) from e
    if not isinstance(key, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, rsa.RSAPrivateKey)):
        raise ConfigError(f"the key {path} is none of ECDSA, Ed25519 and RSA", hint=_HINT)
    try:
        return PrivateKey(key)
    except CannotVerify as e:
        raise ConfigError(f"nobody would accept a signature by {path}: {e.message}", hint=_HINT) from None


def _open(text: bytes, label: str, password: bytes) -> bytes:
    body = text.removeprefix(f"-----BEGIN {label}-----".encode()).removesuffix(
        f"-----END {label}-----".encode()
    )
    document = jsontext.parse(base64.b64decode(b"".join(body.split()), validate=True), what="the key")
    kdf, cipher = document["kdf"], document["cipher"]
    if (kdf["name"], cipher["name"]) != ("scrypt", "nacl/secretbox"):
        raise ValueError("another cipher")
    nonce = decode64(cipher["nonce"], "nonce")
    if len(nonce) != NONCE_BYTES:
        raise ValueError("nonce")
    key = _derive(password, decode64(kdf["salt"], "salt"), kdf["params"])
    return open_box(key, nonce, decode64(document["ciphertext"], "ciphertext"))


def _derive(password: bytes, salt: bytes, parameters: dict[str, Any]) -> bytes:
    n, r, p = (parameters[name] for name in ("N", "r", "p"))
    if not all(type(value) is int and 0 < value <= _MAX_SCRYPT_WORK for value in (n, r, p)):
        raise ValueError("scrypt is told no numbers")
    if n * r * p > _MAX_SCRYPT_WORK:
        raise ValueError("scrypt wants more than it may have")
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, dklen=KEY_BYTES, maxmem=_SCRYPT_MEMORY)


def _armour(data: bytes, label: str) -> bytes:
    text = base64.b64encode(data).decode("ascii")
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")

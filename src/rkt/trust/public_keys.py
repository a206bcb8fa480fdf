# SPDX-License-Identifier: Apache-2.0
"""Public keys of cosign: which are strong enough, and whether a signature is by one (invariant SG5).

Of the keys that exist count: ECDSA on the curves P-256, P-384 and P-521, Ed25519, and RSA from 2048 to 8192 bits. Of
signatures those over SHA-256 or better.
"""

from __future__ import annotations

import contextlib
import hashlib
from base64 import b64encode
from functools import partial

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from rkt.errors import CannotVerify, SignatureMismatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Hash: TypeAlias = hashes.HashAlgorithm
    Usable: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

#: Curve to the hashes that its signatures may have: cosign takes SHA-256 for all, others what fits the curve.
_CURVES: dict[str, tuple[Hash, ...]] = {
    "secp256r1": (hashes.SHA256(),),
    "secp384r1": (hashes.SHA384(), hashes.SHA256()),
    "secp521r1": (hashes.SHA512(), hashes.SHA256()),
}
_RSA_HASHES: tuple[Hash, ...] = (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
_RSA_BITS = (2048, 8192)
_LEAST_EXPONENT = 65537
_BEGIN, _END = b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"
_NOT_OURS = "is not made by the key that is asked for, or not of these bytes"


class PublicKey:
    """A key that is strong enough.

    Attributes:
        fingerprint: ``sha256:…`` of the SubjectPublicKeyInfo.
        hint: the same as bundles have it.
        kind: for people: ``ECDSA P-256``.
    """

    def __init__(self, key: Usable, kind: str) -> None:
        """``key`` has been checked."""
        self._key = key
        self.kind = kind
        self.der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digest = hashlib.sha256(self.der)
        self.fingerprint = f"sha256:{digest.hexdigest()}"
        self.hint = b64encode(digest.digest()).decode()

    def verify(self, signature: bytes, data: bytes) -> None:
        """See that a signature is of these bytes and by this key.

        Raises:
            SignatureMismatch: it is not.
            CannotVerify: it is, but with a digest that does not count.
        """
        if isinstance(self._key, ed25519.Ed25519PublicKey):
            try:
                self._key.verify(signature, data)
            except InvalidSignature:
                raise SignatureMismatch(f"the signature {_NOT_OURS}") from None
            return
        if not any(self._fits(signature, data, found) for found in self._hashes()):
            if self._fits(signature, data, hashes.SHA1()):  # noqa: S303 - to say why it does not count
                raise CannotVerify("the signature is made with SHA-1, SHA-256 or better is asked for")
            raise SignatureMismatch(f"the signature {_NOT_OURS}")

    def verify_digest(self, signature: bytes, digest: bytes) -> None:
        """The same, of bytes of which the SHA-256 digest is known.

        Raises:
            SignatureMismatch: it is not.
            CannotVerify: signatures by such a key need the bytes.
        """
        if isinstance(self._key, ed25519.Ed25519PublicKey):
            raise CannotVerify("a signature of a digest cannot be verified by an Ed25519 key")
        if not self._fits(signature, digest, utils.Prehashed(hashes.SHA256())):
            raise SignatureMismatch(f"the signature {_NOT_OURS}")

    def _hashes(self) -> tuple[Hash, ...]:
        if isinstance(self._key, ec.EllipticCurvePublicKey):
            return _CURVES[self._key.curve.name]
        return _RSA_HASHES

    def _fits(self, signature: bytes, data: bytes, algorithm: Hash | utils.Prehashed) -> bool:
        if isinstance(self._key, ec.EllipticCurvePublicKey):
            return _succeeds(partial(self._key.verify, signature, data, ec.ECDSA(algorithm)))
        assert isinstance(self._key, rsa.RSAPublicKey)
        inner = hashes.SHA256() if isinstance(algorithm, utils.Prehashed) else algorithm
        pss = padding.PSS(padding.MGF1(inner), padding.PSS.AUTO)
        return any(
            _succeeds(partial(self._key.verify, signature, data, scheme, algorithm))
            for scheme in (padding.PKCS1v15(), pss)
        )


def prepare() -> None:
    """Have the library load what it loads on first use, while it can: use a key of each kind."""
    for private in (ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()):
        pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        with contextlib.suppress(SignatureMismatch):
            load_public_key(pem).verify(b"", b"")
    numbers = rsa.RSAPublicNumbers(_LEAST_EXPONENT, (1 << 2047) + 1)
    with contextlib.suppress(SignatureMismatch):
        PublicKey(numbers.public_key(), "").verify(bytes(256), b"")


def load_public_key(pem: bytes) -> PublicKey:
    """The one key of a PEM file.

    Raises:
        CannotVerify: there is not exactly one, or it is too weak.
    """
    text = pem.strip()
    if text.count(b"-----BEGIN ") > 1:
        raise CannotVerify("the key file holds more than one key")
    if b"PRIVATE KEY-----" in text:
        raise CannotVerify("the key file holds a private key, the public one is asked for")
    if not text.startswith(_BEGIN) or not text.endswith(_END):
        raise CannotVerify("the key file is not one PEM block of a PUBLIC KEY, with nothing around it")
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise CannotVerify("the key file holds no public key of a kind that is supported") from None
    if isinstance(key, ed25519.Ed25519PublicKey):
        return PublicKey(key, "Ed25519")
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in _CURVES:
            raise CannotVerify(
                f"the key is on the curve {key.curve.name}, P-256, P-384 or P-521 is asked for"
            )
        return PublicKey(key, f"ECDSA P-{key.curve.key_size}")
    if isinstance(key, rsa.RSAPublicKey):
        least, most = _RSA_BITS
        if not least <= key.key_size <= most or key.public_numbers().e < _LEAST_EXPONENT:
            raise CannotVerify(
                f"the RSA key has {key.key_size} bits and the exponent {key.public_numbers().e}, "
                f"{least} to {most} bits and at least {_LEAST_EXPONENT} are asked for"
            )
        return PublicKey(key, f"RSA {key.key_size}")
    kind = type(key).__name__.removeprefix("_").removesuffix("PublicKey")
    raise CannotVerify(f"keys of the kind {kind} do not count: ECDSA, Ed25519 and RSA do")


def _succeeds(verify: partial[None]) -> bool:
    try:
        verify()
    except (InvalidSignature, ValueError):
        return False
    return True

# SPDX-License-Identifier: Apache-2.0
"""Sigstore bundles, version 0.3: bytes to a record. Nothing is verified here.

Source: sigstore/protobuf-specs, ``sigstore_bundle.proto``; JSON as protocol buffers have it.
"""

from __future__ import annotations

from rkt.errors import CannotVerify, InvalidManifest, quoted
from rkt.schema import jsontext
from rkt.schema.record import Record
from rkt.trust.dsse import Envelope, decode64, parse_envelope
from rkt.trust.evidence import MAX_PIECE_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
#: How version 0.3 was written at first.
MEDIA_TYPES = (MEDIA_TYPE, "application/vnd.dev.sigstore.bundle+json;version=0.3")
#: The only digest of a message signature that counts, as the bundle spells it.
SHA256 = "SHA2_256"


class MessageSignature(Record):
    """A signature over bytes that are elsewhere; ``digest`` is of those bytes."""

    digest_algorithm: str
    digest: bytes
    signature: bytes


class Bundle(Record):
    """One signature and what helps to verify it.

    Attributes:
        key_hint: how the signer calls the key; empty where a certificate names the signer.
        certificate: DER; empty where a key signed.
        log_entries: decoded JSON, as a transparency log gave them.
        envelope, message: what is signed; one of them.
    """

    key_hint: str
    certificate: bytes
    log_entries: list[Any]
    envelope: Envelope | None = None
    message: MessageSignature | None = None


def parse_bundle(data: bytes) -> Bundle:
    """A bundle of a supported version.

    Raises:
        CannotVerify: it is none.
    """
    try:
        value = jsontext.parse(data, what="the bundle", limit_bytes=MAX_PIECE_BYTES)
    except InvalidManifest as e:
        raise CannotVerify(e.message) from None
    if not isinstance(value, dict):
        raise CannotVerify("the bundle is not an object")
    media_type = value.get("mediaType")
    if media_type not in MEDIA_TYPES:
        shown = quoted(media_type) if isinstance(media_type, str) else "none"
        raise CannotVerify(f"the bundle has the media type {shown}, version 0.3 is supported")
    material = value.get("verificationMaterial")
    if not isinstance(material, dict):
        raise CannotVerify("the bundle has no verificationMaterial")
    hint, certificate = _signer(material)
    entries = material.get("tlogEntries") or []
    if not isinstance(entries, list):
        raise CannotVerify("tlogEntries of the bundle is not a list")
    # As protocol buffers have it, null is as good as nothing.
    is_envelope, is_message = (value.get(name) is not None for name in ("dsseEnvelope", "messageSignature"))
    if is_envelope == is_message:
        raise CannotVerify("the bundle must have either a dsseEnvelope or a messageSignature")
    return Bundle(
        key_hint=hint,
        certificate=certificate,
        log_entries=entries,
        envelope=parse_envelope(value["dsseEnvelope"]) if is_envelope else None,
        message=_message(value["messageSignature"]) if is_message else None,
    )


def _signer(material: dict[str, Any]) -> tuple[str, bytes]:
    key, certificate = material.get("publicKey"), material.get("certificate")
    if material.get("x509CertificateChain") is not None:
        raise CannotVerify("the bundle has a chain of certificates, which version 0.3 does not have")
    if (key is None) == (certificate is None):
        raise CannotVerify("the bundle must name its signer by either a publicKey or a certificate")
    if certificate is not None:
        if not isinstance(certificate, dict):
            raise CannotVerify("the certificate of the bundle is not an object")
        return "", decode64(certificate.get("rawBytes"), "the certificate of the bundle")
    hint = key.get("hint", "") if isinstance(key, dict) else None
    if not isinstance(hint, str):
        raise CannotVerify("the publicKey of the bundle is not an object with a hint")
    return hint, b""


def _message(value: object) -> MessageSignature:
    digest = value.get("messageDigest") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(digest, dict):
        raise CannotVerify("the messageSignature of the bundle has no messageDigest")
    return MessageSignature(
        digest_algorithm=str(digest.get("algorithm", "")),
        digest=decode64(digest.get("digest"), "the messageDigest of the bundle"),
        signature=decode64(value.get("signature"), "the signature of the bundle"),
    )

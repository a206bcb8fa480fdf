# SPDX-License-Identifier: Apache-2.0
"""Signatures by a key, as cosign, podman and skopeo make them; runs in ``rkt-verify``.

Two forms: until version 2 a payload of simple signing with a signature beside it, since version 3 a bundle around an
in-toto statement that says nothing but which image is meant. What a transparency log says is not asked: the key decides.
An attestation by the same key, of a test or a list of parts, is no signature of the image (CVE-2022-35929 and kin).
"""

from __future__ import annotations

from rkt.errors import CannotVerify, NotVerified, SignatureMismatch, quoted
from rkt.trust import public_keys
from rkt.trust.bundle import SHA256, parse_bundle
from rkt.trust.dsse import SIGNATURE_PREDICATE, decode64, parse_statement
from rkt.trust.evidence import COSIGN_CLASSIC, Finding
from rkt.trust.payload import COSIGN_TYPE, check_name, parse_payload
from rkt.trust.public_keys import load_public_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.trust.bundle import Bundle
    from rkt.trust.dsse import Statement
    from rkt.trust.evidence import Evidence, Subject
    from rkt.trust.public_keys import PublicKey

_CERTIFIED = "the signer is named by a certificate, but a key is asked for"


def prepare() -> None:
    """Import what is needed, while files can still be opened."""
    public_keys.prepare()


def verify(
    requirement: dict[str, Any], files: dict[str, bytes], evidence: Evidence, subject: Subject, now: int
) -> Finding:
    """Whether a piece of evidence is a signature of the image by the key of a requirement."""
    try:
        key = load_public_key(files[requirement["key"]])
    except CannotVerify as e:
        return Finding(requirement=0, source=evidence.source, reason=f"{requirement['key']}: {e.message}")
    check = _classic if evidence.kind == COSIGN_CLASSIC else _bundle
    try:
        digest = check(key, evidence, subject)
    except NotVerified as e:
        contradicts = isinstance(e, SignatureMismatch)
        return Finding(
            requirement=0,
            source=evidence.source,
            reason=e.message,
            signer=key.fingerprint if contradicts else "",
            contradicts=contradicts,
        )
    return Finding(requirement=0, source=evidence.source, signer=key.fingerprint, digest=digest)


def _classic(key: PublicKey, evidence: Evidence, subject: Subject) -> str:
    signature = decode64(evidence.signature, "the signature")
    try:
        # Before the payload is read.
        key.verify(signature, evidence.data)
    except SignatureMismatch as e:
        # Nothing says whose it is meant to be.
        raise CannotVerify(_CERTIFIED if evidence.certificate else e.message) from None
    payload = parse_payload(evidence.data, COSIGN_TYPE)
    check_digest([payload.digest], subject)
    check_name(payload.reference, subject.reference, needs_tag=False)
    return payload.digest


def _bundle(key: PublicKey, evidence: Evidence, subject: Subject) -> str:
    bundle = parse_bundle(evidence.data)
    if bundle.message is not None:
        return _message(key, bundle, subject)
    statement = verify_statement(key, bundle)
    if statement.predicate_type != SIGNATURE_PREDICATE:
        raise CannotVerify(
            f"the statement is an attestation of the type {quoted(statement.predicate_type)}, no signature"
        )
    return check_digest(statement.digests, subject)


def _message(key: PublicKey, bundle: Bundle, subject: Subject) -> str:
    """A signature of the manifest itself."""
    assert bundle.message is not None
    if bundle.certificate:
        raise CannotVerify(_CERTIFIED)
    if bundle.message.digest_algorithm != SHA256 or len(bundle.message.digest) != 32:
        raise CannotVerify(
            f"the signed digest is of the algorithm {quoted(bundle.message.digest_algorithm)}, not {quoted(SHA256)}"
        )
    try:
        key.verify_digest(bundle.message.signature, bundle.message.digest)
    except SignatureMismatch as e:
        raise _mismatch(key, bundle, e) from None
    return check_digest([f"sha256:{bundle.message.digest.hex()}"], subject)


def verify_statement(key: PublicKey, bundle: Bundle) -> Statement:
    """The statement of a bundle, once its signature is known to be by a key.

    Raises:
        SignatureMismatch: it says to be by that key, and is not.
        CannotVerify: it is by another, or there is no statement.
    """
    if bundle.certificate:
        raise CannotVerify(_CERTIFIED)
    if bundle.envelope is None:
        raise CannotVerify("the bundle has no statement")
    try:
        key.verify(bundle.envelope.signature, bundle.envelope.signed_bytes)
    except SignatureMismatch as e:
        raise _mismatch(key, bundle, e) from None
    return parse_statement(bundle.envelope)


def check_digest(signed: list[str], subject: Subject) -> str:
    """The digest that is signed and meant.

    Raises:
        SignatureMismatch: another image is signed.
    """
    for digest in subject.digests:
        if digest in signed:
            return digest
    more = f" and {len(signed) - 1} more" if len(signed) > 1 else ""
    raise SignatureMismatch(f"the signature is for {quoted(signed[0])}{more}, not for this image")


def _mismatch(key: PublicKey, bundle: Bundle, error: SignatureMismatch) -> NotVerified:
    if bundle.key_hint == key.hint:
        return SignatureMismatch(
            "the signature says that it is by the key that is asked for, but it is wrong"
        )
    try:
        claimed = decode64(bundle.key_hint, "the hint").hex()
    except CannotVerify:
        claimed = ""
    if len(claimed) == 64:
        # As cosign and rkt name keys, by their SHA-256; others write what they like.
        return CannotVerify(
            f"the signature is not made by the key that is asked for, {key.fingerprint}: it says that it is by sha256:{claimed}"
        )
    return CannotVerify(error.message)

# SPDX-License-Identifier: Apache-2.0
"""Provenance: which builder says that it made the image (SLSA provenance 1.0 and 0.2); runs in ``rkt-verify``.

Who signed it is verified as for ``cosign`` or ``keyless``; the builder's name is compared as it is, since one key may
speak for several builders.
"""

from __future__ import annotations

from rkt.errors import CannotVerify, InvalidManifest, NotVerified, SignatureMismatch, quoted
from rkt.schema import jsontext
from rkt.trust import public_keys, verify_keyless
from rkt.trust.bundle import Bundle, parse_bundle
from rkt.trust.dsse import PROVENANCE_V02, PROVENANCE_V1, parse_envelope
from rkt.trust.evidence import COSIGN_ATTESTATION, MAX_PIECE_BYTES, Finding
from rkt.trust.public_keys import load_public_key
from rkt.trust.verify_cosign import check_digest, verify_statement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.trust.dsse import Statement
    from rkt.trust.evidence import Evidence, Subject

#: Types of statements that count, and where in their predicates the builder is.
_BUILDERS = {PROVENANCE_V1: ("runDetails", "builder", "id"), PROVENANCE_V02: ("builder", "id")}
_NOT_BY_IDENTITY = (
    "an attestation of cosign before version 3 counts by a key only, an identity needs a bundle"
)


def prepare() -> None:
    """Import what is needed, while files can still be opened."""
    public_keys.prepare()


def verify(
    requirement: dict[str, Any], files: dict[str, bytes], evidence: Evidence, subject: Subject, now: int
) -> Finding:
    """Whether a piece of evidence says, signed as a requirement asks, that its builder made the image."""
    finding = Finding(requirement=0, source=evidence.source)
    if requirement["identity"]:
        return _by_identity(finding, requirement, files, evidence, subject)
    try:
        key = load_public_key(files[requirement["key"]])
    except CannotVerify as e:
        return finding.replace(reason=f"{requirement['key']}: {e.message}")
    try:
        statement = verify_statement(key, _bundle(evidence))
        digest = check_provenance(statement, requirement["builder"], subject)
    except NotVerified as e:
        contradicts = isinstance(e, SignatureMismatch)
        return finding.replace(
            reason=e.message, signer=key.fingerprint if contradicts else "", contradicts=contradicts
        )
    return finding.replace(signer=key.fingerprint, digest=digest)


def _bundle(evidence: Evidence) -> Bundle:
    """The signed envelope, as a bundle has it."""
    if evidence.kind != COSIGN_ATTESTATION:
        return parse_bundle(evidence.data)
    try:
        value = jsontext.parse(evidence.data, what="the DSSE envelope", limit_bytes=MAX_PIECE_BYTES)
    except InvalidManifest as e:
        raise CannotVerify(e.message) from None
    # Such a certificate may be that of a key, which alone is asked for.
    return Bundle(key_hint="", certificate=b"", log_entries=[], envelope=parse_envelope(value))


def _by_identity(
    finding: Finding,
    requirement: dict[str, Any],
    files: dict[str, bytes],
    evidence: Evidence,
    subject: Subject,
) -> Finding:
    if evidence.kind == COSIGN_ATTESTATION:
        return finding.replace(reason=_NOT_BY_IDENTITY)
    try:
        signed = verify_keyless.verify_signer(requirement, files, evidence)
        digest = check_provenance(verify_keyless.read_statement(signed), requirement["builder"], subject)
    except NotVerified as e:
        return verify_keyless.refused(finding, requirement, e)
    return finding.replace(signer=signed.signer, signed_at=signed.signed_at, digest=digest)


def check_provenance(statement: Statement, builder: str, subject: Subject) -> str:
    """The digest of the image that a statement, whose signature is good, says a builder to have made.

    Raises:
        SignatureMismatch: it is about another image.
        CannotVerify: it is no provenance, or names another builder.
    """
    place = _BUILDERS.get(statement.predicate_type)
    if place is None:
        raise CannotVerify(
            f"the statement is of the type {quoted(statement.predicate_type)}, no SLSA provenance"
        )
    digest = check_digest(statement.digests, subject)
    value = statement.predicate
    for name in place:
        value = value.get(name) if isinstance(value, dict) else None
    if not isinstance(value, str):
        raise CannotVerify("the provenance names no builder")
    if value != builder:
        raise CannotVerify(f"the provenance names the builder {quoted(value)}, not {quoted(builder)}")
    return digest

# SPDX-License-Identifier: Apache-2.0
"""Signatures by somebody whom a certificate names, instead of by a key that somebody keeps; runs in ``rkt-verify``.

The key lived for minutes. What is verified is that an authority of the pinned root gave it to the identity that is asked
for, and that it signed while its certificate was valid, as a transparency log or a time stamp says. No network: all of it
is in the bundle, and the roots are in the file that the policy names. ``trust/sigstore_bundle.py`` does it by a library
that not every installation has; without it nothing is verified.
"""

from __future__ import annotations

from rkt.errors import CannotVerify, NotVerified, SignatureMismatch, quoted
from rkt.schema.record import Record
from rkt.trust.bundle import SHA256, Bundle, parse_bundle
from rkt.trust.dsse import SIGNATURE_PREDICATE, parse_statement
from rkt.trust.evidence import COSIGN_CLASSIC, Finding
from rkt.trust.extras import NO_LIBRARY
from rkt.trust.verify_cosign import check_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.trust.dsse import Statement
    from rkt.trust.evidence import Evidence, Subject


class Signed(Record):
    """What somebody signed, once it is known who.

    Attributes:
        bundle: with the very bytes that are signed.
        signer: ``IDENTITY (ISSUER)``.
        signed_at: seconds since the epoch, as a log or a time stamp says.
    """

    bundle: Bundle
    signer: str
    signed_at: int


def prepare() -> None:
    """Import the library, if it is there."""
    try:
        from rkt.trust import sigstore_bundle
    except ImportError:
        return
    _ = sigstore_bundle


def verify(
    requirement: dict[str, Any], files: dict[str, bytes], evidence: Evidence, subject: Subject, now: int
) -> Finding:
    """Whether a piece of evidence is a signature of the image by the identity of a requirement."""
    finding = Finding(requirement=0, source=evidence.source)
    try:
        signed = verify_signer(requirement, files, evidence)
    except NotVerified as e:
        return refused(finding, requirement, e)
    try:
        if signed.bundle.message is not None:
            digest = check_digest([f"sha256:{signed.bundle.message.digest.hex()}"], subject)
        else:
            statement = read_statement(signed)
            if statement.predicate_type != SIGNATURE_PREDICATE:
                raise CannotVerify(
                    f"the statement is an attestation of the type {quoted(statement.predicate_type)}, no signature"
                )
            digest = check_digest(statement.digests, subject)
    except NotVerified as e:
        return refused(finding, requirement, e)
    return finding.replace(signer=signed.signer, signed_at=signed.signed_at, digest=digest)


def verify_signer(requirement: dict[str, Any], files: dict[str, bytes], evidence: Evidence) -> Signed:
    """See that a piece of evidence is signed by the identity of a requirement; nothing is said of what it is about.

    Args:
        requirement: has ``issuer``, ``identity`` and ``root``.
        files: the content of ``root`` among them.
        evidence: a bundle.
    Raises:
        SignatureMismatch: its certificate is of that identity, but the signature, or the log's entry for it, is not of these bytes.
        CannotVerify: anything else is wrong with it.
    """
    if evidence.kind == COSIGN_CLASSIC:
        raise CannotVerify(
            "the signature is of cosign before version 3, which keeps no proof that its log holds the signature; "
            "sign again with cosign 3"
            if evidence.certificate
            else "the signature is by a key, but an identity is asked for"
        )
    bundle = parse_bundle(evidence.data)
    if not bundle.certificate:
        raise CannotVerify("the signature is by a key, but an identity is asked for")
    message = bundle.message
    if message is not None and (message.digest_algorithm != SHA256 or len(message.digest) != 32):
        raise CannotVerify(
            f"the signed digest is of the algorithm {quoted(message.digest_algorithm)}, not {quoted(SHA256)}"
        )
    try:
        from rkt.trust import sigstore_bundle
    except ImportError:
        raise CannotVerify(NO_LIBRARY) from None
    root = sigstore_bundle.load_root(files[requirement["root"]], requirement["root"])
    identity, issuer = requirement["identity"], requirement["issuer"]
    signed_at = sigstore_bundle.verify(evidence.data, bundle, root, identity=identity, issuer=issuer)
    return Signed(bundle=bundle, signer=f"{identity} ({issuer})", signed_at=signed_at)


def read_statement(signed: Signed) -> Statement:
    """The statement that somebody signed.

    Raises:
        CannotVerify: something else is signed.
    """
    if signed.bundle.envelope is None:
        raise CannotVerify("the bundle has no statement")
    return parse_statement(signed.bundle.envelope)


def refused(finding: Finding, requirement: dict[str, Any], error: NotVerified) -> Finding:
    """A finding that vouches for nothing."""
    contradicts = isinstance(error, SignatureMismatch)
    signer = f"{requirement['identity']} ({requirement['issuer']})" if contradicts else ""
    return finding.replace(reason=error.message, signer=signer, contradicts=contradicts)

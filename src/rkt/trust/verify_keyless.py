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
from rkt.trust.payload import COSIGN_TYPE, check_name, parse_payload
from rkt.trust.verify_cosign import check_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from rkt.trust.dsse import Statement
    from rkt.trust.evidence import Evidence, Subject
    from rkt.trust.sigstore_bundle import Root

_BY_KEY = "the signature is by a key, but an identity is asked for"


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
        if evidence.kind == COSIGN_CLASSIC:
            signed_at = _verify_promised(requirement, files, evidence)
            payload = parse_payload(evidence.data, COSIGN_TYPE)
            digest = check_digest([payload.digest], subject)
            check_name(payload.reference, subject.reference, needs_tag=False)
        else:
            signed = verify_signer(requirement, files, evidence)
            signed_at = signed.signed_at
            digest = check_digest(_signed_digests(signed), subject)
    except NotVerified as e:
        return refused(finding, requirement, e)
    return finding.replace(signer=_signer(requirement), signed_at=signed_at, digest=digest)


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
    bundle = parse_bundle(evidence.data)
    if not bundle.certificate:
        raise CannotVerify(_BY_KEY)
    message = bundle.message
    if message is not None and (message.digest_algorithm != SHA256 or len(message.digest) != 32):
        raise CannotVerify(
            f"the signed digest is of the algorithm {quoted(message.digest_algorithm)}, not {quoted(SHA256)}"
        )
    library = _library()
    signed_at = library.verify(
        evidence.data,
        bundle,
        _root(requirement, files),
        identity=requirement["identity"],
        issuer=requirement["issuer"],
    )
    return Signed(bundle=bundle, signer=_signer(requirement), signed_at=signed_at)


def _verify_promised(requirement: dict[str, Any], files: dict[str, bytes], evidence: Evidence) -> int:
    """The same of a signature of cosign before version 3; returns the time of signing."""
    if not evidence.certificate:
        raise CannotVerify(_BY_KEY)
    root = _root(requirement, files)
    identity, issuer = requirement["identity"], requirement["issuer"]
    signed_at: int = _library().verify_promised(
        evidence.data, evidence, root, identity=identity, issuer=issuer
    )
    return signed_at


def _library() -> ModuleType:
    try:
        from rkt.trust import sigstore_bundle
    except ImportError:
        raise CannotVerify(NO_LIBRARY) from None
    return sigstore_bundle


def _root(requirement: dict[str, Any], files: dict[str, bytes]) -> Root:
    root: Root = _library().load_root(files[requirement["root"]], requirement["root"])
    return root


def _signer(requirement: dict[str, Any]) -> str:
    return f"{requirement['identity']} ({requirement['issuer']})"


def _signed_digests(signed: Signed) -> list[str]:
    if signed.bundle.message is not None:
        return [f"sha256:{signed.bundle.message.digest.hex()}"]
    statement = read_statement(signed)
    if statement.predicate_type != SIGNATURE_PREDICATE:
        raise CannotVerify(
            f"the statement is an attestation of the type {quoted(statement.predicate_type)}, no signature"
        )
    return statement.digests


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
    return finding.replace(
        reason=error.message, signer=_signer(requirement) if contradicts else "", contradicts=contradicts
    )

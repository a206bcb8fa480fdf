# SPDX-License-Identifier: Apache-2.0
"""Sigstore bundles of identities, held against a pinned root by the library ``sigstore``; runs in ``rkt-verify``.

In this order, each with a reason of its own (invariant SG15):

1. somebody vouches for the time of signing: the log by a promise, or an authority for time stamps of the root;
2. the certificate is by an authority of the root, was valid at that time, and so was the authority;
3. a certificate log of the root has seen the certificate;
4. it is for signing code, names one identity and one issuer, and both are those that are asked for;
5. the log of the root holds the entry: path to the signed checkpoint, tree size and position included;
6. the signature is by the certificate's key;
7. the log's entry is of this signature, this certificate and these bytes (CVE-2022-36056, CVE-2026-22703).

The library does most of it. What it leaves out is done here: it compares issuers by an extension that certificates may do
without, takes any one of several names, believes logs and authorities at times at which the root does not, and does not
hold the size of the tree against the checkpoint. It would fetch roots by network; it is given one instead.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from encodings import utf_16_be, utf_32_be

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError
from sigstore import models
from sigstore.errors import CertValidationError, Error
from sigstore.hashes import Hashed
from sigstore.verify import Verifier
from sigstore_models.bundle.v1 import Bundle as LibraryBundle
from sigstore_models.bundle.v1 import VerificationMaterial
from sigstore_models.common.v1 import HashAlgorithm, LogId
from sigstore_models.common.v1 import MessageSignature as LibrarySignature
from sigstore_models.rekor.v1 import InclusionPromise, KindVersion, TransparencyLogEntry
from sigstore_models.trustroot.v1 import TrustedRoot

from rkt.errors import CannotVerify, InvalidManifest, SignatureMismatch, quoted
from rkt.schema import jsontext
from rkt.schema.record import Record
from rkt.trust.bundle import SHA256, Bundle, MessageSignature
from rkt.trust.dsse import decode64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sigstore._internal.timestamp import TimestampVerificationResult
    from sigstore._internal.trust import RekorKeyring
    from sigstore_models.common.v1 import TimeRange

    from rkt.trust.evidence import Evidence

#: Imported on use, when nothing can be imported any more: by certificate chains, and by names in certificates.
_ON_USE = (backend, utf_16_be, utf_32_be)
#: Who confirmed the identity: as text in an OCTET STRING, and as a UTF8String (fulcio, docs/oid-info.md).
_ISSUER_V1 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
#: An identity that is neither a mail address nor a URI.
_USER_NAME = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7")
_MAX_DETAIL_LENGTH = 200
#: Times and positions in a log are below.
_NUMBERS = 1 << 63
_NO_CHECKPOINT = "the checkpoint is not signed by a log of the root"
_NO_PROMISE = "the promise of the log is not signed by a log of the root, or is of another entry"
_NO_PROOF = "the log entry has no proof of inclusion with a checkpoint"
#: What the library says when something is wrong, and what that means; the first that fits.
_MEANINGS = (
    ("not enough sources of verified time", "nobody that the root has vouches for the time of signing"),
    ("must contain an inclusion promise or signed", "nobody vouches for the time of signing"),
    (
        "no Timestamp Authorities",
        "the bundle has a time stamp, but the root has no authority for time stamps",
    ),
    ("too many signed timestamp", "the bundle has too many time stamps"),
    ("duplicate timestamp", "the bundle has the same time stamp twice"),
    ("Invalid Timestamp Response", "a time stamp of the bundle is unreadable"),
    ("inclusion proof, with checkpoint", _NO_PROOF),
    (
        "does not contain a signed certificate timestamp",
        "the certificate has no proof (SCT) that a certificate log has seen it",
    ),
    (
        "Expected one certificate timestamp",
        "the certificate must have exactly one proof (SCT) of a certificate log",
    ),
    ("SCT", "the proof (SCT) that a certificate log has seen the certificate is not by one of the root"),
    ("sage ", "the certificate is not for signing code"),
    ("inclusion proof", "the proof of inclusion is wrong: it does not lead from the entry to the checkpoint"),
    ("Inclusion proof contains invalid root", "the proof of inclusion is of another checkpoint"),
    ("checkpoint: ", _NO_CHECKPOINT),
    ("malformed", "the checkpoint is unreadable"),
    ("note must contain", "the checkpoint is unreadable"),
    ("SET: ", _NO_PROMISE),
    ("log entry version", "the log entry is of a version that is not supported"),
    ("Unsupported", "the log entry is of a kind that is not supported"),
    ("Expected entry type", "the log entry is of a kind that is not supported"),
    ("Integrated time only", "the log entry is of a kind that is not supported"),
)
_NOT_SIGNED = ("DSSE: invalid signature", "Signature is invalid for input", "Bundle message digest mismatch")
_OTHER_ENTRY = ("does not match bundle", "do not match bundle", "inconsistent with other materials")


class Root(Record):
    """Whom the policy's ``root`` names.

    Attributes:
        trusted: as the library has it.
        path: of the file, for people.
    """

    trusted: models.TrustedRoot
    path: str


def load_root(data: bytes, path: str) -> Root:
    """A ``trusted_root.json``.

    Raises:
        CannotVerify: it is none, or lacks what every signature needs.
    """
    try:
        # Refuses what is there twice, which the library does not.
        jsontext.parse(data, what="the file")
        root = Root(trusted=models.TrustedRoot(TrustedRoot.from_json(data)), path=path)
        lacks = [
            what
            for what, members in (
                ("certificate authority", root.trusted.get_fulcio_certs()),
                ("certificate log", root.trusted._inner.ctlogs),  # noqa: SLF001 - the library has no other way
                ("transparency log", root.trusted._inner.tlogs),  # noqa: SLF001
            )
            if not members
        ]
    except InvalidManifest as e:
        raise CannotVerify(f"{path} is no trusted root: {e.message}") from None
    except (Error, ValueError) as e:
        raise CannotVerify(f"{path} is no trusted root: {_detail(e)}") from None
    if lacks:
        raise CannotVerify(f"{path} is no trusted root: it has no {lacks[0]}")
    return root


def verify(data: bytes, bundle: Bundle, root: Root, *, identity: str, issuer: str) -> int:
    """See that a bundle is signed by somebody.

    Args:
        data: the bundle.
        bundle: the same, read; it has a certificate, and if a message is signed, its SHA-256 digest.
        root: whom to believe.
        identity: of the signer.
        issuer: who confirmed it.
    Returns:
        seconds since the epoch: when, as somebody whom the root has says.
    Raises:
        SignatureMismatch: the certificate is that of the signer, but has not signed this, or the log's entry is not of this.
        CannotVerify: anything else is wrong.
    """
    if len(bundle.log_entries) != 1:
        count = len(bundle.log_entries)
        raise CannotVerify(
            f"the bundle has {count or 'no'} entries of a transparency log, exactly one is expected"
        )
    entry = bundle.log_entries[0]
    if not isinstance(entry, dict) or not isinstance(entry.get("inclusionProof"), dict):
        raise CannotVerify(_NO_PROOF)
    try:
        library = models.Bundle.from_json(data)
    except Exception as e:  # noqa: BLE001 - whatever it is, these bytes vouch for nothing
        raise _problem(e) from None
    signed_at = _verify(library, bundle, root, _Signer(identity, issuer))
    _check_position(library)
    return signed_at


def verify_promised(payload: bytes, evidence: Evidence, root: Root, *, identity: str, issuer: str) -> int:
    """See that a payload is signed by somebody, as cosign before version 3 does: beside it are certificate and promise.

    The log promised to keep the entry, at a time, and signed that; a proof that it did was not kept.

    Args:
        payload: what is signed.
        evidence: has ``signature``, ``certificate`` and ``log_entry``.
        root: whom to believe.
        identity: of the signer.
        issuer: who confirmed it.
    Returns:
        seconds since the epoch: when, as the log says.
    Raises:
        SignatureMismatch: as for ``verify``.
        CannotVerify: likewise.
    """
    signature = decode64(evidence.signature, "the signature")
    entry = _promise(evidence.log_entry)
    message = MessageSignature(
        digest_algorithm=SHA256, digest=hashlib.sha256(payload).digest(), signature=signature
    )
    try:
        certificate = x509.load_pem_x509_certificate(evidence.certificate.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise CannotVerify("the certificate of the signature is not one in PEM") from None
    material = VerificationMaterial.model_construct(
        tlog_entries=[entry], timestamp_verification_data=None, public_key=None
    )
    # The library reads no such form; what it needs of a bundle is put together here.
    library = models.Bundle.__new__(models.Bundle)
    library._inner = LibraryBundle.model_construct(  # noqa: SLF001 - the library has no other way
        verification_material=material,
        message_signature=LibrarySignature(signature=base64.b64encode(signature)),
        dsse_envelope=None,
    )
    library._signing_certificate = certificate  # noqa: SLF001
    library._log_entry = _Promised(entry)  # noqa: SLF001
    bundle = Bundle(key_hint="", certificate=b"", log_entries=[], message=message)
    return _verify(library, bundle, root, _Signer(identity, issuer))


def _verify(library: models.Bundle, bundle: Bundle, root: Root, policy: _Signer) -> int:
    """All that both forms have in common; returns the time of signing."""
    verifier = _Verifier(root.trusted)
    try:
        _check_certificate(library.signing_certificate)
        if bundle.message is not None:
            hashed = Hashed(algorithm=HashAlgorithm.SHA2_256, digest=bundle.message.digest)
            verifier.verify_artifact(hashed, library, policy)
        else:
            kind, payload = verifier.verify_dsse(library, policy)
            assert bundle.envelope is not None
            if (kind, payload) != (bundle.envelope.payload_type, bundle.envelope.payload):
                raise CannotVerify("the bundle is read in two ways")
    except CertValidationError:
        raise _certificate_problem(library.signing_certificate, verifier.times, root) from None
    except (CannotVerify, SignatureMismatch):
        raise
    except Exception as e:  # noqa: BLE001 - whatever it is, these bytes vouch for nothing
        if any(words in str(e) for words in _NOT_SIGNED):
            raise SignatureMismatch(
                "the signature is not of these bytes, though the certificate is the signer's"
            ) from None
        if any(words in str(e) for words in _OTHER_ENTRY):
            raise SignatureMismatch(_entry_problem(bundle, library)) from None
        problem = _problem(e)
        if problem.message in {_NO_CHECKPOINT, _NO_PROMISE} and not _logs(library, root):
            # Most likely the root is old.
            problem = _unknown_log(root)
        raise problem from None
    _check_periods(library, verifier.times, root)
    return int(min(verifier.times).timestamp())


def _promise(text: str) -> TransparencyLogEntry:
    """What cosign keeps of a log's entry: ``{"SignedEntryTimestamp": …, "Payload": {…}}``."""
    if not text:
        raise CannotVerify("the signature has no promise of a transparency log")
    try:
        value = jsontext.parse(text, what="the promise of the log")
    except InvalidManifest as e:
        raise CannotVerify(e.message) from None
    payload = value.get("Payload") if isinstance(value, dict) else None
    if not isinstance(payload, dict):
        raise CannotVerify("the promise of the log has no Payload")
    body = decode64(payload.get("body"), "the entry of the log")
    signature = decode64(value.get("SignedEntryTimestamp"), "the signature of the log")
    time, index, log_id = (payload.get(name) for name in ("integratedTime", "logIndex", "logID"))
    if not all(type(number) is int and 0 <= number < _NUMBERS for number in (time, index)):
        raise CannotVerify("the promise of the log has no integratedTime and logIndex")
    try:
        entry = jsontext.parse(body, what="the entry of the log")
        known = bytes.fromhex(str(log_id))
        kind = KindVersion(kind=entry["kind"], version=entry["apiVersion"])
    except (InvalidManifest, KeyError, TypeError, ValueError):
        raise CannotVerify("the promise of the log is of an unreadable entry") from None
    return TransparencyLogEntry.model_construct(
        log_index=index,
        log_id=LogId(key_id=base64.b64encode(known)),
        kind_version=kind,
        integrated_time=time,
        inclusion_promise=InclusionPromise(signed_entry_timestamp=base64.b64encode(signature)),
        inclusion_proof=None,
        canonicalized_body=body,
    )


class _Promised(models.TransparencyLogEntry):
    """An entry without a proof that the log has it."""

    def _validate(self) -> None:
        """Nothing: there is no proof."""

    def _verify(self, keyring: RekorKeyring) -> None:
        self._verify_set(keyring)


class _Verifier(Verifier):
    """The library's, which tells the times that it believes."""

    def __init__(self, trusted_root: models.TrustedRoot) -> None:
        super().__init__(trusted_root=trusted_root)
        self.times: list[datetime] = []

    def _establish_time(self, bundle: models.Bundle) -> list[TimestampVerificationResult]:
        found = super()._establish_time(bundle)
        self.times = [result.time for result in found]
        return found


class _Signer:
    """Compares what a certificate says of its owner; called by the library once the certificate is known to be genuine."""

    def __init__(self, identity: str, issuer: str) -> None:
        self._identity = identity
        self._issuer = issuer

    def verify(self, cert: x509.Certificate) -> None:
        """Raise ``CannotVerify`` unless it is the identity, confirmed by the issuer."""
        issuers = set()
        for extension in cert.extensions:
            if extension.oid == _ISSUER_V1:
                issuers.add(extension.value.public_bytes().decode())
            elif extension.oid == _ISSUER_V2:
                issuers.add(asn1.decode_der(str, extension.value.public_bytes()))
        names = _names(cert)
        if len(names) != 1:
            raise CannotVerify(f"the certificate names {len(names)} identities, exactly one is expected")
        if len(issuers) != 1:
            raise CannotVerify(f"the certificate names {len(issuers)} issuers, exactly one is expected")
        if names[0] != self._identity:
            raise CannotVerify(
                f"the certificate is for the identity {quoted(names[0])}, not {quoted(self._identity)}"
            )
        (issuer,) = issuers
        if issuer != self._issuer:
            raise CannotVerify(
                f"the identity is confirmed by the issuer {quoted(issuer)}, not {quoted(self._issuer)}"
            )


def _names(cert: x509.Certificate) -> list[str]:
    """Everybody whom a certificate names; of names of other kinds only that they are there."""
    names = []
    for name in cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value:
        if isinstance(name, x509.RFC822Name | x509.UniformResourceIdentifier):
            names.append(name.value)
        elif isinstance(name, x509.OtherName) and name.type_id == _USER_NAME:
            names.append(asn1.decode_der(str, name.value))
        else:
            names.append("")
    return names


def _check_certificate(cert: x509.Certificate) -> None:
    if not isinstance(cert.public_key(), ec.EllipticCurvePublicKey):
        raise CannotVerify("the certificate's key is not ECDSA")


def _certificate_problem(cert: x509.Certificate, times: list[datetime], root: Root) -> CannotVerify:
    """Why no chain leads to the root."""
    for time in times:
        if not cert.not_valid_before_utc <= time <= cert.not_valid_after_utc:
            return CannotVerify(
                f"the certificate was valid from {_shown(cert.not_valid_before_utc)} to "
                f"{_shown(cert.not_valid_after_utc)}, but the signature is of {_shown(time)}"
            )
    return CannotVerify(f"the certificate is not by an authority of {root.path}")


def _problem(error: Exception) -> CannotVerify:
    """What a failure of the library means."""
    text = str(error)
    for words, meaning in _MEANINGS:
        if words in text:
            return CannotVerify(meaning)
    return CannotVerify(f"the bundle is not sound: {_detail(error)}")


def _entry_problem(bundle: Bundle, library: models.Bundle) -> str:
    """In what the log's entry differs."""
    if bundle.message is not None:
        digests = [bundle.message.digest]
    else:
        assert bundle.envelope is not None
        signed = (bundle.envelope.payload, bundle.envelope.signed_bytes)
        digests = [hashlib.sha256(data).digest() for data in signed]
    body = library.log_entry._inner.canonicalized_body  # noqa: SLF001 - the library has no other way
    if any(form in body for digest in digests for form in (digest.hex().encode(), base64.b64encode(digest))):
        return "the log entry is of another signature or certificate"
    return "the log entry is of something else than what is signed"


def _check_position(library: models.Bundle) -> None:
    """The path was followed for a position and a size that nobody signed: hold them against the checkpoint."""
    proof = library.log_entry._inner.inclusion_proof  # noqa: SLF001 - the library has no other way
    assert proof.checkpoint is not None
    lines = proof.checkpoint.envelope.split("\n")
    if lines[1] != str(proof.tree_size) or proof.log_index >= proof.tree_size:
        raise CannotVerify("the proof of inclusion is for another position or size than the checkpoint has")


def _check_periods(library: models.Bundle, times: list[datetime], root: Root) -> None:
    """Nobody of the root is believed about times at which the root does not believe them."""
    inner = root.trusted._inner  # noqa: SLF001 - the library has no other way
    logs = _logs(library, root)
    if not logs:
        raise _unknown_log(root)
    if not any(_covers(log.public_key.valid_for, times) for log in logs):
        raise CannotVerify(f"{root.path} does not believe this log at {_shown(min(times))}")
    (seen,) = library.signing_certificate.extensions.get_extension_for_class(
        x509.PrecertificateSignedCertificateTimestamps
    ).value
    seen_at = seen.timestamp.replace(tzinfo=UTC)
    if not any(
        _covers(log.public_key.valid_for, [seen_at]) for log in inner.ctlogs if seen.log_id in _log_ids(log)
    ):
        raise CannotVerify(f"{root.path} does not believe the certificate log at {_shown(seen_at)}")
    issuers = [
        authority
        for authority in inner.certificate_authorities
        if any(
            _is_issued(library.signing_certificate, certificate.raw_bytes)
            for certificate in authority.cert_chain.certificates
        )
    ]
    if not any(_covers(authority.valid_for, times) for authority in issuers):
        raise CannotVerify(
            f"{root.path} does not believe the certificate's authority at {_shown(min(times))}"
        )


def _logs(library: models.Bundle, root: Root) -> list[Any]:
    """The log of the root that an entry says to be of."""
    log_id = library.log_entry._inner.log_id.key_id  # noqa: SLF001 - the library has no other way
    return [log for log in root.trusted._inner.tlogs if log_id in _log_ids(log)]  # noqa: SLF001


def _unknown_log(root: Root) -> CannotVerify:
    return CannotVerify(f"the log entry is of a log that {root.path} does not have; a newer root may have it")


def _log_ids(log: Any) -> list[bytes]:
    found = [log.log_id, log.checkpoint_key_id]
    return [item.key_id for item in found if item is not None]


def _covers(period: TimeRange | None, times: list[datetime]) -> bool:
    if period is None:
        return True
    return all(period.start <= time and (period.end is None or time <= period.end) for time in times)


def _is_issued(cert: x509.Certificate, authority: bytes) -> bool:
    try:
        cert.verify_directly_issued_by(x509.load_der_x509_certificate(authority))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _shown(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _detail(error: BaseException) -> str:
    """What the library says, on one line; of a document that is not well-formed the first place."""
    cause = error if isinstance(error, ValidationError) else error.__context__
    if isinstance(cause, ValidationError):
        first = cause.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"[:_MAX_DETAIL_LENGTH]
    return (str(error) or type(error).__name__).replace("\n", " ")[:_MAX_DETAIL_LENGTH]

# SPDX-License-Identifier: Apache-2.0
"""What may vouch for an image, and what a look at it found.

Evidence is bytes of a registry, a directory or a server: root carries them, ``rkt-verify`` alone reads them. A finding is
what that worker says of one piece of evidence and one requirement; root compares it with what it knows itself.
"""

from __future__ import annotations

from rkt.schema.record import Record

#: A signed OpenPGP message around a JSON payload (containers-signature(5), "simple signing"), taken apart.
SIMPLE_SIGNING = "simple-signing"
#: A payload of simple signing and a signature beside it (cosign before version 3: a manifest tagged ``sha256-HEX.sig``).
COSIGN_CLASSIC = "cosign-classic"
#: A sigstore bundle, version 0.3: a JSON document (cosign 3, SLSA provenance; an artifact that refers to the image).
BUNDLE = "bundle"
#: A DSSE envelope around a statement (cosign before version 3, Tekton Chains: a manifest tagged ``sha256-HEX.att``).
COSIGN_ATTESTATION = "cosign-attestation"
#: Kinds of requirements to the kinds of evidence that can meet them.
EVIDENCE_FOR = {
    "openpgp": (SIMPLE_SIGNING,),
    "cosign": (COSIGN_CLASSIC, BUNDLE),
    "keyless": (COSIGN_CLASSIC, BUNDLE),
    "slsa": (BUNDLE, COSIGN_ATTESTATION),
}
#: Bounds on evidence: how much is had of a source, and how much is read; what is beyond them vouches for nothing.
MAX_PIECES = 64
MAX_PIECE_BYTES = 1 << 20
MAX_TOTAL_BYTES = 8 << 20
#: Of evidence as it is written down: base64, and what is around it.
MAX_WRITTEN_BYTES = 3 * MAX_TOTAL_BYTES
#: Longest reason that is told, in characters.
MAX_REASON_LENGTH = 600


class Evidence(Record):
    """Bytes, as they came.

    Attributes:
        kind: one of the words above.
        source: where it was, for people: ``referrer sha256:…``, ``tag sha256-….sig``, ``file …``.
        data: the payload, the envelope, or the bundle.
        signature: of the payload, base64; for ``simple-signing`` the OpenPGP packet.
        certificate, chain, log_entry: annotations that a keyless signature of cosign before version 3 has; PEM, PEM, JSON.
        problem: why there is no ``data`` to read, for people; empty when there is.
    """

    kind: str
    source: str
    data: bytes
    signature: str = ""
    certificate: str = ""
    chain: str = ""
    log_entry: str = ""
    problem: str = ""


class Subject(Record):
    """The image that somebody should vouch for; known before any evidence is read (invariant SG3).

    Attributes:
        name: what rules are found by: an appc name, or ``REGISTRY/REPOSITORY`` with the registry's port.
        reference: as signatures name it: ``REGISTRY/REPOSITORY:TAG`` or ``REGISTRY/REPOSITORY@DIGEST``; Docker Hub is
            ``docker.io``. Empty where there is no registry, so that no name is compared.
        digests: of the manifest and, when there is one, of the index it was chosen from: either may be signed.
    """

    name: str
    reference: str
    digests: list[str]


class Finding(Record):
    """What came of one piece of evidence for one requirement.

    Attributes:
        requirement: its index.
        source: of the evidence.
        reason: why it does not vouch, for people; empty when it does.
        signer: fingerprint, ``sha256:…`` of the key (its SubjectPublicKeyInfo), or ``IDENTITY (ISSUER)``.
        digest: that is signed; one of the subject's when it vouches.
        signed_at: seconds since the epoch as somebody trusted says (a log, a time stamp, the OpenPGP signature); 0 if unknown.
        contradicts: it is by the very signer that is asked for, and it is wrong: over other bytes, or of another digest. Then
            the requirement is not met, whatever other evidence says. Never for a signer that nobody asked for, nor for another
            name: a copy of an image keeps the signature by its first name.
    """

    requirement: int
    source: str
    reason: str = ""
    signer: str = ""
    digest: str = ""
    signed_at: int = 0
    contradicts: bool = False

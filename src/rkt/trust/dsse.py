# SPDX-License-Identifier: Apache-2.0
"""DSSE envelopes and the in-toto statements in them: what is signed, and what it says.

Source: secure-systems-lab/dsse, ``protocol.md`` and ``envelope.md``; in-toto attestation framework, ``statement.md``.
"""

from __future__ import annotations

import binascii

from rkt.errors import CannotVerify, InvalidManifest, quoted
from rkt.schema import jsontext
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STATEMENT_TYPE = "application/vnd.in-toto+json"
#: What a signature of an image is in cosign 3: a statement that says no more than that.
SIGNATURE_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
PROVENANCE_V1 = "https://slsa.dev/provenance/v1"
PROVENANCE_V02 = "https://slsa.dev/provenance/v0.2"
#: Kinds of requirements to the types of statements that can meet them.
PREDICATES_FOR = {
    "cosign": (SIGNATURE_PREDICATE,),
    "keyless": (SIGNATURE_PREDICATE,),
    "slsa": (PROVENANCE_V1, PROVENANCE_V02),
}
_STATEMENTS = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
_MAX_SUBJECTS = 1024
_HEX = frozenset("0123456789abcdef")


class Envelope(Record):
    """What is signed, by whom nobody knows yet.

    Attributes:
        payload_type: what the payload is said to be; signed with it.
        payload: the bytes.
        signature: the only one; a bundle has exactly one.
    """

    payload_type: str
    payload: bytes
    signature: bytes

    @property
    def signed_bytes(self) -> bytes:
        """What the signature is over: the pre-authentication encoding."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.payload), self.payload)


class Statement(Record):
    """What somebody says of artifacts.

    Attributes:
        predicate_type: what sort of thing is said.
        predicate: the thing itself, decoded JSON.
        digests: ``sha256:…`` of the artifacts.
    """

    predicate_type: str
    predicate: Any
    digests: list[str]


def decode64(value: object, what: str) -> bytes:
    """Base64 with nothing left out and nothing around it, so that no other text has the same meaning.

    Raises:
        CannotVerify: it is not.
    """
    if not isinstance(value, str) or not value:
        raise CannotVerify(f"{what} is missing")
    try:
        text = value.encode("ascii")
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise CannotVerify(f"{what} is not base64") from None
    # The last character may have bits that nobody reads.
    if binascii.b2a_base64(data, newline=False) != text:
        raise CannotVerify(f"{what} is not base64")
    return data


def parse_envelope(value: object) -> Envelope:
    """Decoded JSON to an envelope.

    Raises:
        CannotVerify: it is none, or has not exactly one signature.
    """
    if not isinstance(value, dict):
        raise CannotVerify("the DSSE envelope is not an object")
    kind = value.get("payloadType")
    if not isinstance(kind, str):
        raise CannotVerify("the DSSE envelope has no payloadType")
    signatures = value.get("signatures")
    if not isinstance(signatures, list) or not all(isinstance(item, dict) for item in signatures):
        raise CannotVerify("the DSSE envelope has no list of signatures")
    if len(signatures) != 1:
        raise CannotVerify(f"the DSSE envelope has {len(signatures)} signatures, exactly one is expected")
    return Envelope(
        payload_type=kind,
        payload=decode64(value.get("payload"), "the payload of the DSSE envelope"),
        signature=decode64(signatures[0].get("sig"), "the signature of the DSSE envelope"),
    )


def parse_statement(envelope: Envelope) -> Statement:
    """The statement of an envelope whose signature is good.

    Raises:
        CannotVerify: the payload is none.
    """
    if envelope.payload_type != STATEMENT_TYPE:
        raise CannotVerify(
            f"the signed payload is of the type {quoted(envelope.payload_type)}, not {quoted(STATEMENT_TYPE)}"
        )
    try:
        value = jsontext.parse(envelope.payload, what="the signed statement")
    except InvalidManifest as e:
        raise CannotVerify(e.message) from None
    if not isinstance(value, dict) or value.get("_type") not in _STATEMENTS:
        raise CannotVerify("the signed payload is no in-toto statement")
    kind, subjects = value.get("predicateType"), value.get("subject")
    if not isinstance(kind, str) or not kind:
        raise CannotVerify("the signed statement has no predicateType")
    if not isinstance(subjects, list) or not 0 < len(subjects) <= _MAX_SUBJECTS:
        raise CannotVerify(f"the signed statement must be about 1 to {_MAX_SUBJECTS} subjects")
    return Statement(
        predicate_type=kind,
        predicate=value.get("predicate"),
        digests=[_digest(subject) for subject in subjects],
    )


def _digest(subject: object) -> str:
    digests = subject.get("digest") if isinstance(subject, dict) else None
    text = digests.get("sha256") if isinstance(digests, dict) else None
    if not isinstance(text, str) or len(text) != 64 or not _HEX.issuperset(text):
        raise CannotVerify("a subject of the signed statement has no SHA-256 digest")
    return f"sha256:{text}"

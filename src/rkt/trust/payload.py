# SPDX-License-Identifier: Apache-2.0
"""The payload of simple signing: which image somebody signed, under which name (containers-signature(5)).

cosign before version 3 signs the same with a key. Members of ``critical`` that are not known make it say nothing.
"""

from __future__ import annotations

from rkt.errors import CannotVerify, InvalidManifest, quoted
from rkt.schema import jsontext
from rkt.schema.record import Record
from rkt.values import DOCKER_HUB, DOCKER_HUB_NAMES

#: What ``critical.type`` says when cosign, skopeo or podman signed by a key.
COSIGN_TYPE = "cosign container image signature"
_CRITICAL = frozenset(("identity", "image", "type"))


class Payload(Record):
    """What is signed.

    Attributes:
        digest: of the image.
        reference: under which it was signed; may be empty.
    """

    digest: str
    reference: str


def parse_payload(data: bytes, kind: str) -> Payload:
    """Bytes whose signature is good to what they say.

    Args:
        data: the payload.
        kind: what ``critical.type`` must be.
    Raises:
        CannotVerify: it is none, or of another type.
    """
    try:
        value = jsontext.parse(data, what="the signed payload")
    except InvalidManifest as e:
        raise CannotVerify(e.message) from None
    critical = value.get("critical") if isinstance(value, dict) else None
    if not isinstance(critical, dict):
        raise CannotVerify("the signed payload has no object critical")
    if critical.keys() != _CRITICAL:
        raise CannotVerify(
            "critical of the signed payload must have identity, image and type, and nothing else"
        )
    if critical["type"] != kind:
        shown = quoted(critical["type"]) if isinstance(critical["type"], str) else "none"
        raise CannotVerify(f"the signed payload is of the type {shown}, not {quoted(kind)}")
    image, identity = critical["image"], critical["identity"]
    digest = image.get("docker-manifest-digest") if isinstance(image, dict) else None
    reference = identity.get("docker-reference", "") if isinstance(identity, dict) else None
    if not isinstance(digest, str) or not isinstance(reference, str):
        raise CannotVerify("the signed payload has no docker-manifest-digest and docker-reference")
    return Payload(digest=digest, reference=reference)


def check_reference(signed: str, wanted: str) -> None:
    """See that a signature is for the name that was asked for.

    Args:
        signed: the name in the signature: ``REGISTRY/REPOSITORY``, and perhaps ``:TAG`` or ``@DIGEST``.
        wanted: ``Subject.reference``; nothing is compared when it is empty.
    Raises:
        CannotVerify: it is for another name; or another tag, where both have one.
    """
    if not wanted:
        return
    name, tag = _split(signed)
    wanted_name, wanted_tag = _split(wanted)
    if name != wanted_name:
        raise CannotVerify(f"the signature is for the name {quoted(signed)}, not for {quoted(wanted_name)}")
    if tag and wanted_tag and tag != wanted_tag:
        raise CannotVerify(f"the signature is for the tag {quoted(tag)}, not for {quoted(wanted_tag)}")


def _split(reference: str) -> tuple[str, str]:
    """``REGISTRY/REPOSITORY`` and the tag, which is empty where there is none, or a digest."""
    name, at, _ = reference.partition("@")
    head, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    registry, first_slash, rest = f"{head}{slash}{last}".partition("/")
    if registry in DOCKER_HUB_NAMES:
        registry = DOCKER_HUB
        rest = rest if "/" in rest else f"library/{rest}"
    return f"{registry}{first_slash}{rest}", "" if at else tag

# SPDX-License-Identifier: Apache-2.0
"""Simple signing: what a signed payload says, and whether that is about the image that was asked for.

Runs in ``rkt-verify``, after ``trust.simple_signing`` had the signature checked: nothing of a payload is parsed before
``gpgv`` called these very bytes good (invariant SG10).

Which name has to be signed: an image that was asked for by tag is vouched for by a signature for that registry, repository
and tag, not for another tag of the same image. One that was asked for by digest is vouched for by a signature for the
repository, with whatever tag, because the digest is compared anyway. That is ``matchRepoDigestOrExact`` of
containers-policy.json(5), which is the default there. An image that comes from no registry has no name to be compared.

Source: containers-signature(5).
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, quoted
from rkt.schema import jsontext
from rkt.schema.record import Record
from rkt.trust.evidence import Finding
from rkt.trust.message import MAX_PAYLOAD_BYTES
from rkt.values import DOCKER_HUB, DOCKER_HUB_NAMES, Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.trust.evidence import Evidence, Subject

_TYPE = "atomic container signature"
_OFFICIAL = "library"


class _Name(Record):
    """A reference as signatures name it, in full: ``docker.io/library/busybox``, tag or digest."""

    repository: str
    tag: str
    digest: str

    def __str__(self) -> str:
        end = f"@{self.digest}" if self.digest else f":{self.tag}" if self.tag else ""
        return f"{self.repository}{end}"


def verify(
    requirement: dict[str, Any], files: dict[str, bytes], evidence: Evidence, subject: Subject, now: int
) -> Finding:
    """Read the payload of a signature that is good, and compare it with the image.

    Args:
        requirement: not used: which key signed has been found out.
        files: likewise.
        evidence: ``data`` is the payload.
        subject: the image.
        now: not used: whether the signature has expired has been found out.
    Returns:
        without a signer, which the payload does not know.
    """
    finding = Finding(requirement=0, source=evidence.source)
    try:
        digest, name = _parse(evidence.data)
    except InvalidManifest as e:
        return finding.replace(reason=e.message)
    if digest not in subject.digests:
        return finding.replace(
            reason=f"it is for another image: it signs {digest}, not {' or '.join(subject.digests)}",
            contradicts=True,
        )
    finding = finding.replace(digest=digest)
    if subject.reference and (problem := _compare(_parse_name(name), _parse_name(subject.reference))):
        return finding.replace(reason=problem)
    return finding


def _parse(data: bytes) -> tuple[str, str]:
    """Digest and reference that a payload names.

    Raises:
        InvalidManifest: it is not a payload of simple signing, understood in full.
    """
    document = jsontext.parse(data, what="what is signed", limit_bytes=MAX_PAYLOAD_BYTES)
    top = _members(document, "what is signed", "critical", "optional")
    critical = _members(top["critical"], "critical", "type", "image", "identity")
    if critical["type"] != _TYPE:
        raise InvalidManifest(
            f"what is signed is no simple signature: critical.type is {_show(critical['type'])}"
        )
    image = _members(critical["image"], "critical.image", "docker-manifest-digest")
    identity = _members(critical["identity"], "critical.identity", "docker-reference")
    name = identity["docker-reference"]
    if type(name) is not str:
        raise InvalidManifest(f"critical.identity.docker-reference is {_show(name)}, but must be text")
    optional = top["optional"]
    if type(optional) is not dict:
        raise InvalidManifest("optional is no object")
    for member, kind in (("creator", str), ("timestamp", int)):
        if member in optional and type(optional[member]) is not kind:
            raise InvalidManifest(f"optional.{member} is {_show(optional[member])}, which it cannot be")
    return Digest.parse(image["docker-manifest-digest"]), name


def _members(value: object, what: str, *names: str) -> dict[str, Any]:
    """The members of an object that has these and no others."""
    if type(value) is not dict:
        raise InvalidManifest(f"{what} is no object")
    for name in names:
        if name not in value:
            raise InvalidManifest(f"{what} has no member {quoted(name)}")
    for name in value:
        if name not in names:
            raise InvalidManifest(f"{what} has the unknown member {quoted(name)}")
    return value


def _show(value: object) -> str:
    return quoted(value) if isinstance(value, str) else repr(value)[:64]


def _compare(signed: _Name, wanted: _Name) -> str:
    """Why a name that is signed is not the one that was asked for; empty if it is."""
    if signed.repository != wanted.repository:
        return f"it is for another name: it signs {quoted(str(signed))}, not {quoted(str(wanted))}"
    if wanted.digest or (signed.tag, signed.digest) == (wanted.tag, ""):
        return ""
    if not signed.tag and not signed.digest:
        return f"it is for no tag: it signs {quoted(str(signed))}, not {quoted(str(wanted))}"
    return f"it is for another tag: it signs {quoted(str(signed))}, not {quoted(str(wanted))}"


def _parse_name(text: str) -> _Name:
    """A reference with what may be left out of it (``busybox:latest`` is ``docker.io/library/busybox:latest``)."""
    rest, _, digest = text.partition("@")
    head, slash, last = rest.rpartition("/")
    last, _, tag = last.partition(":")
    rest = f"{head}{slash}{last}"
    registry, slash, path = rest.partition("/")
    registry = registry.lower()
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, path = DOCKER_HUB, rest
    if registry in DOCKER_HUB_NAMES:
        registry = DOCKER_HUB
        path = path if "/" in path else f"{_OFFICIAL}/{path}"
    return _Name(repository=f"{registry}/{path}", tag=tag, digest=digest)

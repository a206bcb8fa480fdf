# SPDX-License-Identifier: Apache-2.0
"""The payload of simple signing: which image somebody signed, under which name (containers-signature(5)).

Signatures by OpenPGP have one, and those that cosign before version 3, skopeo and podman make by a key. A payload that is
not understood in full says nothing.
"""

from __future__ import annotations

from rkt.errors import CannotVerify, InvalidManifest, quoted
from rkt.schema import jsontext
from rkt.schema.record import Record
from rkt.values import DOCKER_HUB, DOCKER_HUB_NAMES, Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: What ``critical.type`` says when somebody signed by OpenPGP.
OPENPGP_TYPE = "atomic container signature"
#: And when cosign, skopeo or podman signed by a key.
COSIGN_TYPE = "cosign container image signature"
_OFFICIAL = "library"


class Payload(Record):
    """What is signed.

    Attributes:
        digest: of the image.
        reference: under which it was signed; may be empty.
    """

    digest: str
    reference: str


class _Name(Record):
    """A reference as signatures name it, in full: ``docker.io/library/busybox``, tag or digest."""

    repository: str
    tag: str
    digest: str

    def __str__(self) -> str:
        end = f"@{self.digest}" if self.digest else f":{self.tag}" if self.tag else ""
        return f"{self.repository}{end}"


def parse_payload(data: bytes, kind: str) -> Payload:
    """Bytes whose signature is good to what they say.

    Args:
        data: the payload.
        kind: what ``critical.type`` must be.
    Raises:
        CannotVerify: it is none, or of another type.
    """
    try:
        return _parse(data, kind)
    except InvalidManifest as e:
        raise CannotVerify(e.message) from None


def check_name(signed: str, wanted: str, *, needs_tag: bool) -> None:
    """See that a signature is for the name that was asked for.

    Args:
        signed: the name in the signature: ``REGISTRY/REPOSITORY``, and perhaps ``:TAG`` or ``@DIGEST``.
        wanted: ``Subject.reference``; nothing is compared when it is empty.
        needs_tag: whether an image that was asked for by tag needs a signature for this very tag; else one for no tag,
            or for a digest, counts too.
    Raises:
        CannotVerify: it is for another name, or another tag.
    """
    if not wanted:
        return
    name, asked = _parse_name(signed), _parse_name(wanted)
    those = f"it signs {quoted(str(name))}, not {quoted(str(asked))}"
    if name.repository != asked.repository:
        raise CannotVerify(f"it is for another name: {those}")
    if asked.digest or (name.tag, name.digest) == (asked.tag, ""):
        # A digest is compared anyway.
        return
    if not needs_tag and (name.digest or not name.tag or not asked.tag):
        return
    which = "another" if name.tag or name.digest else "no"
    raise CannotVerify(f"it is for {which} tag: {those}")


def _parse(data: bytes, kind: str) -> Payload:
    document = jsontext.parse(data, what="what is signed")
    if kind == COSIGN_TYPE and isinstance(document, dict) and document.get("optional") is None:
        # cosign writes null, where there is nothing.
        document["optional"] = {}
    top = _members(document, "what is signed", "critical", "optional")
    critical = _members(top["critical"], "critical", "type", "image", "identity")
    if critical["type"] != kind:
        raise InvalidManifest(
            f"what is signed is of another type: critical.type is {_show(critical['type'])}, not {quoted(kind)}"
        )
    image = _members(critical["image"], "critical.image", "docker-manifest-digest")
    identity = _members(critical["identity"], "critical.identity", "docker-reference")
    reference = identity["docker-reference"]
    if type(reference) is not str:
        raise InvalidManifest(f"critical.identity.docker-reference is {_show(reference)}, but must be text")
    optional = top["optional"]
    if type(optional) is not dict:
        raise InvalidManifest("optional is no object")
    for member, sort in (("creator", str), ("timestamp", int)):
        if member in optional and type(optional[member]) is not sort:
            raise InvalidManifest(f"optional.{member} is {_show(optional[member])}, which it cannot be")
    return Payload(digest=Digest.parse(image["docker-manifest-digest"]), reference=reference)


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

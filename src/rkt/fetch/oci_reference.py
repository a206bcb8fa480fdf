# SPDX-License-Identifier: Apache-2.0
"""References to Docker and OCI images: in registries, in image layouts, in archives (spec cli §7.1)."""

from __future__ import annotations

import os

from rkt.errors import InvalidManifest, UsageError, quoted
from rkt.schema.record import Record
from rkt.values import DOCKER_HUB_NAMES, DOCKER_HUB_REGISTRY, ACIdentifier, Digest, is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: Kinds of references, which are also the words that they begin by.
DOCKER: Final = "docker"
LAYOUT: Final = "oci"
OCI_ARCHIVE: Final = "oci-archive"
DOCKER_ARCHIVE: Final = "docker-archive"
LOCAL_KINDS = (LAYOUT, OCI_ARCHIVE, DOCKER_ARCHIVE)

_OFFICIAL = "library"
DEFAULT_TAG = "latest"
#: Bounds of the reference grammar, in characters.
_MAX_NAME_LENGTH = 255
_MAX_TAG_LENGTH = 128

_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz")
_DIGITS = frozenset("0123456789")
_ALNUM = _LOWER | _DIGITS
_LETTERS = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_HOST_CHARACTERS = _LETTERS | _DIGITS | frozenset("-")
_TAG_START = _LETTERS | _DIGITS | frozenset("_")
_TAG_CHARACTERS = _TAG_START | frozenset(".-")
_IPV6_CHARACTERS = frozenset("0123456789abcdefABCDEF:.")
_SYNTAX = "docker://[HOST[:PORT]/]NAME[:TAG][@sha256:DIGEST]"


class DockerReference(Record):
    """An image of a registry, with everything that Docker lets people leave out.

    Attributes:
        registry: host and perhaps port; of Docker Hub the host that answers.
        repository: path below it.
        tag: empty when there is a digest, which wins.
        digest: of a manifest or an index.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """``registry/repository``."""
        return f"{self.registry}/{self.repository}"

    @property
    def image_name(self) -> ACIdentifier:
        """What the image is called in the store."""
        return ACIdentifier.sanitize(self.name)

    def __str__(self) -> str:
        """``docker://`` and the whole reference, the same for all ways to write it."""
        return f"docker://{self.name}{f'@{self.digest}' if self.digest else f':{self.tag}'}"


class LocalReference(Record):
    """An image of an image layout or of an archive.

    Attributes:
        kind: one of ``LOCAL_KINDS``.
        path: absolute, of the directory or the file.
        image: which of its images: a name, or a digest of its index or of one of its manifests; empty for the only one.
    """

    kind: str
    path: str
    image: str = ""

    @property
    def digest(self) -> Digest | None:
        """The digest, when that is what ``image`` is."""
        try:
            return Digest.parse(self.image.removeprefix("@"))
        except InvalidManifest:
            return None

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}{f':{self.image}' if self.image else ''}"


def parse_docker(text: str) -> DockerReference:
    """What follows ``docker:`` or ``docker://`` to a whole reference.

    Raises:
        UsageError: it breaks the grammar.
    """
    rest, at, digest_text = text.partition("@")
    digest = None
    if at:
        try:
            digest = Digest.parse(digest_text)
        except InvalidManifest as e:
            raise _invalid(text, e.message) from None
    first, slash, path = rest.partition("/")
    if slash and ("." in first or ":" in first or first.lower() == "localhost"):
        registry = first.lower()
    else:
        registry, path = DOCKER_HUB_REGISTRY, rest
    if registry in DOCKER_HUB_NAMES:
        registry = DOCKER_HUB_REGISTRY
    path, colon, tag = path.partition(":")
    if colon and not _is_tag(tag):
        raise _invalid(text, f"{quoted(tag)} is no tag")
    if not _is_registry(registry):
        raise _invalid(text, f"{quoted(registry)} is no registry")
    if not path:
        raise _invalid(text, "the name is empty")
    for component in path.split("/"):
        if not _is_component(component):
            upper = " (names are in lower case)" if component != component.lower() else ""
            raise _invalid(text, f"{quoted(component)} is no part of a name{upper}")
    if registry == DOCKER_HUB_REGISTRY and "/" not in path:
        path = f"{_OFFICIAL}/{path}"
    if len(registry) + 1 + len(path) > _MAX_NAME_LENGTH:
        raise _invalid(text, f"the name is longer than {_MAX_NAME_LENGTH} characters")
    return DockerReference(
        registry=registry, repository=path, tag="" if digest else tag or DEFAULT_TAG, digest=digest
    )


def parse_local(kind: str, text: str) -> LocalReference:
    """What follows ``oci:``, ``oci-archive:`` or ``docker-archive:``: ``PATH[:IMAGE]``.

    Raises:
        UsageError: there is no path.
    """
    path, _, image = text.partition(":")
    if not path or "\0" in text:
        raise UsageError(f"invalid reference {quoted(f'{kind}:{text}')}", hint=f"use {kind}:PATH[:IMAGE]")
    return LocalReference(kind=kind, path=os.path.abspath(path), image=image)


def row_url(reference: DockerReference, platform: str = "") -> str:
    """By what the store remembers what came of a reference: the same text for all ways to write it.

    Args:
        reference: of a registry.
        platform: as typed; empty for that of this host.
    """
    if platform:
        from rkt.schema.oci import Platform

        wanted = Platform.parse(platform)
        if wanted != Platform.of_host():
            return f"{reference}?platform={wanted}"
    return str(reference)


def absent(registry: str, what: str) -> str:
    """What is said when a registry has no such thing, and nothing else than that."""
    return f"registry {registry} has no {what}"


def _is_registry(text: str) -> bool:
    """Host name, address, or ``[IPv6]``, and perhaps a port."""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        is_host = bool(bracket) and ":" in host and _IPV6_CHARACTERS.issuperset(host)
        if port and not port.startswith(":"):
            return False
        port = port[1:] if port else "1"
    else:
        host, colon, port = text.partition(":")
        is_host = all(
            label and _HOST_CHARACTERS.issuperset(label) and label[0] != "-" and label[-1] != "-"
            for label in host.split(".")
        )
        port = port if colon else "1"
    return is_host and is_number(port, most_digits=5) and 0 < int(port) <= 65535


def _is_component(text: str) -> bool:
    """Letters and digits, between which one ``.``, one or two ``_``, or any number of ``-`` may stand."""
    if not text or text[0] not in _ALNUM or text[-1] not in _ALNUM:
        return False
    separator = ""
    for c in text:
        if c in _ALNUM:
            if separator not in {"", ".", "_", "__"} and separator.strip("-"):
                return False
            separator = ""
        elif c in "._-":
            separator += c
        else:
            return False
    return True


def _is_tag(text: str) -> bool:
    return 0 < len(text) <= _MAX_TAG_LENGTH and text[0] in _TAG_START and _TAG_CHARACTERS.issuperset(text)


def _invalid(text: str, why: str) -> UsageError:
    return UsageError(f"invalid docker reference {quoted(text)}: {why}", hint=f"use {_SYNTAX}")

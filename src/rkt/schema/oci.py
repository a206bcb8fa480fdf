# SPDX-License-Identifier: Apache-2.0
"""Indexes, manifests and configurations of OCI and Docker images: bytes to frozen records (invariants UN14 to UN16).

OCI image specification 1.0 and 1.1, Docker image manifest version 2 schema 2 and manifest lists. A document is what its
media type says and nothing else: other clients must not be able to read the same bytes as something different. So a
repeated member, a member that other decoders match in another case, a document with both ``manifests`` and ``layers``,
and a media type that differs from the one it was asked for by are refused. Unknown members are ignored; whoever needs a
document keeps its bytes, which its digest is of.
"""

from __future__ import annotations

import os

from rkt.errors import InvalidManifest, NotFound, UsageError, quoted
from rkt.schema import architectures, jsontext
from rkt.schema.members import read_integer, read_list, read_text, read_text_map, read_texts
from rkt.schema.record import Record
from rkt.values import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Self

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
INDEXES = (OCI_INDEX, DOCKER_LIST)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)
#: Of Docker's first format, which names layers by invented identifiers and cannot be checked by digest.
SCHEMA1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
GZIP = "gzip"
ZSTD = "zstd"
#: Media types of layers to their compression; empty for a plain tar.
LAYERS = {
    "application/vnd.oci.image.layer.v1.tar": "",
    "application/vnd.oci.image.layer.v1.tar+gzip": GZIP,
    "application/vnd.oci.image.layer.v1.tar+zstd": ZSTD,
    "application/vnd.docker.image.rootfs.diff.tar": "",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": GZIP,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": ZSTD,
}
_FOREIGN = (
    "application/vnd.docker.image.rootfs.foreign.",
    "application/vnd.oci.image.layer.nondistributable.",
)
#: Largest index, manifest or configuration, in bytes.
MAX_DOCUMENT_BYTES = 4 << 20
#: Most layers of one image, as Docker has it.
MAX_LAYERS = 127
#: Largest blob that a descriptor may announce, in bytes.
MAX_BLOB_BYTES = 64 << 30
_MAX_MANIFESTS = 4096
_MAX_MEDIA_TYPE_LENGTH = 255
_MAX_WORD_LENGTH = 64
#: So many platforms are named in an error.
_MOST_SHOWN = 16
_MEDIA_TYPE_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&-^_.+/")
_WORD_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
#: Where BuildKit says that an entry of an index is about another one and no image.
_ATTESTATION = "vnd.docker.reference.type"
_REF_NAME = "org.opencontainers.image.ref.name"
#: What ``cosign save`` calls what is about an image, and how the tags of such things end.
_SAVED_ARTIFACTS = frozenset(("dev.cosignproject.cosign/sigs", "dev.cosignproject.cosign/atts"))
_ARTIFACT_ENDINGS = frozenset(("", "sig", "att", "sbom"))
#: Variants from the newest to the oldest: a processor runs what was made for an older one.
_VARIANTS = {
    "amd64": ("v4", "v3", "v2", "v1"),
    "arm64": ("v9", "v8"),
    "arm": ("v8", "v7", "v6", "v5"),
}
#: What an image without a variant is made for.
_DEFAULT_VARIANTS = {"amd64": "v1", "arm64": "v8", "arm": "v7"}

_DESCRIPTOR = ("mediaType", "digest", "size", "urls", "annotations", "platform", "artifactType")
_PLATFORM = ("os", "architecture", "variant", "os.version", "os.features")
_DOCUMENT = (
    "schemaVersion",
    "mediaType",
    "manifests",
    "layers",
    "config",
    "annotations",
    "subject",
    "artifactType",
    "fsLayers",
    "signatures",
)
_CONFIG = ("created", "author", "architecture", "variant", "os", "config", "rootfs", "history")
_ROOTFS = ("type", "diff_ids")
_HISTORY = ("created", "author", "created_by", "comment", "empty_layer")
_EXECUTION = (
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "Shell",
    "OnBuild",
)


class Platform(Record):
    """What an image is made for, in the words of the OCI specification: ``linux``, ``amd64``, ``v2``."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """``os/architecture[/variant]`` as people type it; names that the kernel uses are understood too.

        Raises:
            UsageError: it has another form.
        """
        parts = text.lower().split("/")
        if len(parts) not in {2, 3} or not all(map(_is_word, parts)):
            raise UsageError(
                f"invalid platform {quoted(text)}", hint="use OS/ARCHITECTURE[/VARIANT], as in linux/arm64"
            )
        architecture, variant = architectures.oci_names(parts[1])
        return cls(
            os=parts[0], architecture=architecture, variant=parts[2] if len(parts) == 3 else variant
        ).normalized()

    @classmethod
    def of_host(cls) -> Self:
        """The platform of this machine."""
        architecture, variant = architectures.oci_names(os.uname().machine)
        return cls(os="linux", architecture=architecture, variant=variant).normalized()

    def normalized(self) -> Self:
        """With the variant that people write: ``linux/arm64/v8`` is ``linux/arm64``, ``linux/arm`` is ``linux/arm/v7``."""
        if self.architecture == "arm":
            return self.replace(variant=self.variant or _DEFAULT_VARIANTS["arm"])
        if self.variant and self.variant == _DEFAULT_VARIANTS.get(self.architecture):
            return self.replace(variant="")
        return self

    def rank(self, other: Platform) -> int | None:
        """How well an image for ``other`` suits, 0 being best; None when it cannot run here."""
        if (other.os, other.architecture) != (self.os, self.architecture):
            return None
        default = _DEFAULT_VARIANTS.get(self.architecture, "")
        known = _VARIANTS.get(self.architecture, ())
        wanted, found = self.variant or default, other.variant or default
        if wanted == found:
            return 0
        if wanted not in known or found not in known:
            # Nobody knows what such a variant is: only what was asked for by its name.
            return None
        distance = known.index(found) - known.index(wanted)
        return distance if distance > 0 else None

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class Descriptor(Record):
    """What a document says of another blob.

    Attributes:
        media_type: of the blob.
        digest: of its bytes as transferred.
        size_bytes: of the same.
        platform: in an index.
        urls: where else it may be had; what has any is refused where it is needed.
        artifact_type: of an entry that is no image.
    """

    media_type: str
    digest: Digest
    size_bytes: int
    platform: Platform | None = None
    urls: list[str] = []
    annotations: dict[str, str] = {}
    artifact_type: str = ""


class Index(Record):
    """An OCI index or a Docker manifest list."""

    media_type: str
    manifests: list[Descriptor]
    annotations: dict[str, str] = {}

    def choose(self, wanted: Platform) -> Descriptor:
        """The entry that suits a platform best: a manifest, or another index.

        Raises:
            NotFound: none does.
        """
        usable = [d for d in self.manifests if _is_image_entry(d)]
        ranked = [
            (rank, position)
            for position, entry in enumerate(usable)
            if entry.platform is not None and (rank := wanted.rank(entry.platform)) is not None
        ]
        if ranked:
            return _without_urls(usable[min(ranked)[1]], "manifest")
        unnamed = [d for d in usable if d.platform is None]
        if len(unnamed) == 1:
            # Its configuration has to say for what it is.
            return _without_urls(unnamed[0], "manifest")
        offered = sorted({str(d.platform) for d in usable if d.platform is not None})
        shown = ", ".join(offered[:_MOST_SHOWN]) + (", …" if len(offered) > _MOST_SHOWN else "")
        raise NotFound(
            f"the image is not for {wanted}" + (f", but for {shown}" if shown else ""),
            hint=f"--platform={offered[0]}" if offered else "",
        )


class Manifest(Record):
    """A manifest of one image, or of an artifact that is none.

    Attributes:
        media_type: of the manifest.
        config: the configuration.
        layers: the bottom one first.
        subject: what an artifact is about.
    """

    media_type: str
    config: Descriptor
    layers: list[Descriptor]
    annotations: dict[str, str] = {}
    subject: Descriptor | None = None
    artifact_type: str = ""

    def check_image(self) -> None:
        """See that it is of an image whose layers are all to be had beside it.

        Raises:
            InvalidManifest: it is not.
        """
        if self.config.media_type not in CONFIGS:
            kind = self.artifact_type or self.config.media_type
            raise InvalidManifest(f"the manifest is of no image, but of an artifact of type {quoted(kind)}")
        _without_urls(self.config, "configuration")
        if not self.layers:
            raise InvalidManifest("the image has no layers")
        if len(self.layers) > MAX_LAYERS:
            raise InvalidManifest(
                f"the image has {len(self.layers)} layers, at most {MAX_LAYERS} are accepted"
            )
        for layer in self.layers:
            if layer.media_type.startswith(_FOREIGN):
                raise InvalidManifest(
                    f"layer {layer.digest} is not distributed with the image (media type {quoted(layer.media_type)})"
                )
            if layer.media_type not in LAYERS:
                raise InvalidManifest(
                    f"layer {layer.digest} has the media type {quoted(layer.media_type)}, which is not supported"
                )
            _without_urls(layer, "layer")


class History(Record):
    """How one layer, or none, was made."""

    created: str = ""
    author: str = ""
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False


class Execution(Record):
    """How a container of the image is to be run.

    Attributes:
        user: ``user[:group]``, names or numbers.
        ports: as written: ``80``, ``80/tcp``, ``8000-8010/udp``.
        environment: as written: ``NAME=VALUE``.
        entrypoint, command: argument lists; None when absent.
        volumes: paths.
        working_directory: path, may be empty.
        stop_signal: name or number, may be empty.
        healthcheck: decoded JSON, None when absent.
        shell, on_build: argument list and Dockerfile lines.
    """

    user: str = ""
    ports: list[str] = []
    environment: list[str] = []
    entrypoint: list[str] | None = None
    command: list[str] | None = None
    volumes: list[str] = []
    working_directory: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = ""
    healthcheck: dict[str, Any] | None = None
    shell: list[str] = []
    on_build: list[str] = []


class ImageConfig(Record):
    """The configuration of an image.

    Attributes:
        diff_ids: digests of the uncompressed layers, the bottom one first.
        execution: None when the image says nothing of how to run it.
    """

    platform: Platform
    diff_ids: list[Digest]
    created: str = ""
    author: str = ""
    execution: Execution | None = None
    history: list[History] = []


def parse_document(data: bytes, media_type: str = "") -> Index | Manifest:
    """An index or a manifest, whichever it is.

    Args:
        data: the document.
        media_type: what it was asked for by: the Content-Type, or the descriptor's; empty when nobody said. Parameters
            such as a character set have no say.
    Raises:
        InvalidManifest: neither, or not what the media type says.
    """
    fields = _document(data)
    if media_type:
        media_type = media_type.partition(";")[0].strip()
    found = _media_type(fields, media_type)
    return _index(fields, found) if found in INDEXES else _manifest(fields, found)


def parse_index(data: bytes, media_type: str = "") -> Index:
    """An index or manifest list, as ``parse_document``."""
    document = parse_document(data, media_type)
    if not isinstance(document, Index):
        raise InvalidManifest(
            f"an index is expected, but the document has type {quoted(document.media_type)}"
        )
    return document


def parse_manifest(data: bytes, media_type: str = "") -> Manifest:
    """A manifest, as ``parse_document``; whether it is of an image is for ``check_image`` to say."""
    document = parse_document(data, media_type)
    if not isinstance(document, Manifest):
        raise InvalidManifest(
            f"a manifest is expected, but the document has type {quoted(document.media_type)}"
        )
    return document


def parse_config(data: bytes) -> ImageConfig:
    """The configuration of an image.

    Raises:
        InvalidManifest: it breaks a rule.
    """
    what = "image configuration"
    fields = _members(jsontext.parse(data, what=what, limit_bytes=MAX_DOCUMENT_BYTES), _CONFIG, what)
    rootfs = _members(fields.get("rootfs"), _ROOTFS, "rootfs")
    if rootfs.get("type") != "layers":
        raise InvalidManifest('the type of rootfs must be "layers"')
    execution = fields.get("config")
    return ImageConfig(
        platform=_read_platform(
            {name: fields.get(name) for name in ("os", "architecture", "variant")}, required=True
        ),
        diff_ids=[
            Digest.parse(item, what="diff ID") for item in read_list(rootfs.get("diff_ids"), "diff_ids")
        ],
        created=_text(fields, "created"),
        author=_text(fields, "author"),
        execution=None if execution is None else _read_execution(execution),
        history=[_read_history(item) for item in read_list(fields.get("history", []), "history")],
    )


def is_artifact(entry: Descriptor) -> bool:
    """Whether an entry of an index is about an image and none itself: a signature, an attestation, or a list of such."""
    if entry.artifact_type and entry.artifact_type not in CONFIGS:
        return True
    if entry.annotations.get("kind") in _SAVED_ARTIFACTS:
        return True
    name, _, ending = entry.annotations.get(_REF_NAME, "").partition(".")
    digits = name.removeprefix("sha256-")
    return digits != name and len(digits) == 64 and ending in _ARTIFACT_ENDINGS


def check_together(manifest: Manifest, config: ImageConfig) -> None:
    """See that a configuration is about as many layers as its manifest has.

    Raises:
        InvalidManifest: it is not.
    """
    if len(manifest.layers) != len(config.diff_ids):
        raise InvalidManifest(
            f"the manifest has {len(manifest.layers)} layers, but the configuration has {len(config.diff_ids)} diff IDs"
        )


def _document(data: bytes) -> dict[str, Any]:
    what = "image manifest"
    value = jsontext.parse(data, what=what, limit_bytes=MAX_DOCUMENT_BYTES)
    fields = _members(value, _DOCUMENT, what)
    version = fields.get("schemaVersion")
    if version == 1 or "fsLayers" in fields:
        raise InvalidManifest(
            "the image has a manifest of Docker's schema 1, which cannot be checked by digest and is not supported",
            hint="push the image again with a current program: docker, podman or skopeo",
        )
    if version != 2 or not isinstance(version, int):
        # Others do not read 2.0 as a version.
        raise InvalidManifest("the schemaVersion of an image manifest must be 2")
    return fields


def _media_type(fields: dict[str, Any], expected: str) -> str:
    """The type that document and sender agree on."""
    if expected in SCHEMA1:
        raise InvalidManifest("manifests of Docker's schema 1 are not supported")
    if expected and expected not in (*INDEXES, *MANIFESTS):
        raise InvalidManifest(f"the media type {quoted(expected)} is of no image manifest")
    found = _read_media_type(fields["mediaType"], "mediaType") if "mediaType" in fields else ""
    if found and expected and found != expected:
        raise InvalidManifest(
            f"a document of type {quoted(expected)} was announced, but it calls itself {quoted(found)}"
        )
    is_index, is_manifest = "manifests" in fields, "layers" in fields or "config" in fields
    if is_index == is_manifest:
        raise InvalidManifest(
            "the document is both an index and a manifest"
            if is_index
            else "the document is neither an index nor a manifest"
        )
    # The specification left the member out at first: then what it was asked for by, or its members, decide.
    media_type = found or expected or (OCI_INDEX if is_index else OCI_MANIFEST)
    if media_type not in (*INDEXES, *MANIFESTS):
        raise InvalidManifest(f"the media type {quoted(media_type)} is of no image manifest")
    if (media_type in INDEXES) != is_index:
        raise InvalidManifest(f"a document of type {quoted(media_type)} must not have the members it has")
    return media_type


def _index(fields: dict[str, Any], media_type: str) -> Index:
    manifests = read_list(fields["manifests"], "manifests")
    if len(manifests) > _MAX_MANIFESTS:
        raise InvalidManifest(
            f"the index has {len(manifests)} entries, at most {_MAX_MANIFESTS} are accepted"
        )
    return Index(
        media_type=media_type,
        manifests=[_read_descriptor(item, "an entry of the index") for item in manifests],
        annotations=read_text_map(fields.get("annotations", {}), "annotations"),
    )


def _manifest(fields: dict[str, Any], media_type: str) -> Manifest:
    subject = fields.get("subject")
    return Manifest(
        media_type=media_type,
        config=_read_descriptor(fields.get("config"), "config"),
        layers=[_read_descriptor(item, "a layer") for item in read_list(fields.get("layers", []), "layers")],
        annotations=read_text_map(fields.get("annotations", {}), "annotations"),
        subject=None if subject is None else _read_descriptor(subject, "subject"),
        artifact_type=_text(fields, "artifactType"),
    )


def _read_descriptor(value: object, what: str) -> Descriptor:
    fields = _members(value, _DESCRIPTOR, what)
    platform = _read_platform(fields.get("platform", {}), required=False)
    return Descriptor(
        media_type=_read_media_type(fields.get("mediaType"), f"mediaType of {what}"),
        digest=Digest.parse(fields.get("digest"), what=f"digest of {what}"),
        size_bytes=read_integer(fields.get("size"), f"size of {what}", 0, MAX_BLOB_BYTES),
        # One that says nothing is none.
        platform=platform if str(platform) else None,
        urls=read_texts(fields.get("urls", []), f"urls of {what}"),
        annotations=read_text_map(fields.get("annotations", {}), f"annotations of {what}"),
        artifact_type=_text(fields, "artifactType"),
    )


def _read_platform(value: object, *, required: bool) -> Platform:
    fields = _members(value, _PLATFORM, "platform")
    words = {name: _text(fields, name).lower() for name in ("os", "architecture", "variant")}
    for name, word in words.items():
        if (word or (required and name != "variant")) and not _is_word(word):
            raise InvalidManifest(f"invalid {name} {quoted(word)} of a platform")
    architecture, variant = architectures.oci_names(words["architecture"])
    return Platform(
        os=words["os"], architecture=architecture, variant=words["variant"] or variant
    ).normalized()


def _read_history(value: object) -> History:
    fields = _members(value, _HISTORY, "an element of history")
    return History(
        created=_text(fields, "created"),
        author=_text(fields, "author"),
        created_by=_text(fields, "created_by"),
        comment=_text(fields, "comment"),
        empty_layer=fields.get("empty_layer") is True,
    )


def _read_execution(value: object) -> Execution:
    fields = _members(value, _EXECUTION, "config")
    healthcheck = fields.get("Healthcheck")
    if healthcheck is not None and not isinstance(healthcheck, dict):
        raise InvalidManifest("Healthcheck must be an object")
    return Execution(
        user=_text(fields, "User"),
        ports=_names(fields.get("ExposedPorts"), "ExposedPorts"),
        environment=read_texts(fields.get("Env", []), "Env"),
        entrypoint=_arguments(fields.get("Entrypoint"), "Entrypoint"),
        command=_arguments(fields.get("Cmd"), "Cmd"),
        volumes=_names(fields.get("Volumes"), "Volumes"),
        working_directory=_text(fields, "WorkingDir"),
        labels=read_text_map(fields.get("Labels", {}), "Labels"),
        stop_signal=_text(fields, "StopSignal"),
        healthcheck=healthcheck,
        shell=_arguments(fields.get("Shell"), "Shell") or [],
        on_build=read_texts(fields.get("OnBuild", []), "OnBuild"),
    )


def _names(value: object, what: str) -> list[str]:
    """The member names of an object, which is how Go writes a set; a list, as a few programs write it."""
    if value is None:
        return []
    if isinstance(value, list):
        return read_texts(value, what)
    if not isinstance(value, dict):
        raise InvalidManifest(f"{what} must be an object")
    return [read_text(name, f"a name in {what}") for name in value]


def _arguments(value: object, what: str) -> list[str] | None:
    """A list of arguments; old builders wrote a single one as text."""
    if value is None:
        return None
    return [read_text(value, what)] if isinstance(value, str) else read_texts(value, what)


def _text(fields: dict[str, Any], name: str) -> str:
    return read_text(fields.get(name, ""), name)


def _read_media_type(value: object, what: str) -> str:
    text = read_text(value, what)
    if (
        not text
        or len(text) > _MAX_MEDIA_TYPE_LENGTH
        or "/" not in text
        or not _MEDIA_TYPE_CHARACTERS.issuperset(text)
    ):
        raise InvalidManifest(f"invalid {what} {quoted(text)}")
    return text


def _members(value: object, names: Iterable[str], what: str) -> dict[str, Any]:
    """The known members of an object that are not ``null``; one that differs in case only is refused."""
    if not isinstance(value, dict):
        raise InvalidManifest(f"{what} must be an object")
    table = {name.casefold(): name for name in names}
    known = {}
    for spelling, member in value.items():
        name = table.get(spelling.casefold())
        if name is None:
            continue
        if name != spelling:
            raise InvalidManifest(
                f"{what} has a member {quoted(spelling)}, which some take for {quoted(name)}"
            )
        if member is not None:
            known[name] = member
    return known


def _is_image_entry(entry: Descriptor) -> bool:
    if (
        entry.media_type not in (*MANIFESTS, *INDEXES)
        or _ATTESTATION in entry.annotations
        or is_artifact(entry)
    ):
        return False
    return entry.platform is None or entry.platform.os != "unknown"


def _is_word(text: str) -> bool:
    return 0 < len(text) <= _MAX_WORD_LENGTH and text[0].isalnum() and _WORD_CHARACTERS.issuperset(text)


def _without_urls(descriptor: Descriptor, what: str) -> Descriptor:
    """Refuse what is to be had from elsewhere (invariant RG4)."""
    if descriptor.urls:
        raise InvalidManifest(
            f"{what} {descriptor.digest} is to be had from {quoted(descriptor.urls[0])}: foreign URLs are not followed"
        )
    return descriptor

# SPDX-License-Identifier: Apache-2.0
"""The record of one image: what the store knows of it besides its manifest and its files."""

from __future__ import annotations

from rkt.errors import DamagedRecord, InvalidManifest, StoreError
from rkt.schema.envelope import open_sealed, seal
from rkt.schema.record import Record
from rkt.trust.verdict import Verdict
from rkt.values import ACIdentifier, ImageID, ImageKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = "rkt.image"
VERSION = 1
REMOTE_FORMAT = "rkt.remote"
REMOTE_VERSION = 1


class OciFacts(Record):
    """What the record of an OCI or Docker image says besides.

    Attributes:
        media_type: of the manifest whose digest is the image ID.
        config_digest: ``sha256:…`` of the image's config.
        index_digest: of the index or manifest list that the manifest was chosen from; empty when there was none.
        platform: ``os/architecture[/variant]``.
    """

    media_type: str
    config_digest: str
    index_digest: str = ""
    platform: str = ""

    def to_json(self) -> dict[str, str]:
        """The member ``oci`` of an image record."""
        return {
            "mediaType": self.media_type,
            "configDigest": self.config_digest,
            "indexDigest": self.index_digest,
            "platform": self.platform,
        }


class ImageRecord(Record):
    """One image of the store.

    Attributes:
        key: the store key.
        image_id: the full image ID.
        name, labels: from the manifest.
        import_time_ns: nanoseconds since the epoch.
        origin: the reference as it was asked for; of a file its absolute path.
        size_bytes: of the uncompressed tar.
        tree_size_bytes: of the files of the unpacked tree, hard links once.
        latest: found by discovery without a version.
        verdict: who vouches for it.
        layers: keys of the layer directories, top first; an ACI has one, named as itself.
        manifest_digest: ``sha256:`` and 64 hex digits of the manifest's bytes.
        oci: what is known of an OCI or Docker image besides; None for an ACI.
    """

    key: ImageKey
    image_id: ImageID
    name: ACIdentifier
    labels: dict[str, str]
    import_time_ns: int
    origin: str
    size_bytes: int
    tree_size_bytes: int
    verdict: Verdict
    layers: list[ImageKey]
    manifest_digest: str
    latest: bool = False
    oci: OciFacts | None = None

    @property
    def full_name(self) -> str:
        """``name:version``, or the name alone."""
        version = self.labels.get("version")
        return f"{self.name}:{version}" if version else self.name

    def seal(self) -> bytes:
        """The bytes of the record's file."""
        body = {
            "id": self.image_id,
            "name": self.name,
            "labels": self.labels,
            "importTime": self.import_time_ns,
            "origin": self.origin,
            "size": self.size_bytes,
            "treeSize": self.tree_size_bytes,
            "latest": self.latest,
            "layers": list(self.layers),
            "manifestDigest": self.manifest_digest,
            "verdict": self.verdict.to_json(),
        }
        if self.oci is not None:
            body["oci"] = self.oci.to_json()
        return seal(FORMAT, VERSION, body)


def parse_image_record(data: bytes, key: ImageKey, what: str) -> ImageRecord:
    """Bytes of a record's file to the record.

    Args:
        data: content of the file.
        key: the name of the file; the body must be about the same image.
        what: the path, for errors.
    Raises:
        DamagedRecord: not what was written.
        StoreError: written by a newer version of rkt.
    """
    version, body = open_sealed(data, FORMAT, what)
    if version != VERSION:
        raise StoreError(f"record {what} has version {version}, this rkt reads version {VERSION}")
    members = _Members(body, what)
    try:
        image_id = ImageID.parse(members.text("id"))
        name = ACIdentifier.parse(members.text("name"), what="image name")
        layers = [ImageKey.parse(layer) for layer in members.texts("layers")]
    except InvalidManifest as e:
        raise DamagedRecord(f"record {what} is damaged: {e.message}") from e
    if image_id.key != key:
        raise DamagedRecord(f"record {what} is damaged: it is about {image_id.key}")
    labels = members.get("labels", dict)
    if not all(isinstance(label, str) for label in labels.values()):
        raise DamagedRecord(f"record {what} is damaged: a label is not text")
    return ImageRecord(
        key=key,
        image_id=image_id,
        name=name,
        labels=labels,
        import_time_ns=members.number("importTime"),
        origin=members.text("origin"),
        size_bytes=members.number("size"),
        tree_size_bytes=members.number("treeSize"),
        latest=members.get("latest", bool),
        layers=layers,
        manifest_digest=members.text("manifestDigest"),
        verdict=Verdict.from_json(members.get("verdict", dict), what=f"record {what}"),
        oci=_parse_oci(_Members(members.get("oci", dict), what)) if key.is_oci else None,
    )


def _parse_oci(members: _Members) -> OciFacts:
    return OciFacts(
        media_type=members.text("mediaType"),
        config_digest=members.text("configDigest"),
        index_digest=members.text("indexDigest"),
        platform=members.text("platform"),
    )


class RemoteRow(Record):
    """What was downloaded from a URL; keyed by the URL that was asked for, whatever it redirected to.

    Attributes:
        url, signature_url: as asked for; the latter is empty when no signature was asked for.
        key: the image that came of it.
        download_time: seconds since the epoch.
        etag, max_age: what the server said of caching; empty and 0 when it said nothing.
    """

    url: str
    key: ImageKey
    download_time: int
    signature_url: str = ""
    etag: str = ""
    max_age: int = 0

    def seal(self) -> bytes:
        """The bytes of the row's file."""
        return seal(
            REMOTE_FORMAT,
            REMOTE_VERSION,
            {
                "url": self.url,
                "signatureURL": self.signature_url,
                "etag": self.etag,
                "maxAge": self.max_age,
                "downloadTime": self.download_time,
                "key": self.key,
            },
        )


def parse_remote_row(data: bytes, what: str) -> RemoteRow:
    """Bytes of a row's file to the row.

    Raises:
        DamagedRecord: not what was written.
        StoreError: written by a newer version of rkt.
    """
    version, body = open_sealed(data, REMOTE_FORMAT, what)
    if version != REMOTE_VERSION:
        raise StoreError(f"record {what} has version {version}, this rkt reads version {REMOTE_VERSION}")
    members = _Members(body, what)
    try:
        key = ImageKey.parse(members.text("key"))
    except InvalidManifest as e:
        raise DamagedRecord(f"record {what} is damaged: {e.message}") from e
    return RemoteRow(
        url=members.text("url"),
        key=key,
        download_time=members.number("downloadTime"),
        signature_url=members.text("signatureURL"),
        etag=members.text("etag"),
        max_age=members.number("maxAge"),
    )


class _Members:
    """Members of a JSON object, each with the type it must have."""

    __slots__ = ("_value", "_what")

    def __init__(self, value: Any, what: str) -> None:
        if type(value) is not dict:
            raise DamagedRecord(f"record {what} is damaged: an object is expected")
        self._value = value
        self._what = what

    def get(self, name: str, kind: type) -> Any:
        member = self._value.get(name)
        if type(member) is not kind:
            raise DamagedRecord(f"record {self._what} is damaged: member {name!r} is not a {kind.__name__}")
        return member

    def text(self, name: str) -> str:
        member: str = self.get(name, str)
        return member

    def number(self, name: str) -> int:
        member: int = self.get(name, int)
        return member

    def texts(self, name: str) -> list[str]:
        member: list[str] = self.get(name, list)
        if not all(type(item) is str for item in member):
            raise DamagedRecord(f"record {self._what} is damaged: member {name!r} is not a list of text")
        return member

# SPDX-License-Identifier: Apache-2.0
"""Docker and OCI images made byte by byte: image layouts, archives of them, archives of Docker; also such that lie."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.lib import aci

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
#: Of the host, as images call it.
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def digest(data: bytes) -> str:
    """``sha256:`` and hex digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer(files: Mapping[str, bytes | tuple[bytes, int]], entries: Iterable[aci.Entry] = ()) -> bytes:
    """A tar of files, with the directories above them."""
    members: list[aci.Entry] = []
    seen: set[str] = set()
    for path, content in files.items():
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            parent = "/".join(parts[:depth])
            if parent not in seen:
                seen.add(parent)
                members.append(aci.directory(parent))
        data, mode = content if isinstance(content, tuple) else (content, 0o644)
        members.append(aci.Entry(path, content=data, mode=mode))
    return aci.tar_bytes([*members, *entries])


def json_bytes(value: object) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def descriptor(media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
    """Of a blob."""
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


@dataclass
class Image:
    """An image: its documents, and all blobs by their hex digest.

    Attributes:
        tars: the layers before compression.
        manifest, config: the documents; ``document`` what the manifest says.
    """

    tars: list[bytes]
    manifest: bytes
    config: bytes
    blobs: dict[str, bytes] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of the manifest."""
        return digest(self.manifest)

    @property
    def document(self) -> dict[str, Any]:
        """The manifest, decoded."""
        document: dict[str, Any] = json.loads(self.manifest)
        return document

    def descriptor(self, **more: Any) -> dict[str, Any]:
        """The entry of an index."""
        return descriptor(self.document["mediaType"], self.manifest, **more)


def make_image(
    *tars: bytes,
    compression: str = "gzip",
    architecture: str = ARCHITECTURE,
    config: dict[str, Any] | None = None,
    created: str = "",
) -> Image:
    """An OCI image of layers, bottom first.

    Args:
        tars: the layers.
        compression: ``gzip`` or ``none``.
        architecture: what it says that it is for.
        config: how to run it.
        created: when it says that it was made.
    """
    document = {
        **({"created": created} if created else {}),
        "architecture": architecture,
        "os": "linux",
        "config": {} if config is None else config,
        "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in tars]},
    }
    data = json_bytes(document)
    packed = [gzip.compress(tar, 1, mtime=0) if compression == "gzip" else tar for tar in tars]
    kind = f"{OCI}.layer.v1.tar" + ("+gzip" if compression == "gzip" else "")
    manifest = json_bytes(
        {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": descriptor(f"{OCI}.config.v1+json", data),
            "layers": [descriptor(kind, blob) for blob in packed],
        }
    )
    blobs = {hashlib.sha256(blob).hexdigest(): blob for blob in (data, manifest, *packed)}
    return Image(list(tars), manifest, data, blobs)


def make_index(*entries: dict[str, Any]) -> bytes:
    """An OCI index."""
    return json_bytes({"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": list(entries)})


def named(image: Image, name: str, **more: Any) -> dict[str, Any]:
    """The entry of an image that has a name in its layout."""
    return image.descriptor(annotations={"org.opencontainers.image.ref.name": name}, **more)


def layout_files(index: bytes, blobs: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of an image layout."""
    return {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": index,
        **{f"blobs/sha256/{name}": data for name, data in blobs.items()},
    }


def write_files(path: str, files: Mapping[str, bytes]) -> None:
    """Files below a directory."""
    for name, data in files.items():
        target = os.path.join(path, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as stream:
            stream.write(data)


def write_layout(path: str, *images: Image, index: bytes | None = None) -> str:
    """A layout in a directory; without an index the images have no names."""
    blobs = {name: data for image in images for name, data in image.blobs.items()}
    write_files(path, layout_files(index or make_index(*(i.descriptor() for i in images)), blobs))
    return path


def write_tar(
    path: str, files: Mapping[str, bytes], entries: Iterable[aci.Entry] = (), compression: str = "none"
) -> str:
    """A tar of files, compressed."""
    tar = aci.tar_bytes([*(aci.Entry(name, content=data) for name, data in files.items()), *entries])
    with open(path, "wb") as stream:
        stream.write(aci.compress(tar, compression))
    return path


def docker_files(*images: Image, tags: Iterable[list[str]] = ([],)) -> dict[str, bytes]:
    """The files of an archive as ``docker save`` wrote it at first: a directory for each layer."""
    files: dict[str, bytes] = {}
    entries = []
    for image, names in zip(images, tags, strict=True):
        config = f"{hashlib.sha256(image.config).hexdigest()}.json"
        files[config] = image.config
        layers = []
        for tar in image.tars:
            name = f"{hashlib.sha256(tar).hexdigest()}/layer.tar"
            files[name] = tar
            layers.append(name)
        entries.append({"Config": config, "RepoTags": names or None, "Layers": layers})
    return {**files, "manifest.json": json_bytes(entries)}

# SPDX-License-Identifier: Apache-2.0
"""Signatures of Docker and OCI images, put where ``fetch.evidence`` finds them: beside the image.

In a registry what is signed is what the tag stands for now, the whole index of an image for several machines; the
signature is an artifact that refers to it. In a layout it is a further entry of ``index.json``. There the caller reads and
writes files of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os

from rkt.errors import FetchError, HostError, ImageError, NotFound, UsageError
from rkt.fetch import oci_reference, opener
from rkt.fetch.job import describe_way, run_fetch
from rkt.fetch.registry import describe_endpoints
from rkt.fetch.remote import DOCUMENT_SECONDS
from rkt.linux import libc
from rkt.linux.files import read_fd_bounded, replace_file
from rkt.schema import jsontext
from rkt.schema.oci import (
    INDEXES,
    MANIFESTS,
    MAX_DOCUMENT_BYTES,
    OCI_MANIFEST,
    Descriptor,
    is_artifact,
    parse_document,
    parse_index,
)
from rkt.schema.record import Record
from rkt.trust.program import sealed_memory
from rkt.trust.sign_cosign import sign_image
from rkt.values import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.fetch.oci_reference import DockerReference, LocalReference
    from rkt.trust.private_keys import PrivateKey

_BLOBS = "blobs/sha256"
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class Signed(Record):
    """What was signed.

    Attributes:
        image: digest of the manifest or index.
        artifact: digest of what was put beside it.
        media_type: of the image.
    """

    image: str
    artifact: str
    media_type: str


def sign_in_registry(
    target: DockerReference,
    key: PrivateKey,
    settings: Settings,
    message: Callable[[str], object] = lambda _: None,
) -> Signed:
    """Sign an image of a registry.

    Raises:
        FetchError, NotFound: the registry does not have the image, or does not take the signature.
    """
    # The registry itself: what mirrors have, they take from there.
    endpoints = describe_endpoints(target, settings, message)[-1:]

    way = describe_way(settings, tls_insecure=settings.insecure.tls)

    def run(request: dict[str, Any], fds: dict[str, int]) -> dict[str, Any]:
        return run_fetch(
            {**request, **way, "endpoints": endpoints},
            fds,
            settings.installation,
            seconds=DOCUMENT_SECONDS,
        )

    image = _describe(target, run)
    artifact = sign_image(key, image)
    with contextlib.ExitStack() as stack:
        fds = {"manifest": sealed_memory("manifest", artifact.manifest)}
        fds |= {f"blob{i}": sealed_memory("blob", data) for i, data in enumerate(artifact.blobs)}
        for fd in fds.values():
            stack.callback(os.close, fd)
        run(
            {
                "op": "push-refer",
                "reference": artifact.digest,
                "digest": artifact.digest,
                "media_type": OCI_MANIFEST,
                "blobs": [_digest(data) for data in artifact.blobs],
                "subject": image.digest,
                "entry": artifact.entry,
            },
            fds,
        )
    return Signed(image=image.digest, artifact=artifact.digest, media_type=image.media_type)


def _describe(
    target: DockerReference, run: Callable[[dict[str, Any], dict[str, int]], dict[str, Any]]
) -> Descriptor:
    """What is signed; its digest is of the bytes that came."""
    fd = os.memfd_create("document", os.MFD_CLOEXEC)
    try:
        request = {"op": "push-describe", "reference": target.digest or target.tag}
        answer = run(request, {"document": fd})
        data = os.pread(fd, MAX_DOCUMENT_BYTES + 1, 0)
    finally:
        os.close(fd)
    digest = Digest.parse(_digest(data))
    if target.digest is not None and digest != target.digest:
        raise FetchError(f"rkt-fetch reported another manifest than {target.digest}")
    document = parse_document(data, str(answer.get("media_type", "")))
    return Descriptor(media_type=document.media_type, digest=digest, size_bytes=len(data))


def sign_in_layout(target: LocalReference, key: PrivateKey) -> Signed:
    """Sign an image of a layout in a directory.

    Raises:
        UsageError: it is an archive.
        ImageError, NotFound: there is no such image.
        HostError: it cannot be written.
    """
    if target.kind != oci_reference.LAYOUT:
        raise UsageError(
            f"{target} is an archive: signatures are written into layouts and registries",
            hint=f"mkdir layout && tar -C layout -xf {target.path}, then oci:layout",
        )
    try:
        fd = os.open(target.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise NotFound(f"cannot open the layout {target.path}: {e.strerror}") from e
    try:
        index_data = _read(fd, opener.INDEX, target)
        image = _choose(target, parse_index(index_data).manifests)
        if _digest(_read(fd, image.digest.hex, target)) != image.digest:
            raise ImageError(f"{target.path}: blob {image.digest} has other content")
    finally:
        os.close(fd)
    artifact = sign_image(key, image)
    document = jsontext.parse(index_data, what=opener.INDEX)
    document["manifests"].append(artifact.entry)
    try:
        # What the layout's links lead to outside is nobody's business.
        with _directory(target.path, _BLOBS) as blobs:
            for data in (*artifact.blobs, artifact.manifest):
                replace_file(f"{blobs}/{_digest(data).removeprefix('sha256:')}", data, 0o644)
        with _directory(target.path, ".") as layout:
            replace_file(f"{layout}/{opener.INDEX}", jsontext.dump(document).encode(), 0o644)
    except OSError as e:
        raise HostError(f"cannot write into the layout {target.path}: {e.strerror}") from e
    return Signed(image=image.digest, artifact=artifact.digest, media_type=image.media_type)


@contextlib.contextmanager
def _directory(path: str, below: str) -> Iterator[str]:
    """A path by which a directory of a layout is reached, whatever becomes of its name."""
    outer = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY
        fd = libc.openat2(outer, below.encode(), flags, libc.RESOLVE_BENEATH | libc.RESOLVE_NO_MAGICLINKS)
    finally:
        os.close(outer)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _read(directory_fd: int, name: str, target: LocalReference) -> bytes:
    try:
        fd = opener.open_file(directory_fd, name)
        try:
            return read_fd_bounded(fd, MAX_DOCUMENT_BYTES, name)
        finally:
            os.close(fd)
    except OSError as e:
        raise ImageError(f"{target.path} is no image layout: {name}: {e.strerror}") from e


def _choose(target: LocalReference, entries: list[Descriptor]) -> Descriptor:
    """The entry that is meant."""
    images = [
        entry for entry in entries if entry.media_type in (*MANIFESTS, *INDEXES) and not is_artifact(entry)
    ]
    wanted = target.image.removeprefix("@")
    found = [
        entry
        for entry in images
        if not wanted or wanted in {entry.digest, *(entry.annotations.get(name) for name in _NAMES)}
    ]
    names = sorted({next(filter(None, map(entry.annotations.get, _NAMES)), entry.digest) for entry in images})
    if not found:
        raise NotFound(
            f"{target.path} has no image {wanted or 'at all'}"
            + (f", but {', '.join(names)}" if names else "")
        )
    if len({entry.digest for entry in found}) > 1:
        raise UsageError(
            f"{target.path} has more than one image: {', '.join(names)}", hint=f"oci:{target.path}:NAME"
        )
    return found[0]


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"

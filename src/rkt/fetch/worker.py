# SPDX-License-Identifier: Apache-2.0
"""``rkt-fetch``: copies or downloads an image and its signature into descriptors, and reads the image's name.

The name decides which keys count, so it has to be known before anything is verified; it is read here, by a process that
can do nothing (invariant SG10), and compared again by root once the image is verified and unpacked.
"""

from __future__ import annotations

import hashlib
import os
import time

from rkt.errors import FetchError
from rkt.fetch.limits import DEFAULT_TRANSFER_LIMITS
from rkt.image.aci import peek_manifest, scan_aci
from rkt.linux.files import write_all
from rkt.privsep import confine
from rkt.schema import jsontext
from rkt.schema import limits as isolator_limits
from rkt.schema.appc import parse_image_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.fetch.transport import Client
    from rkt.privsep.worker import Emit, Work

_CHUNK_BYTES = 1 << 20
_PROGRESS_SECONDS = 0.1
#: Room for a signature or a manifest whatever an image may have.
_SMALL_FILE_BYTES = 8 << 20
#: Loads codecs that are otherwise looked up on first use, when the file system is out of reach.
_CODECS = ("ascii", "latin-1", "idna", "utf-8")
#: Likewise, of manifests that need it; elsewhere it is imported then.
_PARSERS = (isolator_limits,)


def prepare(request: dict[str, Any]) -> Work:
    """Take a request: ``{"op": "copy"}``, ``{"op": "download", "url", "signature_url", …}``, or one of other modules.

    The first two may have ``limit_bytes``, beyond which an image is refused. With a descriptor ``manifest`` they read the
    image to its end, write its manifest there, and report its ``image_id`` and ``tar_bytes`` too.
    """
    for codec in _CODECS:
        "".encode(codec)
    jsontext.prepare()
    if request["op"] == "copy":
        return Copy(request)
    if request["op"] == "layout-resolve":
        from rkt.fetch.layout_worker import Resolve

        return Resolve(request)
    if request["op"] == "layout-blobs":
        from rkt.fetch.layout_worker import Blobs

        return Blobs(request)
    if request["op"] in {"oci-evidence", "layout-evidence"}:
        from rkt.fetch import evidence_worker

        return evidence_worker.prepare(request)
    if request["op"] == "layout-messages":
        from rkt.fetch.layout_worker import Messages

        return Messages(request)
    if request["op"] in {"lookaside", "signed-messages"}:
        from rkt.fetch import lookaside_worker

        return lookaside_worker.prepare(request)
    if request["op"].startswith("oci-"):
        from rkt.fetch import registry_worker

        return registry_worker.prepare(request)
    if request["op"].startswith("push-"):
        from rkt.fetch import push_worker

        return push_worker.prepare(request)
    if request["op"] == "discover":
        from rkt.fetch.discovery import Discover

        return Discover(request)
    if request["op"] == "document":
        from rkt.fetch.discovery import Document

        return Document(request)
    return Download(request)


class Copy:
    """A local file to the descriptor ``blob``."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._uid = int(request["uid"])
        self._limit_bytes = int(request.get("limit_bytes", DEFAULT_TRANSFER_LIMITS.image_bytes))

    def confine(self, fds: dict[str, int]) -> None:
        """Keep ``source`` and ``blob``; no network, no files."""
        confine.begin(b"rkt-fetch", network=False)
        limit = max(self._limit_bytes, _SMALL_FILE_BYTES)
        confine.confine_fetch(network=False, file_size_bytes=limit, uid=self._uid)

    def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
        """Copy and peek."""
        source, blob = fds["source"], fds["blob"]
        limit = self._limit_bytes
        size = os.fstat(source).st_size
        if size > limit:
            raise FetchError(f"the image is too large: {size} bytes, at most {limit} are accepted")
        copied = 0
        # Not beyond the size it had: somebody may be adding to it.
        while copied < size and (
            count := os.sendfile(blob, source, copied, min(_CHUNK_BYTES * 16, size - copied))
        ):
            copied += count
        return {"size_bytes": copied, **_read(blob, fds)}


class Download:
    """A URL to ``blob``, and its signature's to ``signature`` before that.

    The request: ``url``; ``signature_url``, may be empty; ``user_agent``; ``tls_insecure``; and what may be left out:
    ``etag`` of the version that is had already; ``access`` (``fetch.job.describe_way``). The descriptor ``validators`` may be missing: then nothing continues.

    The result: ``status``, ``fetched`` or ``not-modified``; ``etag``, ``last_modified``, ``max_age``, ``url`` of the final
    answer; and where there is an image its ``size_bytes``, ``kept_bytes``, ``name``, ``manifest_sha256``.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self._uid = int(request["uid"])
        self._url: str = request["url"]
        self._signature_url: str = request["signature_url"]
        self._etag: str = request.get("etag", "")
        self._limit_bytes = int(request.get("limit_bytes", DEFAULT_TRANSFER_LIMITS.image_bytes))
        self._client = make_client(request)

    def confine(self, fds: dict[str, int]) -> None:
        """Keep ``blob``, ``validators`` and ``signature``; the network, and the host's files for reading."""
        # glibc loads its resolver plug-ins on first use; from here on they come from where they always are.
        confine.begin(b"rkt-fetch", network=True)
        limit = max(self._limit_bytes, _SMALL_FILE_BYTES)
        confine.confine_fetch(network=True, file_size_bytes=limit, uid=self._uid)

    def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
        """Download signature and image, and peek."""
        client = self._client
        client.requests = lambda url: emit({"kind": "request", "url": url})
        deferred = self._signature_url and not self._signature(client, fds["signature"], emit, defer=True)
        emit({"kind": "image"})
        progress = _Progress(emit)
        image = client.download(
            self._url,
            fds["blob"],
            limit_bytes=self._limit_bytes,
            validators_fd=fds.get("validators", -1),
            known_etag=self._etag,
            started=lambda kept, total: emit({"kind": "started", "kept": kept, "total": total}),
            progress=progress.report,
        )
        answer = {
            "status": "not-modified" if image.not_modified else "fetched",
            "etag": image.etag[:1024],
            "last_modified": image.last_modified[:1024],
            "max_age": image.max_age,
            "url": image.url,
        }
        if not image.not_modified:
            progress.report_last(image.size_bytes)
            if deferred:
                self._signature(client, fds["signature"], emit, defer=False)
            answer |= {
                "size_bytes": image.size_bytes,
                "kept_bytes": image.kept_bytes,
                **_read(fds["blob"], fds),
            }
        client.close()
        return answer

    def _signature(self, client: Client, fd: int, emit: Emit, *, defer: bool) -> bool:
        """Whether the signature is there; not when the server asks to come back for it."""
        emit({"kind": "signature", "url": self._signature_url})
        try:
            answer = client.download(
                self._signature_url,
                fd,
                limit_bytes=DEFAULT_TRANSFER_LIMITS.signature_bytes,
                defer=True,
            )
        except FetchError as e:
            raise FetchError(
                "error downloading the signature file",
                hint="use --signature=FILE, or --insecure-options=image to do without a signature",
            ) from e
        if answer.deferred and not defer:
            raise FetchError(
                "error downloading the signature file: server asked to defer the download again",
                hint="try again later, or use --signature=FILE",
            )
        if answer.deferred:
            emit({"kind": "deferred"})
        return not answer.deferred


def make_client(request: dict[str, Any]) -> Client:
    """A client as the request wants it: ``user_agent``, ``tls_insecure``, ``access``; reads certificates."""
    from rkt.fetch import transport

    return transport.Client(
        transport.make_tls_context(insecure=request["tls_insecure"]),
        user_agent=request["user_agent"],
        access=request.get("access"),
    )


class _Progress:
    """Events, not more than people can see."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._next = 0.0
        self._total: int | None = None

    def report(self, done: int, total: int | None) -> None:
        self._total = total
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PROGRESS_SECONDS
            self._emit({"kind": "progress", "done": done, "total": total})

    def report_last(self, done: int) -> None:
        self._emit({"kind": "progress", "done": done, "total": self._total or done})


def _read(blob: int, fds: dict[str, int]) -> dict[str, Any]:
    """What the image says of itself; of all of it where somebody wants to know."""
    if "manifest" not in fds:
        return _peek(blob)
    os.lseek(blob, 0, os.SEEK_SET)
    image_id, data, tar_bytes = scan_aci(blob)
    write_all(fds["manifest"], data)
    manifest = parse_image_manifest(data)
    digest = hashlib.sha256(data).hexdigest()
    return {
        "name": manifest.name,
        "manifest_sha256": digest,
        "image_id": image_id,
        "tar_bytes": tar_bytes,
    }


def _peek(blob: int) -> dict[str, Any]:
    """What the image says of itself."""
    os.lseek(blob, 0, os.SEEK_SET)
    data = peek_manifest(blob)
    manifest = parse_image_manifest(data)
    return {"name": manifest.name, "manifest_sha256": hashlib.sha256(data).hexdigest()}

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
from rkt.image.aci import peek_manifest
from rkt.privsep import confine
from rkt.schema.appc import parse_image_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.fetch.transport import Client
    from rkt.privsep.worker import Emit

_CHUNK_BYTES = 1 << 20
_PROGRESS_SECONDS = 0.1
#: Loads codecs that are otherwise looked up on first use, when the file system is out of reach.
_CODECS = ("ascii", "latin-1", "idna", "utf-8")


def prepare(request: dict[str, Any]) -> Copy | Download:
    """Take a request: ``{"op": "copy"}`` or ``{"op": "download", "url", "signature_url", …}``."""
    for codec in _CODECS:
        "".encode(codec)
    if request["op"] == "copy":
        return Copy(request)
    return Download(request)


class Copy:
    """A local file to the descriptor ``blob``."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._uid = int(request["uid"])

    def confine(self, fds: dict[str, int]) -> None:
        """Keep ``source`` and ``blob``; no network, no files."""
        confine.begin(b"rkt-fetch", network=False)
        limit = DEFAULT_TRANSFER_LIMITS.image_bytes
        confine.confine_fetch(network=False, file_size_bytes=limit, uid=self._uid)

    def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
        """Copy and peek."""
        source, blob = fds["source"], fds["blob"]
        limit = DEFAULT_TRANSFER_LIMITS.image_bytes
        size = os.fstat(source).st_size
        if size > limit:
            raise FetchError(f"the image is too large: {size} bytes, at most {limit} are accepted")
        copied = 0
        while count := os.sendfile(blob, source, copied, _CHUNK_BYTES * 16):
            copied += count
            if copied > limit:
                raise FetchError(f"the image is too large: more than {limit} bytes")
        return {"size_bytes": copied, **_peek(blob)}


class Download:
    """A URL to ``blob``, and its signature's to ``signature`` before that."""

    def __init__(self, request: dict[str, Any]) -> None:
        from rkt.fetch import transport

        self._transport = transport
        self._uid = int(request["uid"])
        self._url: str = request["url"]
        self._signature_url: str = request["signature_url"]
        self._user_agent: str = request["user_agent"]
        self._context = transport.make_tls_context(insecure=request["tls_insecure"])

    def confine(self, fds: dict[str, int]) -> None:
        """Keep ``blob`` and ``signature``; the network, and the host's files for reading."""
        # glibc loads its resolver plug-ins on first use; from here on they come from where they always are.
        confine.begin(b"rkt-fetch", network=True)
        limit = DEFAULT_TRANSFER_LIMITS.image_bytes
        confine.confine_fetch(network=True, file_size_bytes=limit, uid=self._uid)

    def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
        """Download signature and image, and peek."""
        client = self._transport.Client(
            self._context,
            user_agent=self._user_agent,
            requests=lambda url: emit({"kind": "request", "url": url}),
        )
        deferred = self._signature_url and not self._signature(client, fds["signature"], emit, defer=True)
        emit({"kind": "image"})
        progress = _Progress(emit)
        image = client.download(
            self._url,
            fds["blob"],
            limit_bytes=DEFAULT_TRANSFER_LIMITS.image_bytes,
            progress=progress.report,
        )
        progress.report_last(image.size_bytes)
        if deferred:
            self._signature(client, fds["signature"], emit, defer=False)
        client.close()
        return {
            "size_bytes": image.size_bytes,
            "etag": image.etag[:1024],
            "max_age": self._transport.parse_max_age(image.cache_control),
            **_peek(fds["blob"]),
        }

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


def _peek(blob: int) -> dict[str, Any]:
    """What the image says of itself."""
    os.lseek(blob, 0, os.SEEK_SET)
    data = peek_manifest(blob)
    manifest = parse_image_manifest(data)
    return {"name": manifest.name, "manifest_sha256": hashlib.sha256(data).hexdigest()}

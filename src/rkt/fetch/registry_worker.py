# SPDX-License-Identifier: Apache-2.0
"""``rkt-fetch``: images of registries.

::

    oci-resolve  a tag or digest to manifest and configuration for one platform, each into its descriptor
    oci-blobs    layers, several at once, each into its descriptor

Each request has ``endpoints``: the mirrors in their order, and the registry itself. One that fails, or lies, is passed
over for the next.
"""

from __future__ import annotations

import os
import queue
import threading
import time

from rkt.errors import InvalidManifest, NotFound
from rkt.fetch.repository import Repository, try_endpoints
from rkt.fetch.worker import make_client
from rkt.linux.files import write_all
from rkt.privsep import confine
from rkt.schema.oci import (
    MAX_DOCUMENT_BYTES,
    Index,
    Platform,
    check_together,
    parse_config,
    parse_document,
    parse_manifest,
)
from rkt.values import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.fetch.repository import Document
    from rkt.privsep.worker import Emit, Work

#: How many blobs are on their way at once.
MAX_AT_ONCE = 4
_CHECK_SECONDS = 0.5
_PROGRESS_SECONDS = 0.1
_STACK_BYTES = 1 << 20
_THREAD = "blobs"


def prepare(request: dict[str, Any]) -> Work:
    """Take one of the requests above."""
    jobs: dict[str, type[Networked]] = {"oci-resolve": Resolve, "oci-blobs": Blobs}
    return jobs[request["op"]](request)


class Networked:
    """Has a client and the endpoints; keeps the network and its descriptors."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request
        self._uid = int(request["uid"])
        self._client = make_client(request)
        self._lock = threading.Lock()
        self._repositories = [Repository(self._client, item) for item in request["endpoints"]]

    def file_size_bytes(self) -> int:
        """Of the largest file that is written."""
        return 2 * MAX_DOCUMENT_BYTES

    def confine(self, fds: dict[str, int]) -> None:
        """Keep the descriptors; the network, and the host's files for reading."""
        confine.begin(b"rkt-fetch", network=True)
        confine.confine_fetch(network=True, file_size_bytes=self.file_size_bytes(), uid=self._uid)

    def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
        """Ask the endpoints."""

        def tell(event: dict[str, Any]) -> None:
            with self._lock:
                emit(event)

        self._client.requests = lambda url: tell({"kind": "request", "url": url})
        try:
            return self.work(fds, tell)
        finally:
            self._client.close()

    def work(self, fds: dict[str, int], tell: Emit) -> dict[str, Any]:
        """The job itself."""
        raise NotImplementedError


def tell_failure(tell: Emit, name: str, cause: str) -> None:
    """Say that a mirror is passed over, and why."""
    tell({"kind": "mirror", "name": name, "cause": cause})


class Resolve(Networked):
    """``reference``, a tag or a digest; ``platform``; ``known``, a digest that is had, or empty.

    The descriptors ``manifest``, ``config`` and, when the reference led to one, ``index`` get the documents.
    """

    def work(self, fds: dict[str, int], tell: Emit) -> dict[str, Any]:
        """Find manifest and configuration."""
        answer: dict[str, Any] = try_endpoints(
            self._repositories,
            lambda repository: self._resolve(repository, fds),
            lambda name, cause: tell_failure(tell, name, cause),
        )
        return answer

    def _resolve(self, repository: Repository, fds: dict[str, int]) -> dict[str, Any]:
        reference: str = self._request["reference"]
        known: str = self._request["known"]
        if known and repository.current_digest(reference) == known:
            return {"status": "not-modified", "digest": known, "endpoint": repository.name}
        wanted = Platform(**self._request["platform"])
        first = repository.manifest(reference)
        if known and first.digest == known:
            return {"status": "not-modified", "digest": known, "endpoint": repository.name}
        index: Document | None = None
        document = parse_document(first.data, first.media_type)
        if isinstance(document, Index):
            index = first
            entry = document.choose(wanted)
            first = repository.manifest(entry.digest, entry)
            if isinstance(parse_document(first.data, first.media_type), Index):
                raise InvalidManifest(
                    f"the index of {repository.name} leads to another index, which is not followed"
                )
        manifest = parse_manifest(first.data, first.media_type)
        manifest.check_image()
        data = repository.small_blob(manifest.config, "configuration")
        config = parse_config(data)
        check_together(manifest, config)
        _check_platform(config.platform, wanted, chosen=index is not None)
        write_all(fds["manifest"], first.data)
        write_all(fds["config"], data)
        if index is not None:
            write_all(fds["index"], index.data)
        return {
            "status": "fetched",
            "digest": first.digest,
            "media_type": manifest.media_type,
            "index_digest": "" if index is None else index.digest,
            "index_media_type": document.media_type if index is not None else "",
            "endpoint": repository.name,
        }


def _check_platform(found: Platform, wanted: Platform, *, chosen: bool) -> None:
    """An image must be for the machine; of which variant, an index knows better than a configuration."""
    fits = (found.os, found.architecture) == (wanted.os, wanted.architecture)
    if not fits or (not chosen and wanted.rank(found) is None):
        raise NotFound(f"the image is for {found}, not for {wanted}", hint=f"--platform={found}")


class Blobs(Networked):
    """``blobs``: digest and size of each; the descriptors ``blobN`` and ``validatorsN`` are for the one numbered N."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__(request)
        self._blobs = [(Digest.parse(item["digest"]), int(item["size"])) for item in request["blobs"]]

    def file_size_bytes(self) -> int:
        """Of the largest blob."""
        return max([2 * MAX_DOCUMENT_BYTES, *(size for _, size in self._blobs)])

    def work(self, fds: dict[str, int], tell: Emit) -> dict[str, Any]:
        """Bring all, or end at the first that cannot be had."""
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[int, dict[str, int] | BaseException]] = queue.SimpleQueue()
        for index in range(len(self._blobs)):
            waiting.put(index)

        def bring() -> None:
            while not waiting.empty():
                try:
                    index = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    done.put((index, self._bring(index, fds, tell)))
                except BaseException as e:  # noqa: BLE001 - the main thread raises it
                    done.put((index, e))

        before = threading.stack_size(_STACK_BYTES)
        for _ in range(min(MAX_AT_ONCE, len(self._blobs))):
            threading.Thread(target=bring, name=_THREAD, daemon=True).start()
        threading.stack_size(before)
        results: list[dict[str, int]] = [{} for _ in self._blobs]
        left = len(results)
        while left:
            try:
                index, outcome = done.get(timeout=_CHECK_SECONDS)
            except queue.Empty:
                self._client.check_waiting()
                continue
            if isinstance(outcome, BaseException):
                raise outcome
            results[index] = outcome
            left -= 1
        return {"blobs": results}

    def _bring(self, index: int, fds: dict[str, int], tell: Emit) -> dict[str, int]:
        digest, size = self._blobs[index]
        next_report = 0.0

        def progress(count: int, total: int | None) -> None:
            nonlocal next_report
            now = time.monotonic()
            if now >= next_report or count == total:
                next_report = now + _PROGRESS_SECONDS
                tell({"kind": "progress", "index": index, "done": count, "total": size})

        def started(kept: int, _: int | None) -> None:
            tell({"kind": "started", "index": index, "kept": kept, "total": size})

        def ask(repository: Repository) -> int:
            return repository.blob(
                digest,
                size,
                fds[f"blob{index}"],
                fds.get(f"validators{index}", -1),
                started=started,
                progress=progress,
            )

        kept = try_endpoints(self._repositories, ask, lambda name, cause: tell_failure(tell, name, cause))
        return {"size_bytes": os.fstat(fds[f"blob{index}"]).st_size, "kept_bytes": kept}

# SPDX-License-Identifier: Apache-2.0
"""Docker and OCI images of a directory or an archive, as a ``Source`` of the pipeline.

This process opens the directory or the file and reads nothing of it; ``fetch.layout_worker`` does.
"""

from __future__ import annotations

import contextlib
import os
import stat

from rkt.errors import FetchError, ImageError, InvalidManifest
from rkt.fetch import lookaside, oci_reference
from rkt.fetch.job import run_fetch
from rkt.fetch.layout_worker import OCI, OCI_ARCHIVE
from rkt.fetch.limits import DEFAULT_TRANSFER_LIMITS
from rkt.fetch.oci_source import Received, Resolved
from rkt.fetch.opener import Opener
from rkt.values import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import Any, Self

    from rkt.config.settings import Settings
    from rkt.fetch.oci_reference import LocalReference
    from rkt.fetch.oci_source import Blob, Listener
    from rkt.schema.oci import Platform
    from rkt.store.staging import Staging
    from rkt.trust.evidence import Evidence

_DOCUMENTS = ("index", "manifest", "config")


class LocalSource:
    """One image of an image layout or an archive; ``close``, or the end of ``with``, closes the files.

    Attributes:
        name: what the image is called in there, once it was resolved; foreign, may be empty.
    """

    def __init__(self, reference: LocalReference, platform: Platform, settings: Settings) -> None:
        """Open the directory or the file.

        Raises:
            FetchError: it cannot be opened.
        """
        self._reference = reference
        self._platform = platform
        self._settings = settings
        # Digest -> where it is, as the worker calls it.
        self._members: dict[str, str] = {}
        self._fd = _open(reference)
        self.name = ""

    def resolve(self, staging: Staging, known: Digest | None) -> Resolved | None:
        """See ``Source.resolve``."""
        platform = self._platform
        request = {
            "op": "layout-resolve",
            "kind": self._reference.kind,
            "reference": self._reference.image.removeprefix("@"),
            "platform": {
                "os": platform.os,
                "architecture": platform.architecture,
                "variant": platform.variant,
            },
            "limit_bytes": DEFAULT_TRANSFER_LIMITS.image_bytes,
        }
        fds = {name: staging.create(name) for name in _DOCUMENTS}
        try:
            if self._reference.kind != OCI:
                fds["archive"] = staging.create("archive")
            with self._source(fds):
                answer = self._run(request, fds)
            if self._reference.kind != OCI and answer.get("archive_bytes"):
                # What follows is read from what became of it; the name is not needed for that.
                os.dup2(fds["archive"], self._fd, inheritable=False)
        finally:
            for name in (*_DOCUMENTS, "archive"):
                if name in fds:
                    os.close(fds[name])
            if "archive" in fds:
                os.unlink(f"{staging.path}/archive")
        resolved = self._resolved(answer)
        asked = self._reference.digest
        if asked is not None and asked not in {resolved.digest, resolved.index_digest}:
            raise ImageError(f'"{self._reference}" led to another image: {resolved.digest}')
        return None if known is not None and known in {resolved.digest, resolved.index_digest} else resolved

    def _resolved(self, answer: dict[str, Any]) -> Resolved:
        try:
            self._members = {str(layer["digest"]): str(layer["member"]) for layer in answer["layers"]}
            self.name = str(answer["name"])[:1024]
            index_digest = answer["index_digest"]
            return Resolved(
                digest=Digest.parse(answer["digest"]),
                media_type=str(answer["media_type"]),
                index_digest=Digest.parse(index_digest) if index_digest else None,
                index_media_type=str(answer["index_media_type"]),
                endpoint=self._reference.path,
            )
        except (KeyError, TypeError, InvalidManifest) as e:
            raise FetchError("rkt-fetch reported no image") from e

    def blobs(self, wanted: Sequence[Blob], listener: Listener) -> list[Received]:
        """See ``Source.blobs``; nothing is kept of an earlier attempt, since copying costs less than looking."""
        blobs = []
        fds = {}
        for number, blob in enumerate(wanted):
            os.ftruncate(blob.fd, 0)
            os.lseek(blob.fd, 0, os.SEEK_SET)
            fds[f"blob{number}"] = blob.fd
            member = self._members.get(blob.digest, "")
            blobs.append({"digest": blob.digest, "size": blob.size_bytes, "member": member})
        request = {"op": "layout-blobs", "kind": self._reference.kind, "blobs": blobs}
        with self._source(fds):
            answer = self._run(request, fds, listener)
        done = answer.get("blobs")
        if not isinstance(done, list) or len(done) != len(wanted):
            raise FetchError("rkt-fetch reported other blobs than were asked for")
        return [Received(size_bytes=blob.size_bytes, kept_bytes=0) for blob in wanted]

    def evidence(self, digests: Sequence[Digest], kinds: Sequence[str], fd: int) -> None:
        """See ``Source.evidence``."""
        request = {
            "op": "layout-evidence",
            "kind": self._reference.kind,
            "digests": list(digests),
            "kinds": list(kinds),
        }
        fds = {"evidence": fd}
        with self._source(fds):
            self._run(request, fds)

    def messages(self, digests: Sequence[Digest], lookasides: Collection[str]) -> list[Evidence]:
        """See ``Source.messages``: those that are in there, once the image was resolved."""
        kind = self._reference.kind
        if kind == OCI:
            return lookaside.find_in_layout(self._fd, self._reference.path, digests, self._settings)
        if kind != OCI_ARCHIVE:
            return []
        places = lookaside.places_in_layout(digests)
        heard = lookaside.Heard()
        self._run({"op": "layout-messages", "places": places}, {"source": self._fd}, heard)
        return lookaside.find_in_archive(heard, self._reference.path, digests)

    @contextlib.contextmanager
    def _source(self, fds: dict[str, int]) -> Iterator[None]:
        """Add what the worker reads from to its descriptors."""
        if self._reference.kind != OCI:
            fds["source"] = self._fd
            yield
            return
        with Opener(self._fd) as opener:
            fds["opener"] = opener.worker_fd
            yield

    def _run(
        self, request: dict[str, Any], fds: dict[str, int], listener: Listener | None = None
    ) -> dict[str, Any]:
        return run_fetch(
            request,
            fds,
            self._settings.installation,
            seconds=DEFAULT_TRANSFER_LIMITS.total_seconds,
            on_event=listener,
        )

    def close(self) -> None:
        """Close the directory or file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(reference: LocalReference) -> int:
    """The caller owns the descriptor."""
    is_directory = reference.kind == oci_reference.LAYOUT
    flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECTORY if is_directory else os.O_NONBLOCK)
    try:
        fd = os.open(reference.path, flags)
    except NotADirectoryError:
        raise FetchError(
            f"{reference.path} is a file, not the directory of an image layout",
            hint=f"use oci-archive:{reference.path} or docker-archive:{reference.path}",
        ) from None
    except OSError as e:
        raise FetchError(f"cannot open {reference.path}: {e.strerror}") from e
    if not is_directory and not stat.S_ISREG(os.fstat(fd).st_mode):
        is_layout = stat.S_ISDIR(os.fstat(fd).st_mode)
        os.close(fd)
        raise FetchError(
            f"{reference.path} is not a regular file",
            hint=f"use oci:{reference.path} for an image layout" if is_layout else "",
        )
    return fd

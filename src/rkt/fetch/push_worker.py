# SPDX-License-Identifier: Apache-2.0
"""``rkt-fetch``: images to a registry.

::

    push-check     which blobs are there already, or can be mounted from another repository of the registry
    push-upload    blobs that are not there yet, then configuration and manifest
    push-describe  the manifest or index that a tag or digest stands for
    push-refer     an artifact about an image, and its entry in the list of such where the registry keeps none itself

Nothing is trusted of what a registry says but that it has something: whoever fetches the image holds all of it against
the manifest's digest. What is uploaded goes to the registry itself, never to a mirror, and the token goes to no other
host, whatever the place of an upload is said to be (invariants RG1, RG2).
"""

from __future__ import annotations

import hashlib
import os
from urllib.parse import quote

from rkt.errors import FetchError, NotFound, quoted
from rkt.fetch.registry_worker import Networked
from rkt.fetch.repository import PULL, Repository, error_words
from rkt.fetch.urls import check_url, follow, origin
from rkt.linux.files import write_all
from rkt.schema import jsontext
from rkt.schema.oci import MAX_DOCUMENT_BYTES, OCI_INDEX, parse_index
from rkt.values import Digest, is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rkt.fetch.answer import Answer
    from rkt.privsep.worker import Emit, Work

PUSH = f"{PULL},push"
_OK, _CREATED, _ACCEPTED, _NO_CONTENT, _NOT_FOUND = 200, 201, 202, 204, 404
_SUCCESS = (_OK, _CREATED, _ACCEPTED, _NO_CONTENT)
#: What goes in one request; a registry may ask for more.
CHUNK_BYTES = 16 << 20
_MAX_CHUNK_BYTES = 64 << 20
_ANSWER_BYTES = 1 << 16
#: How often an upload that went wrong in the middle begins anew.
_ATTEMPTS = 2
_DIGEST_HEADER = "Docker-Content-Digest"
_SUBJECT_HEADER = "OCI-Subject"


def prepare(request: dict[str, Any]) -> Work:
    """Take one of the requests above."""
    jobs: dict[str, type[Networked]] = {
        "push-check": Check,
        "push-upload": Upload,
        "push-describe": Describe,
        "push-refer": Refer,
    }
    return jobs[request["op"]](request)


class Target(Repository):
    """The repository that is pushed to."""

    def has(self, digest: Digest) -> bool:
        """Whether a blob is there."""
        answer = self._ask(f"blobs/{digest}", _ANSWER_BYTES, method="HEAD", accept="*/*")
        if answer.status == _OK:
            return True
        if answer.status == _NOT_FOUND:
            return False
        raise self._denied(answer, "look for a blob in")

    def mount(self, digest: Digest, source: str) -> bool:
        """Take a blob over from another repository of this registry; False where that is not possible."""
        query = f"mount={quote(digest, safe=':')}&from={quote(source, safe='/')}"
        answer = self._begin(f"?{query}")
        if answer.status == _CREATED:
            return True
        if answer.status == _ACCEPTED:
            # An upload has begun instead, which nobody is going to end.
            self._send("DELETE", self._location(answer))
        return False

    def upload(self, digest: Digest, fd: int, progress: Callable[[int], None]) -> None:
        """A blob from a file.

        Raises:
            FetchError: the registry does not take it.
        """
        size = os.fstat(fd).st_size
        for attempt in range(_ATTEMPTS):
            answer = self._begin("")
            if answer.status != _ACCEPTED:
                raise self._denied(answer, "push to")
            answer = self._transfer(answer, digest, fd, size, progress)
            if answer.status in _SUCCESS:
                return
            if attempt + 1 == _ATTEMPTS or answer.status in {401, 403}:
                raise self._denied(answer, f"push blob {digest} to")

    def _transfer(
        self, answer: Answer, digest: Digest, fd: int, size: int, progress: Callable[[int], None]
    ) -> Answer:
        """The bytes in pieces, the last of them with the digest."""
        chunk_bytes = _chunk_bytes(answer)
        position = 0
        while size - position > chunk_bytes:
            data = os.pread(fd, chunk_bytes, position)
            last = position + len(data) - 1
            headers = {"Content-Range": f"{position}-{last}"}
            answer = self._send("PATCH", self._location(answer), data, headers)
            if answer.status not in _SUCCESS:
                return answer
            position += len(data)
            progress(position)
        url = self._location(answer)
        url += f"{'&' if '?' in url else '?'}digest={quote(digest, safe=':')}"
        data = os.pread(fd, chunk_bytes, position)
        headers = {"Content-Range": f"{position}-{size - 1}"} if position else {}
        answer = self._send("PUT", url, data, headers)
        progress(size)
        return answer

    def put_manifest(self, reference: str, data: bytes, media_type: str, digest: Digest) -> str:
        """The manifest under a tag, or under its digest.

        Returns:
            the digest of its subject, when the registry lists what refers to something; empty otherwise.
        Raises:
            FetchError: the registry does not take it, or takes it for another one.
        """
        url = self._url(f"manifests/{reference}")
        answer = self._send("PUT", url, data, {"Content-Type": media_type})
        if answer.status not in _SUCCESS:
            raise self._denied(answer, f"push the manifest {reference} to")
        said = answer.headers.get(_DIGEST_HEADER, "")
        if said.startswith("sha256:") and said != digest:
            raise FetchError(f"{self.name} took the manifest {digest} for {quoted(said)}")
        return answer.headers.get(_SUBJECT_HEADER, "")

    def list_referrer(self, subject: Digest, entry: dict[str, Any]) -> None:
        """Enter an artifact into the index that is tagged by the digest of what it refers to.

        Raises:
            FetchError, InvalidManifest: what has that tag is no such index, or cannot be replaced.
        """
        tag = str(subject.key)
        try:
            there = self.manifest(tag)
        except NotFound:
            document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        else:
            if parse_index(there.data, there.media_type).media_type != OCI_INDEX:
                raise FetchError(
                    f"{self.name}: what has the tag {tag} is no index of what refers to an image"
                )
            document = jsontext.parse(there.data, what="the index", limit_bytes=MAX_DOCUMENT_BYTES)
        if any(item["digest"] == entry["digest"] for item in document["manifests"]):
            return
        document["manifests"].append(entry)
        data = jsontext.dump(document).encode()
        self.put_manifest(tag, data, OCI_INDEX, Digest(f"sha256:{hashlib.sha256(data).hexdigest()}"))

    def _begin(self, query: str) -> Answer:
        return self._send("POST", self._url(f"blobs/uploads/{query}"))

    def _send(
        self, method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        # A registry may want the bytes elsewhere; who has no token of its own must do with what is in the URL.
        is_own = origin(check_url(url)) == origin(self._origin())
        return self._client.exchange(
            url,
            method=method,
            body=body,
            headers={"Content-Type": "application/octet-stream", **(headers or {})},
            limit_bytes=_ANSWER_BYTES,
            authorizer=self._authorize() if is_own else None,
        )

    def _location(self, answer: Answer) -> str:
        """Where an upload goes on."""
        location = answer.headers.get("Location", "")
        if not location:
            raise FetchError(f"{self.name} does not say where the upload goes on")
        url = follow(answer.url, location)
        if answer.url.startswith("https:") and not url.startswith("https:"):
            raise FetchError(f"{self.name} wants the upload to go on without TLS, which is refused")
        return url

    def _denied(self, answer: Answer, what: str) -> FetchError:
        words = error_words(answer.body)
        if answer.status in {401, 403}:
            return FetchError(
                f"you may not {what} {self.name}{words}",
                hint="rkt help config says how credentials for a registry are given; podman login and docker login do too",
            )
        return FetchError(f"cannot {what} {self.name}: HTTP status code {answer.status}{words}")


class _Pushing(Networked):
    """Has the repository that is pushed to, the last of ``endpoints``."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__(request)
        self._target = Target(self._client, request["endpoints"][-1], PUSH)


class Check(_Pushing):
    """``blobs``, each with ``digest`` and ``source``, another repository that may have it, or empty.

    The result: ``present``, a truth value for each.
    """

    def work(self, fds: dict[str, int], tell: Emit) -> dict[str, Any]:
        """Ask for each."""
        present = []
        for item in self._request["blobs"]:
            digest = Digest.parse(item["digest"])
            present.append(
                self._target.has(digest)
                or bool(item["source"] and self._target.mount(digest, item["source"]))
            )
        return {"present": present}


class Upload(_Pushing):
    """``reference``, a tag or a digest; ``digest`` and ``media_type`` of the manifest; ``blobs``, the digests.

    Descriptors: ``blob0``, ``blob1``…, and ``manifest``. Events: ``{"kind": "progress", "index", "done", "total"}``. The
    result: ``uploaded``, how many blobs were not there.
    """

    def work(self, fds: dict[str, int], tell: Emit) -> dict[str, Any]:
        """Upload what is not there; what names it comes last."""
        uploaded, _ = self.upload(fds, tell)
        return {"uploaded": uploaded}

    def upload(self, fds: dict[str, int], tell: Emit) -> tuple[int, str]:
        """How many blobs were not there, and what ``put_manifest`` returns."""
        uploaded = 0
        for index, text in enumerate(self._request["blobs"]):
            digest = Digest.parse(text)
            fd = fds[f"blob{index}"]
            if self._target.has(digest):
                continue
            uploaded += 1
            self._upload(index, digest, fd, tell)
        data = os.pread(fds["manifest"], MAX_DOCUMENT_BYTES + 1, 0)
        digest = Digest.parse(self._request["digest"])
        reference, media_type = self._request["reference"], self._request["media_type"]
        return uploaded, self._target.put_manifest(reference, data, media_type, digest)

    def _upload(self, index: int, digest: Digest, fd: int, tell: Emit) -> None:
        total = os.fstat(fd).st_size
        self._target.upload(
            digest,
            fd,
            lambda done: tell({"kind": "progress", "index": index, "done": done, "total": total}),
        )


class Describe(_Pushing):
    """``reference``, a tag or a digest. The descriptor ``document`` gets the bytes; the result: ``media_type``."""

    def work(self, fds: dict[str, int], tell: Emit) -> dict[str, Any]:
        """Ask the registry itself."""
        document = self._target.manifest(self._request["reference"])
        write_all(fds["document"], document.data)
        return {"media_type": document.media_type}


class Refer(Upload):
    """As ``Upload``, with ``subject``, the digest of an image, and ``entry``, what an index says of the artifact.

    The result: ``listed``, whether the registry lists it itself.
    """

    def work(self, fds: dict[str, int], tell: Emit) -> dict[str, Any]:
        """Upload, and enter it where the registry does not."""
        _, said = self.upload(fds, tell)
        subject = Digest.parse(self._request["subject"])
        if said != subject:
            self._target.list_referrer(subject, self._request["entry"])
        return {"listed": said == subject}


def _chunk_bytes(answer: Answer) -> int:
    """The registry's smallest piece (distribution 1.1), if that is larger than ours."""
    text = answer.headers.get("OCI-Chunk-Min-Length", "")
    least = int(text) if is_number(text, most_digits=18) else 0
    if least > _MAX_CHUNK_BYTES:
        raise FetchError(f"the registry wants pieces of {least} bytes, at most {_MAX_CHUNK_BYTES} are sent")
    return max(CHUNK_BYTES, least)

# SPDX-License-Identifier: Apache-2.0
"""One repository of a registry or of a mirror, as the OCI distribution specification 1.1 and Docker's API v2 have it.

Runs in ``rkt-fetch``. Every document is held against its digest, wherever that is known from, and against the type it is
announced by. API v1 is not spoken, and no header has to say that a registry speaks v2.
"""

from __future__ import annotations

import contextlib
import hashlib
import ssl
import threading

from rkt.errors import FetchError, InvalidManifest, NotFound, quoted
from rkt.fetch.challenge import Authorization
from rkt.fetch.failures import NOT_TLS, causes
from rkt.fetch.oci_reference import absent
from rkt.fetch.resume import BlobFile
from rkt.fetch.urls import follow, without_query
from rkt.schema import jsontext
from rkt.schema.oci import INDEXES, MANIFESTS, MAX_DOCUMENT_BYTES, OCI_INDEX, Index, parse_index
from rkt.schema.record import Record
from rkt.values import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rkt.fetch.answer import Answer
    from rkt.fetch.transport import Client, Progress
    from rkt.schema.oci import Descriptor

PULL = "pull"
_OK = 200
_NOT_FOUND = 404
#: What registries say to a part of the API that they do not know: 404 by the specification, and otherwise.
_UNKNOWN = frozenset((400, _NOT_FOUND, 405, 406, 501))
_ACCEPT = ", ".join((*MANIFESTS, *INDEXES))
_MAX_ERROR_LENGTH = 512
_MAX_PAGES = 8
_MAX_REFERRERS = 256
_DIGEST_HEADER = "Docker-Content-Digest"
_LIMIT = "registries allow more to who has logged in: rkt help config says how credentials are given"
_PLAIN = "--insecure-options=http allows plain http for one command; rkt help config says how it is for one registry"


class Document(Record):
    """A manifest or an index as it was transferred.

    Attributes:
        media_type: the Content-Type, without parameters.
        digest: of ``data``.
    """

    data: bytes
    media_type: str
    digest: Digest


class Repository:
    """Requests about one repository; threads share it.

    Attributes:
        name: ``HOST[:PORT]/REPOSITORY``, for people.
    """

    def __init__(self, client: Client, description: dict[str, Any], actions: str = PULL) -> None:
        """``description`` is one of ``registry.describe_endpoints``; ``actions`` are what tokens are asked for."""
        self._client = client
        self._description = description
        self._host: str = description["host"]
        self._path: str = description["repository"]
        self.name = f"{self._host}/{self._path}"
        self._scopes = f"repository:{self._path}:{actions}"
        self._lock = threading.Lock()
        self._base = ""
        self._authorization: Authorization | None = None

    # Manifests

    def manifest(self, reference: str, expected: Descriptor | None = None) -> Document:
        """A manifest or an index by tag or digest.

        Args:
            reference: tag or digest.
            expected: what an index says of it.
        Raises:
            NotFound: the registry has none.
            FetchError: it cannot be had, or is not what it should be.
        """
        answer = self._ask(f"manifests/{reference}", MAX_DOCUMENT_BYTES)
        if answer.status != _OK:
            separator = "@" if reference.startswith("sha256:") else ":"
            raise self._refusal(answer, f"{self._path}{separator}{reference}")
        digest = Digest(f"sha256:{hashlib.sha256(answer.body).hexdigest()}")
        what = f"manifest {reference} of {self.name}"
        if reference.startswith("sha256:") and digest != reference:
            raise FetchError(f"{what}: the registry sent another one, with the digest {digest}")
        said = answer.headers.get(_DIGEST_HEADER, "")
        if said and said != digest and said != f"sha512:{hashlib.sha512(answer.body).hexdigest()}":
            raise FetchError(f"{what}: its digest is {digest}, but the registry says {quoted(said)}")
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        if expected is not None:
            if len(answer.body) != expected.size_bytes:
                raise FetchError(
                    f"{what} has {len(answer.body)} bytes, but the index says {expected.size_bytes}"
                )
            if media_type != expected.media_type:
                raise FetchError(
                    f"{what} was sent as {quoted(media_type)}, but the index says {quoted(expected.media_type)}"
                )
        return Document(data=answer.body, media_type=media_type, digest=digest)

    def current_digest(self, tag: str) -> str:
        """What a tag stands for now, by the registry's word alone; empty when it does not say."""
        answer = self._ask(f"manifests/{tag}", MAX_DOCUMENT_BYTES, method="HEAD")
        return answer.headers.get(_DIGEST_HEADER, "") if answer.status == _OK else ""

    def referrers(self, digest: Digest) -> list[Descriptor]:
        """Descriptors of the artifacts that are about a manifest (distribution 1.1, "Listing Referrers").

        A registry without that part of the API keeps them in an index with a tag made of the digest.
        """
        target = f"referrers/{digest}"
        found: list[Descriptor] = []
        for _ in range(_MAX_PAGES):
            answer = self._ask(target, MAX_DOCUMENT_BYTES, accept=OCI_INDEX)
            if answer.status in _UNKNOWN and not found:
                return _bounded(self._tagged_referrers(digest))
            if answer.status != _OK:
                raise self._refusal(answer, f"referrers of {self._path}@{digest}")
            found += self._referrers_of(answer.body, answer.headers.get("Content-Type", "")).manifests
            target = self._next_page(answer)
            if not target:
                return _bounded(found)
        raise FetchError(f"{self.name} has more than {_MAX_PAGES} pages of referrers of {digest}")

    def _tagged_referrers(self, digest: Digest) -> list[Descriptor]:
        try:
            document = self.manifest(str(digest.key))
        except NotFound:
            return []
        return self._referrers_of(document.data, document.media_type).manifests

    def _referrers_of(self, data: bytes, media_type: str) -> Index:
        index = parse_index(data, media_type)
        if index.media_type != OCI_INDEX:
            raise FetchError(f"{self.name} sent referrers as {quoted(index.media_type)}")
        return index

    def _next_page(self, answer: Answer) -> str:
        """What of the API comes next, by the header ``Link``; empty after the last page."""
        link = answer.headers.get("Link", "")
        if 'rel="next"' not in link:
            return ""
        path = link.partition("<")[2].partition(">")[0]
        url = follow(answer.url, path)
        prefix = f"{self._url('')}referrers/"
        if not url.startswith(prefix) or len(url) > len(prefix) + 4096:
            raise FetchError(f"{self.name} says that more referrers are at {quoted(path)}")
        return url[len(self._url("")) :]

    # Blobs

    def small_blob(self, descriptor: Descriptor, what: str) -> bytes:
        """The content of a blob that is a small document.

        Raises:
            NotFound, FetchError: as for ``manifest``.
        """
        if descriptor.size_bytes > MAX_DOCUMENT_BYTES:
            raise FetchError(
                f"the {what} of {self.name} has {descriptor.size_bytes} bytes, "
                f"at most {MAX_DOCUMENT_BYTES} are accepted"
            )
        answer = self._ask(f"blobs/{descriptor.digest}", descriptor.size_bytes, accept="*/*")
        if answer.status != _OK:
            raise self._refusal(answer, f"{what} {descriptor.digest} of {self._path}")
        if len(answer.body) != descriptor.size_bytes:
            raise FetchError(
                f"the {what} of {self.name} has {len(answer.body)} bytes, "
                f"but the manifest says {descriptor.size_bytes}"
            )
        if hashlib.sha256(answer.body).hexdigest() != descriptor.digest.hex:
            raise FetchError(f"the {what} of {self.name} is not the one with the digest {descriptor.digest}")
        return answer.body

    def blob(
        self,
        digest: Digest,
        size_bytes: int,
        fd: int,
        validators_fd: int,
        *,
        started: Progress,
        progress: Progress,
    ) -> int:
        """A blob into a file, going on with what is there of it.

        Returns:
            how many bytes were there before.
        Raises:
            FetchError: it cannot be had, or is another one; what can be gone on with later is kept.
        """
        while True:
            file = BlobFile(fd, validators_fd, digest, size_bytes)
            kept = file.offset()
            if file.is_complete:
                started(kept, size_bytes)
            else:
                try:
                    self._client.download_file(
                        self._url(f"blobs/{digest}"),
                        file,
                        limit_bytes=size_bytes,
                        started=started,
                        progress=progress,
                        authorizer=self._authorize(),
                    )
                except FetchError as e:
                    e.hint = e.hint or _hint(e)
                    raise
            found = file.digest()
            if found == digest:
                return kept
            file.restart(None)
            # What was there before may have been wrong, and what came now right.
            if not kept:
                raise FetchError(f"blob {digest}: {self.name} sent another one, with the digest {found}")

    # Requests

    def _ask(self, target: str, limit_bytes: int, *, method: str = "GET", accept: str = _ACCEPT) -> Answer:
        try:
            return self._client.exchange(
                self._url(target),
                method=method,
                headers={"Accept": accept},
                # Room to say in a few words why not.
                limit_bytes=max(limit_bytes, 1 << 16),
                authorizer=self._authorize(),
            )
        except FetchError as e:
            e.hint = e.hint or _hint(e)
            raise

    def _url(self, target: str) -> str:
        return f"{self._origin()}/v2/{self._path}/{target}"

    def _authorize(self) -> Authorization:
        base = self._origin()
        with self._lock:
            if self._authorization is None:
                self._authorization = Authorization(
                    self._client,
                    base,
                    self._scopes,
                    self._description["credentials"],
                    self._description["token_hosts"],
                )
            return self._authorization

    def _origin(self) -> str:
        """``https://HOST``, or ``http://HOST`` where that is allowed and there is nobody who speaks TLS."""
        with self._lock:
            if not self._base:
                schemes = self._description["schemes"]
                scheme = schemes[0]
                if len(schemes) > 1 and not self._answers(f"{scheme}://{self._host}/v2/"):
                    scheme = schemes[1]
                self._base = f"{scheme}://{self._host}"
            return self._base

    def _answers(self, url: str) -> bool:
        """Whether somebody answers; who answers with a wrong certificate does."""
        try:
            self._client.exchange(url, limit_bytes=1 << 16, attempts=1)
        except FetchError as e:
            return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes(e))
        return True

    def _refusal(self, answer: Answer, what: str) -> FetchError | NotFound:
        """The error for a status that is none of success, with the registry's own words."""
        words = error_words(answer.body)
        if answer.status == _NOT_FOUND:
            return NotFound(absent(self._host, what) + words)
        if answer.status in {401, 403}:
            return FetchError(
                f"registry {self._host} gives no access to {self._path}: it is private, or there is none{words}",
                hint="rkt help config says how credentials for a registry are given",
            )
        return FetchError(
            f'cannot fetch "{without_query(answer.url)}": bad HTTP status code: {answer.status}{words}'
        )


def _hint(error: FetchError) -> str:
    """What may help."""
    if any(getattr(cause, "reason", "") in NOT_TLS for cause in causes(error)):
        return _PLAIN
    return _LIMIT if "HTTP status code: 429" in error.message else ""


def _bounded(found: list[Descriptor]) -> list[Descriptor]:
    if len(found) > _MAX_REFERRERS:
        raise FetchError(f"{len(found)} referrers, at most {_MAX_REFERRERS} are accepted")
    return found


def error_words(body: bytes) -> str:
    """What a registry says in ``{"errors": [{"code", "message"}]}``, made safe to show."""
    try:
        members = jsontext.parse(body, what="answer", limit_bytes=1 << 16)
        first = members["errors"][0]
        words = f"{first.get('code', '')} {first.get('message', '')}".strip()
    except (InvalidManifest, KeyError, IndexError, TypeError, AttributeError):
        return ""
    return f": {quoted(words[:_MAX_ERROR_LENGTH])}" if words else ""


def try_endpoints(
    repositories: list[Repository], attempt: Callable[[Repository], Any], failed: Callable[[str, str], None]
) -> Any:
    """What the first repository gives; the error of the last, which is the registry itself, when none does.

    Args:
        repositories: mirrors first; one that fails is taken out, and not asked again.
        attempt: asks one of them.
        failed: is told the name of one that failed, and why.
    """
    for repository in list(repositories):
        try:
            return attempt(repository)
        except (FetchError, NotFound, InvalidManifest) as e:
            if repository is repositories[-1]:
                raise
            failed(repository.name, e.message)
            # Another thread may have done so.
            with contextlib.suppress(ValueError):
                repositories.remove(repository)
    raise FetchError("no registry to ask")

# SPDX-License-Identifier: Apache-2.0
"""Docker and OCI images of registries: root's side.

``rkt-fetch`` asks and reads the answers (``fetch.registry_worker``); here it is told where, by which way and with whose
credentials, and what it reports is checked for its form. Whether the bytes are right, ``fetch.oci`` sees from their
digests.
"""

from __future__ import annotations

import os

from rkt.config.registries import RegistryConfig, load_registries, token_hosts
from rkt.errors import FetchError, InvalidManifest
from rkt.fetch.credentials import describe, find_credentials
from rkt.fetch.job import describe_way, run_fetch
from rkt.fetch.limits import DEFAULT_TRANSFER_LIMITS
from rkt.fetch.oci_source import Received, Resolved
from rkt.fetch.remote import DOCUMENT_SECONDS
from rkt.privsep.confine import missing
from rkt.privsep.wire import foreign_count
from rkt.values import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.fetch.oci_reference import DockerReference
    from rkt.fetch.oci_source import Blob, Listener
    from rkt.schema.oci import Platform
    from rkt.store.staging import Staging
    from rkt.trust.evidence import Evidence

_DOCUMENTS = ("index", "manifest", "config")
_NOT_MODIFIED = "not-modified"


class RegistrySource:
    """One image of a registry, as a ``Source`` of the pipeline."""

    def __init__(
        self,
        reference: DockerReference,
        settings: Settings,
        platform: Platform,
        *,
        message: Callable[[str], object] = lambda _: None,
        debug: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Nothing is asked for yet; ``message`` and ``debug`` are told what people should know."""
        self._reference = reference
        self._settings = settings
        self._platform = platform
        self._message = message
        self._debug = debug
        self._endpoints: list[dict[str, Any]] = []

    def resolve(self, staging: Staging, known: Digest | None) -> Resolved | None:
        """See ``Source.resolve``."""
        if known is not None and known == self._reference.digest:
            return None
        platform = self._platform
        fds = {name: staging.create(name) for name in _DOCUMENTS}
        try:
            answer = self._run(
                {
                    "op": "oci-resolve",
                    "reference": self._reference.digest or self._reference.tag,
                    "platform": {
                        "os": platform.os,
                        "architecture": platform.architecture,
                        "variant": platform.variant,
                    },
                    "known": known or "",
                },
                fds,
                DOCUMENT_SECONDS * (1 + len(self._described())),
            )
        finally:
            for fd in fds.values():
                os.close(fd)
        try:
            if answer["status"] == _NOT_MODIFIED:
                if known is None:
                    raise FetchError(
                        f'"{self._reference}" was not modified, but nothing was had of it before'
                    )
                return None
            index_digest = answer["index_digest"]
            return Resolved(
                digest=Digest.parse(answer["digest"]),
                media_type=str(answer["media_type"]),
                index_digest=Digest.parse(index_digest) if index_digest else None,
                index_media_type=str(answer["index_media_type"]),
                endpoint=str(answer["endpoint"])[:1024],
            )
        except (KeyError, TypeError, InvalidManifest) as e:
            raise FetchError("rkt-fetch reported no image") from e

    def blobs(self, wanted: Sequence[Blob], listener: Listener) -> list[Received]:
        """See ``Source.blobs``."""
        fds: dict[str, int] = {}
        for number, blob in enumerate(wanted):
            fds |= {f"blob{number}": blob.fd, f"validators{number}": blob.validators_fd}
        request = {
            "op": "oci-blobs",
            "blobs": [{"digest": blob.digest, "size": blob.size_bytes} for blob in wanted],
        }
        answer = self._run(request, fds, DEFAULT_TRANSFER_LIMITS.total_seconds, listener)
        try:
            results = answer["blobs"]
            if len(results) != len(wanted):
                raise FetchError("rkt-fetch reported other blobs than were asked for")
            return [
                Received(size_bytes=_count(result["size_bytes"]), kept_bytes=_count(result["kept_bytes"]))
                for result in results
            ]
        except (KeyError, TypeError, ValueError) as e:
            raise FetchError("rkt-fetch reported no blobs") from e

    def evidence(self, digests: Sequence[Digest], kinds: Sequence[str], fd: int) -> None:
        """See ``Source.evidence``."""
        seconds = DOCUMENT_SECONDS * (1 + len(self._described()))
        self._run(
            {"op": "oci-evidence", "digests": list(digests), "kinds": list(kinds)}, {"evidence": fd}, seconds
        )

    def messages(self, digests: Sequence[Digest], lookasides: Collection[str]) -> list[Evidence]:
        """See ``Source.messages``."""
        from rkt.fetch import lookaside

        return [
            evidence
            for url in sorted(set(lookasides))
            for evidence in lookaside.find(url, self._reference, digests, self._settings)
        ]

    def _run(
        self, request: dict[str, Any], fds: dict[str, int], seconds: float, listener: Listener | None = None
    ) -> dict[str, Any]:
        for text in missing():
            self._debug(text)

        def hear(event: dict[str, Any]) -> None:
            if event.get("kind") == "mirror":
                self._debug(f"mirror {event.get('name')} is passed over: {event.get('cause')}")
            elif listener is not None:
                listener(event)

        way = describe_way(self._settings, tls_insecure=self._settings.insecure.tls)
        return run_fetch(
            {**request, **way, "endpoints": self._described()},
            fds,
            self._settings.installation,
            seconds=seconds,
            on_event=hear,
        )

    def _described(self) -> list[dict[str, Any]]:
        if not self._endpoints:
            self._endpoints = describe_endpoints(self._reference, self._settings, self._message)
            if self._settings.insecure.tls:
                self._message("warning: TLS verification has been disabled")
        return self._endpoints


def _count(value: Any) -> int:
    """A size that the worker reported; ``ValueError`` if it is none."""
    count = foreign_count(value)
    if count is None:
        raise ValueError("no size")
    return count


def describe_endpoints(
    reference: DockerReference, settings: Settings, warn: Callable[[str], object] = lambda _: None
) -> list[dict[str, Any]]:
    """Where an image may be had, for a worker: its registry's mirrors in their order, then the registry itself.

    Each has ``host``, ``schemes`` in the order in which they are tried, ``repository``, ``credentials`` and
    ``token_hosts``. Credentials are those for the mirror itself, never those for the registry.
    """
    said: set[str] = set()

    def warn_once(text: str) -> None:
        if text not in said:
            said.add(text)
            warn(text)

    registries = load_registries(settings)
    config = registries.get(reference.registry, RegistryConfig())
    found = []
    for url in config.mirrors:
        scheme, _, rest = url.partition("://")
        host, _, prefix = rest.strip("/").partition("/")
        repository = f"{prefix}/{reference.repository}" if prefix else reference.repository
        found.append(_describe(host, [scheme], repository, registries, settings, warn_once))
    schemes = ["http"] if config.http else ["https", "http"] if settings.insecure.http else ["https"]
    found.append(
        _describe(reference.registry, schemes, reference.repository, registries, settings, warn_once)
    )
    return found


def _describe(
    host: str,
    schemes: list[str],
    repository: str,
    registries: dict[str, RegistryConfig],
    settings: Settings,
    warn: Callable[[str], object],
) -> dict[str, Any]:
    # What never travels by https is not even read, nor are helpers asked for it.
    secret = find_credentials(settings, host, repository, warn) if "https" in schemes else None
    return {
        "host": host,
        "schemes": schemes,
        "repository": repository,
        "credentials": describe(secret),
        "token_hosts": token_hosts(host, registries.get(host, RegistryConfig())),
    }

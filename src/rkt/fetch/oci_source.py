# SPDX-License-Identifier: Apache-2.0
"""What brings the bytes of a Docker or OCI image: a registry, a directory, an archive.

A source starts workers and hands on what they say; every byte from outside is read there. What it returns is only a
claim: root compares digests and sizes with what lies in the files before it uses them (``fetch.oci``).
"""

from __future__ import annotations

from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Any, Protocol, TypeAlias

    from rkt.store.staging import Staging
    from rkt.trust.evidence import Evidence
    from rkt.values import Digest

    #: Takes what a worker says while it works: ``{"kind": "started", "index", "kept", "total"}`` when the bytes of a blob
    #: begin to arrive behind those that were kept, for every attempt; ``{"kind": "progress", "index", "done", "total"}``;
    #: ``{"kind": "request", "url"}``.
    Listener: TypeAlias = Callable[[dict[str, Any]], object]

    class Source(Protocol):
        """One image, where it is to be had."""

        def resolve(self, staging: Staging, known: Digest | None) -> Resolved | None:
            """Find the manifest for the platform.

            Args:
                staging: gets the files ``manifest`` and ``config``, and ``index`` where the reference led to one; the bytes
                    as transferred. They are made by the source.
                known: of the manifest or index that is had already; None when nothing is had.
            Returns:
                what is there now; None when it is the one that is known.
            Raises:
                FetchError, NotFound, NotVerified: it cannot be had.
                InvalidManifest: it is none that is supported.
            """

        def blobs(self, wanted: Sequence[Blob], listener: Listener) -> list[Received]:
            """Bring blobs, several at once; what was brought stays in its file when another fails.

            Returns:
                one for each of ``wanted``, in its order; the files hold exactly the bytes whose digest was asked for.
            Raises:
                FetchError: one of them cannot be had.
            """

        def evidence(self, digests: Sequence[Digest], kinds: Sequence[str], fd: int) -> None:
            """What vouches for an image, as ``fetch.evidence_worker`` writes it.

            Args:
                digests: of its manifest and its index.
                kinds: of the requirements that it is for.
                fd: gets it.
            Raises:
                FetchError: whether there is any cannot be told.
            """

        def messages(self, digests: Sequence[Digest], lookasides: Collection[str]) -> list[Evidence]:
            """Signed OpenPGP messages about an image, taken apart.

            Args:
                digests: of its manifest and its index.
                lookasides: where those of images of registries are; an empty one stands for the configured one.
            Raises:
                FetchError, ConfigError: they cannot be asked for.
            """


class Resolved(Record):
    """What a reference stands for.

    Attributes:
        digest: of the manifest for the platform.
        media_type: as it was sent with: the Content-Type, or the descriptor's.
        index_digest: of the index that it was chosen from.
        index_media_type: likewise.
        endpoint: where it came from, for people.
    """

    digest: Digest
    media_type: str
    index_digest: Digest | None = None
    index_media_type: str = ""
    endpoint: str = ""


class Blob(Record):
    """A blob that is wanted.

    Attributes:
        digest, size_bytes: of its bytes as transferred.
        fd: gets them behind those that it has; they may be of an earlier attempt.
        validators_fd: for what the source wants to remember of an unfinished transfer.
    """

    digest: Digest
    size_bytes: int
    fd: int
    validators_fd: int


class Received(Record):
    """How a blob came.

    Attributes:
        size_bytes: of the whole.
        kept_bytes: of those, from an earlier attempt.
    """

    size_bytes: int
    kept_bytes: int

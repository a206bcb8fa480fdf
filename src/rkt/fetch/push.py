# SPDX-License-Identifier: Apache-2.0
"""An image of the store, of a layout or of an archive into a registry.

What is uploaded is put into staging first, as files that ``fetch.push_worker`` then reads. A layer that the registry has
already, as it was fetched, is neither rebuilt nor uploaded: when that is so for all of them, or when they come from a
layout or an archive, the manifest is the image's own and so is its digest. Nothing is signed.
"""

from __future__ import annotations

import contextlib
import os

from rkt.errors import FetchError, ImageError, UsageError
from rkt.fetch import oci_reference
from rkt.fetch.job import describe_way, run_fetch
from rkt.fetch.layout import LocalSource
from rkt.fetch.limits import DEFAULT_TRANSFER_LIMITS
from rkt.fetch.oci_source import Blob as WantedBlob
from rkt.fetch.registry import describe_endpoints
from rkt.fetch.remote import DOCUMENT_SECONDS
from rkt.image.compression import GZIP, NONE
from rkt.image.oci_export import squashed_parts, stored_parts
from rkt.image.oci_output import digest_of
from rkt.image.oci_write import Document, Layer, make_manifest, write_layer
from rkt.linux.files import read_bounded, write_all
from rkt.privsep.wire import foreign_count
from rkt.schema.appc import parse_image_manifest
from rkt.schema.oci import MAX_DOCUMENT_BYTES, parse_config, parse_manifest
from rkt.schema.record import Record
from rkt.store.cas import Store
from rkt.store.layout import setup_data_dir
from rkt.store.locks import image_lock
from rkt.store.staging import Staging
from rkt.values import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Self

    from rkt.config.settings import Settings
    from rkt.fetch.oci_reference import DockerReference, LocalReference
    from rkt.image.oci_output import Blob
    from rkt.schema.oci import Platform
    from rkt.values import ImageKey

_REGISTRY = "appc.io/docker/registryurl"
_REPOSITORY = "appc.io/docker/repository"


class Pushed(Record):
    """What is in the registry now.

    Attributes:
        digest: of the manifest.
        is_new: whether a Docker or OCI image has got another manifest than its own.
        uploaded: how many blobs were not there.
        blobs: how many the image has, its configuration included.
    """

    digest: str
    is_new: bool
    uploaded: int
    blobs: int


class _Ready(Record):
    """What is to be in the registry.

    Attributes:
        manifest, media_type: its document.
        is_new: see ``Pushed``.
        files: digest -> name in staging, of what may have to be uploaded.
    """

    manifest: bytes
    media_type: str
    is_new: bool
    files: dict[str, str]


class _StagedFiles:
    """Files in staging, numbered; a ``Sink``."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._fd = -1
        self._count = 0
        self.files: dict[str, str] = {}

    def begin(self) -> int:
        self._fd = self._staging.create(f"blob{self._count}")
        return self._fd

    def end(self, name: str, size: int) -> None:
        os.close(self._fd)
        self.files[f"sha256:{name}"] = f"blob{self._count}"
        self._count += 1

    def put(self, name: str, data: bytes) -> None:
        """Not needed: what is put here has a digest for a name."""
        write_all(self.begin(), data)
        self.end(name, len(data))

    def commit(self) -> None:
        """Nothing to do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Push:
    """One image on its way to a registry."""

    def __init__(
        self,
        settings: Settings,
        target: DockerReference,
        *,
        compression: str = "",
        message: Callable[[str], object] = lambda _: None,
        progress: Callable[[str, int, int], object] = lambda *_: None,
    ) -> None:
        """Nothing is done yet.

        Args:
            settings: of the running command.
            target: where to.
            compression: of layers of the store; by default gzip, unless they came without, and only those that are not
                there yet.
            message: told what people should know.
            progress: told of a digest, how much of it is there, and how much there is.
        """
        self._settings = settings
        self._target = target
        self._compression = compression
        self._message = message
        self._progress = progress
        self._endpoints: list[dict[str, Any]] = []

    def from_store(self, store: Store, key: ImageKey) -> Pushed:
        """Push an image of the store.

        Raises:
            FetchError: the registry does not take it.
            ImageError, StoreError: a layer is not as it was fetched.
        """
        parts = stored_parts if key.is_oci else squashed_parts
        with (
            image_lock(store.data_dir, key, exclusive=False),
            parts(store, key) as (layers, finish),
            Staging(store.data_dir) as staging,
        ):
            sink = _StagedFiles(staging)
            if key.is_oci:
                manifest = parse_image_manifest(store.manifest_bytes(key)).annotations
                source = manifest.get(_REPOSITORY, "")
                same_registry = manifest.get(_REGISTRY) == self._target.registry
                ready = self._ready(sink, layers, finish([]), source if same_registry else "")
            else:
                blobs = [self._write(sink, layer, self._compression or GZIP) for layer in layers]
                ready = self._documents(
                    sink, finish([blob.diff_id for blob in blobs]), blobs, self._compression or GZIP
                )
            return self._upload(staging, ready)

    def _ready(self, sink: _StagedFiles, layers: Sequence[Layer], documents: Document, source: str) -> _Ready:
        """Layers of a Docker or OCI image: those that the registry has as they were fetched, the others written anew."""
        old = parse_manifest(documents.manifest)
        config = parse_config(documents.config)
        present = [False] * len(layers)
        if not self._compression:
            present = self._present([layer.digest for layer in old.layers], source)
        compression = self._compression
        if not compression:
            missing = [
                pair
                for pair, there in zip(zip(old.layers, config.diff_ids, strict=True), present, strict=True)
                if not there
            ]
            compression = NONE if all(layer.digest == diff_id for layer, diff_id in missing) else GZIP
        blobs = [
            None if there else self._write(sink, layer, compression)
            for layer, there in zip(layers, present, strict=True)
        ]
        return self._documents(sink, documents, blobs, compression)

    def _write(self, sink: _StagedFiles, layer: Layer, compression: str) -> Blob:
        return write_layer(sink, layer, compression, lambda digest: digest)

    def _documents(
        self, sink: _StagedFiles, documents: Document, blobs: Sequence[Blob | None], compression: str
    ) -> _Ready:
        manifest, media_type = make_manifest(documents, blobs, compression)
        sink.put(digest_of(documents.config).removeprefix("sha256:"), documents.config)
        return _Ready(
            manifest=manifest,
            media_type=media_type,
            is_new=bool(documents.manifest) and manifest != documents.manifest,
            files=sink.files,
        )

    def from_files(self, reference: LocalReference, platform: Platform) -> Pushed:
        """Push an image of a layout or an archive, as it is there.

        Raises:
            FetchError: it cannot be had, or the registry does not take it.
        """
        if self._compression:
            raise UsageError(
                f"{reference} is pushed as it is", hint="leave out --compression, or fetch the image first"
            )
        setup_data_dir(self._settings.data_dir)
        with (
            Staging(self._settings.data_dir) as staging,
            LocalSource(reference, platform, self._settings) as source,
        ):
            resolved = source.resolve(staging, None)
            assert resolved is not None
            data = read_bounded(f"{staging.path}/manifest", MAX_DOCUMENT_BYTES)
            if digest_of(data) != resolved.digest:
                raise ImageError("rkt-fetch reported another manifest than it wrote")
            manifest = parse_manifest(data, resolved.media_type)
            files = {str(manifest.config.digest): "config"}
            wanted = []
            with contextlib.ExitStack() as stack:
                for number, layer in enumerate(manifest.layers):
                    if layer.digest in files:
                        continue
                    files[layer.digest] = f"blob{number}"
                    fd = staging.create(f"blob{number}")
                    stack.callback(os.close, fd)
                    wanted.append(
                        WantedBlob(digest=layer.digest, size_bytes=layer.size_bytes, fd=fd, validators_fd=-1)
                    )
                source.blobs(wanted, lambda _: None)
            ready = _Ready(manifest=data, media_type=manifest.media_type, is_new=False, files=files)
            return self._upload(staging, ready)

    def _present(self, digests: Sequence[Digest], source: str) -> list[bool]:
        source = "" if source == self._target.repository else source
        answer = self._run(
            {
                "op": "push-check",
                "blobs": [{"digest": digest, "source": source} for digest in digests],
            },
            {},
            DOCUMENT_SECONDS + 2 * len(digests),
        )
        present = answer.get("present")
        if not isinstance(present, list) or len(present) != len(digests):
            raise FetchError("rkt-fetch reported nothing of the blobs that it was asked for")
        return [item is True for item in present]

    def _upload(self, staging: Staging, ready: _Ready) -> Pushed:
        digest = Digest.parse(digest_of(ready.manifest))
        if self._target.digest is not None and self._target.digest != digest:
            raise UsageError(
                f"the image's manifest has the digest {digest}, it cannot be pushed as {self._target.digest}",
                hint=f"docker://{self._target.name}:TAG",
            )
        digests = list(ready.files)
        with contextlib.ExitStack() as stack:
            fds = {}
            for index, name in enumerate(ready.files.values()):
                fds[f"blob{index}"] = os.open(f"{staging.path}/{name}", os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, fds[f"blob{index}"])
            fds["manifest"] = staging.create("pushed")
            stack.callback(os.close, fds["manifest"])
            write_all(fds["manifest"], ready.manifest)
            answer = self._run(
                {
                    "op": "push-upload",
                    "reference": self._target.digest or self._target.tag,
                    "digest": digest,
                    "media_type": ready.media_type,
                    "blobs": digests,
                },
                fds,
                DEFAULT_TRANSFER_LIMITS.total_seconds,
                digests,
            )
        layers = parse_manifest(ready.manifest).layers
        return Pushed(
            digest=digest,
            is_new=ready.is_new,
            uploaded=foreign_count(answer.get("uploaded")) or 0,
            blobs=len({layer.digest for layer in layers}) + 1,
        )

    def _run(
        self, request: dict[str, Any], fds: dict[str, int], seconds: float, digests: Sequence[str] = ()
    ) -> dict[str, Any]:
        if not self._endpoints:
            # The registry itself: what mirrors have, they take from there.
            self._endpoints = describe_endpoints(self._target, self._settings, self._message)[-1:]
            if self._settings.insecure.tls:
                self._message("warning: TLS verification has been disabled")

        def hear(event: dict[str, Any]) -> None:
            index, done, total = (foreign_count(event.get(name)) for name in ("index", "done", "total"))
            if event.get("kind") != "progress" or index is None or done is None or total is None:
                return
            if index < len(digests):
                self._progress(digests[index], done, total)

        way = describe_way(self._settings, tls_insecure=self._settings.insecure.tls)
        return run_fetch(
            {**request, **way, "endpoints": self._endpoints},
            fds,
            self._settings.installation,
            seconds=seconds,
            on_event=hear,
        )


def parse_source(text: str) -> LocalReference | None:
    """What is pushed from a layout or an archive; None for an image of the store."""
    kind, colon, rest = text.partition(":")
    if colon and kind in oci_reference.LOCAL_KINDS:
        return oci_reference.parse_local(kind, rest)
    return None

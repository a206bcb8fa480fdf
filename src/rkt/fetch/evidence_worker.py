# SPDX-License-Identifier: Apache-2.0
"""``rkt-fetch``: looks for signatures and attestations of an image, where its registry or its layout has them.

::

    oci-evidence     registries: referrers (distribution 1.1, or the tag ``sha256-HEX``), and the tags ``sha256-HEX.sig``, ``….att``
    layout-evidence  layouts and archives: entries of ``index.json`` that refer to the image, or are tagged likewise

Both are told the digests of manifest and index. What is found goes into the descriptor ``evidence``, as JSON; it is judged
elsewhere. A piece that cannot be had, or is too much, is told with the reason, since somebody will ask why it did not
count. Only what the requirements ask for is looked for.
"""

from __future__ import annotations

import base64

from rkt.errors import FetchError, ImageError, InvalidManifest, NotFound, quoted
from rkt.fetch import layout_worker, opener
from rkt.fetch.registry_worker import Networked, tell_failure
from rkt.fetch.repository import try_endpoints
from rkt.linux.files import write_all
from rkt.privsep import confine
from rkt.schema import jsontext, oci
from rkt.trust.bundle import MEDIA_TYPES
from rkt.trust.dsse import PREDICATES_FOR
from rkt.trust.evidence import (
    BUNDLE,
    COSIGN_ATTESTATION,
    COSIGN_CLASSIC,
    EVIDENCE_FOR,
    MAX_PIECE_BYTES,
    MAX_PIECES,
    MAX_TOTAL_BYTES,
    MAX_WRITTEN_BYTES,
    Evidence,
)
from rkt.values import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from rkt.fetch.layout_worker import Files
    from rkt.fetch.repository import Repository
    from rkt.privsep.worker import Emit, Work
    from rkt.schema.oci import Descriptor

#: What cosign tagged before version 3, by the ending of the tag: the kind of evidence, and the type of its layers.
_TAGGED = {
    ".sig": (COSIGN_CLASSIC, "application/vnd.dev.cosign.simplesigning.v1+json"),
    ".att": (COSIGN_ATTESTATION, "application/vnd.dsse.envelope.v1+json"),
}
#: cosign 2 announced bundles so, by mistake (sigstore/cosign 4422).
_EMPTY = "application/vnd.oci.empty.v1+json"
_PREDICATE = "dev.sigstore.bundle.predicateType"
_SIGNATURE = "dev.cosignproject.cosign/signature"
_CERTIFICATE = "dev.sigstore.cosign/certificate"
_CHAIN = "dev.sigstore.cosign/chain"
_LOG_ENTRY = "dev.sigstore.cosign/bundle"
#: Of such a layer: what sort of statement it is.
_STATEMENT = "predicateType"
#: What ``cosign save`` calls signatures in a layout. Of its attestations nobody sees which image they are about.
_SAVED_KIND, _SAVED = "kind", {"dev.cosignproject.cosign/sigs": ".sig"}
_REF_NAME = "org.opencontainers.image.ref.name"
_MAX_TEXT_BYTES = 64 << 10
_MAX_ARTIFACTS = 256
_FAILURES = (FetchError, ImageError, InvalidManifest, NotFound)


def prepare(request: dict[str, Any]) -> Work:
    """Take one of the requests above: ``digests``, and ``kinds`` of the requirements."""
    return OfRegistry(request) if request["op"] == "oci-evidence" else OfLayout(request)


class Found:
    """What has been found, within bounds."""

    def __init__(self, request: dict[str, Any]) -> None:
        kinds = request["kinds"]
        self.digests = [Digest.parse(text) for text in request["digests"]]
        self.kinds = {evidence for kind in kinds for evidence in EVIDENCE_FOR[kind]}
        self._predicates = {predicate for kind in kinds for predicate in PREDICATES_FOR[kind]}
        self._pieces: list[Evidence] = []
        self._seen: set[Digest] = set()
        self._total = 0
        self._left_out = 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, piece: Evidence) -> None:
        """One piece; beyond the bounds it is only counted."""
        size = sum(len(value) for value in (piece.data, piece.certificate, piece.chain, piece.log_entry))
        if len(self._pieces) >= MAX_PIECES or self._total + size > MAX_TOTAL_BYTES:
            self._left_out += 1
            return
        self._total += size
        self._pieces.append(piece)

    def bundles(
        self,
        entry: Descriptor,
        manifest: Callable[[Descriptor], bytes],
        blob: Callable[[Descriptor], bytes],
    ) -> None:
        """The bundles of an artifact that may have some."""
        source = f"referrer {entry.digest}"
        if entry.digest in self._seen or entry.media_type != oci.OCI_MANIFEST:
            return
        if entry.artifact_type not in {*MEDIA_TYPES, _EMPTY, ""}:
            return
        self._seen.add(entry.digest)
        try:
            document = oci.parse_manifest(manifest(entry), entry.media_type)
            layers = [layer for layer in document.layers if layer.media_type in MEDIA_TYPES]
            if not layers:
                return
            if document.subject is None or document.subject.digest not in self.digests:
                raise InvalidManifest("the artifact does not refer to this image")
            self._check_predicate(document.annotations.get(_PREDICATE, ""))
            for layer in layers:
                self.add(Evidence(kind=BUNDLE, source=source, data=_small(layer, blob)))
        except _FAILURES as e:
            self.add(Evidence(kind=BUNDLE, source=source, data=b"", problem=e.message))

    def endings(self) -> list[str]:
        """Of the tags under which something may be that is asked for."""
        return [ending for ending, (kind, _) in _TAGGED.items() if kind in self.kinds]

    def tagged(
        self,
        ending: str,
        source: str,
        data: bytes,
        media_type: str,
        blob: Callable[[Descriptor], bytes],
        about: str = "",
    ) -> None:
        """What a manifest has that is tagged ``sha256-HEX`` and ``ending``; of several images that with ``about`` in it."""
        kind, layer_type = _TAGGED[ending]
        try:
            layers = oci.parse_manifest(data, media_type).layers
        except InvalidManifest as e:
            self.add(Evidence(kind=kind, source=source, data=b"", problem=e.message))
            return
        for layer in layers:
            notes = layer.annotations
            place = f"{source}, {layer.digest}"
            if layer.media_type != layer_type or (kind == COSIGN_CLASSIC and _SIGNATURE not in notes):
                continue
            try:
                if any(len(notes.get(name, "")) > _MAX_TEXT_BYTES for name in (_SIGNATURE, *_OPTIONAL)):
                    raise InvalidManifest(f"an annotation is larger than {_MAX_TEXT_BYTES} bytes")
                self._check_predicate(notes.get(_STATEMENT, ""))
                content = _small(layer, blob)
            except _FAILURES as e:
                self.add(Evidence(kind=kind, source=place, data=b"", problem=e.message))
                continue
            if about and about.encode() not in content:
                continue
            piece = Evidence(
                kind=kind,
                source=place,
                data=content,
                signature=notes.get(_SIGNATURE, ""),
                certificate=notes.get(_CERTIFICATE, ""),
                chain=notes.get(_CHAIN, ""),
                log_entry=notes.get(_LOG_ENTRY, ""),
            )
            self.add(piece)

    def _check_predicate(self, predicate: str) -> None:
        """Spare a download: what is announced as something else is not had."""
        if predicate and predicate not in self._predicates:
            raise InvalidManifest(
                f"is an attestation of the type {quoted(predicate)}, which is not asked for"
            )

    def write(self, fd: int) -> None:
        """All of it."""
        if self._left_out:
            text = f"{self._left_out} more: at most {MAX_PIECES} pieces and {MAX_TOTAL_BYTES} bytes are looked at"
            self._pieces.append(
                Evidence(kind=min(self.kinds), source="what else there is", data=b"", problem=text)
            )
        listed = [
            {**piece.as_dict(), "data": base64.b64encode(piece.data).decode("ascii")}
            for piece in self._pieces
        ]
        write_all(fd, jsontext.dump(listed).encode("utf-8", "replace"))


_OPTIONAL = (_CERTIFICATE, _CHAIN, _LOG_ENTRY)


def _small(layer: Descriptor, blob: Callable[[Descriptor], bytes]) -> bytes:
    if layer.size_bytes > MAX_PIECE_BYTES:
        raise ImageError(f"has {layer.size_bytes} bytes, at most {MAX_PIECE_BYTES} are read")
    return blob(layer)


class OfRegistry(Networked):
    """Of the first endpoint that has any."""

    def file_size_bytes(self) -> int:
        """Of what is written."""
        return MAX_WRITTEN_BYTES

    def work(self, fds: dict[str, int], tell: Emit) -> dict[str, Any]:
        """Ask for it."""
        last = self._repositories[-1]

        def ask(repository: Repository) -> Found:
            found = Found(self._request)
            _ask(repository, found)
            if not found and repository is not last:
                # A mirror may have images only.
                raise NotFound("it has no signature of the image")
            return found

        found: Found = try_endpoints(
            self._repositories, ask, lambda name, cause: tell_failure(tell, name, cause)
        )
        found.write(fds["evidence"])
        return {}


def _ask(repository: Repository, found: Found) -> None:
    def manifest(entry: Descriptor) -> bytes:
        return repository.manifest(entry.digest, entry).data

    def blob(layer: Descriptor) -> bytes:
        return repository.small_blob(layer, "signature")

    for digest in found.digests:
        if BUNDLE in found.kinds:
            for entry in repository.referrers(digest):
                found.bundles(entry, manifest, blob)
        for ending in found.endings():
            tag = f"{digest.key}{ending}"
            try:
                document = repository.manifest(tag)
            except NotFound:
                continue
            found.tagged(ending, f"tag {tag}", document.data, document.media_type, blob)


class OfLayout:
    """Of a layout or an archive; ``kind`` and ``uid`` as for ``layout_worker.Blobs``."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request
        self._kind: str = request["kind"]
        self._uid = int(request["uid"])

    def confine(self, fds: dict[str, int]) -> None:
        """Keep the descriptors; no network, no files."""
        confine.begin(b"rkt-fetch", network=False)
        confine.confine_fetch(network=False, file_size_bytes=MAX_WRITTEN_BYTES, uid=self._uid)

    def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
        """Look through the index."""
        found = Found(self._request)
        if self._kind != layout_worker.DOCKER_ARCHIVE:
            _look(layout_worker.open_files(self._kind, fds), found)
        found.write(fds["evidence"])
        return {}


def _look(files: Files, found: Found) -> None:
    def blob(entry: Descriptor) -> bytes:
        return layout_worker.read_document(files, entry)

    for entry in _artifacts(files, found):
        name = entry.annotations.get(_REF_NAME, "")
        for digest in found.digests:
            for ending in found.endings():
                is_tagged = name == f"{digest.key}{ending}"
                if not is_tagged and _SAVED.get(entry.annotations.get(_SAVED_KIND, "")) != ending:
                    continue
                source = f"tag {name}" if is_tagged else f"blob {entry.digest}"
                try:
                    data = blob(entry)
                except _FAILURES as e:
                    found.add(Evidence(kind=_TAGGED[ending][0], source=source, data=b"", problem=e.message))
                else:
                    about = "" if is_tagged else digest
                    found.tagged(ending, source, data, entry.media_type, blob, about)
        if BUNDLE in found.kinds and _refers(files, entry, found):
            found.bundles(entry, blob, blob)


def _artifacts(files: Files, found: Found) -> Iterator[Descriptor]:
    """Entries of the index that may be about the image, and those of the index that is tagged as about it."""
    index = oci.parse_index(files.open(opener.INDEX).read(oci.MAX_DOCUMENT_BYTES, opener.INDEX))
    tags = {str(digest.key) for digest in found.digests}
    entries = list(index.manifests)
    for entry in index.manifests:
        if entry.media_type in oci.INDEXES and entry.annotations.get(_REF_NAME) in tags:
            entries += oci.parse_index(layout_worker.read_document(files, entry), entry.media_type).manifests
    artifacts = [
        entry
        for entry in entries
        if entry.media_type == oci.OCI_MANIFEST
        and entry.platform is None
        and entry.digest not in found.digests
    ]
    if len(artifacts) > _MAX_ARTIFACTS:
        raise ImageError(
            f"the image layout has {len(artifacts)} entries that may be signatures, at most {_MAX_ARTIFACTS} are looked at"
        )
    yield from artifacts


def _refers(files: Files, entry: Descriptor, found: Found) -> bool:
    """Whether an entry refers to the image; a layout has artifacts about others too."""
    try:
        subject = oci.parse_manifest(layout_worker.read_document(files, entry), entry.media_type).subject
    except _FAILURES:
        return False
    return subject is not None and subject.digest in found.digests

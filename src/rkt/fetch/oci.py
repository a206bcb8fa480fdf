# SPDX-License-Identifier: Apache-2.0
"""From a reference to a Docker or OCI image in the store, kept as it is.

::

    rkt-fetch    index, manifest and configuration, into staging                     no privilege
    root         hashes them; the verdict is about the manifest's digest             refused: that is all
                 reads them; which layers are in the store already?
    rkt-fetch    the other layers, several at once, into files that survive          no privilege
    rkt-unpack   each layer as it arrives, into staging (fetch.arriving)             no network, sees one directory
    root         compares digests, sizes and diff IDs, commits                       store.oci

As ``fetch.fetch`` does for ACIs, this moves things and compares them. Everything that has a digest is compared with it by
root itself before it is used: index, manifest, configuration, every layer on both sides of its compression.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import time

from rkt.errors import (
    FetchError,
    HostError,
    ImageError,
    InvalidManifest,
    NotFound,
    RktError,
)
from rkt.fetch.arriving import Arriving, ArrivingLayer
from rkt.fetch.limits import DEFAULT_TRANSFER_LIMITS
from rkt.fetch.oci_reference import (
    DOCKER_ARCHIVE,
    DockerReference,
    LocalReference,
    parse_docker,
    row_url,
)
from rkt.fetch.oci_source import Blob
from rkt.fetch.partial import Partial, trim
from rkt.image.appc_view import Origin, render_view
from rkt.linux.files import read_bounded
from rkt.privsep import libraries
from rkt.privsep.wire import foreign_count
from rkt.schema.appc import parse_image_manifest
from rkt.schema.oci import (
    MAX_DOCUMENT_BYTES,
    Platform,
    check_together,
    parse_config,
    parse_index,
    parse_manifest,
)
from rkt.schema.record import Record
from rkt.store.cas import Store
from rkt.store.importer import hash_file
from rkt.store.layout import setup_data_dir
from rkt.store.oci import (
    LayerBlob,
    NewImage,
    OciDocuments,
    empty,
    find_layer,
    is_whole,
    put_oci,
    unpack_layers,
)
from rkt.store.record import RemoteRow
from rkt.store.staging import Staging, sweep
from rkt.trust.evidence import Subject
from rkt.trust.judging import Asked
from rkt.trust.policy import check_verdict, is_about, judge_oci
from rkt.trust.verdict import KIND_INSECURE, KIND_POLICY, told
from rkt.values import DOCKER_HUB, DOCKER_HUB_REGISTRY, ACIdentifier, Digest, ImageID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeAlias

    from rkt.config.settings import Settings
    from rkt.fetch.oci_source import Resolved, Source
    from rkt.fetch.report import Reporter
    from rkt.schema.oci import ImageConfig, Manifest
    from rkt.store.oci import FilledLayer
    from rkt.store.record import ImageRecord
    from rkt.trust.evidence import Evidence
    from rkt.trust.rules import Requirement
    from rkt.trust.verdict import Verdict

    Target: TypeAlias = DockerReference | LocalReference

#: In place of a registry, in names of images of layouts and archives that are not called by a registry's.
_LOCAL = "localhost"
_WAITING = "another rkt instance is downloading a layer of this image, waiting..."
_ARCHIVE_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")


def fetch_oci(target: Target, text: str, settings: Settings, store: Store, report: Reporter) -> ImageRecord:
    """Bring an image into the store; what of it is there already is not downloaded again.

    Args:
        target: the image.
        text: the reference as typed.
        settings: of the running command; its ``platform`` says for which one.
        store: where to.
        report: what people are told by.
    Raises:
        NotVerified: nobody who is trusted vouches for it, and that was not switched off.
        FetchError, ImageError, InvalidManifest: the image cannot be had, or is none.
    """
    if settings.shared_dir:
        raise HostError(
            f'cannot fetch "{text}" as a member of group rkt: Docker and OCI images are fetched by root',
            hint=f"sudo rkt fetch {text}",
        )
    if not settings.insecure.image:
        # Before anything is asked of a server.
        Asked(_subject_name(target), settings, is_oci=True).check_possible()
    setup_data_dir(settings.data_dir)
    # What a fetch that was killed left is taken before more room is asked for; image gc reports what stays.
    sweep(settings.data_dir)
    trim(settings.data_dir)
    libraries.enable(settings.installation)
    platform = Platform.parse(settings.platform) if settings.platform else Platform.of_host()
    with contextlib.ExitStack() as stack:
        return _OciFetch(target, text, platform, settings, store, report, stack).run()


def look_at_oci(
    target: Target, text: str, settings: Settings, scratch: str, report: Reporter
) -> tuple[Verdict, int]:
    """As ``fetch_oci``, but no further than to the verdict: nothing is stored.

    Args:
        target: the image.
        text: the reference as typed.
        settings: of the running command.
        scratch: a data directory that is nobody's.
        report: is told what is found, as it would be for ``--debug``.
    Returns:
        the verdict, and how many bytes all layers have.
    """
    if not settings.insecure.image:
        Asked(_subject_name(target), settings, is_oci=True).check_possible()
    libraries.enable(settings.installation)
    platform = Platform.parse(settings.platform) if settings.platform else Platform.of_host()
    with contextlib.ExitStack() as stack:
        fetch = _OciFetch(target, text, platform, settings, Store(settings.data_dir), report, stack)
        return fetch.look(stack.enter_context(Staging(scratch)))


class _Wanted(Record):
    """A layer that is not in the store: as the manifest and the configuration have it."""

    digest: Digest
    size_bytes: int
    diff_id: Digest


class _Judged(Record):
    """Documents whose digests are right, and what they say."""

    resolved: Resolved
    documents: OciDocuments
    manifest: Manifest
    config: ImageConfig
    verdict: Verdict
    name: ACIdentifier


class _OciFetch:
    """One image on its way."""

    def __init__(
        self,
        target: Target,
        text: str,
        platform: Platform,
        settings: Settings,
        store: Store,
        report: Reporter,
        stack: contextlib.ExitStack,
    ) -> None:
        self._target = target
        self._text = text
        self._platform = platform
        self._settings = settings
        self._store = store
        self._report = report
        self._stack = stack
        self._origin = _origin(target)
        self._url = row_url(target, settings.platform) if isinstance(target, DockerReference) else ""
        self._source = self._make_source()
        self._done: list[int] = []

    def run(self) -> ImageRecord:
        """Everything."""
        self._report.debug(f'remote fetching from URL "{self._text}"')
        known = self._kept()
        if known is not None and isinstance(self._target, DockerReference) and self._target.digest:
            # What a digest stands for never changes.
            self._report.debug(f"using image from local store for url {self._text}")
            self._store.touch(known.key)
            return known
        staging = self._stack.enter_context(Staging(self._settings.data_dir))
        resolved = self._source.resolve(staging, _known_digest(known))
        if resolved is None:
            if known is None:
                raise FetchError(f'"{self._text}" was not modified, but nothing was had of it before')
            self._report.debug(f'"{self._text}" is still what it was')
            self._store.touch(known.key)
            record = known
        else:
            judged = self._judge(resolved, staging)
            self._check_newest(judged)
            record = self._take(judged, staging)
        self._remember(record)
        return record

    def look(self, staging: Staging) -> tuple[Verdict, int]:
        """The verdict, and how many bytes all layers have."""
        resolved = self._source.resolve(staging, None)
        if resolved is None:
            raise FetchError(f'"{self._text}" was not modified, but nothing was asked about')
        self._report.debug(f"{resolved.endpoint} has {resolved.digest}")
        judged = self._judge(resolved, staging)
        self._check_newest(judged, remember=False)
        return judged.verdict, sum(layer.size_bytes for layer in judged.manifest.layers)

    def _make_source(self) -> Source:
        if isinstance(self._target, DockerReference):
            from rkt.fetch.registry import RegistrySource

            return RegistrySource(
                self._target,
                self._settings,
                self._platform,
                message=self._report.message,
                debug=self._report.debug,
            )
        from rkt.fetch.layout import LocalSource

        return self._stack.enter_context(LocalSource(self._target, self._platform, self._settings))

    def _kept(self) -> ImageRecord | None:
        """What came of the reference before, if it may be used today."""
        row = self._store.remote_row(self._url) if self._url else None
        if row is None:
            return None
        try:
            record = self._store.get(row.key)
            check_verdict(record.verdict, self._settings, opted_out=self._settings.insecure.image)
            if not is_about(record.verdict, self._url) and not self._settings.insecure.image:
                return None
            for layer in record.layers:
                self._store.layer_path(layer)
        except RktError:
            return None
        return record

    def _judge(self, resolved: Resolved, staging: Staging) -> _Judged:
        """Reach a verdict on what came, and only then read it."""
        documents = _read_documents(staging, resolved)
        asked = self._target.digest
        if asked is not None and asked not in {resolved.digest, resolved.index_digest}:
            raise ImageError(f'"{self._text}" led to another image: {resolved.digest}')
        name = ACIdentifier.sanitize(self._origin.name)
        verdict = judge_oci(
            _subject(self._target, resolved),
            functools.partial(self._collect, resolved),
            self._settings,
        ).replace(name=name)
        self._report.message(told(verdict))
        manifest, config = _parse(documents, resolved)
        if self._platform.rank(config.platform) is None:
            raise NotFound(
                f'"{self._text}" is for {config.platform}, not for {self._platform}',
                hint=f"--platform={config.platform}",
            )
        return _Judged(
            resolved=resolved,
            documents=documents,
            manifest=manifest,
            config=config,
            verdict=verdict,
            name=name,
        )

    def _collect(self, resolved: Resolved, requirements: list[Requirement]) -> list[Evidence]:
        """What may meet requirements; foreign, read by ``rkt-verify`` alone."""
        from rkt.fetch.evidence import collect
        from rkt.trust.rules import OPENPGP

        lookasides = {each.lookaside for each in requirements if each.kind == OPENPGP}
        kinds = {each.kind for each in requirements}
        found = collect(self._source, _digests(resolved), kinds, lookasides)
        places = ", ".join(dict.fromkeys(piece.source for piece in found))
        self._report.debug(f"signatures: {places}" if places else "there is no signature of it")
        return found

    def _check_newest(self, image: _Judged, *, remember: bool = True) -> None:
        """Refuse, or tell of, an older image than was seen by this name, as the rules say (invariant SG11)."""
        verdict = image.verdict
        if self._target.digest or verdict.kind != KIND_POLICY or verdict.is_unsigned:
            return
        from rkt.trust.newest import Version, check_newest, seconds_of

        found = Version(
            name=verdict.subject,
            label=self._origin.tag,
            platform=str(self._platform),
            digest=image.resolved.digest,
            signed_at=verdict.signed_at,
            created=seconds_of(image.config.created),
        )
        rollback = Asked(verdict.subject, self._settings, is_oci=True).rollback
        if text := check_newest(found, rollback, self._settings.data_dir, remember=remember):
            self._report.message(text)

    def _take(self, image: _Judged, staging: Staging) -> ImageRecord:
        """Have the image in the store, with its layers."""
        digest = image.resolved.digest
        view = render_view(
            image.config, self._origin, digest=digest, config_digest=image.manifest.config.digest
        )
        labels = parse_image_manifest(view).labels
        layer_staging = self._stack.enter_context(Staging(self._settings.data_dir))
        wanted = self._missing(_layers(image.manifest, image.config), layer_staging)
        self._report.debug(
            f"{self._text} is {digest} for {image.config.platform}: "
            f"{len(wanted)} of {len(image.manifest.layers)} layers have to be fetched"
        )
        if not wanted and (record := self._unchanged(image, labels)) is not None:
            self._store.touch(record.key)
            return record
        partials: list[Partial] = []
        filled: Sequence[FilledLayer] = ()
        if wanted:
            wanted, partials, fds = self._open_files(wanted, staging, layer_staging)
            try:
                filled = self._fetch_layers(wanted, fds, layer_staging)
            except (ImageError, InvalidManifest):
                # What cannot become a layer is not kept for another attempt.
                for partial in partials:
                    partial.discard()
                raise
        record = put_oci(
            self._store,
            layer_staging,
            NewImage(
                image_id=ImageID.parse(digest),
                name=image.name,
                labels=labels,
                view=view,
                documents=image.documents,
                media_type=image.manifest.media_type,
                platform=str(image.config.platform),
                diff_ids=[diff_id.hex for diff_id in image.config.diff_ids],
                verdict=image.verdict,
                origin=self._text,
                latest=self._origin.tag == "latest",
            ),
            filled,
        )
        for partial in partials:
            partial.discard()
        return record

    def _missing(self, layers: list[_Wanted], staging: Staging) -> list[_Wanted]:
        """Those that are not in the store; the others stay there as long as staging does."""
        return [
            layer
            for layer in layers
            if not find_layer(self._store, staging, layer.digest.hex, layer.diff_id.hex)
        ]

    def _unchanged(self, image: _Judged, labels: dict[str, str]) -> ImageRecord | None:
        """The record, if a new one would say the same, and nothing else of the image is missing either."""
        try:
            record = self._store.get(image.resolved.digest.key)
        except RktError:
            return None
        old, new = (verdict.replace(checked_at=0) for verdict in (record.verdict, image.verdict))
        # What was switched off for this fetch takes nothing from a better verdict.
        is_same = (record.name, record.labels) == (image.name, labels) and (
            old == new or new.kind == KIND_INSECURE
        )
        return record if is_same and is_whole(self._store, record) else None

    def _open_files(
        self, wanted: list[_Wanted], staging: Staging, layer_staging: Staging
    ) -> tuple[list[_Wanted], list[Partial], list[tuple[int, int]]]:
        """Files for the layers, with bytes of earlier attempts, each locked; a layer that somebody else brought is done.

        Returns:
            the layers that are wanted still, their partial downloads, and descriptors for the source.
        """
        if isinstance(self._target, LocalReference):
            # Copying again costs less than keeping.
            fds = [(self._own(staging.create(f"blob{i}")), -1) for i in range(len(wanted))]
            return wanted, [], fds
        partials: dict[Digest, Partial] = {}
        # In one order for all, so that no two instances wait for each other.
        for layer in sorted(wanted, key=lambda layer: layer.digest):
            partials[layer.digest] = self._stack.enter_context(
                Partial(
                    self._settings.data_dir,
                    f"blob {layer.digest}",
                    waiting=lambda: self._report.debug(_WAITING),
                )
            )
        if any(partial.waited for partial in partials.values()):
            wanted = self._missing(wanted, layer_staging)
        fds = []
        for layer in wanted:
            blob_fd, validators_fd = partials[layer.digest].open_for_worker()
            fds.append((self._own(blob_fd), self._own(validators_fd)))
        return wanted, list(partials.values()), fds

    def _own(self, fd: int) -> int:
        self._stack.callback(os.close, fd)
        return fd

    def _fetch_layers(
        self, wanted: list[_Wanted], fds: list[tuple[int, int]], staging: Staging
    ) -> Sequence[FilledLayer]:
        """The layers in staging, unpacked and compared."""
        if not wanted:
            return ()
        blobs = [
            Blob(digest=layer.digest, size_bytes=layer.size_bytes, fd=fd, validators_fd=validators_fd)
            for layer, (fd, validators_fd) in zip(wanted, fds, strict=True)
        ]
        # A description of its own for each: where the source writes is nobody else's business.
        arriving = [
            ArrivingLayer(
                fd=self._own(os.open(f"/proc/self/fd/{blob.fd}", os.O_RDONLY | os.O_CLOEXEC)),
                digest=layer.digest,
                size_bytes=layer.size_bytes,
                diff_id=layer.diff_id,
            )
            for layer, blob in zip(wanted, blobs, strict=True)
        ]
        self._done = [0] * len(blobs)
        total = sum(layer.size_bytes for layer in wanted)
        with Arriving(staging, arriving, self._settings.installation) as ahead:

            def listen(event: dict[str, Any]) -> None:
                ahead.heard(event)
                self._show(event, total)

            try:
                self._source.blobs(blobs, listen)
                self._report.progress(self._label(), total, total, self._text)
            finally:
                self._report.end()
            filled = ahead.result()
        return filled or self._unpack_again(wanted, [layer.fd for layer in arriving], staging)

    def _unpack_again(self, wanted: list[_Wanted], fds: list[int], staging: Staging) -> Sequence[FilledLayer]:
        """From the finished files, which nobody but root can reach any more."""
        for layer, fd in zip(wanted, fds, strict=True):
            if os.fstat(fd).st_size != layer.size_bytes or hash_file(fd) != layer.digest.hex:
                raise ImageError(f"layer {layer.digest} is not what was asked for: its digest differs")
        empty(staging)
        blobs = [
            LayerBlob(fd=fd, digest=layer.digest.hex, diff_id=layer.diff_id.hex)
            for layer, fd in zip(wanted, fds, strict=True)
        ]
        for fd in fds:
            os.lseek(fd, 0, os.SEEK_SET)
        return unpack_layers(staging, blobs, self._settings.installation)

    def _show(self, event: dict[str, Any], total: int) -> None:
        """What a source says while it works; foreign, so only shown, and shown safely."""
        index, done = event.get("index"), foreign_count(event.get("done", event.get("kept")))
        kind = event.get("kind")
        if kind in {"progress", "started"} and type(index) is int and 0 <= index < len(self._done):
            if done is not None:
                self._done[index] = done
            self._report.progress(self._label(), sum(self._done), total, self._text)
        elif kind == "mirror":
            self._report.debug(f"{event.get('name')}: {event.get('cause')}")

    def _label(self) -> str:
        count = len(self._done)
        return f"{count} layer{'' if count == 1 else 's'}"

    def _remember(self, record: ImageRecord) -> None:
        if self._url:
            self._store.put_remote_row(
                RemoteRow(url=self._url, key=record.key, download_time=int(time.time()))
            )


def _known_digest(record: ImageRecord | None) -> Digest | None:
    """What a server has to have still, if nothing is to be fetched."""
    if record is None or record.oci is None:
        return None
    return Digest.parse(record.oci.index_digest or record.key.digest)


def _read_documents(staging: Staging, resolved: Resolved) -> OciDocuments:
    """What was transferred, with the digests that it should have."""
    found = {}
    for name, digest in (("manifest", resolved.digest), ("index", resolved.index_digest), ("config", None)):
        if name == "index" and digest is None:
            continue
        try:
            data = read_bounded(f"{staging.path}/{name}", MAX_DOCUMENT_BYTES)
        except OSError as e:
            raise FetchError(f"cannot read the {name} of the image: {e.strerror}") from e
        if digest is not None and hashlib.sha256(data).hexdigest() != digest.hex:
            raise ImageError(f"the {name} of the image is not what was asked for: it should have {digest}")
        found[name] = data
    return OciDocuments(**found)


def _parse(documents: OciDocuments, resolved: Resolved) -> tuple[Manifest, ImageConfig]:
    """Manifest and configuration, which fit each other and the index."""
    manifest = parse_manifest(documents.manifest, resolved.media_type)
    manifest.check_image()
    if documents.index:
        entries = parse_index(documents.index, resolved.index_media_type).manifests
        entry = next((entry for entry in entries if entry.digest == resolved.digest), None)
        if entry is None or entry.size_bytes != len(documents.manifest):
            raise ImageError(f"manifest {resolved.digest} is not in the index that it should be of")
        if entry.media_type != manifest.media_type:
            raise ImageError(f"the index says that manifest {resolved.digest} is {entry.media_type!r}")
    wanted = manifest.config
    if len(documents.config) != wanted.size_bytes:
        raise ImageError(
            f"the configuration has {len(documents.config)} bytes, but should have {wanted.size_bytes}"
        )
    if hashlib.sha256(documents.config).hexdigest() != wanted.digest.hex:
        raise ImageError(f"the configuration is not what was asked for: it should have {wanted.digest}")
    config = parse_config(documents.config)
    check_together(manifest, config)
    total = sum(layer.size_bytes for layer in manifest.layers)
    if total > DEFAULT_TRANSFER_LIMITS.image_bytes:
        raise ImageError(
            f"the image is too large: {total} bytes, at most {DEFAULT_TRANSFER_LIMITS.image_bytes} are accepted"
        )
    return manifest, config


def _layers(manifest: Manifest, config: ImageConfig) -> list[_Wanted]:
    """Each layer once, the bottom one first."""
    layers: dict[Digest, _Wanted] = {}
    diff_ids: set[Digest] = set()
    for descriptor, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
        known = layers.get(descriptor.digest)
        if known is not None and (known.diff_id, known.size_bytes) != (diff_id, descriptor.size_bytes):
            raise ImageError(f"layer {descriptor.digest} is said to be two different things")
        if diff_id not in diff_ids:
            layers[descriptor.digest] = _Wanted(
                digest=descriptor.digest, size_bytes=descriptor.size_bytes, diff_id=diff_id
            )
            diff_ids.add(diff_id)
    return list(layers.values())


def _subject_name(target: Target) -> str:
    """By what name rules are found: as the operator says, never as the image says itself (invariant SG3).

    What has no registry is named as if this host were one, so that no directory can be called like a registry.
    """
    origin = _origin(target)
    return origin.name if origin.registry else f"{_LOCAL}/{ACIdentifier.sanitize(origin.name)}"


def _subject(target: Target, resolved: Resolved) -> Subject:
    """What somebody has to have signed."""
    origin = _origin(target)
    reference = ""
    if origin.registry:
        # As the programs that sign write it.
        registry = DOCKER_HUB if origin.registry == DOCKER_HUB_REGISTRY else origin.registry
        end = f":{origin.tag}" if origin.tag else f"@{target.digest or resolved.digest}"
        reference = f"{registry}/{origin.repository}{end}"
    return Subject(name=_subject_name(target), reference=reference, digests=list(_digests(resolved)))


def _digests(resolved: Resolved) -> list[Digest]:
    return [resolved.digest, *([resolved.index_digest] if resolved.index_digest else [])]


def _origin(target: Target) -> Origin:
    """What an image is called: as the operator says, never as it says itself."""
    if isinstance(target, DockerReference):
        return Origin(
            name=target.name,
            registry=target.registry,
            repository=target.repository,
            tag=target.tag,
            reference=str(target),
        )
    name, tag = os.path.basename(target.path), ""
    for ending in _ARCHIVE_ENDINGS:
        name = name.removesuffix(ending)
    if target.image and target.digest is None:
        if target.kind == DOCKER_ARCHIVE or "/" in target.image or ":" in target.image:
            named = parse_docker(target.image)
            return _origin(named).replace(reference=str(target))
        tag = target.image
    return Origin(name=name, tag=tag, reference=str(target))

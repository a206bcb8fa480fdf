# SPDX-License-Identifier: Apache-2.0
"""From a reference to a verified image in the store.

::

    rkt-fetch    blob, signature and the name in the manifest, into descriptors  no privilege
    root         hashes the blob; trust.policy judges blob, name and signature   refused: staging is removed, that is all
    rkt-unpack   layer, split and manifest, into staging                         no network, sees one directory
                 (of a large download while it runs: fetch.ahead)
    root         compares hashes and name, commits                               store.cas

This module moves things and compares them; it never judges (``trust``), and never reads foreign bytes itself.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time

from rkt.errors import (
    CannotVerify,
    FetchError,
    ImageError,
    InvalidManifest,
    NotFound,
    RktError,
    SignatureMismatch,
    StoreError,
    UsageError,
)
from rkt.fetch import reference as references
from rkt.fetch import remote
from rkt.fetch.job import describe_way, run_fetch
from rkt.fetch.limits import DEFAULT_TRANSFER_LIMITS
from rkt.fetch.partial import WAITING, Partial, trim
from rkt.fetch.reference import POLICIES, POLICY_NEVER, POLICY_NEW, POLICY_UPDATE
from rkt.fetch.report import Reporter
from rkt.linux.files import read_bounded
from rkt.privsep import libraries
from rkt.privsep.confine import missing
from rkt.privsep.wire import foreign_count
from rkt.schema.appc import parse_image_manifest
from rkt.store.cas import Store
from rkt.store.layout import setup_data_dir
from rkt.store.member import open_store
from rkt.store.record import RemoteRow
from rkt.store.staging import Staging, sweep
from rkt.values import ACIdentifier, AppcReference, is_image_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.fetch.ahead import UnpackAhead
    from rkt.fetch.oci_reference import DockerReference
    from rkt.fetch.reference import Reference
    from rkt.store.record import ImageRecord
    from rkt.trust.verdict import Verdict
    from rkt.values import ImageID

_NOT_MODIFIED = "not-modified"
_NOT_IN_STORE = (
    "either image was not found in the store or store was disabled "
    "and fetching from remote yielded nothing or it was disabled"
)


class NotDiscovered(FetchError):
    """No page says where the image of a name is, and it is at none of the usual places."""


def fetch_image(
    reference: str,
    settings: Settings,
    *,
    signature: str | None = None,
    pull_policy: str = POLICY_NEW,
    progress: Reporter | None = None,
) -> ImageRecord:
    """Bring an image into the store, or find it there, as the pull policy says.

    Args:
        reference: path, URL, name, or the hash of an image that is there.
        settings: of the running command; its ``insecure`` says which checks are off.
        signature: file with the detached signature; by default it is looked for beside the image.
        pull_policy: ``new``, ``update`` or ``never``.
        progress: what people are told by; stderr unless given.
    Returns:
        the record in the store.
    Raises:
        UsageError: the reference or the policy is not understood, or is not supported yet.
        FetchError, ImageError: the image cannot be had, or is none.
        NotVerified: no good verdict was reached; the store is as before.
    """
    if pull_policy not in POLICIES:
        raise UsageError(f"unknown pull policy {pull_policy!r}", hint=f"use one of {', '.join(POLICIES)}")
    report = progress or Reporter(settings)
    store = open_store(settings)
    if is_image_hash(reference):
        from rkt.fetch.spool import find_by_hash

        known = find_by_hash(reference, settings, store, report)
        store.touch(known.key)
        return known
    parsed = references.parse_reference(reference)
    if parsed.kind == references.FILE:
        report.debug(f"using image from file {parsed.location}")
        return _make(parsed, settings, store, report, signature).from_file()
    if parsed.kind == references.NAME:
        return _by_name(parsed, settings, store, report, pull_policy, signature)
    if parsed.kind in references.LOCAL_KINDS:
        return _fetch_oci(parsed, settings, store, report, signature)
    row_key = parsed.remote_key(settings.platform)
    if pull_policy != POLICY_UPDATE and (record := _from_row(row_key, store)) is not None:
        report.debug(f"using image from local store for url {reference}")
        store.touch(record.key)
        return record
    is_docker = parsed.kind == references.DOCKER
    if (
        not is_docker
        and pull_policy != POLICY_UPDATE
        and (record := _from_spool(parsed, settings, report, signature)) is not None
    ):
        return record
    if pull_policy == POLICY_NEVER:
        kind = "docker image" if is_docker else "image"
        raise NotFound(
            f'unable to fetch {kind} from URL "{reference}": {_NOT_IN_STORE}', hint=f"rkt fetch {reference}"
        )
    if is_docker:
        return _fetch_oci(parsed, settings, store, report, signature)
    return _make(parsed, settings, store, report, signature).from_url(parsed.location)


def _fetch_oci(
    parsed: Reference, settings: Settings, store: Store, report: Reporter, signature: str | None
) -> ImageRecord:
    if signature is not None:
        raise UsageError(
            f'--signature is for ACIs: "{parsed.text}" is no ACI', hint=f"rkt fetch {parsed.text}"
        )
    from rkt.fetch.oci import fetch_oci
    from rkt.fetch.oci_reference import parse_docker, parse_local

    is_docker = parsed.kind == references.DOCKER
    target = parse_docker(parsed.location) if is_docker else parse_local(parsed.kind, parsed.location)
    return fetch_oci(target, parsed.text, settings, store, report)


def _by_name(
    parsed: Reference,
    settings: Settings,
    store: Store,
    report: Reporter,
    pull_policy: str,
    signature: str | None,
) -> ImageRecord:
    wanted = parsed.name
    assert wanted is not None
    key = store.find_by_name(AppcReference(wanted.name, {**references.host_labels(), **wanted.labels}))
    if pull_policy != POLICY_UPDATE:
        if key is not None:
            report.debug(f"using image from local store for image name {parsed.text}")
            store.touch(key)
            return store.get(key)
        if (record := _from_spool(parsed, settings, report, signature)) is not None:
            return record
    # An image of that name does not become one of a registry because its server is gone.
    elsewhere = [] if key is not None else _in_registries(wanted, settings, signature)
    if pull_policy != POLICY_UPDATE and elsewhere:
        from rkt.fetch.oci_reference import row_url

        for reference in elsewhere:
            if (record := _from_row(row_url(reference, settings.platform), store)) is not None:
                report.debug(f"using image from local store for url {reference}")
                store.touch(record.key)
                return record
    if pull_policy == POLICY_NEVER:
        raise NotFound(
            f'unable to fetch image from image name "{parsed.text}": {_NOT_IN_STORE}',
            hint=f"rkt fetch {parsed.text}",
        )
    try:
        return _make(parsed, settings, store, report, signature).from_name()
    except NotDiscovered as e:
        if not elsewhere:
            raise
        failed = e
    from rkt.fetch.short_names import search

    report.debug(f"{failed.message}: looking for it in registries")
    return search(parsed.text, elsewhere, settings, store, report)


def _in_registries(wanted: AppcReference, settings: Settings, signature: str | None) -> list[DockerReference]:
    """What a short name may stand for, where it is configured that registries are searched."""
    if signature is not None or not references.is_short(wanted):
        return []
    from rkt.fetch.short_names import candidates

    return candidates(wanted, settings)


def _from_spool(
    parsed: Reference, settings: Settings, report: Reporter, signature: str | None
) -> ImageRecord | None:
    """What a member of the group ``rkt`` fetched before, if root wants it now and it is good."""
    if signature is not None or os.geteuid() != 0:
        return None
    from rkt.fetch.spool import take

    return take(parsed, settings, report)


def _make(
    reference: Reference, settings: Settings, store: Store, report: Reporter, signature: str | None
) -> Fetch:
    if settings.shared_dir:
        from rkt.fetch.spool import MemberFetch

        return MemberFetch(reference, settings, store, report, signature)
    return Fetch(reference, settings, store, report, signature)


def _from_row(url: str, store: Store) -> ImageRecord | None:
    row = store.remote_row(url)
    if row is None:
        return None
    from rkt.trust.policy import is_about

    try:
        record = store.get(row.key)
    except RktError:
        return None  # removed or damaged: fetch it again
    return record if is_about(record.verdict, url) else None


class Fetch:
    """One image on its way."""

    def __init__(
        self,
        reference: Reference,
        settings: Settings,
        store: Store,
        report: Reporter,
        signature: str | None,
    ) -> None:
        self._reference = reference
        self._settings = settings
        self._store = store
        self._report = report
        self._signature_path = signature
        self._label = "ACI"
        self._url = ""
        self._wanted = reference.name
        self._start_ns = time.time_ns()
        self._ahead: UnpackAhead | None = None

    def from_file(self) -> ImageRecord:
        """Import a local file."""
        path = self._reference.location
        source_fd = open_image(path)
        try:
            signature = self._local_signature(f"{path}.asc")
            with self._staging() as staging:
                blob_fd = staging.create("blob")
                try:
                    answer = self._run({"op": "copy"}, {"source": source_fd, "blob": blob_fd})
                    return self._import(staging, blob_fd, f"{staging.path}/blob", answer, signature)
                finally:
                    os.close(blob_fd)
        finally:
            os.close(source_fd)

    def from_name(self) -> ImageRecord:
        """Find out where the image is, and download it from there (spec cli §5.4)."""
        wanted, insecure = self._wanted, self._settings.insecure
        assert wanted is not None
        wants_keys = False
        if not insecure.image:
            from rkt.trust.judging import asks_keystore

            # Before anything is asked of a server: where there is no rule, and the policy refuses the rest.
            wants_keys = asks_keystore(wanted.name, self._settings)
        self._report.debug(f"searching for app image {wanted.name}")
        asked = AppcReference(wanted.name, {**references.host_labels(), **wanted.labels})
        found = remote.discover(
            asked,
            self._settings,
            what=remote.IMAGES,
            allow_http=insecure.http,
            tls_insecure=insecure.tls,
        )
        if wants_keys:
            self._offer_keys(wanted.name)
        last: FetchError | None = None
        for endpoint in found.endpoints or remote.simple_endpoints(asked):
            if last is not None:
                self._report.message(f"{_innermost(last)}, trying {endpoint.image}")
            try:
                return self.from_url(endpoint.image, endpoint.signature)
            except FetchError as e:
                last = e
        if found.endpoints:
            assert last is not None
            raise last
        for tried in reversed(found.tried):
            page = FetchError(f"meta tag 'ac-discovery' not found on {tried.page}: {tried.cause}")
            page.__cause__ = last
            last = page
        hint = f"rkt fetch --debug {self._reference.text} says what was tried; a file or a URL needs no discovery"
        if references.is_short(wanted):
            hint = f"docker://{self._reference.text} if the image of a registry is meant"
        raise NotDiscovered(f'discovery failed for "{wanted.name}"', hint=hint) from last

    def _offer_keys(self, name: str) -> None:
        """Where no key counts for a name, those that its pages speak of."""
        from rkt.fetch.review import discover_keys

        tell = functools.partial(self._report.message, source="pubkey")
        discover_keys(name, self._settings, tell, self._report.turn)

    def from_url(self, url: str, signature_url: str = "") -> ImageRecord:
        """Download and import, unless what came of this URL before is good still (spec cli §5.5).

        Args:
            url: of the image.
            signature_url: of its signature; by default beside the image.
        """
        insecure = self._settings.insecure
        if insecure.tls:
            self._report.message("warning: TLS verification has been disabled")
        self._url = url
        self._report.debug(f'remote fetching from URL "{url}"')
        signature_url = signature_url or references.signature_url(url)
        if (record := self._fresh(url)) is not None:
            return record
        signature = self._local_signature(self._signature_path) if self._signature_path else None
        wanted = None if self._wanted is None else self._wanted.name
        if insecure.image or self._signature_path or (wanted and self._may_be_unsigned(wanted)):
            signature_url = ""
        # Who made the signature can be told before the image is there when its name is known.
        early = bool(signature_url and wanted)
        if early:
            signature = self._early_signature(signature_url)
        elif signature_url:
            # Whether one is asked for can be told only afterwards, where rules let some images pass without.
            early = self._may_be_unsigned(None)
        setup_data_dir(self._settings.data_dir)
        waiting = functools.partial(self._report.message, WAITING)
        with Partial(self._settings.data_dir, url, waiting=waiting) as partial:
            row, record = self._kept(url)
            if partial.waited and row and record and row.download_time * 10**9 >= self._start_ns - 10**9:
                # Whoever was waited for brought it.
                return record
            try:
                answer, record = self._transfer(
                    url, signature_url, partial, signature, row if record else None, early=early
                )
            except (ImageError, InvalidManifest, SignatureMismatch):
                partial.discard()
                raise
            # Before the lock goes: whoever waits for it looks for this row.
            etag, max_age = answer.get("etag"), answer.get("max_age")
            old_etag = row.etag if row is not None and answer.get("status") == _NOT_MODIFIED else ""
            self._store.put_remote_row(
                RemoteRow(
                    url=url,
                    key=record.key,
                    download_time=int(time.time()),
                    signature_url=signature_url,
                    # A server need not repeat it when nothing changed.
                    etag=etag if isinstance(etag, str) and etag else old_etag,
                    max_age=max_age if isinstance(max_age, int) else 0,
                )
            )
            partial.discard()
        return record

    def _transfer(
        self,
        url: str,
        signature_url: str,
        partial: Partial,
        signature: bytes | None,
        row: RemoteRow | None,
        *,
        early: bool,
    ) -> tuple[dict[str, Any], ImageRecord]:
        """Ask the server and import what it sends; ``row`` is of the version that is had already."""
        asked_url = "" if early else signature_url
        request = {
            "op": "download",
            "url": url,
            "signature_url": asked_url,
            "etag": "" if row is None else row.etag,
            **describe_way(self._settings, url, asked_url, tls_insecure=self._settings.insecure.tls),
        }
        with self._staging() as staging, self._unpack_ahead(staging, partial) as ahead:
            fds = {"signature": staging.create("signature")}
            try:
                fds["blob"], fds["validators"] = partial.open_for_worker()
                try:
                    answer = self._run(request, fds)
                finally:
                    self._report.end()
            finally:
                for fd in fds.values():
                    os.close(fd)
            if answer.get("status") == _NOT_MODIFIED:
                if row is None:
                    raise FetchError(f'"{url}" was not modified, but nothing was had of it before')
                self._store.touch(row.key)
                return answer, self._store.get(row.key)
            if early and signature is None and not self._may_be_unsigned(str(answer.get("name"))):
                signature = self._late_signature(signature_url)
            elif asked_url:
                signature = read_bounded(f"{staging.path}/signature", DEFAULT_TRANSFER_LIMITS.signature_bytes)
            record = self._import(staging, partial.blob_fd, partial.path, answer, signature, ahead)
        return answer, record

    def _unpack_ahead(
        self, staging: Staging, partial: Partial
    ) -> contextlib.AbstractContextManager[UnpackAhead | None]:
        from rkt.fetch.ahead import UnpackAhead

        self._ahead = UnpackAhead(staging, partial.blob_fd, self._settings.installation)
        return self._ahead

    def _fresh(self, url: str) -> ImageRecord | None:
        """What came of a URL, while its server said that it need not be asked again."""
        row, record = self._kept(url)
        if row is None or record is None or not _is_fresh(row, time.time()):
            return None
        self._report.debug(f"image for {url} isn't expired, not fetching.")
        self._store.touch(record.key)
        return record

    def _kept(self, url: str) -> tuple[RemoteRow | None, ImageRecord | None]:
        """What came of a URL before, if it could be used today as if it were fetched now."""
        row = self._store.remote_row(url)
        if row is None or self._signature_path:
            return row, None
        from rkt.trust.policy import check_verdict

        try:
            record = self._store.get(row.key)
            check_verdict(record.verdict, self._settings, opted_out=self._settings.insecure.image)
            self._check_name(record.name)
            self._check_labels(record.labels)
        except RktError:
            # Gone, damaged, no longer trusted, or another version: fetch it again, and judge anew.
            return row, None
        return row, record

    def _may_be_unsigned(self, name: str | None) -> bool:
        """Whether a rule lets an image of that name pass without a signature; without a name, whether any rule does so."""
        from rkt.trust.judging import may_be_unsigned

        return may_be_unsigned(name, self._settings)

    def _early_signature(self, url: str) -> bytes | None:
        """The signature, when it is there already and somebody who is trusted for the name claims to have made it."""
        from rkt.trust.judging import check_signer

        assert self._wanted is not None
        self._report.debug(f"downloading signature from {url}")
        signature = self._remote_signature(url, defer=True)
        if signature is None:
            self._report.message("server requested deferring the signature download")
        else:
            libraries.enable(self._settings.installation)
            check_signer(self._wanted.name, signature, self._settings)
        return signature

    def _late_signature(self, url: str) -> bytes | None:
        self._report.debug(f"downloading signature from {url}")
        return self._remote_signature(url, defer=False)

    def _remote_signature(self, url: str, *, defer: bool) -> bytes | None:
        try:
            return remote.read_document(
                url,
                self._settings,
                limit_bytes=DEFAULT_TRANSFER_LIMITS.signature_bytes,
                tls_insecure=self._settings.insecure.tls,
                defer=defer,
            )
        except FetchError as e:
            raise FetchError(
                "error downloading the signature file",
                hint="use --signature=FILE, or --insecure-options=image to do without a signature",
            ) from e

    def _check_name(self, name: str) -> None:
        """What a name was asked for must call itself so, signed or not (spec cli §12.1)."""
        if self._wanted is not None and name != self._wanted.name:
            raise ImageError(
                f'error when reading the app name: "{self._wanted.name}" expected but "{name}" found'
            )

    def _check_labels(self, labels: dict[str, str]) -> None:
        if self._wanted is None:
            return
        for label in self._wanted.labels:
            if label not in labels:
                raise ImageError(f'requested label "{label}" not provided by the image manifest')
        for label, value in {**references.host_labels(), **self._wanted.labels}.items():
            # An image without os or arch is for every host.
            if labels.get(label, value) != value:
                raise ImageError(
                    f'requested value for label "{label}": "{value}" differs from fetched aci label value: '
                    f'"{labels[label]}"'
                )

    def _staging(self) -> Staging:
        setup_data_dir(self._settings.data_dir)
        # What a fetch that was killed left is taken before more room is asked for; image gc reports what stays.
        sweep(self._settings.data_dir)
        trim(self._settings.data_dir)
        return Staging(self._settings.data_dir)

    def _local_signature(self, default_path: str) -> bytes | None:
        """Content of the signature file, before anything is copied; None when none is asked for."""
        if self._settings.insecure.image:
            return None
        path = self._signature_path or default_path
        try:
            return read_bounded(os.path.realpath(path), DEFAULT_TRANSFER_LIMITS.signature_bytes)
        except OSError as e:
            absent = isinstance(e, FileNotFoundError) and not self._signature_path
            if absent and self._may_be_unsigned(None):
                # The name in the image decides.
                return None
            image = self._reference.location
            from rkt.linux import disk

            raise CannotVerify(
                f'error opening signature file "{path}": {e.strerror}',
                hint=disk.remedy(e.errno)
                or f"rkt image sign --key=ID {image}, or --signature=FILE, or --insecure-options=image",
            ) from e

    def _run(self, request: dict[str, Any], fds: dict[str, int]) -> dict[str, Any]:
        for text in missing():
            self._report.debug(text)
        try:
            return run_fetch(
                request,
                fds,
                self._settings.installation,
                seconds=DEFAULT_TRANSFER_LIMITS.total_seconds,
                on_event=self._event,
            )
        except StoreError as e:
            # The worker has a descriptor, and knows no name.
            path = os.readlink(f"/proc/self/fd/{fds['blob']}")
            raise StoreError(f"{e.message} (for {path})", hint=e.hint) from e

    def _event(self, event: dict[str, Any]) -> None:
        """What the worker says while it works; foreign, so only shown, and shown safely."""
        kind = event.get("kind")
        if kind == "progress":
            done, total = foreign_count(event.get("done")), foreign_count(event.get("total"))
            if self._ahead is not None:
                self._ahead.check()
            if done is not None:
                self._report.progress(self._label, done, total, self._url)
        elif kind == "image":
            self._report.debug(f"fetching image from {self._url}")
        elif kind == "signature":
            self._report.debug(f"downloading signature from {event.get('url')}")
        elif kind == "started":
            kept, total = foreign_count(event.get("kept")), foreign_count(event.get("total"))
            if self._ahead is not None and kept is not None:
                self._ahead.started(kept, total)
            if kept:
                size = "" if total is None else f" of {total}"
                self._report.debug(f"going on with an earlier download: {kept}{size} bytes are there")
        elif kind == "deferred":
            self._report.message("server requested deferring the signature download")

    def _import(
        self,
        staging: Staging,
        blob_fd: int,
        blob_path: str,
        answer: dict[str, Any],
        signature: bytes | None,
        ahead: UnpackAhead | None = None,
    ) -> ImageRecord:
        from rkt.store import importer

        libraries.enable(self._settings.installation)
        name = ACIdentifier.parse(str(answer.get("name")), what="image name")
        manifest_sha256 = answer.get("manifest_sha256")
        if not isinstance(manifest_sha256, str) or len(manifest_sha256) != 64:
            raise ImageError("rkt-fetch reported no manifest")
        self._check_name(name)
        # rkt-fetch is gone with all it may have started, and nobody else can reach the blob: three readers from here
        # on see the same bytes, and the hashes prove it.
        hashing = _Hashing(blob_fd)
        try:
            verdict = self._judge(name, blob_path, signature)
        finally:
            hashing.join()
        unpacked = importer.unpack(
            staging,
            blob_fd,
            self._settings.installation,
            blob_sha256=hashing.result(),
            manifest_sha256=manifest_sha256,
            filled=None if ahead is None else ahead.result(hashing.result()),
        )
        # What follows needs its room no more; the name stays, with the lock that others wait for.
        os.ftruncate(blob_fd, 0)
        self._check_image_id(unpacked.image_id)
        labels = parse_image_manifest(unpacked.manifest).labels
        self._check_labels(labels)
        self._check_newest(verdict, labels, unpacked.image_id)
        return importer.commit(
            self._store,
            staging,
            unpacked,
            verdict,
            # What image verify --repair fetches again, from wherever it is called.
            origin=self._reference.location
            if self._reference.kind == references.FILE
            else self._reference.text,
            latest=self._is_latest(),
        )

    def _is_latest(self) -> bool:
        return self._wanted is not None and "version" not in self._wanted.labels

    def _check_image_id(self, image_id: ImageID) -> None:
        """Hold it against what is expected, before anything is committed; nothing is where an image was asked for."""

    def _check_newest(self, verdict: Verdict, labels: dict[str, str], image_id: ImageID) -> None:
        """Refuse, or tell of, an older image than was seen by this name, as the rules say (invariant SG11)."""
        if not verdict.signed_at:
            return
        from rkt.trust.judging import Asked
        from rkt.trust.newest import Version, check_newest

        found = Version(
            name=verdict.name,
            label=(labels if self._wanted is None else self._wanted.labels).get("version", ""),
            platform=f"{labels.get('os', '')}/{labels.get('arch', '')}",
            digest=image_id,
            signed_at=verdict.signed_at,
        )
        rollback = Asked(verdict.name, self._settings).rollback
        if text := check_newest(found, rollback, self._settings.data_dir):
            self._report.message(text)

    def _judge(self, name: ACIdentifier, blob_path: str, signature: bytes | None) -> Verdict:
        from rkt.trust.policy import judge
        from rkt.trust.verdict import told

        verdict = judge(name, blob_path, signature, self._settings)
        self._report.message(told(verdict))
        return verdict


def _is_fresh(row: RemoteRow, now: float) -> bool:
    """Whether a server said that this need not be asked for again yet; a clock that went back says no."""
    return row.max_age > 0 and 0 <= now - row.download_time < row.max_age


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


class _Hashing:
    """Root's own hash of the blob, made on the second processor while the signature is checked."""

    def __init__(self, fd: int) -> None:
        from rkt.store.importer import hash_file

        self._digest = ""
        self._error: BaseException | None = None

        def work() -> None:
            try:
                self._digest = hash_file(fd)
            except OSError as e:
                self._error = e

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for it."""
        self._thread.join()

    def result(self) -> str:
        """Hex sha256."""
        self.join()
        if self._error is not None:
            raise FetchError(f"cannot read the image back from staging: {self._error}")
        return self._digest


def open_image(path: str) -> int:
    """Open a local image; the caller owns the descriptor."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as e:
        raise FetchError(f"cannot open image file {path}: {e.strerror}") from e
    if os.fstat(fd).st_mode & 0o170000 != 0o100000:
        os.close(fd)
        raise FetchError(f"image file {path} is not a regular file")
    return fd

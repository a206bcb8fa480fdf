# SPDX-License-Identifier: Apache-2.0
"""From a reference to a verified image in the store.

::

    rkt-fetch    blob, signature and the name in the manifest, into staging      no privilege
    root         hashes the blob; trust.policy judges blob, name and signature   refused: staging is removed, that is all
    rkt-unpack   layer, split and manifest, into staging                         no network, sees one directory
    root         compares hashes and name, commits                               store.cas

This module moves things and compares them; it never judges (``trust``), and never reads foreign bytes itself.
"""

from __future__ import annotations

import os
import threading

from rkt import __version__
from rkt.errors import CannotVerify, FetchError, ImageError, NotFound, RktError, UsageError
from rkt.fetch import reference as references
from rkt.fetch.limits import DEFAULT_TRANSFER_LIMITS
from rkt.fetch.report import Reporter
from rkt.linux.files import read_bounded
from rkt.privsep import libraries
from rkt.store.cas import Store
from rkt.store.layout import setup_data_dir
from rkt.store.record import RemoteRow
from rkt.store.staging import Staging, sweep
from rkt.values import ACIdentifier, AppcReference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.fetch.reference import Reference
    from rkt.store.record import ImageRecord
    from rkt.trust.verdict import Verdict

#: Pull policies (spec cli §5.3).
NEW = "new"
UPDATE = "update"
NEVER = "never"
POLICIES = (NEW, UPDATE, NEVER)

_NOT_IN_STORE = (
    "either image was not found in the store or store was disabled "
    "and fetching from remote yielded nothing or it was disabled"
)


def fetch_image(
    reference: str,
    settings: Settings,
    *,
    signature: str | None = None,
    pull_policy: str = NEW,
    progress: Reporter | None = None,
) -> ImageRecord:
    """Bring an image into the store, or find it there, as the pull policy says.

    Args:
        reference: path, URL or name; a hash counts as a name.
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
    parsed = references.parse_reference(reference)
    report = progress or Reporter(settings)
    store = Store(settings.data_dir)
    if parsed.kind == references.FILE:
        report.debug(f"using image from file {parsed.location}")
        return _Fetch(parsed, settings, store, report, signature).from_file()
    if parsed.kind == references.NAME:
        return _by_name(parsed, settings, store, report, pull_policy)
    if pull_policy != UPDATE and (record := _from_row(parsed, store)) is not None:
        report.debug(f"using image from local store for url {reference}")
        store.touch(record.key)
        return record
    if pull_policy == NEVER:
        kind = "docker image" if parsed.kind == references.DOCKER else "image"
        raise NotFound(f'unable to fetch {kind} from URL "{reference}": {_NOT_IN_STORE}')
    if parsed.kind == references.DOCKER:
        raise UsageError(
            f'cannot fetch "{reference}": docker registries are not supported yet',
            hint="fetch an image by its file or its URL: rkt fetch https://HOST/PATH/IMAGE.aci",
        )
    return _Fetch(parsed, settings, store, report, signature).from_url()


def _by_name(
    parsed: Reference, settings: Settings, store: Store, report: Reporter, pull_policy: str
) -> ImageRecord:
    wanted = parsed.name
    assert wanted is not None
    if pull_policy != UPDATE:
        key = store.find_by_name(AppcReference(wanted.name, {**references.host_labels(), **wanted.labels}))
        if key is not None:
            report.debug(f"using image from local store for image name {parsed.text}")
            store.touch(key)
            return store.get(key)
    if pull_policy == NEVER:
        raise NotFound(
            f'unable to fetch image from image name "{parsed.text}": {_NOT_IN_STORE}',
            hint=f"rkt fetch {parsed.text}",
        )
    raise NotFound(
        f'cannot fetch "{parsed.text}": discovery by name is not available yet',
        hint=f"fetch it by its file or its URL: rkt fetch ./IMAGE.aci, or rkt fetch https://{wanted.name}.aci",
    )


def _from_row(parsed: Reference, store: Store) -> ImageRecord | None:
    row = store.remote_row(parsed.text)
    if row is None:
        return None
    try:
        return store.get(row.key)
    except RktError:
        return None  # removed or damaged: fetch it again


class _Fetch:
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

    def from_file(self) -> ImageRecord:
        """Import a local file."""
        path = self._reference.location
        source_fd = _open_image(path)
        try:
            signature = self._local_signature(f"{path}.asc")
            with self._staging() as staging:
                blob_fd = staging.create("blob")
                try:
                    answer = self._run({"op": "copy"}, {"source": source_fd, "blob": blob_fd})
                    return self._import(staging, blob_fd, answer, signature)
                finally:
                    os.close(blob_fd)
        finally:
            os.close(source_fd)

    def from_url(self) -> ImageRecord:
        """Download and import."""
        url = self._reference.location
        insecure = self._settings.insecure
        if insecure.tls:
            self._report.message("warning: TLS verification has been disabled")
        self._report.debug(f'remote fetching from URL "{url}"')
        signature_url = "" if insecure.image or self._signature_path else references.signature_url(url)
        signature = self._local_signature(self._signature_path) if self._signature_path else None
        request = {
            "op": "download",
            "url": url,
            "signature_url": signature_url,
            "tls_insecure": insecure.tls,
            "user_agent": f"rkt/{__version__}",
        }
        with self._staging() as staging:
            blob_fd, signature_fd = staging.create("blob"), staging.create("signature")
            try:
                try:
                    answer = self._run(request, {"blob": blob_fd, "signature": signature_fd})
                finally:
                    self._report.end()
                if signature_url:
                    signature = read_bounded(
                        f"{staging.path}/signature", DEFAULT_TRANSFER_LIMITS.signature_bytes
                    )
                record = self._import(staging, blob_fd, answer, signature)
            finally:
                os.close(blob_fd)
                os.close(signature_fd)
        etag, max_age = answer.get("etag"), answer.get("max_age")
        self._store.put_remote_row(
            RemoteRow(
                url=url,
                key=record.key,
                download_time=record.import_time_ns // 10**9,
                signature_url=signature_url,
                etag=etag if isinstance(etag, str) else "",
                max_age=max_age if isinstance(max_age, int) else 0,
            )
        )
        return record

    def _staging(self) -> Staging:
        setup_data_dir(self._settings.data_dir)
        # What a fetch that was killed left is taken before more room is asked for; image gc reports what stays.
        sweep(self._settings.data_dir)
        return Staging(self._settings.data_dir)

    def _local_signature(self, default_path: str) -> bytes | None:
        """Content of the signature file, before anything is copied; None when none is asked for."""
        if self._settings.insecure.image:
            return None
        path = self._signature_path or default_path
        try:
            return read_bounded(os.path.realpath(path), DEFAULT_TRANSFER_LIMITS.signature_bytes)
        except OSError as e:
            image = self._reference.location
            raise CannotVerify(
                f'error opening signature file "{path}": {e.strerror}',
                hint=f"rkt image sign --key=ID {image}, or --signature=FILE, or --insecure-options=image",
            ) from e

    def _run(self, request: dict[str, Any], fds: dict[str, int]) -> dict[str, Any]:
        from rkt.privsep.client import run_worker
        from rkt.privsep.confine import FETCH_UID_BASE

        return run_worker(
            "fetch",
            {**request, "uid": FETCH_UID_BASE + (os.getpid() & 0xFFFF)},
            fds,
            self._settings.installation,
            deadline_seconds=DEFAULT_TRANSFER_LIMITS.total_seconds,
            on_event=self._event,
        )

    def _event(self, event: dict[str, Any]) -> None:
        """What the worker says while it works; foreign, so only shown, and shown safely."""
        kind = event.get("kind")
        if kind == "progress":
            done, total = event.get("done"), event.get("total")
            if isinstance(done, int):
                self._report.progress(self._label, done, total if isinstance(total, int) else None)
        elif kind == "image":
            self._report.debug(f"fetching image from {self._reference.location}")
        elif kind == "signature":
            self._report.debug(
                f"downloading signature from {references.signature_url(self._reference.location)}"
            )
        elif kind == "deferred":
            self._report.message("server requested deferring the signature download")

    def _import(
        self, staging: Staging, blob_fd: int, answer: dict[str, Any], signature: bytes | None
    ) -> ImageRecord:
        from rkt.store import importer

        libraries.enable(self._settings.installation)
        name = ACIdentifier.parse(str(answer.get("name")), what="image name")
        manifest_sha256 = answer.get("manifest_sha256")
        if not isinstance(manifest_sha256, str) or len(manifest_sha256) != 64:
            raise ImageError("rkt-fetch reported no manifest")
        # rkt-fetch is gone with all it may have started, and nobody else can reach the blob: three readers from here
        # on see the same bytes, and the hashes prove it.
        hashing = _Hashing(blob_fd)
        try:
            verdict = self._judge(name, f"{staging.path}/blob", signature)
        finally:
            hashing.join()
        unpacked = importer.unpack(
            staging,
            blob_fd,
            self._settings.installation,
            blob_sha256=hashing.result(),
            manifest_sha256=manifest_sha256,
        )
        os.unlink(f"{staging.path}/blob")
        return importer.commit(self._store, staging, unpacked, verdict, origin=self._reference.text)

    def _judge(self, name: ACIdentifier, blob_path: str, signature: bytes | None) -> Verdict:
        from rkt.trust.policy import judge
        from rkt.trust.verdict import KIND_OPENPGP

        verdict = judge(name, blob_path, signature, self._settings)
        if verdict.kind == KIND_OPENPGP:
            lines = [f"  {identity}" for identity in verdict.identities] or [f"  key {verdict.fingerprint}"]
            self._report.message("\n".join(["signature verified:", *lines]))
        else:
            self._report.message("warning: image signature verification has been disabled")
        return verdict


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


def _open_image(path: str) -> int:
    """Open a local image; the caller owns the descriptor."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as e:
        raise FetchError(f"cannot open image file {path}: {e.strerror}") from e
    if os.fstat(fd).st_mode & 0o170000 != 0o100000:
        os.close(fd)
        raise FetchError(f"image file {path} is not a regular file")
    return fd

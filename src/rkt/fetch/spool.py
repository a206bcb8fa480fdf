# SPDX-License-Identifier: Apache-2.0
"""The two halves of a fetch by a member of the group ``rkt``: what the member does, and what root does later.

The member downloads, hashes and judges as everybody does, as themselves, in ``rkt-fetch``; the image is kept as it came
(``store.member``). When root needs it, root copies it into staging through descriptors (``store.pending``), and from there on it
is a file of a user: hashed, judged against the keys of that moment, unpacked by the workers. The member's record only leads
there. It must have told the truth about name, labels and ID, but none of them is taken from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections import Counter
from urllib.parse import urlsplit

from rkt.errors import (
    Ambiguous,
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
from rkt.fetch.fetch import Fetch
from rkt.fetch.limits import DEFAULT_TRANSFER_LIMITS
from rkt.fetch.report import Reporter
from rkt.privsep import libraries
from rkt.privsep.wire import foreign_count
from rkt.schema.appc import parse_image_manifest
from rkt.store.cas import MAX_MANIFEST_BYTES, Store
from rkt.store.member import MemberStore, full, member_settings
from rkt.store.pending import DEFAULT_SPOOL_LIMITS, Spool, matching, named, user_name
from rkt.store.record import ImageRecord, RemoteRow
from rkt.trust.openpgp import MAX_SIGNATURE_BYTES
from rkt.values import ACIdentifier, AppcReference, ImageID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.fetch.ahead import UnpackAhead
    from rkt.fetch.partial import Partial
    from rkt.fetch.reference import Reference
    from rkt.store.pending import Pending
    from rkt.store.staging import Staging

#: So many images of one user are tried of those that would do: each may cost reading it, and nobody may crowd out others.
_TRIES_PER_USER = 2


def settings_of_member(settings: Settings) -> Settings:
    """Settings for a fetch by somebody who is not root; refuses what cannot be done well before anything is made.

    Raises:
        HostError: nothing would confine the worker.
        UsageError: verification is switched off.
        StoreError: there is no place.
    """
    from rkt.privsep.confine import require_walls

    if settings.insecure.image:
        raise UsageError(
            "a member of group rkt cannot fetch with --insecure-options=image: root takes verified images only",
            hint="sudo rkt --insecure-options=image fetch …",
        )
    require_walls()
    own = member_settings(settings)
    store = MemberStore(own.data_dir, own.shared_dir)
    store.forget_taken()
    return own


class MemberFetch(Fetch):
    """A fetch by a member: as root's, but that the image is kept as it came."""

    def _unpack_ahead(
        self, staging: Staging, partial: Partial
    ) -> contextlib.AbstractContextManager[UnpackAhead | None]:
        return contextlib.nullcontext()

    def _run(self, request: dict[str, Any], fds: dict[str, int]) -> dict[str, Any]:
        room = self._members_store.room_bytes()
        # What is there of the download is counted already.
        room += os.fstat(fds["blob"]).st_size
        limit = min(room, DEFAULT_TRANSFER_LIMITS.image_bytes)
        manifest_fd = os.memfd_create("manifest", os.MFD_CLOEXEC)
        try:
            answer = super()._run({**request, "limit_bytes": limit}, {**fds, "manifest": manifest_fd})
            self._manifest = os.pread(manifest_fd, MAX_MANIFEST_BYTES + 1, 0)
        except FetchError as e:
            if "too large" in e.message and limit < DEFAULT_TRANSFER_LIMITS.image_bytes:
                raise full(self._members_store.own_records()) from e
            raise
        finally:
            os.close(manifest_fd)
        return answer

    def _import(
        self,
        staging: Staging,
        blob_fd: int,
        blob_path: str,
        answer: dict[str, Any],
        signature: bytes | None,
        ahead: UnpackAhead | None = None,
    ) -> ImageRecord:
        libraries.enable(self._settings.installation)
        name = ACIdentifier.parse(str(answer.get("name")), what="image name")
        image_id = ImageID.parse(str(answer.get("image_id")))
        size_bytes = foreign_count(answer.get("tar_bytes"))
        if size_bytes is None:
            raise ImageError("rkt-fetch reported no size")
        self._check_name(name)
        verdict = self._judge(name, blob_path, signature)
        manifest = parse_image_manifest(self._manifest)
        if manifest.name != name:
            raise ImageError(f'the image was verified as "{name}" but its manifest says "{manifest.name}"')
        self._check_labels(manifest.labels)
        if signature is None:
            raise CannotVerify(
                f'image "{name}" has no signature: what a member of group rkt fetches must have one',
                hint=f"sudo rkt fetch {self._reference.text}",
            )
        store = self._members_store
        store.withdraw_removal(image_id.key)
        if store.is_shared(image_id.key):
            return store.get(image_id.key)
        record = ImageRecord(
            key=image_id.key,
            image_id=image_id,
            name=manifest.name,
            labels=manifest.labels,
            import_time_ns=time.time_ns(),
            origin=self._reference.location
            if self._reference.kind == references.FILE
            else self._reference.text,
            size_bytes=size_bytes,
            tree_size_bytes=0,
            verdict=verdict,
            layers=[],
            manifest_digest=f"sha256:{hashlib.sha256(self._manifest).hexdigest()}",
            latest=self._is_latest(),
        )
        store.keep(staging, blob_path, self._manifest, signature, record)
        return record

    @property
    def _members_store(self) -> MemberStore:
        assert isinstance(self._store, MemberStore)
        return self._store


def take(reference: Reference, settings: Settings, report: Reporter) -> ImageRecord | None:
    """Let an image that a member fetched become one of root's store, if that is what a name or URL stands for.

    What cannot be used is told and passed over.

    Args:
        reference: a name or a URL that the store has nothing for.
        settings: of the running command, which is root's.
        report: what people are told by.
    Returns:
        the record in the store; None when no member has a good one.
    """
    with Spool(settings.data_dir) as spool:
        if not spool.homes:
            return None
        if reference.name is not None:
            wanted = AppcReference(reference.name.name, {**references.host_labels(), **reference.name.labels})
            found = named(spool.pending(), wanted)
        else:
            # Of whatever a trusted key signed a member could say that it came from here: at least the names must be
            # ones that this host can have.
            found = [p for p in spool.of_url(reference.text) if _covers(reference.text, p.name)]
        attempts = _Attempts(spool, settings, report, reference)
        record = attempts.first_good(found)
    for error in attempts.errors:
        _tell(error, report)
    if record is not None and reference.name is None:
        # Of no version that the server knows: whoever asks for updates gets all of it.
        row = RemoteRow(url=reference.text, key=record.key, download_time=int(time.time()))
        Store(settings.data_dir).put_remote_row(row)
    return record


def take_by_hash(text: str, settings: Settings, report: Reporter | None = None) -> ImageRecord | None:
    """Likewise for a hash, or the beginning of one.

    Raises:
        Ambiguous: it stands for several images.
        RktError: there is one, and it cannot be used.
    """
    record, errors = _by_hash(text, settings, report or Reporter(settings))
    if errors:
        raise errors[-1]
    return record


def _by_hash(text: str, settings: Settings, report: Reporter) -> tuple[ImageRecord | None, list[RktError]]:
    """The image, or why none of those that there are can be used."""
    if os.geteuid() != 0:
        return None, []
    with Spool(settings.data_dir) as spool:
        found = matching(spool.pending(), text) if spool.homes else []
        if len({p.key for p in found}) > 1:
            raise Ambiguous(
                f'ambiguous image ID: "{text}"', hint="give more digits, see rkt image list --full"
            )
        attempts = _Attempts(spool, settings, report)
        record = attempts.first_good(found)
    return record, [] if record is not None else attempts.errors


def find_by_hash(text: str, settings: Settings, store: Store, report: Reporter | None = None) -> ImageRecord:
    """The image that a hash stands for, in the store or else fetched by a member.

    Raises:
        NotFound, Ambiguous: there is none, or more than one.
        RktError: what a member fetched cannot be used.
    """
    try:
        return store.get(store.resolve_id(text))
    except NotFound:
        record = take_by_hash(text, settings, report)
        if record is None:
            raise
        return record


def take_dependency(
    image_id: str, wanted: AppcReference, settings: Settings, report: Reporter
) -> ImageRecord | None:
    """Likewise for what another image depends on; the caller holds it against what that says."""
    if os.geteuid() != 0:
        return None
    if not image_id:
        by_name = references.Reference(kind=references.NAME, text=str(wanted), name=wanted)
        return take(by_name, settings, report)
    record, errors = _by_hash(image_id, settings, report)
    for error in errors:
        _tell(error, report)
    return record


class _Attempts:
    """Tries images of members one after the other."""

    def __init__(
        self, spool: Spool, settings: Settings, report: Reporter, reference: Reference | None = None
    ) -> None:
        self._spool = spool
        self._settings = settings
        self._report = report
        self._reference = reference
        self.errors: list[RktError] = []

    def first_good(self, found: list[Pending]) -> ImageRecord | None:
        """The first that becomes an image of the store."""
        if found and self._settings.insecure.image:
            self._report.debug("images that members fetched are not used while verification is switched off")
            return None
        tries: Counter[int] = Counter()
        for pending in found:
            tries[pending.home.uid] += 1
            if tries[pending.home.uid] > _TRIES_PER_USER:
                continue
            what = f"image {pending.key.medium} ({pending.full_name}), fetched by user {user_name(pending.home.uid)}"
            try:
                record = Taking(self._spool, pending, self._settings, self._report, self._reference).run()
            except (RktError, OSError) as e:
                error = StoreError(f"cannot use {what}")
                error.hint = e.hint if isinstance(e, RktError) else ""
                error.__cause__ = e
                self.errors.append(error)
                if isinstance(e, (ImageError, InvalidManifest, SignatureMismatch)):
                    # It will not get better.
                    self._spool.discard(pending)
                continue
            self._report.message(f"using {what}")
            self._spool.discard(pending)
            return record
        return None


def _tell(error: BaseException, report: Reporter) -> None:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    report.message(f"{error}: {cause}")


class Taking(Fetch):
    """Root's fetch of an image from a member's store."""

    def __init__(
        self,
        spool: Spool,
        pending: Pending,
        settings: Settings,
        report: Reporter,
        reference: Reference | None = None,
    ) -> None:
        claimed = AppcReference(pending.name, pending.labels)
        if reference is None:
            # What repair would ask for; held against the manifest, like all that is claimed.
            reference = references.Reference(kind=references.NAME, text=pending.full_name, name=claimed)
        super().__init__(reference, settings, Store(settings.data_dir), report, None)
        self._spool = spool
        self._pending = pending
        # A URL asks for no name, but the member's record does.
        self._wanted = self._wanted or claimed

    def run(self) -> ImageRecord:
        """Copy, hash, judge, unpack, commit.

        Raises:
            NotVerified, ImageError, StoreError, FetchError: it cannot be used; the store is as before.
        """
        from rkt.trust.judging import check_signer

        if self._settings.insecure.image:
            raise UsageError("an image that a member fetched is never used without verification")
        libraries.enable(self._settings.installation)
        signature = self._spool.read_signature(self._pending, MAX_SIGNATURE_BYTES)
        check_signer(self._pending.name, signature, self._settings)
        source_fd = self._spool.open_blob(self._pending)
        try:
            limit = self._limit_bytes(os.fstat(source_fd).st_size)
            with self._staging() as staging:
                blob_fd = staging.create("blob")
                try:
                    answer = self._run(
                        {"op": "copy", "limit_bytes": limit}, {"source": source_fd, "blob": blob_fd}
                    )
                    return self._import(staging, blob_fd, f"{staging.path}/blob", answer, signature)
                finally:
                    os.close(blob_fd)
        finally:
            os.close(source_fd)

    def _limit_bytes(self, size_bytes: int) -> int:
        """How much is copied at most: what a member may have, and what leaves room on the disk."""
        limits = DEFAULT_SPOOL_LIMITS
        space = os.statvfs(self._spool.path)
        limit = min(limits.user_bytes, int(space.f_bavail * space.f_frsize * limits.free_share))
        if size_bytes > limit:
            raise StoreError(f"it has {size_bytes} bytes, at most {limit} are copied")
        return limit

    def _check_labels(self, labels: dict[str, str]) -> None:
        super()._check_labels(labels)
        if labels != self._pending.labels:
            raise ImageError("its labels are not those that it is said to have")

    def _is_latest(self) -> bool:
        # Nobody but the server can know.
        return False

    def _check_image_id(self, image_id: ImageID) -> None:
        if image_id != self._pending.image_id:
            raise ImageError(f"it is said to be {self._pending.image_id}, but is {image_id}")


def _covers(url: str, name: str) -> bool:
    """Whether the first component of an image's name is the host of a URL."""
    return (urlsplit(url).hostname or "") == name.partition("/")[0].lower()

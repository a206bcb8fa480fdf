# SPDX-License-Identifier: Apache-2.0
"""The store as a member of the group ``rkt`` has it: a small one of their own in front of root's, which they only read.

What a member fetches goes to their own store: record, manifest and indexes are those of any store (``store.cas``), and
in place of layers there is the image as it was transferred, with its signature. Others read it by ``store.pending``.
"""

from __future__ import annotations

import os

from rkt.errors import HostError, NotFound, RktError, StoreError
from rkt.linux.files import replace_file, sync_directory, write_new
from rkt.store.cas import Store
from rkt.store.layout import INCOMING, setup_member_dir
from rkt.store.pending import DEFAULT_SPOOL_LIMITS, Spool, new_home_name, user_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from rkt.config.settings import Settings
    from rkt.store.pending import Home
    from rkt.store.record import ImageRecord, RemoteRow
    from rkt.store.staging import Staging
    from rkt.values import AppcReference, ImageKey, TreeID

_GROUP_WRITES = 0o030


def require_member(data_dir: str, command: str) -> None:
    """Refuse users who are neither root nor members of the group that the spool belongs to.

    Raises:
        HostError: with the group to join.
    """
    path = f"{data_dir}/cas/{INCOMING}"
    error = HostError(
        "cannot run as unprivileged user",
        hint=f"sudo rkt {command} …, or join the group rkt: sudo usermod --append --groups=rkt {user_name(os.geteuid())}",
    )
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise HostError(
            f"cannot run as unprivileged user: {path} does not exist",
            hint="sudo setup-data-dir.sh, or any fetch by root, makes it",
        ) from None
    except OSError:
        raise error from None
    groups = {os.getegid(), *os.getgroups()}
    if status.st_gid not in groups or status.st_mode & _GROUP_WRITES != _GROUP_WRITES:
        raise error


def own_home(data_dir: str) -> Home:
    """The caller's own directory in root's spool, made when there is none.

    Raises:
        StoreError: it cannot be made.
    """
    uid = os.geteuid()
    with Spool(data_dir) as spool:
        home = next((home for home in spool.homes if home.uid == uid), None)
    if home is not None:
        return home
    name = new_home_name(uid)
    path = f"{spool.path}/{name}"
    try:
        os.mkdir(path, 0o700)
        # The group comes of the spool's set-group-id bit.
        os.chmod(path, 0o2750)
    except OSError as e:
        raise StoreError(f"cannot create {path}: {e.strerror}") from e
    with Spool(data_dir) as spool:
        # Two first commands at once take the same one.
        home = next((home for home in spool.homes if home.uid == uid), None)
    if home is None:
        raise StoreError(f"{spool.path} is full of other things", hint="sudo rkt image gc")
    if home.name != name:
        os.rmdir(path)
    return home


def member_settings(settings: Settings) -> Settings:
    """Settings under which a member's command works in the member's own store.

    Raises:
        StoreError: that cannot be made.
    """
    home = own_home(settings.data_dir)
    path = f"{settings.data_dir}/cas/{INCOMING}/{home.name}"
    setup_member_dir(path)
    return settings.replace(data_dir=path, shared_dir=settings.data_dir)


def open_store(settings: Settings) -> Store:
    """Root's store for root, for a member both."""
    return (
        MemberStore(settings.data_dir, settings.shared_dir)
        if settings.shared_dir
        else Store(settings.data_dir)
    )


class MemberStore(Store):
    """Images of root's store that no member wants removed, and the member's own behind them."""

    __slots__ = ("_own", "_removed", "shared")

    def __init__(self, home_path: str, shared_dir: str) -> None:
        super().__init__(home_path)
        self.shared = Store(shared_dir)
        with Spool(shared_dir) as spool:
            self._removed = frozenset(spool.removed(self.shared))

    # Look-up

    def is_shared(self, key: ImageKey) -> bool:
        """Whether root has the image, and nobody wants it removed."""
        return key not in self._removed and self.shared.contains(key)

    def is_own(self, key: ImageKey) -> bool:
        """Whether the member has it."""
        return super().contains(key)

    def get(self, key: ImageKey) -> ImageRecord:
        """As in any store."""
        return self.shared.get(key) if self.is_shared(key) else super().get(key)

    def contains(self, key: ImageKey) -> bool:
        """As in any store."""
        return self.is_shared(key) or super().contains(key)

    def keys(self) -> list[ImageKey]:
        """As in any store."""
        return [key for key in dict.fromkeys([*self.shared.keys(), *super().keys()]) if self.contains(key)]

    def find_by_name(self, reference: AppcReference) -> ImageKey | None:
        """As in any store."""
        key = self.shared.find_by_name(reference)
        return key if key is not None and self.is_shared(key) else super().find_by_name(reference)

    def manifest_bytes(self, key: ImageKey) -> bytes:
        """As in any store."""
        return self.shared.manifest_bytes(key) if self.is_shared(key) else super().manifest_bytes(key)

    def remote_row(self, url: str) -> RemoteRow | None:
        """As in any store."""
        row = self.shared.remote_row(url)
        return row if row is not None and self.is_shared(row.key) else super().remote_row(url)

    def touch(self, key: ImageKey) -> None:
        """When root's images were last used is root's to say."""
        if self.is_own(key):
            super().touch(key)

    # Change

    def keep(
        self, staging: Staging, blob_path: str, manifest: bytes, signature: bytes, record: ImageRecord
    ) -> None:
        """Keep an image that was fetched and judged.

        Args:
            staging: of this operation.
            blob_path: the image as transferred; renamed.
            manifest: its bytes.
            signature: its bytes.
            record: about exactly these bytes.
        Raises:
            OSError: the file system refused.
        """
        from rkt.linux.libc import syncfs

        key = record.key
        write_new(f"{staging.path}/asc", signature, 0o600)
        write_new(f"{staging.path}/manifest", manifest, 0o600)
        # What has a record is whole, after a power cut too.
        syncfs(staging.fd)
        os.rename(f"{staging.path}/asc", self._blob_path(key) + ".asc")
        os.chmod(blob_path, 0o600)
        os.rename(blob_path, self._blob_path(key))
        os.rename(f"{staging.path}/manifest", f"{self._cas}/manifest/{key}")
        self.index_name(record.name, key)
        for directory in ("blob", "manifest"):
            sync_directory(f"{self._cas}/{directory}")
        replace_file(f"{self._cas}/record/{key}", record.seal(), 0o640)
        self._records.pop(key, None)

    def ask_for_removal(self, key: ImageKey) -> None:
        """Note for root, and for everybody's lists, that an image of root's store is to go.

        Raises:
            StoreError: the note cannot be made.
        """
        directory = f"{self._cas}/removal"
        if len(os.listdir(directory)) >= DEFAULT_SPOOL_LIMITS.user_removals:
            raise StoreError("root has too many of your removals to do", hint="sudo rkt image gc")
        try:
            # Made anew: its time is that of this request.
            replace_file(f"{directory}/{key}", b"", 0o640)
        except OSError as e:
            raise StoreError(f"cannot ask for the removal of image {key}: {e.strerror}") from e

    def withdraw_removal(self, key: ImageKey) -> None:
        """The member wants an image after all."""
        try:
            os.unlink(f"{self._cas}/removal/{key}")
        except FileNotFoundError:
            return
        with Spool(self.shared.data_dir) as spool:
            self._removed = frozenset(spool.removed(self.shared))

    def remove(self, key: ImageKey, *, needed: Container[ImageKey | TreeID] | None = ()) -> None:
        """Remove an image of the member's own."""
        super().remove(key, needed=needed)
        for suffix in ("", ".asc"):
            try:
                os.unlink(self._blob_path(key) + suffix)
            except FileNotFoundError:
                pass

    def own_keys(self) -> list[ImageKey]:
        """Keys of what the member has."""
        return super().keys()

    def forget_taken(self) -> None:
        """Remove what root has by now."""
        for key in self.own_keys():
            if self.is_shared(key):
                try:
                    self.remove(key)
                except RktError:
                    continue  # root removes it too

    def room_bytes(self) -> int:
        """How much more the member may fetch.

        Raises:
            StoreError: nothing; the hint names what to remove.
        """
        limits = DEFAULT_SPOOL_LIMITS
        room = limits.user_bytes - tree_bytes(self.data_dir)
        if room > 0 and len(self.own_keys()) < limits.user_images:
            return room
        raise full(self.own_records())

    def own_records(self) -> list[ImageRecord]:
        """What the member has that root has not taken."""
        records = []
        for key in self.own_keys():
            try:
                records.append(super().get(key))
            except RktError:
                continue
        return records

    def _blob_path(self, key: ImageKey) -> str:
        return f"{self._cas}/blob/{key}"


def full(own: list[ImageRecord]) -> StoreError:
    """The error when a member may fetch no more, with the largest of what they have."""
    limits = DEFAULT_SPOOL_LIMITS
    largest = max(own, key=lambda record: record.size_bytes, default=None)
    hint = "remove what you do not need: rkt image list, rkt image rm"
    if largest is not None:
        hint = f"rkt image rm {largest.key.medium} removes the largest of yours, {largest.full_name}"
    return StoreError(
        f"user {user_name(os.geteuid())} may have {limits.user_images} images that root has not taken, of together "
        f"{limits.user_bytes} bytes, unfinished downloads included",
        hint=hint,
    )


def tree_bytes(path: str) -> int:
    """Bytes on disk of the files below a directory of the caller's own."""
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(f"{directory}/{name}").st_blocks * 512
            except OSError:
                continue
    return total


def find_to_remove(store: MemberStore, word: str) -> ImageKey:
    """The image that a member means: their own first, then root's.

    Raises:
        NotFound: there is none, or it is another member's.
        Ambiguous: more than one.
    """
    try:
        return store.resolve(word)
    except NotFound:
        from rkt.store.pending import matching

        with Spool(store.shared.data_dir) as spool:
            others = matching(spool.pending(), word)
        if others:
            raise StoreError(
                f"image {others[0].key.medium} was fetched by user {user_name(others[0].home.uid)}, who alone can "
                "remove it, and root",
                hint=f"sudo rkt image rm {others[0].key.medium}",
            ) from None
        raise

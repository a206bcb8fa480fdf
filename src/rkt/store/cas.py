# SPDX-License-Identifier: Apache-2.0
"""The image store: look-up by key and by name, commit, removal (tree and locks: ``store.layout``).

An image is visible when its record exists. Commit: everything is written in staging and synchronised, then renamed into
place, then the name index is made, and the record comes last. Removal is the reverse: the record goes first. So a
crash leaves either the image complete with its verdict, or parts that nobody sees and ``store.gc`` collects.

A layer directory that stands under its key with its split is whole: it is renamed there after ``syncfs``, and the split
goes before it is deleted.
"""

from __future__ import annotations

import os

from rkt.errors import Ambiguous, DamagedRecord, InvalidManifest, NotFound, RktError, StoreError, quoted
from rkt.linux.files import read_fd_bounded, replace_file, sync_directory
from rkt.schema.envelope import MAX_RECORD_BYTES, sha256_hex
from rkt.store.record import ImageRecord, RemoteRow, parse_image_record, parse_remote_row
from rkt.trust.verdict import KIND_INSECURE
from rkt.values import (
    KEY_HEX_LENGTH,
    MIN_KEY_PREFIX_LENGTH,
    AppcReference,
    ImageKey,
    is_image_hash,
    key_prefix,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from rkt.values import ACIdentifier, TreeID

#: Largest manifest, in bytes (invariant UN14).
MAX_MANIFEST_BYTES = 4 << 20
_MAX_NAME_BYTES = 255
#: How references begin that name a file, a directory or a URL.
_PLACES = ("oci:", "oci-archive:", "docker-archive:", "http:", "https:", "file:", "/", "./", "../")
_KEY_LENGTH = len("sha512-") + KEY_HEX_LENGTH
_SHORTEST_PREFIX = len("sha512-") + MIN_KEY_PREFIX_LENGTH


class Store:
    """The images below one data directory. Creating the object touches nothing on disk."""

    __slots__ = ("_cas", "_records", "data_dir")

    def __init__(self, data_dir: str) -> None:
        self.data_dir = data_dir
        self._cas = f"{data_dir}/cas"
        self._records: dict[ImageKey, ImageRecord] = {}

    # Look-up

    def get(self, key: ImageKey) -> ImageRecord:
        """The record of an image.

        Raises:
            NotFound: the image is not in the store.
            DamagedRecord: its record is not what was written, or was written by a stranger.
        """
        record = self._records.get(key)
        if record is None:
            path = f"{self._cas}/record/{key}"
            data = self._read(path, MAX_RECORD_BYTES)
            if data is None:
                raise NotFound(f"image {key} is not in the store", hint="rkt image list")
            try:
                record = parse_image_record(data, key, path)
            except DamagedRecord as e:
                raise DamagedRecord(e.message, hint=f"rkt image rm {key.medium}, then fetch it again") from e
            self._records[key] = record
        return record

    def contains(self, key: ImageKey) -> bool:
        """Whether the image is visible; one system call."""
        try:
            os.stat(f"{self._cas}/record/{key}")
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def resolve_id(self, text: str) -> ImageKey:
        """A hash, or the beginning of one, to the key of an image in the store (spec cli §2.24).

        Raises:
            NotFound: none, or less than two hex digits.
            Ambiguous: more than one.
        """
        prefix = key_prefix(text)
        if len(prefix) < _SHORTEST_PREFIX:
            raise NotFound(f"image ID too short: {quoted(text)}", hint="give at least two hex digits")
        if len(prefix) == _KEY_LENGTH:
            try:
                key = ImageKey.parse(prefix)
            except InvalidManifest:
                raise NotFound(f"no image IDs found for {quoted(text)}", hint="rkt image list") from None
            if not self.contains(key):
                raise NotFound(f"no image IDs found for {quoted(text)}", hint="rkt image list")
            return key
        found = [key for key in self.keys() if key.startswith(prefix)]
        if not found:
            raise NotFound(f"no image IDs found for {quoted(text)}", hint="rkt image list")
        if len(found) > 1:
            raise Ambiguous(
                f'ambiguous image ID: "{text}"', hint="give more digits, see rkt image list --full"
            )
        return found[0]

    def find_by_name(self, reference: AppcReference) -> ImageKey | None:
        """The image with that name and at least these labels (spec cli §2.24).

        Without a version among the labels, images found as *latest* are preferred; among equals, the most recently
        imported. Damaged records are passed over, ``records`` names them. The caller adds labels of its own, such as
        os and arch.
        """
        best: ImageRecord | None = None
        wanted = reference.labels.items()
        any_version = "version" not in reference.labels
        for text in _list(f"{self._cas}/name/{quote_name(reference.name)}"):
            try:
                record = self.get(ImageKey.parse(text))
            except (NotFound, StoreError, InvalidManifest):
                continue
            if record.name != reference.name or not wanted <= record.labels.items():
                continue
            if best is None or (any_version and record.latest, record.import_time_ns) > (
                any_version and best.latest,
                best.import_time_ns,
            ):
                best = record
        return None if best is None else best.key

    def resolve(self, text: str) -> ImageKey:
        """A hash, an appc string, or the reference by which an image came, to the key of an image in the store.

        Nothing is fetched (spec cli §2.24).

        Raises:
            NotFound: no such image, or a text that is neither.
            Ambiguous: a prefix of several keys.
        """
        if is_image_hash(text):
            try:
                return self.resolve_id(text)
            except NotFound as e:
                raise self._pending(text) or e from None
        if text.startswith("docker:"):
            return self._resolve_reference(text)
        if text.startswith(_PLACES):
            raise NotFound(
                f'"{text}" says where an image comes from, not which one of the store is meant',
                hint="give its name or ID: rkt image list",
            )
        try:
            key = self.find_by_name(AppcReference.parse(text))
        except InvalidManifest as e:
            raise NotFound(f"no image {quoted(text)} in the store: {e.message}", hint="rkt image list") from e
        if key is None:
            raise self._pending(text) or NotFound(
                f"no image {quoted(text)} in the store", hint="rkt image list"
            )
        return key

    def _resolve_reference(self, text: str) -> ImageKey:
        """What came of a reference to a registry, for this host's platform; else the only image with that name."""
        from rkt.errors import UsageError
        from rkt.fetch.oci_reference import parse_docker

        try:
            reference = parse_docker(text.removeprefix("docker:").removeprefix("//"))
        except UsageError as e:
            raise NotFound(e.message, hint=e.hint) from e
        row = self.remote_row(str(reference))
        if row is not None and self.contains(row.key):
            return row.key
        found = [
            record.key
            for record in self.records()
            if record.oci is not None
            and record.name == reference.image_name
            and (
                reference.digest in {record.key.digest, record.oci.index_digest}
                if reference.digest
                else record.labels.get("version") == reference.tag
            )
        ]
        if len(found) > 1:
            raise Ambiguous(f"{quoted(text)} is there for several platforms", hint="rkt image list --full")
        if not found:
            raise NotFound(f"no image {quoted(text)} in the store", hint="rkt image list")
        return found[0]

    def _pending(self, text: str) -> NotFound | None:
        """The error for an image that only a member of the group ``rkt`` has; None when nobody has it."""
        from rkt.store.pending import Spool, matching, user_name

        with Spool(self.data_dir) as spool:
            found = matching(spool.pending(), text) if spool.homes else []
        if not found:
            return None
        return NotFound(
            f"image {found[0].key.medium} is pending: user {user_name(found[0].home.uid)} fetched it, "
            "and root has not needed it yet",
            hint=f"sudo rkt fetch {found[0].key.medium}",
        )

    def manifest_bytes(self, key: ImageKey) -> bytes:
        """The manifest exactly as the image carries it.

        Raises:
            NotFound: the image is not in the store.
            DamagedRecord: the bytes are not those that were imported.
        """
        record = self.get(key)
        path = f"{self._cas}/manifest/{key}"
        for _ in range(3):
            data = self._read(path, MAX_MANIFEST_BYTES)
            if data is None:
                raise NotFound(f"image {key} is being removed", hint="rkt image list")
            if record.manifest_digest == f"sha256:{sha256_hex(data)}":
                return data
            # The view of a Docker image changes when it is fetched by another name, perhaps between these two readings.
            self._records.pop(key, None)
            record = self.get(key)
        raise DamagedRecord(
            f"manifest {path} is not what was imported",
            hint=f"rkt image rm {key.medium}, then fetch it again",
        )

    def layer_path(self, key: ImageKey | TreeID) -> str:
        """Absolute path of a layer directory, or of a rendered tree.

        Raises:
            StoreError: the directory is missing, or others than root could have changed it (invariant HH1).
        """
        is_tree = key.startswith("deps-")
        parent = f"{self._cas}/{'tree' if is_tree else 'layer'}"
        path = f"{parent}/{key}"
        try:
            status = os.stat(parent)
            os.stat(path)
        except FileNotFoundError:
            hint = "prepare the pod again" if is_tree else f"rkt image rm {key[:39]}, then fetch it again"
            if key.startswith("sha256-"):
                hint = "rkt image verify --repair IMAGE"
            raise StoreError(f"layer {path} is missing", hint=hint) from None
        except OSError as e:
            raise StoreError(f"cannot use layer {path}: {e.strerror}", hint="run the command as root") from e
        if status.st_mode & 0o077 or status.st_uid not in {0, os.geteuid()}:
            raise StoreError(
                f"{parent} is open to others (owner {status.st_uid}, mode {status.st_mode & 0o7777:o})",
                hint=f"chown root {parent} && chmod 700 {parent}",
            )
        return path

    def split_path(self, key: ImageKey) -> str:
        """Absolute path of what the tar held besides file contents."""
        return f"{self._cas}/split/{key}"

    def last_used_ns(self, key: ImageKey) -> int:
        """When the image was last used, nanoseconds since the epoch; 0 when nobody knows."""
        try:
            return os.stat(f"{self._cas}/used/{key}").st_mtime_ns
        except OSError:
            return 0

    def touch(self, key: ImageKey) -> None:
        """Note that the image is used now; a store that may only be read stays as it is."""
        path = f"{self._cas}/used/{key}"
        try:
            os.utime(path)
        except FileNotFoundError:
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640))
            except OSError:
                pass
        except OSError:
            pass

    def records(self, damaged: list[RktError] | None = None) -> Iterator[ImageRecord]:
        """Every readable record; what cannot be read is appended to ``damaged`` and does not hide the rest."""
        for key in self.keys():
            try:
                yield self.get(key)
            except NotFound:
                continue
            except StoreError as e:
                if damaged is not None:
                    damaged.append(e)

    # Change

    def put(
        self,
        staging_path: str,
        staging_fd: int,
        record: ImageRecord,
        place: Callable[[int], None] | None = None,
    ) -> ImageRecord:
        """Make an image visible.

        Args:
            staging_path: a staging directory that holds ``manifest`` of the image, and of an ACI ``layer/`` and ``split``;
                they are renamed out of it. The bytes were verified, or the verdict says which opt-out was used.
            staging_fd: the directory, opened before they were written.
            record: what to say of it.
            place: puts all but manifest and record into place, of an image that is no ACI; called with the group to give
                files, -1 to leave it, while no layer can vanish.
        Returns:
            the record that is in the store now: the one given, but that an insecure verdict never replaces a better
            one, and an image once found as *latest* stays so.
        Raises:
            StoreError, OSError: the disk, or the file system, refused; the image is as before.
        """
        from rkt.linux.libc import syncfs
        from rkt.store.locks import image_lock, prepare_lock

        key = record.key
        # What leaves staging gets the group of where it goes, whatever that is called.
        gid = os.stat(f"{self._cas}/manifest").st_gid if os.geteuid() == 0 else -1
        try:
            # One flush for the layer with all its files; after it, a name under the key means a whole layer. What the
            # device refused meanwhile is learned here.
            syncfs(staging_fd)
        except OSError as e:
            raise disk_error(f"cannot write {staging_path} to the disk", e) from e
        # The prepare lock keeps image gc from taking the layer before the record refers to it.
        with prepare_lock(self.data_dir), image_lock(self.data_dir, key, exclusive=True):
            self._records.pop(key, None)
            try:
                record = _merge(self.get(key), record)
            except (NotFound, StoreError):
                self._clear_half_removed(key)  # new, or damaged and now mended
            _give(f"{staging_path}/manifest", 0o640, gid)
            if place is None:
                self.place_layer(f"{staging_path}/layer", f"{staging_path}/split", key)
            else:
                place(gid)
            os.rename(f"{staging_path}/manifest", f"{self._cas}/manifest/{key}")
            self.index_name(record.name, key, gid)
            self.touch(key)
            for directory in ("split", "layer", "manifest"):
                sync_directory(f"{self._cas}/{directory}")
            replace_file(f"{self._cas}/record/{key}", record.seal(), 0o640, gid=gid)
        self._records[key] = record
        return record

    def place_layer(self, layer_path: str, split_path: str, key: ImageKey) -> None:
        """Give a layer that is whole and on the disk its place; without a ``split_path`` it has no split file.

        A layer that is there may be the root of a running pod, has the same content, and stays.
        """
        if split_path:
            self._clear_half_removed(key)
            os.rename(split_path, self.split_path(key))
        final_path = f"{self._cas}/layer/{key}"
        if os.path.lexists(final_path):
            return
        try:
            os.rename(layer_path, final_path)
        except OSError:
            # Two images with this layer are committed at the same time.
            if not os.path.isdir(final_path):
                raise

    def index_name(self, name: ACIdentifier, key: ImageKey, gid: int = -1) -> None:
        """Enter an image into the name index; again is harmless."""
        directory = f"{self._cas}/name/{quote_name(name)}"
        while True:
            try:
                os.mkdir(directory, 0o750)
                os.chmod(directory, 0o2750)
                if gid != -1:
                    os.chown(directory, -1, gid)
            except FileExistsError:
                pass
            try:
                fd = os.open(
                    f"{directory}/{key}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640
                )
            except FileNotFoundError:
                continue  # a removal took the empty directory between the two calls
            os.close(fd)
            return

    def remove(self, key: ImageKey, *, needed: Container[ImageKey | TreeID] | None) -> None:
        """Take an image out of the store.

        Args:
            key: the image; its record may be damaged.
            needed: layers that pods, or fetches that are under way, refer to; they stay until ``store.gc`` finds them
                unused. None: all of them. Anything else only under the exclusive prepare lock.
        Raises:
            NotFound: the image is not in the store.
            StoreError: parts of it stay behind, invisible; ``store.gc`` tries again.
        """
        from rkt.store.locks import image_lock

        with image_lock(self.data_dir, key, exclusive=True):
            try:
                record: ImageRecord | None = self.get(key)
            except StoreError:
                record = None
            self._records.pop(key, None)
            try:
                _unlink_record(f"{self._cas}/record/{key}")
                sync_directory(f"{self._cas}/record")
            except FileNotFoundError:
                raise NotFound(f"image {key} is not in the store", hint="rkt image list") from None
            except OSError as e:
                raise disk_error(f"cannot remove image {key}, record {self._cas}/record/{key}", e) from e
            try:
                self.remove_remote_rows(key)
                _unlink(f"{self._cas}/manifest/{key}")
                self.unindex_name(None if record is None else record.name, key)
                _unlink(f"{self._cas}/used/{key}")
                if key.is_oci:
                    from rkt.store.oci import remove_parts

                    remove_parts(self, key, record, needed)
                elif needed is not None and key not in needed:
                    self.remove_layer(key)
                _unlink(f"{self._cas}/imagelocks/{key}")
            except OSError as e:
                raise StoreError(
                    f"image {key} was removed, but {e.filename} stays behind: {e.strerror}",
                    hint="rkt image gc",
                ) from e

    def remove_tree(self, identity: str) -> None:
        """Remove a rendered tree; the caller knows that no pod refers to it. Absent is fine."""
        from rkt.store.staging import discard

        path = f"{self._cas}/tree/{identity}"
        try:
            _unlink(f"{path}/record")
        except NotADirectoryError:
            pass
        discard(self.data_dir, path)

    def remove_layer(self, key: ImageKey) -> None:
        """Remove a layer and its split; the caller knows that nothing refers to it. Absent is fine."""
        from rkt.store.staging import discard

        _unlink(self.split_path(key))
        discard(self.data_dir, f"{self._cas}/layer/{key}")

    def _clear_half_removed(self, key: ImageKey) -> None:
        """Take away what a killed ``remove_layer`` left under the key; what a pod refers to was never being removed."""
        path = f"{self._cas}/layer/{key}"
        if os.path.lexists(self.split_path(key)) or not os.path.isdir(path):
            return
        from rkt.linux.locks import lock_directory
        from rkt.store.refs import referenced_keys
        from rkt.store.staging import discard

        # Another commit may find the same, and put its own layer there a moment later.
        try:
            lock = lock_directory(path, exclusive=True)
        except FileNotFoundError:
            return
        with lock:
            if not os.path.lexists(self.split_path(key)) and key not in referenced_keys(self.data_dir):
                discard(self.data_dir, path)

    def unindex_name(self, name: ACIdentifier | None, key: ImageKey) -> None:
        """Take an image out of the name index; without a name, look for it under every name."""
        parent = f"{self._cas}/name"
        for directory in [quote_name(name)] if name is not None else _list(parent):
            _unlink(f"{parent}/{directory}/{key}")
            try:
                os.rmdir(f"{parent}/{directory}")
            except OSError:
                pass  # other images carry the name, or it is gone

    # What was downloaded from where

    def remote_row(self, url: str) -> RemoteRow | None:
        """The row of exactly this URL; a damaged one counts as none, since the only loss is a download."""
        path = f"{self._cas}/remote/{sha256_hex(url.encode())}"
        try:
            data = self._read(path, MAX_RECORD_BYTES)
            row = None if data is None else parse_remote_row(data, path)
        except StoreError:
            return None
        return row if row is not None and row.url == url else None

    def put_remote_row(self, row: RemoteRow) -> None:
        """Remember what came of a URL."""
        from rkt.store.locks import prepare_lock

        # The lock tells image gc that the temporary file is somebody's.
        with prepare_lock(self.data_dir):
            replace_file(f"{self._cas}/remote/{sha256_hex(row.url.encode())}", row.seal(), 0o640)

    def remove_remote_rows(self, key: ImageKey | None) -> None:
        """Forget the URLs that an image came from; without a key, those of images that are gone."""
        parent = f"{self._cas}/remote"
        for name in _list(parent):
            path = f"{parent}/{name}"
            try:
                data = self._read(path, MAX_RECORD_BYTES)
                if data is None:
                    continue
                row_key: ImageKey | None = parse_remote_row(data, path).key
            except StoreError:
                row_key = None
            gone = row_key is None or not self.contains(row_key) if key is None else row_key == key
            if gone:
                _unlink(path)

    # Details

    def keys(self) -> list[ImageKey]:
        """Keys of all visible images, damaged records included."""
        keys = []
        for name in _list(f"{self._cas}/record"):
            try:
                keys.append(ImageKey.parse(name))
            except InvalidManifest:
                continue  # a temporary file of a write that was cut short
        return keys

    def _read(self, path: str, limit_bytes: int) -> bytes | None:
        """Content of one of the store's own files; None when it is absent."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as e:
            raise StoreError(
                f"cannot read {path}: {e.strerror}",
                hint="run the command as root or as a member of group rkt",
            ) from e
        try:
            owner = os.fstat(fd).st_uid
            if owner not in {0, os.geteuid()}:
                raise DamagedRecord(f"{path} belongs to user {owner}, not to root")
            return read_fd_bounded(fd, limit_bytes, path)
        except OSError as e:
            raise DamagedRecord(f"cannot read {path}: {e.strerror}") from e
        finally:
            os.close(fd)


def _merge(old: ImageRecord, new: ImageRecord) -> ImageRecord:
    """What to keep of the old record when an image is imported again."""
    kept = {}
    if new.verdict.kind == KIND_INSECURE and old.verdict.kind != KIND_INSECURE:
        # With the name that it is about: by another one nobody vouches for the image.
        kept = {"verdict": old.verdict, "name": old.name, "labels": old.labels}
    return new.replace(**kept, latest=old.latest or new.latest)


def quote_name(name: str) -> str:
    """A name as one path component; it starts and ends alphanumerically, so it is never ``.`` or ``..``."""
    quoted = name.replace("%", "%25").replace("/", "%2F")
    if len(quoted) <= _MAX_NAME_BYTES:
        return quoted
    # "%%" never comes of quoting, so that no other name can be taken for this one.
    return f"{quoted[:160]}%%{sha256_hex(name.encode())}"


def disk_error(what: str, e: OSError) -> StoreError:
    """What the store says when the file system refuses: what it was about, why, and what helps."""
    from rkt.linux.disk import remedy

    return StoreError(f"{what}: {e.strerror}", hint=remedy(e.errno))


def _list(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as e:
        raise StoreError(
            f"cannot read {path}: {e.strerror}", hint="run the command as root or as a member of group rkt"
        ) from e


def _give(path: str, mode: int, gid: int) -> None:
    os.chmod(path, mode, follow_symlinks=True)
    if gid != -1:
        os.chown(path, -1, gid)


def _unlink_record(path: str) -> None:
    try:
        os.unlink(path)
    except IsADirectoryError:
        # Whatever somebody or a broken file system put there, the image can be removed.
        from rkt.linux.files import remove_tree

        remove_tree(path)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass

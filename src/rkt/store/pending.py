# SPDX-License-Identifier: Apache-2.0
"""What members of the group ``rkt`` fetched, and what they want removed, as root and everybody else reads it.

::

    $DATA/cas/incoming/ (3770)
    └── UID-RANDOM/                a member's own small store (store.member), owned by that user
        └── cas/
            ├── record/KEY         an image record like root's; to others a claim
            ├── remote/SHA256      what came of which URL, like root's
            ├── blob/KEY[.asc]     0700: the image as it was transferred, and its signature
            └── removal/KEY        empty: this member wants that image of root's store gone

Everything in it is a stranger's (invariant HH2). Paths are opened below one descriptor, through no symbolic link and onto no
other file system, never waiting; a file counts only if it is a regular one, of that user, with one name. What a record
says decides nothing: it may lead to a blob, which is then an image file of a user like any other.

The cost of looking is bounded, whatever a member puts there.
"""

from __future__ import annotations

import errno
import os

from rkt.errors import InvalidManifest, RktError, StoreError
from rkt.schema.envelope import MAX_RECORD_BYTES, sha256_hex
from rkt.schema.record import Record
from rkt.store.cas import quote_name
from rkt.store.layout import INCOMING
from rkt.store.record import parse_image_record, parse_remote_row
from rkt.values import MIN_KEY_PREFIX_LENGTH, AppcReference, ImageKey, is_image_hash, is_number, key_prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from rkt.store.cas import Store
    from rkt.values import ACIdentifier, ImageID

_HEX = frozenset("0123456789abcdef")
_RANDOM_LENGTH = 16
_MAX_SHOWN = 512
_MAX_SIZE_BYTES = 1 << 40
_S_IFMT, _S_IFREG = 0o170000, 0o100000
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class SpoolLimits(Record):
    """How much members may keep, and how much of it others look at.

    Attributes:
        user_bytes: of one user, unfinished downloads included.
        user_images: of one user.
        user_removals: of one user, at a time.
        user_homes: directories of one user that count.
        names: entries of one directory that are looked at.
        age_seconds: since it was fetched; older ones are collected.
        unfinished_seconds: since the last change of what no running command can own.
        free_share: root copies an image only if it takes no more than this share of what is free.
    """

    user_bytes: int = 8 << 30
    user_images: int = 64
    user_removals: int = 1024
    user_homes: int = 2
    names: int = 4096
    age_seconds: float = 30 * 86400.0
    unfinished_seconds: float = 86400.0
    free_share: float = 0.5


DEFAULT_SPOOL_LIMITS = SpoolLimits()


class Home(Record):
    """A member's directory."""

    name: str
    uid: int


class Pending(Record):
    """An image that a member fetched and root has not taken; all of it is what the member's record claims.

    Attributes:
        home: where it lies.
        fetched_ns: nanoseconds since the epoch; by the file system's clock, not the member's.
    """

    home: Home
    key: ImageKey
    image_id: ImageID
    name: ACIdentifier
    labels: dict[str, str]
    size_bytes: int
    fetched_ns: int

    @property
    def full_name(self) -> str:
        """``name:version``, or the name alone."""
        version = self.labels.get("version")
        return f"{self.name}:{version}" if version else self.name


class ActingAs:
    """With a user's rights to files alone, for as long as ``with`` lasts: what is removed is what that user may remove.

    Only root changes; what would need root's rights fails, since directories in a home may be others'.
    """

    __slots__ = ("_gid", "_uid")

    def __init__(self, uid: int, gid: int) -> None:
        self._uid = uid
        self._gid = gid

    def __enter__(self) -> None:
        if os.geteuid() == 0:
            from rkt.linux import libc

            libc.set_file_system_ids(self._uid, self._gid)

    def __exit__(self, *_: object) -> None:
        if os.geteuid() == 0:
            from rkt.linux import libc

            libc.set_file_system_ids(0, os.getegid())


def user_name(uid: int) -> str:
    """Name of a user for messages; the number when there is none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class Spool:
    """The members' directories, open for reading; closed on ``close`` or at the end of ``with``.

    Attributes:
        names: of everything in it, at the time of opening.
        homes: that count; none when there is no spool, or nobody has fetched anything.
    """

    def __init__(self, data_dir: str, limits: SpoolLimits = DEFAULT_SPOOL_LIMITS) -> None:
        self.path = f"{data_dir}/cas/{INCOMING}"
        self.limits = limits
        self.names: list[str] = []
        self.homes: list[Home] = []
        self._fd = -1
        try:
            self._fd = os.open(self.path, _OPEN_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return  # none, or none that this user may see
        try:
            status = os.fstat(self._fd)
            if status.st_uid not in {0, os.geteuid()} or status.st_mode & 0o1002 != 0o1000:
                raise StoreError(
                    f"{self.path} is not safe (owner {status.st_uid}, mode {status.st_mode & 0o7777:o}): "
                    "members could replace what others fetched",
                    hint=f"chown root {self.path} && chmod 3770 {self.path}",
                )
            self.names = sorted(self._names(""))
            self.homes = self._find_homes()
        except BaseException:
            self.close()
            raise

    def _find_homes(self) -> list[Home]:
        homes: list[Home] = []
        for name in self.names:
            home = self._home(name)
            if home is not None and sum(h.uid == home.uid for h in homes) < self.limits.user_homes:
                homes.append(home)
        return homes

    def _home(self, name: str) -> Home | None:
        uid = home_owner(name)
        if uid is None:
            return None
        try:
            fd = self._open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            return Home(name=name, uid=uid) if os.fstat(fd).st_uid == uid else None
        finally:
            os.close(fd)

    # Images

    def pending(self) -> list[Pending]:
        """Every image that some member claims to have, the most recently fetched first."""
        found = [p for home in self.homes for p in self._pending_of(home)]
        return sorted(found, key=lambda p: (-p.fetched_ns, p.home.name))

    def _pending_of(self, home: Home) -> Iterator[Pending]:
        names = [name for name in sorted(self._names(f"{home.name}/cas/record")) if not name.startswith(".")]
        # Bad ones count too: they are read before they prove to be bad.
        for name in names[: self.limits.user_images]:
            pending = self._read_record(home, name)
            if pending is not None:
                yield pending

    def _read_record(self, home: Home, name: str) -> Pending | None:
        path = f"{home.name}/cas/record/{name}"
        try:
            key = ImageKey.parse(name)
            data, changed_ns = self._read(home, path, MAX_RECORD_BYTES)
            record = parse_image_record(data, key, path)
        except (OSError, RktError):
            return None
        # It is shown to root: nothing in it may forge a line of a table, or be too much for one.
        shown = record.full_name
        if (
            not shown.isprintable()
            or len(shown) > _MAX_SHOWN
            or not 0 <= record.size_bytes <= _MAX_SIZE_BYTES
        ):
            return None
        # Nothing else of the record goes any further, least of all its verdict.
        return Pending(
            home=home,
            key=key,
            image_id=record.image_id,
            name=record.name,
            labels=record.labels,
            size_bytes=record.size_bytes,
            fetched_ns=changed_ns,
        )

    def of_url(self, url: str) -> list[Pending]:
        """Images that members claim to have got from exactly this URL."""
        name = sha256_hex(url.encode())
        found = []
        for home in self.homes:
            path = f"{home.name}/cas/remote/{name}"
            try:
                row = parse_remote_row(self._read(home, path, MAX_RECORD_BYTES)[0], path)
            except (OSError, RktError):
                continue
            pending = self._read_record(home, row.key) if row.url == url else None
            if pending is not None:
                found.append(pending)
        return sorted(found, key=lambda p: (-p.fetched_ns, p.home.name))

    def open_blob(self, pending: Pending) -> int:
        """The image as it was transferred; the caller owns the descriptor.

        Raises:
            StoreError: there is none, or it is not what a member could have fetched.
        """
        path = _blob_path(pending)
        try:
            return self._open_own(pending.home, path)
        except OSError as e:
            raise StoreError(f"cannot use {self.path}/{path}: {e.strerror}") from e

    def read_signature(self, pending: Pending, limit_bytes: int) -> bytes:
        """Its signature.

        Raises:
            StoreError: as ``open_blob``.
        """
        path = f"{_blob_path(pending)}.asc"
        try:
            return self._read(pending.home, path, limit_bytes)[0]
        except OSError as e:
            raise StoreError(f"cannot use {self.path}/{path}: {e.strerror}") from e

    def discard(self, pending: Pending) -> None:
        """Remove an image from the spool: its owner or root. What cannot be removed stays."""
        for directory, suffix in (
            ("record", ""),
            ("blob", ""),
            ("blob", ".asc"),
            ("manifest", ""),
            ("used", ""),
        ):
            self.unlink(pending.home, f"cas/{directory}", f"{pending.key}{suffix}")
        name = quote_name(pending.name)
        self.unlink(pending.home, f"cas/name/{name}", pending.key)
        self.unlink(pending.home, "cas/name", name, directory=True)

    def unlink(self, home: Home, parent: str, name: str, *, directory: bool = False) -> None:
        """Remove one name from a directory of a member, which must be that member's; failure is accepted."""
        try:
            with (
                self.acting_as(home.uid),
                _Opened(self.open_directory(f"{home.name}/{parent}", home.uid)) as fd,
            ):
                (os.rmdir if directory else os.unlink)(name, dir_fd=fd)
        except OSError:
            pass

    # Removals

    def removals(self) -> dict[ImageKey, tuple[Home, int]]:
        """Images that a member wants gone: who, and when in nanoseconds since the epoch; the latest of each."""
        found: dict[ImageKey, tuple[Home, int]] = {}
        for home in self.homes:
            for name in sorted(self._names(f"{home.name}/cas/removal"))[: self.limits.user_removals]:
                try:
                    key = ImageKey.parse(name)
                    with _Opened(self._open_own(home, f"{home.name}/cas/removal/{name}")) as fd:
                        # The time that a user cannot choose.
                        asked_ns = os.fstat(fd).st_ctime_ns
                except (OSError, InvalidManifest):
                    continue
                if key not in found or found[key][1] < asked_ns:
                    found[key] = (home, asked_ns)
        return found

    def removed(self, store: Store) -> dict[ImageKey, Home]:
        """Images of root's store that a member wants gone, and that were neither used nor fetched since then."""
        gone = {}
        for key, (home, asked_ns) in self.removals().items():
            try:
                imported_ns = store.get(key).import_time_ns
            except RktError:
                continue  # not there; or damaged, which is root's to see to
            if asked_ns > max(store.last_used_ns(key), imported_ns):
                gone[key] = home
        return gone

    # Details

    def open_directory(self, path: str, uid: int = -1) -> int:
        """A directory below the spool, of a user where one is given; the caller owns the descriptor.

        Raises:
            OSError: there is none that does.
        """
        fd = self._open(path, _OPEN_DIRECTORY)
        if uid != -1 and os.fstat(fd).st_uid != uid:
            os.close(fd)
            raise PermissionError(errno.EPERM, "belongs to somebody else", path)
        return fd

    def acting_as(self, uid: int) -> ActingAs:
        """Remove things in the spool as that user."""
        return ActingAs(uid, os.fstat(self._fd).st_gid)

    def owner_of(self, name: str) -> int:
        """Whose an entry of the spool is.

        Raises:
            OSError: it is gone, or something is mounted there.
        """
        with _Opened(self._open_any(name)) as fd:
            return os.fstat(fd).st_uid

    def _open_any(self, name: str) -> int:
        """A descriptor of an entry of the spool itself, symbolic links included."""
        from rkt.linux import libc

        resolve = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_XDEV
        return libc.openat2(self._fd, os.fsencode(name), os.O_PATH | os.O_NOFOLLOW, resolve)

    def _open(self, path: str, flags: int) -> int:
        from rkt.linux import libc

        resolve = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS | libc.RESOLVE_NO_XDEV
        return libc.openat2(self._fd, os.fsencode(path), flags, resolve)

    def _open_own(self, home: Home, path: str) -> int:
        """A regular file of the home's owner that has no other name."""
        fd = self._open(path, _OPEN_FILE)
        try:
            status = os.fstat(fd)
            if status.st_mode & _S_IFMT != _S_IFREG:
                raise OSError(errno.EINVAL, "not a regular file", path)
            if status.st_uid != home.uid:
                raise OSError(errno.EPERM, f"belongs to user {status.st_uid}, not {home.uid}", path)
            if status.st_nlink != 1:
                raise OSError(errno.EMLINK, "has other names", path)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _read(self, home: Home, path: str, limit_bytes: int) -> tuple[bytes, int]:
        """Content of a file, and when it was last changed in any way."""
        from rkt.linux.files import read_fd_bounded

        with _Opened(self._open_own(home, path)) as fd:
            return read_fd_bounded(fd, limit_bytes, path), os.fstat(fd).st_ctime_ns

    def _names(self, path: str) -> list[str]:
        """Names in a directory, as many as are looked at."""
        names: list[str] = []
        try:
            # "." of the spool's own descriptor: a new open file description, whose position nobody has moved.
            with _Opened(self._open(path or ".", _OPEN_DIRECTORY)) as fd, os.scandir(fd) as entries:
                for entry in entries:
                    if len(names) == self.limits.names:
                        break
                    names.append(entry.name)
        except OSError:
            pass
        return names

    @property
    def fd(self) -> int:
        """Descriptor of the spool's directory."""
        return self._fd

    def close(self) -> None:
        """Close it; harmless when closed before."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Opened:
    """A descriptor that is closed at the end of ``with``."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def home_owner(name: str) -> int | None:
    """The user id in the name of a home; None for any other name."""
    digits, dash, random = name.partition("-")
    if not dash or not is_number(digits) or digits != str(int(digits[:10])):
        return None
    if len(random) != _RANDOM_LENGTH or not _HEX.issuperset(random):
        return None
    return int(digits)


def new_home_name(uid: int) -> str:
    """A name for a home that nobody can have taken before."""
    return f"{uid}-{os.urandom(_RANDOM_LENGTH // 2).hex()}"


def named(pending: list[Pending], wanted: AppcReference) -> list[Pending]:
    """Those with that name and at least these labels."""
    return [p for p in pending if p.name == wanted.name and wanted.labels.items() <= p.labels.items()]


def matching(pending: list[Pending], text: str) -> list[Pending]:
    """Those that a hash, the beginning of one, or a name with labels stands for; none for any other text."""
    if is_image_hash(text):
        prefix = key_prefix(text)
        digits = prefix.partition("-")[2]
        return [p for p in pending if len(digits) >= MIN_KEY_PREFIX_LENGTH and p.key.startswith(prefix)]
    try:
        return named(pending, AppcReference.parse(text))
    except InvalidManifest:
        return []


def _blob_path(pending: Pending) -> str:
    return f"{pending.home.name}/cas/blob/{pending.key}"

# SPDX-License-Identifier: Apache-2.0
"""Partial downloads: root's side. They survive errors, kills and reboots, and one process at a time goes on with each.

::

    $DATA/cas/partial/ (0700 root)
    ├── SHA256-OF-URL             the bytes so far; flock, exclusive, while somebody downloads or imports them
    └── SHA256-OF-URL.validators  what version they are of, sealed (``fetch.resume``)

``rkt-fetch`` gets open descriptors of these two files and nothing else. It alone reads the validators. Once it has
ended nobody but root can reach the bytes, and they stay until they became an image or proved to be none: who trusts a
missing key and fetches again does not download again.

A file's name goes only while its lock is held, so that two processes never fill one file: whoever waited looks whether
the name still leads to what he locked (``linux.locks``).
"""

from __future__ import annotations

import errno
import hashlib
import os
import time

from rkt.errors import StoreError
from rkt.fetch.resume import MAX_VALIDATORS_BYTES
from rkt.linux import disk
from rkt.linux.locks import Lock, lock_file
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

WAITING = "another rkt instance is downloading this file, waiting..."
_SUFFIX = ".validators"
_NAME_LENGTH = 64
_HEX = frozenset("0123456789abcdef")


class PartialLimits(Record):
    """How much is kept of downloads that did not become an image.

    Attributes:
        total_bytes: of all partial files together.
        free_share: not more than this share of what is free beside them.
        age_seconds: since the last byte came.
    """

    total_bytes: int = 2 << 30
    free_share: float = 0.2
    age_seconds: float = 30 * 86400.0


DEFAULT_PARTIAL_LIMITS = PartialLimits()


class Partial:
    """The partial download of one URL, locked; the lock is released on ``close`` or at the end of ``with``.

    Attributes:
        path: of the bytes so far.
        blob_fd: a descriptor of them, which also holds the lock.
        waited: whether somebody else was busy with the same URL before.
    """

    def __init__(self, data_dir: str, url: str, *, waiting: Callable[[], object] = lambda: None) -> None:
        """Take the lock.

        Args:
            data_dir: data directory.
            url: as asked for.
            waiting: called once when somebody else has the lock.
        Raises:
            StoreError: the files cannot be used.
        """
        directory = f"{data_dir}/cas/partial"
        self.path = f"{directory}/{hashlib.sha256(url.encode()).hexdigest()}"
        self.waited = False
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            self._lock = self._take(waiting)
        except OSError as e:
            raise StoreError(
                f"cannot use partial download {self.path}: {e.strerror}",
                hint=disk.remedy(e.errno),
            ) from e
        self.blob_fd = self._lock.fd

    def _take(self, waiting: Callable[[], object]) -> Lock:
        try:
            return lock_file(self.path, exclusive=True, blocking=False, mode=0o600)
        except BlockingIOError:
            self.waited = True
            waiting()
            # Each of those who wait makes the file anew when the one before removed it, so this may be said again.
            while True:
                try:
                    return lock_file(self.path, exclusive=True, mode=0o600)
                except OSError as e:
                    if e.errno != errno.ESTALE:
                        raise

    def open_for_worker(self) -> tuple[int, int]:
        """Descriptors for ``rkt-fetch``, of the bytes and of the validators; the caller closes them.

        They are others than the one that holds the lock: an unprivileged process must not be able to release it.
        """
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        blob_fd = os.open(self.path, flags)
        try:
            validators_fd = os.open(self.path + _SUFFIX, flags | os.O_CREAT, 0o600)
            if os.fstat(validators_fd).st_size > MAX_VALIDATORS_BYTES:
                os.ftruncate(validators_fd, 0)
        except BaseException:
            os.close(blob_fd)
            raise
        return blob_fd, validators_fd

    def discard(self) -> None:
        """Remove the bytes: they became an image, or cannot become one. Once gone, the name may be somebody else's."""
        if os.fstat(self._lock.fd).st_nlink:
            _remove(self.path)

    def close(self) -> None:
        """Release the lock; an empty file goes."""
        if self._lock.fd >= 0:
            if not os.fstat(self._lock.fd).st_size:
                self.discard()
            self._lock.close()
            self.blob_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def trim(data_dir: str, limits: PartialLimits = DEFAULT_PARTIAL_LIMITS) -> list[str]:
    """Remove partial downloads that are old, and the oldest while all together take too much; none that is in use.

    Returns:
        what could not be removed, one line each.
    """
    directory = f"{data_dir}/cas/partial"
    found: dict[str, list[tuple[float, int]]] = {}
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as e:
        return [f"cannot look into {directory}: {e.strerror}"]
    for name in names:
        base = name.removesuffix(_SUFFIX)
        if len(base) != _NAME_LENGTH or not _HEX.issuperset(base):
            continue
        try:
            status = os.stat(f"{directory}/{name}", follow_symlinks=False)
        except FileNotFoundError:
            continue
        found.setdefault(base, []).append((status.st_mtime, status.st_blocks * 512))
    sizes = {base: sum(size for _, size in parts) for base, parts in found.items()}
    ages = {base: max(mtime for mtime, _ in parts) for base, parts in found.items()}
    total = sum(sizes.values())
    space = os.statvfs(directory)
    allowed = min(limits.total_bytes, int((space.f_bavail * space.f_frsize + total) * limits.free_share))
    problems = []
    for base in sorted(found, key=lambda base: ages[base]):
        if total <= allowed and ages[base] > time.time() - limits.age_seconds:
            break
        path = f"{directory}/{base}"
        try:
            # Made on demand where only validators were left.
            with lock_file(path, exclusive=True, blocking=False, mode=0o600):
                _remove(path)
            total -= sizes[base]
        except BlockingIOError:
            continue  # somebody is busy with it
        except OSError as e:
            problems.append(f"cannot remove partial download {path}: {e.strerror}")
    return problems


def _remove(path: str) -> None:
    """Validators first: bytes without validators are never gone on with."""
    for name in (path + _SUFFIX, path):
        try:
            os.unlink(name)
        except FileNotFoundError:
            pass

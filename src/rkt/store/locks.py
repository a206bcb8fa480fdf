# SPDX-License-Identifier: Apache-2.0
"""The store's locks, in the order in which they may be taken: prepare lock, then one image's lock (invariant HH7)."""

from __future__ import annotations

from rkt.errors import StoreError
from rkt.linux.locks import Lock, lock_file
from rkt.store.layout import PREPARE_LOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.values import ImageKey


def prepare_lock(data_dir: str, *, exclusive: bool = False, blocking: bool = True) -> Lock:
    """The lock that keeps layers from vanishing between look-up and reference (spec cli §8.7).

    Shared for whoever refers to an image from a pod, or commits one; exclusive for whoever removes layers.

    Raises:
        BlockingIOError: ``blocking`` is false and somebody else holds it.
        StoreError: the lock file cannot be used.
    """
    return _lock(f"{data_dir}/{PREPARE_LOCK}", exclusive=exclusive, blocking=blocking)


def image_lock(data_dir: str, key: ImageKey, *, exclusive: bool) -> Lock:
    """The lock of one image: exclusive for commit and removal, shared for whoever reads its parts.

    Raises:
        StoreError: the lock file cannot be used.
    """
    return _lock(f"{data_dir}/cas/imagelocks/{key}", exclusive=exclusive, blocking=True)


def _lock(path: str, *, exclusive: bool, blocking: bool) -> Lock:
    try:
        return lock_file(path, exclusive=exclusive, blocking=blocking)
    except BlockingIOError:
        raise
    except OSError as e:
        from rkt.linux.disk import remedy

        hint = remedy(e.errno)
        raise StoreError(f"cannot lock {path}: {e.strerror}", hint=hint) from e

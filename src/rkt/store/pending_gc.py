# SPDX-License-Identifier: Apache-2.0
"""Root keeps the members' directories within bounds, and removes what members want removed.

All of it is done below descriptors (``store.pending``) and with the rights to files of that member, so that a member can lose
what is theirs, and nothing else: somebody may have moved a directory there in which others keep theirs.
"""

from __future__ import annotations

import errno
import os
import time

from rkt.errors import RktError
from rkt.linux.files import remove_tree
from rkt.store.gc import remove_image
from rkt.store.pending import DEFAULT_SPOOL_LIMITS, Spool, user_name
from rkt.store.refs import IMAGE_STATES, referenced_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from rkt.store.cas import Store
    from rkt.store.pending import Home, SpoolLimits
    from rkt.values import ImageKey

#: Directories of a home with what unfinished commands left.
_UNFINISHED = ("cas/tmp", "cas/partial")
_MAX_ENTRIES = 100_000
_ENDLESS = 1 << 62


def remove_removed(
    spool: Spool, store: Store, *, protected: Collection[ImageKey], dry_run: bool = False
) -> list[ImageKey]:
    """Remove the images of root's store that members want gone, but those that a pod or ``protected`` needs.

    Returns:
        what was, or would be, removed.
    """
    needed = referenced_keys(store.data_dir, IMAGE_STATES) | set(protected)
    gone = []
    for key, home in spool.removed(store).items():
        if key in needed:
            continue
        if not dry_run:
            try:
                remove_image(store, key)
            except RktError:
                continue  # the next one tries again
            spool.unlink(home, "cas/removal", key)
        gone.append(key)
    return gone


def collect_spool(store: Store, limits: SpoolLimits = DEFAULT_SPOOL_LIMITS) -> list[str]:
    """What ``rkt image gc`` does to the members' directories.

    Args:
        store: root's.
        limits: what members may have.
    Returns:
        what was lost against its owner's will, and what could not be removed, one line each.
    """
    problems: list[str] = []
    with Spool(store.data_dir, limits) as spool:
        counted = {home.name for home in spool.homes}
        for name in spool.names:
            if name not in counted:
                # Nobody's home, or one more than a user may have.
                problems += _remove(spool, name)
        now = time.time()
        for home in spool.homes:
            for directory in _UNFINISHED:
                problems += _remove_old(spool, home, directory, now - spool.limits.unfinished_seconds)
        shared = set(store.keys())
        taken = shared - spool.removed(store).keys()
        for pending in spool.pending():
            old = pending.fetched_ns < (now - spool.limits.age_seconds) * 10**9
            if old or pending.key in taken:
                spool.discard(pending)
        for key, (home, _) in spool.removals().items():
            if key not in shared:
                spool.unlink(home, "cas/removal", key)
        problems += _remove_excess(spool)
    return problems


def _remove_old(spool: Spool, home: Home, directory: str, before: float) -> list[str]:
    try:
        fd = spool.open_directory(f"{home.name}/{directory}", home.uid)
    except OSError:
        return []
    problems = []
    try:
        for name in os.listdir(fd):
            try:
                # The time that a user cannot choose.
                if os.stat(name, dir_fd=fd, follow_symlinks=False).st_ctime < before:
                    with spool.acting_as(home.uid):
                        remove_tree(name, dir_fd=fd)
            except FileNotFoundError:
                continue
            except OSError as e:
                problems.append(f"cannot remove {spool.path}/{home.name}/{directory}/{name}: {e.strerror}")
    finally:
        os.close(fd)
    return problems


def _remove_excess(spool: Spool) -> list[str]:
    """Take the oldest images of whoever has more than their share; everything, if that is not enough."""
    problems: list[str] = []
    for uid in sorted({home.uid for home in spool.homes}):
        homes = [home for home in spool.homes if home.uid == uid]
        own = [p for p in spool.pending() if p.home.uid == uid]
        while (used := sum(_bytes(spool, home) for home in homes)) > spool.limits.user_bytes and own:
            spool.discard(own.pop())
        if used > spool.limits.user_bytes:
            problems.append(
                f"user {user_name(uid)} had {used} bytes below {spool.path}, more than any user's share: removed"
            )
            for home in homes:
                problems += _remove(spool, home.name)
    return problems


def _bytes(spool: Spool, home: Home) -> int:
    """Bytes on disk of a home; without end when it has more entries, or is deeper, than anybody needs."""
    total = entries = 0
    waiting = [home.name]
    while waiting:
        path = waiting.pop()
        try:
            # Whoever owns it: who lets others write there answers for it.
            fd = spool.open_directory(path)
        except OSError as e:
            if e.errno == errno.ENAMETOOLONG:
                return _ENDLESS
            continue
        try:
            with os.scandir(fd) as found:
                for entry in found:
                    entries += 1
                    if entries > _MAX_ENTRIES:
                        return _ENDLESS
                    status = entry.stat(follow_symlinks=False)
                    total += status.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{path}/{entry.name}")
        except OSError:
            continue
        finally:
            os.close(fd)
    return total


def _remove(spool: Spool, name: str) -> list[str]:
    """Remove an entry of the spool with its owner's rights; what root put there is root's to see to."""
    try:
        uid = spool.owner_of(name)
        if uid != 0:
            with spool.acting_as(uid):
                remove_tree(name, dir_fd=spool.fd)
    except OSError as e:
        return [f"cannot remove {spool.path}/{name}: {e.strerror}"]
    return []

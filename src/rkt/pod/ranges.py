# SPDX-License-Identifier: Apache-2.0
"""Ranges of user and group ids, leased to pods with ``--private-users``: never one for two pods.

``$DATA/ranges/FIRST`` is a symbolic link whose text is the UUID of the pod that has the range from FIRST on. It is never
followed as a path. The pod directory holds the same in ``private-users-prepared``; the link decides. A lease lasts as
long as the pod's directory, since its files belong to the ids: it is taken when the directory is there, and given back
when it is gone. A kill in between leaves a link without a pod, which the next look that needs it removes: UUIDs do not
come back. The directory ``ranges`` is locked exclusively around every change.

The pool is, the first that is there: configuration of kind ``privateUsers``; what ``/etc/subuid`` and ``/etc/subgid``
give to the user ``rkt``; the default below.
"""

from __future__ import annotations

import os

from rkt.errors import ConfigError, HostError, PodError
from rkt.linux.files import read_bounded
from rkt.linux.locks import lock_directory
from rkt.linux.userns import IdRange
from rkt.pod import lifecycle
from rkt.stage0 import contract
from rkt.values import PodUUID, is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.linux.locks import Lock

#: Below the data directory.
DIRECTORY = "ranges"
#: Ids of one pod.
COUNT = 65536
#: Above what distributions hand out to users (up to 600 100 000), systemd to containers (1 879 048 191) and directory
#: services to accounts (2 000 200 000); below systemd's foreign ids (2 147 352 576). 2245 pods.
DEFAULT_POOL = [(0x77390000, 0x7FFE0000 - 0x77390000)]
_SUBORDINATE_FILES = ("/etc/subuid", "/etc/subgid")
_USER = b"rkt"
_MAX_FILE_BYTES = 1 << 20
_DIRECTORY_MODE = 0o2750

#: First ids and how many follow each, as configured.
Pool = list[tuple[int, int]]


def configured_pool(settings: Settings) -> Pool:
    """The ids that pods may lease.

    Raises:
        ConfigError: the configuration names no usable ids.
        HostError: the files of subordinate ids contradict each other.
    """
    from rkt.config.users import load_users

    pool = load_users(settings).ranges or _subordinate() or DEFAULT_POOL
    if not any(length >= COUNT for _, length in pool):
        raise ConfigError(
            f"no {COUNT} ids in a row for --private-users", hint="rkt help config, kind privateUsers"
        )
    return pool


def _subordinate() -> Pool:
    """What the host's administrator gave to the user ``rkt`` as subuid(5) says, for users and groups alike."""
    found: list[Pool] = []
    for path in _SUBORDINATE_FILES:
        try:
            text = read_bounded(path, _MAX_FILE_BYTES)
        except FileNotFoundError:
            text = b""
        except OSError as e:
            raise HostError(f"cannot read {path}: {e.strerror}") from e
        entries: Pool = []
        for line in text.splitlines():
            fields = line.split(b":")
            if len(fields) == 3 and fields[0] == _USER and fields[1].isdigit() and fields[2].isdigit():
                entries.append((int(fields[1]), int(fields[2])))
        found.append(sorted(entries))
    if found[0] != found[1]:
        raise HostError(
            f"{' and '.join(_SUBORDINATE_FILES)} give different ids to the user rkt",
            hint="make its lines the same in both",
        )
    return found[0]


def _lock(data_dir: str) -> Lock:
    path = f"{data_dir}/{DIRECTORY}"
    try:
        return lock_directory(path, exclusive=True)
    except FileNotFoundError:
        try:
            os.mkdir(path, lifecycle.DIRECTORY_MODE)
        except FileExistsError:
            pass
        else:
            os.chmod(path, _DIRECTORY_MODE)  # the caller's umask has no say (HH8)
        return lock_directory(path, exclusive=True)


def lease(pod: lifecycle.Pod, data_dir: str, pool: Pool) -> IdRange:
    """Give a pod, which this process holds locked, a range that no other pod has.

    Raises:
        PodError: there is none left.
    """
    with _lock(data_dir) as lock:
        taken = set(os.listdir(lock.fd))
        first = _free(pool, taken)
        if first is None:
            taken -= set(_remove_stale(lock.fd, pod.pods_dir))
            first = _free(pool, taken)
        if first is None:
            raise PodError(
                f"no range of {COUNT} ids is left for --private-users: pods have leased {len(taken)}",
                hint="rkt gc --grace-period=0s, or a larger pool (rkt help config, kind privateUsers)",
            )
        os.symlink(pod.uuid, str(first), dir_fd=lock.fd)
        ids = IdRange(first, COUNT)
        pod.write(contract.PRIVATE_USERS_PREPARED, str(ids).encode())
    return ids


def _free(pool: Pool, taken: set[str]) -> int | None:
    # A range of an earlier configuration may begin anywhere, and then reaches into two of today's.
    numbers = [int(name) for name in taken if is_number(name)]
    for base, length in pool:
        blocked = {(number - base + end) // COUNT for number in numbers for end in (0, COUNT - 1)}
        for index in range(length // COUNT):
            if index not in blocked:
                return base + index * COUNT
    return None


def confirm(pod: lifecycle.Pod, data_dir: str) -> None:
    """Make sure that a prepared pod still has its range.

    Raises:
        PodError: another pod has it, so this one must not run.
    """
    ids = read(pod)
    if ids is None:
        return
    with _lock(data_dir) as lock:
        name = str(ids.first)
        others = [
            holder
            for entry in os.listdir(lock.fd)
            if is_number(entry) and abs(int(entry) - ids.first) < ids.count
            for holder in [_holder(lock.fd, entry)]
            if holder != pod.uuid and holder is not None and lifecycle.is_anywhere(pod.pods_dir, holder)
        ]
        if others:
            raise PodError(
                f'the ids {ids} of pod "{pod.uuid}" belong to pod "{others[0]}"',
                hint="prepare the pod again",
            )
        if _holder(lock.fd, name) != pod.uuid:
            try:
                os.unlink(name, dir_fd=lock.fd)
            except FileNotFoundError:
                pass
            os.symlink(pod.uuid, name, dir_fd=lock.fd)


def read(pod: lifecycle.Pod) -> IdRange | None:
    """The range of a pod; ``None`` for one without.

    Raises:
        PodError: what the pod says of it is damaged.
    """
    text = pod.read_text(contract.PRIVATE_USERS_PREPARED)
    if text is None:
        return None
    try:
        return IdRange.parse(text)
    except ValueError as e:
        raise PodError(f'{contract.PRIVATE_USERS_PREPARED} of pod "{pod.uuid}" is damaged: {e}') from e


def release(data_dir: str, uuid: str, text: str) -> None:
    """Give back the range of a pod whose directory is gone; ``text`` is what its file said."""
    try:
        name = str(IdRange.parse(text).first)
    except ValueError:
        return  # damaged; ``sweep`` finds the link by its pod
    with _lock(data_dir) as lock:
        if _holder(lock.fd, name) == uuid:
            os.unlink(name, dir_fd=lock.fd)


def sweep(data_dir: str, pods_dir: str) -> None:
    """Give back what killed commands left."""
    with _lock(data_dir) as lock:
        _remove_stale(lock.fd, pods_dir)


def _remove_stale(fd: int, pods_dir: str) -> list[str]:
    removed = []
    for name in os.listdir(fd):
        holder = _holder(fd, name)
        if holder is None or not lifecycle.is_anywhere(pods_dir, holder):
            os.unlink(name, dir_fd=fd)
            removed.append(name)
    return removed


def _holder(fd: int, name: str) -> str | None:
    try:
        text = os.readlink(name, dir_fd=fd)
    except OSError:
        return None
    return text if PodUUID.is_uuid(text) else None

# SPDX-License-Identifier: Apache-2.0
"""All pods at once, for ``rkt list``: a thousand of them in about twenty milliseconds.

``glances`` is written for speed: a few system calls for each pod, no objects, no manifest. Pods may move or go while it
reads; one that is gone by the time it is looked at is left out.
"""

from __future__ import annotations

import fcntl
import os

from rkt.errors import RktError
from rkt.pod import lifecycle, summary
from rkt.pod.lifecycle import NAMEABLE, PREPARE, PREPARED, RUN, STATES
from rkt.stage0 import contract
from rkt.values import PodUUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    #: (UUID, state, created, started (ns, 0 for never), networks, users' name, (app, image, key)…, whether it is paused)
    Glance = tuple[str, str, int, int, str, str, list[list[str]], bool]

_open, _close, _stat, _readlink, _flock = os.open, os.close, os.stat, os.readlink, fcntl.flock
_SHARED = fcntl.LOCK_SH | fcntl.LOCK_NB
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_SUMMARY = summary.FILE.encode()
_PAUSED = contract.PAUSED.encode()
#: What reading a pod raises whose files are not what they should be.
_DAMAGED = (OSError, RktError, AttributeError, KeyError, TypeError, ValueError)


def glances(pods_dir: str, errors: list[str]) -> list[Glance]:
    """What a table shows of every pod that can be named, sorted by UUID.

    Args:
        pods_dir: ``$DATA/pods``.
        errors: gets a line for each pod that cannot be read.
    """
    found: list[Glance] = []
    apps: dict[str, list[list[str]]] = {}
    for uuid, place in _places(pods_dir):
        try:
            glance = _quick_glance(f"{pods_dir}/{place}/{uuid}", uuid, place, apps)
            if glance is None:
                glance = _slow_glance(pods_dir, uuid)
        except _DAMAGED as e:
            errors.append(_words(uuid, e))
            continue
        if glance is not None:
            found.append(glance)
    return found


def details(pods_dir: str, errors: list[str]) -> list[dict[str, Any]]:
    """The pod objects of ``--format=json``, likewise."""
    from rkt.pod import status

    found = []
    for uuid, _ in _places(pods_dir):
        try:
            pod = lifecycle.open_pod(pods_dir, PodUUID(uuid), NAMEABLE)
            if pod is not None:
                with pod:
                    found.append(status.to_json(status.examine(pod)))
        except _DAMAGED as e:
            errors.append(_words(uuid, e))
    return found


def _places(pods_dir: str) -> list[tuple[str, str]]:
    """(UUID, the place it was seen in last), sorted; read in the order of a pod's life, so that none is missed."""
    seen: dict[str, str] = {}
    # Once more at the end: pods that were started again meanwhile.
    for place in (*NAMEABLE, RUN):
        seen.update(dict.fromkeys(lifecycle.uuids_in(pods_dir, place), place))
    return sorted(seen.items())


def _words(uuid: str, e: Exception) -> str:
    if isinstance(e, RktError):
        reason = e.message
    elif isinstance(e, OSError):
        reason = f"{e.filename}: {e.strerror}"
    else:
        reason = f"a manifest is not of the expected form ({e})"
    return f'unable to read pod "{uuid}": {reason}'


def _quick_glance(path: str, uuid: str, place: str, apps: dict[str, list[list[str]]]) -> Glance | None:
    """``None`` when anything is out of the ordinary; ``apps`` remembers what was parsed before."""
    locked = False
    try:
        fd = _open(path, _DIRECTORY_FLAGS)
        try:
            if place != PREPARED:
                try:
                    # Released by close, a few microseconds later.
                    _flock(fd, _SHARED)
                except BlockingIOError:
                    locked = True
                    if place != RUN:
                        return None
                    # Running, unless it ended and was marked since the directory was read.
                    _stat(path)
                    if _has(_PAUSED, fd):
                        return None
                if place == PREPARE:
                    return None
                started_ns = _stat("pid", dir_fd=fd).st_mtime_ns
            else:
                started_ns = 0
            data = _readlink(_SUMMARY, dir_fd=fd)
            head, _, tail = data.decode().partition("\n")
            fields = head.split("\t")
            if len(fields) != 6 or fields[0] != summary.FORMAT or fields[1] != summary.VERSION:
                return None
            if fields[5] or "%" in head:
                return None
            known = apps.get(tail)
            if known is None:
                rows = summary.parse_rows(data)
                if rows is None:
                    return None
                known = apps[tail] = rows[1:]
            return uuid, STATES[place][locked], int(fields[2]), started_ns, "", fields[3], known, False
        finally:
            _close(fd)
    except (OSError, ValueError):
        # Gone, moved, unusual or broken: the slow way tells which.
        return None


def _has(name: bytes, fd: int) -> bool:
    try:
        _stat(name, dir_fd=fd)
    except FileNotFoundError:
        return False
    return True


def _slow_glance(pods_dir: str, uuid: str) -> Glance | None:
    from rkt.pod import status

    pod = lifecycle.open_pod(pods_dir, PodUUID(uuid), NAMEABLE)
    if pod is None:
        return None
    with pod:
        glance = status.read_summary(pod)
        return (
            uuid,
            pod.state,
            glance.created_ns,
            status.started_ns(pod),
            status.format_networks(status.networks(pod)),
            glance.name,
            [[app.name, app.image, app.image_id] for app in glance.apps],
            status.is_paused(pod),
        )

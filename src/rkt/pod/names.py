# SPDX-License-Identifier: Apache-2.0
"""Users' own names for pods: unique among live pods, usable wherever a UUID is.

``$DATA/pods/names/NAME`` is a symbolic link whose text is the pod's UUID. It is never followed as a path: the text is
parsed and looked up. The pod directory holds the same name in ``name``; the link is an index that decides who owns it.
A name belongs to its pod while that pod is being prepared, is prepared, or runs. Afterwards it still finds the pod, until
another pod claims the name or the pod is removed. The directory ``names`` is locked exclusively around every change.
"""

from __future__ import annotations

import os

from rkt.errors import PodError, UsageError, quoted
from rkt.linux.locks import lock_directory
from rkt.pod import lifecycle
from rkt.values import ACName, PodUUID

#: File in the pod directory.
FILE = "name"
MAX_LENGTH = 63


def parse(text: str) -> str:
    """Check a name: an AC Name of at most 63 characters that cannot be taken for a UUID.

    Raises:
        UsageError: it is not.
    """
    name = ACName.parse(text, what="pod name")
    if len(name) > MAX_LENGTH:
        raise UsageError(f"invalid pod name {quoted(text)}: longer than {MAX_LENGTH} characters")
    if PodUUID.is_uuid(name):
        raise UsageError(f"invalid pod name {quoted(text)}: it looks like a UUID")
    return name


def lookup(pods_dir: str, name: str) -> PodUUID | None:
    """The pod that claimed ``name`` last, ``None`` when nobody did; it may be gone."""
    if "/" in name or name.startswith(".") or "\0" in name:
        return None
    try:
        text = os.readlink(f"{pods_dir}/{lifecycle.NAMES}/{name}")
    except OSError:
        return None
    return PodUUID(text) if PodUUID.is_uuid(text) else None


def check_free(pods_dir: str, name: str) -> None:
    """Refuse a name that a live pod has; only under the lock of ``claim`` does the answer last.

    Raises:
        PodError: a live pod has that name.
    """
    holder = lookup(pods_dir, name)
    if holder is not None and _is_live(pods_dir, holder):
        raise PodError(f'pod name "{name}" is in use by pod "{holder}"', hint=f"rkt status {name}")


def claim(pod: lifecycle.Pod, name: str) -> None:
    """Make ``name`` stand for ``pod``, which this process holds locked.

    Raises:
        PodError: a live pod has that name.
    """
    directory = f"{pod.pods_dir}/{lifecycle.NAMES}"
    try:
        lock = lock_directory(directory, exclusive=True)
    except FileNotFoundError:
        os.makedirs(directory, lifecycle.DIRECTORY_MODE, exist_ok=True)
        lock = lock_directory(directory, exclusive=True)
    with lock:
        check_free(pod.pods_dir, name)
        # The file first: a pod that shows a name nobody else has is better than a name without a pod.
        pod.write(FILE, name.encode() + b"\n")
        _link(directory, name, pod)


def claim_again(pod: lifecycle.Pod) -> None:
    """Make its old name stand for ``pod`` again, which lives from now on, held locked by this process.

    Raises:
        PodError: a live pod has that name.
    """
    name = pod.read_text(FILE)
    if not name:
        return
    directory = f"{pod.pods_dir}/{lifecycle.NAMES}"
    with lock_directory(directory, exclusive=True):
        if lookup(pod.pods_dir, name) != pod.uuid:
            check_free(pod.pods_dir, name)
            _link(directory, name, pod)


def _link(directory: str, name: str, pod: lifecycle.Pod) -> None:
    temporary = f"{directory}/.{pod.uuid}"
    try:
        os.symlink(pod.uuid, temporary)
    except FileExistsError:
        pass  # of a claim of the same pod that was killed
    os.rename(temporary, f"{directory}/{name}")


def release(pod: lifecycle.Pod) -> None:
    """Give up the name of a pod that is being removed, unless another pod has claimed it since."""
    name = pod.read_text(FILE)
    if not name:
        return
    directory = f"{pod.pods_dir}/{lifecycle.NAMES}"
    try:
        lock = lock_directory(directory, exclusive=True)
    except FileNotFoundError:
        return
    with lock:
        if lookup(pod.pods_dir, name) == pod.uuid:
            os.unlink(f"{directory}/{name}")


def sweep(pods_dir: str) -> None:
    """Remove links whose pod is gone, and what a killed ``claim`` left."""
    directory = f"{pods_dir}/{lifecycle.NAMES}"
    try:
        if not os.listdir(directory):
            return
        lock = lock_directory(directory, exclusive=True)
    except FileNotFoundError:
        return
    with lock:
        for name in os.listdir(directory):
            holder = lookup(pods_dir, name)
            if holder is None or not lifecycle.is_anywhere(pods_dir, holder):
                os.unlink(f"{directory}/{name}")


def _is_live(pods_dir: str, uuid: PodUUID) -> bool:
    pod = lifecycle.open_pod(pods_dir, uuid)
    if pod is None:
        return False
    with pod:
        return pod.place == lifecycle.PREPARED or (
            pod.locked and pod.place in {lifecycle.PREPARE, lifecycle.RUN}
        )

# SPDX-License-Identifier: Apache-2.0
"""Which images pods need: read from the pods' own directories, the only place that knows. And which layers fetches need."""

from __future__ import annotations

import os

from rkt.errors import InvalidManifest
from rkt.values import ImageKey, TreeID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Directories of pods that still use, or may yet use, the layers they refer to.
LAYER_STATES = ("embryo", "prepare", "prepared", "run", "exited-garbage")
#: Directories of pods whose images are not to be taken from the store by ``image gc``.
IMAGE_STATES = ("embryo", "prepare", "prepared", "run")
#: Directory in staging with an empty file for each layer of the store that the operation needs (``store.oci``).
PINS = "pins"
#: More layers than any image may have.
_KEY_FILE_BYTES = 1 << 16


def referenced_keys(data_dir: str, states: Iterable[str] = LAYER_STATES) -> set[ImageKey | TreeID]:
    """Images and rendered trees that pods in these states refer to.

    Of stage1 by ``stage1TreeStoreID`` and ``stage1/layers``, of each app by ``treeStoreID`` and ``layers`` in ``appsinfo``,
    of each volume that is an image by those in ``imageVolumes``.

    The caller holds the prepare lock exclusively, so that no pod is between look-up and reference. A pod may still be
    renamed to a later state meanwhile; the states are read in the order of that life, so it is seen at least once.
    """
    keys: set[ImageKey | TreeID] = set()
    for state in states:
        state_path = f"{data_dir}/pods/{state}"
        for pod in entries(state_path):
            keys.update(_pod_keys(f"{state_path}/{pod}"))
    return keys


def needed_keys(data_dir: str) -> set[ImageKey | TreeID]:
    """Layers that pods refer to, and those that fetches which are under way found in the store.

    The caller holds the prepare lock exclusively.
    """
    keys = referenced_keys(data_dir)
    for name in entries(f"{data_dir}/cas/tmp"):
        for pin in entries(f"{data_dir}/cas/tmp/{name}/{PINS}"):
            keys.add(ImageKey.parse(pin))
    return keys


def running_keys(data_dir: str) -> set[ImageKey | TreeID]:
    """What pods use at this moment: those whose directory is locked by the process that runs them."""
    import fcntl

    keys: set[ImageKey | TreeID] = set()
    state_path = f"{data_dir}/pods/run"
    for pod in entries(state_path):
        try:
            fd = os.open(f"{state_path}/{pod}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            continue  # collected since
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            keys.update(_pod_keys(f"{state_path}/{pod}"))
        finally:
            os.close(fd)
    return keys


def parse_layer(text: str) -> ImageKey | TreeID:
    """A line of a pod's ``layers``.

    Raises:
        InvalidManifest: neither an image's key nor a tree's ID.
    """
    return TreeID.parse(text) if text.startswith("deps-") else ImageKey.parse(text)


def _pod_keys(pod_path: str) -> Iterator[ImageKey | TreeID]:
    yield from _file_keys(f"{pod_path}/stage1TreeStoreID")
    yield from _file_keys(f"{pod_path}/stage1/layers")
    for app in entries(f"{pod_path}/appsinfo"):
        yield from _file_keys(f"{pod_path}/appsinfo/{app}/treeStoreID")
        yield from _file_keys(f"{pod_path}/appsinfo/{app}/layers")
    for volume in entries(f"{pod_path}/imageVolumes"):
        yield from _file_keys(f"{pod_path}/imageVolumes/{volume}/treeStoreID")
        yield from _file_keys(f"{pod_path}/imageVolumes/{volume}/layers")


def _file_keys(path: str) -> Iterator[ImageKey | TreeID]:
    """The keys in a file, one per line."""
    try:
        with open(path, "rb") as file:
            lines = file.read(_KEY_FILE_BYTES).split()
    except (FileNotFoundError, NotADirectoryError):
        return
    for line in lines:
        try:
            yield parse_layer(line.decode())
        except (InvalidManifest, UnicodeDecodeError):
            # Half written by a killed prepare: that pod can never start, so nothing is kept for it.
            continue


def entries(path: str) -> list[str]:
    """Names in a directory; none when it is not there."""
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []

# SPDX-License-Identifier: Apache-2.0
"""Which images pods need: read from the pods' own directories, the only place that knows."""

from __future__ import annotations

import os

from rkt.errors import InvalidManifest
from rkt.values import ImageKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Directories of pods that still use, or may yet use, the layers they refer to.
LAYER_STATES = ("embryo", "prepare", "prepared", "run", "exited-garbage")
#: Directories of pods whose images are not to be taken from the store by ``image gc``.
IMAGE_STATES = ("embryo", "prepare", "prepared", "run")
_KEY_FILE_BYTES = 256


def referenced_keys(data_dir: str, states: Iterable[str] = LAYER_STATES) -> set[ImageKey]:
    """Keys that pods in these states refer to, by ``stage1TreeStoreID`` and ``appsinfo/*/treeStoreID``.

    The caller holds the prepare lock exclusively, so that no pod is between look-up and reference. A pod may still be
    renamed to a later state meanwhile; the states are read in the order of that life, so it is seen at least once.
    """
    keys: set[ImageKey] = set()
    for state in states:
        state_path = f"{data_dir}/pods/{state}"
        for pod in _entries(state_path):
            keys.update(_pod_keys(f"{state_path}/{pod}"))
    return keys


def _pod_keys(pod_path: str) -> Iterator[ImageKey]:
    for path in (
        f"{pod_path}/stage1TreeStoreID",
        *(f"{pod_path}/appsinfo/{app}/treeStoreID" for app in _entries(f"{pod_path}/appsinfo")),
    ):
        try:
            with open(path, "rb") as file:
                text = file.read(_KEY_FILE_BYTES)
            yield ImageKey.parse(text.decode().strip())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (InvalidManifest, UnicodeDecodeError):
            # Half written by a killed prepare: that pod can never start, so nothing is kept for it.
            continue


def _entries(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []

# SPDX-License-Identifier: Apache-2.0
"""A pod's cgroups: what they are called, and finding them again in a later process."""

from __future__ import annotations

from rkt.errors import Stage1Error
from rkt.linux import cgroup, cgroupfs, files
from rkt.stage0 import contract

#: Cgroup of pid 1 below the pod's; no app can be called so.
INIT_GROUP = "rkt.init"
_RECORD_BYTES = 64 << 10


def group_name(uuid: str) -> str:
    """Name of a pod's cgroups."""
    return f"rkt-{uuid}"


def open_groups(uuid: str) -> cgroup.Group:
    """The cgroups of the pod whose directory is the working directory, by their record.

    Raises:
        OSError: there is no record.
        ValueError: it is damaged.
    """
    record = files.read_bounded(contract.SUBCGROUP, _RECORD_BYTES).decode()
    return cgroup.open_pod(cgroupfs.detect(), record, group_name(uuid))


def find_groups(uuid: str) -> cgroup.Group:
    """Likewise, and wherever they are when there is no record.

    Raises:
        Stage1Error: it is damaged.
    """
    try:
        return open_groups(uuid)
    except FileNotFoundError:
        # Killed between making its cgroups and writing down where they are, or before either.
        return cgroup.search_pod(cgroupfs.detect(), group_name(uuid))
    except ValueError as e:
        raise Stage1Error(f"{contract.SUBCGROUP} of pod {uuid} is damaged: {e}") from e

# SPDX-License-Identifier: Apache-2.0
"""Freezing the processes of a cgroup and of all below it: by version 2, or by the ``freezer`` controller of version 1.

Source: Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst, Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import errno
import os
import time

from rkt.linux import cgroupfs
from rkt.linux.cgroup import FREEZER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.linux.cgroup import Group


def freezer_of(group: Group) -> tuple[int, str] | None:
    """Version and file by which the group and all below it are frozen; None where the host has none.

    In version 1 a frozen process does not even die before it goes on.
    """
    own = group.unified_directory
    if own is not None and os.path.exists(f"{own}/cgroup.freeze"):
        return 2, f"{own}/cgroup.freeze"
    found = group.find(FREEZER)
    return (1, f"{found[1]}/freezer.state") if found is not None else None


def freeze(group: Group, timeout_seconds: float = 10.0) -> bool:
    """Stop every process in the group and below it where it is; False when some could not be stopped in time.

    Raises:
        OSError: ``ENOTSUP`` without a freezer, or what the kernel says.
    """
    found = freezer_of(group)
    if found is None:
        raise OSError(errno.ENOTSUP, "no freezer in any cgroup hierarchy", group.name)
    version, path = found
    deadline = time.monotonic() + timeout_seconds
    cgroupfs.write(path, b"1" if version == 2 else b"FROZEN")
    while not (
        "frozen 1" in cgroupfs.read(f"{group.unified_directory}/cgroup.events").splitlines()
        if version == 2
        else cgroupfs.read(path).strip() == "FROZEN"
    ):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
        if version == 1:
            # Processes that were being forked are frozen by another attempt (freezer-subsystem.txt).
            cgroupfs.write(path, b"FROZEN")
    return True


def thaw(group: Group) -> None:
    """Let the processes of the group go on."""
    found = freezer_of(group)
    if found is not None:
        cgroupfs.write_if_there(found[1], b"0" if found[0] == 2 else b"THAWED")


def is_frozen(group: Group) -> bool:
    """Whether the group's processes are to stand still."""
    found = freezer_of(group)
    return found is not None and cgroupfs.read(found[1]).strip() not in {"0", "THAWED"}

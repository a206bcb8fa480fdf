# SPDX-License-Identifier: Apache-2.0
"""Version 2: which controllers the children of a cgroup get, and where there is room for a pod's.

Source: Documentation/admin-guide/cgroup-v2.rst, "Controlling Controllers".
"""

from __future__ import annotations

import errno
import os

from rkt.linux import cgroupfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.linux.cgroupfs import Hierarchy


def make_room(
    hierarchy: Hierarchy, directory: str, path: str, leaf: str, wanted: Sequence[str], warnings: list[str]
) -> tuple[str, str]:
    """Find where a pod's group gets its controllers.

    Args:
        hierarchy: that of version 2.
        directory: of the caller's cgroup, where the search begins; ``path`` is its path in the hierarchy.
        path: see ``directory``.
        leaf: name of the cgroup to which the caller moves itself when it alone is in the way.
        wanted: the controllers; those that the host does not have in version 2 are left out.
        warnings: gets a sentence when there is no room.
    Returns:
        Directory and path of the cgroup to be the parent; ``leaf`` is there only if it is the caller's own.
    Raises:
        OSError: the caller cannot move aside; nothing of it is left.
    """
    start = directory, path
    available = cgroupfs.read(f"{hierarchy.mount_point}/cgroup.controllers").split()
    needed = [item for item in wanted if item in available]
    if not needed:
        return start
    is_aside = False
    while True:
        try:
            enable(directory, needed, hierarchy.mount_point)
            return directory, path
        except OSError as e:
            if is_aside:
                # Somebody came between the look and the move: a leaf beside which there is no pod, nobody would remove.
                _move_back(directory, leaf, warnings)
            if e.errno != errno.EBUSY:
                warnings.append(f"no controllers below {directory}: {e.strerror}")
                return start
        if not is_aside and cgroupfs.read(f"{directory}/cgroup.procs").split() == [str(os.getpid())]:
            _move_aside(directory, leaf)
            is_aside = True
            continue
        is_aside = False
        if directory == hierarchy.mount_point:
            warnings.append(f"no controllers below {start[0]}: other processes are in the way")
            return start
        directory, path = directory.rpartition("/")[0], path.rpartition("/")[0]


def _move_aside(directory: str, leaf: str) -> None:
    try:
        os.mkdir(f"{directory}/{leaf}", 0o755)
    except FileExistsError:
        pass
    try:
        cgroupfs.write(f"{directory}/{leaf}/cgroup.procs", b"0")
    except BaseException:
        os.rmdir(f"{directory}/{leaf}")
        raise


def _move_back(directory: str, leaf: str, warnings: list[str]) -> None:
    try:
        cgroupfs.write(f"{directory}/cgroup.procs", b"0")
        os.rmdir(f"{directory}/{leaf}")
    except OSError as e:
        warnings.append(f"{directory}/{leaf} is left: {e.strerror}")


def enable(directory: str, wanted: Sequence[str], mount_point: str) -> None:
    """Give controllers to the children of a cgroup, from the root down where needed.

    Raises:
        OSError: ``EBUSY`` where processes are in the way, or what the kernel says.
    """
    have = cgroupfs.read(f"{directory}/cgroup.subtree_control").split()
    missing = [item for item in wanted if item not in have]
    if not missing:
        return
    offered = cgroupfs.read(f"{directory}/cgroup.controllers").split()
    absent = [item for item in missing if item not in offered]
    if absent and directory != mount_point:
        enable(directory.rpartition("/")[0], absent, mount_point)
        offered = cgroupfs.read(f"{directory}/cgroup.controllers").split()
    missing = [item for item in missing if item in offered]
    if missing:
        cgroupfs.write(
            f"{directory}/cgroup.subtree_control", " ".join([f"+{item}" for item in missing]).encode()
        )

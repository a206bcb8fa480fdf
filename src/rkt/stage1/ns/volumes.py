# SPDX-License-Identifier: Apache-2.0
"""Volumes: from a paired mount to a detached mount that the app's child attaches (spec runtime §3.10)."""

from __future__ import annotations

import errno
import os

from rkt.errors import Stage1Error
from rkt.linux import libc
from rkt.stage0 import contract
from rkt.stage1.common import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.linux.userns import UserNamespace
    from rkt.schema.mounts import PairedMount


def attach_volume(mount: PairedMount, users: UserNamespace | None = None) -> steps.Step:
    """A detached copy of the volume's source, to be attached in the child.

    With ``users``, ids on disk are those inside the pod; where the file system cannot do that, a notice says so, and what
    is root's there is nobody's in the pod.
    """
    attributes = libc.MOUNT_ATTR_NOSUID | (libc.MOUNT_ATTR_RDONLY if mount.read_only else 0)
    source = mount.source
    if source is None:
        source = f"{contract.SHARED_VOLUMES}/{mount.name}"
        uid, gid = mount.uid, mount.gid
        if users is not None:
            uid, gid = users.ids.outside(uid), users.ids.outside(gid)
        _make_empty_volume(source, mount.mode, uid, gid)
    try:
        source_fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
    except OSError as e:
        # systemd-nspawn's words, which rkt's users and tests know.
        raise Stage1Error(
            f"Failed to stat {source}: {os.strerror(e.errno or 0)}",
            hint=f"create it, or change the source of volume {mount.name}",
        ) from e
    try:
        kind = os.fstat(source_fd).st_mode & 0o170000
        if kind not in {0o020000, 0o060000}:
            attributes |= libc.MOUNT_ATTR_NODEV
        depth = libc.AT_RECURSIVE if mount.recursive else 0
        tree = libc.open_tree(source_fd, b"", libc.OPEN_TREE_CLONE | libc.AT_EMPTY_PATH | depth)
        libc.mount_setattr(tree, b"", libc.AT_EMPTY_PATH | depth, set_=attributes)
        if users is not None and mount.source is not None and kind in {0o040000, 0o100000}:
            from rkt.stage1.ns.users import map_volume

            map_volume(tree, users, depth, f"volume {mount.name!r}: {source}")
    except OSError as e:
        if e.errno == errno.EINVAL:
            raise Stage1Error(f"volume {mount.name!r}: {source} cannot be bind mounted") from e
        raise
    finally:
        os.close(source_fd)
    return steps.AttachTree(tree, mount.path.encode(), is_directory=kind == 0o040000, name=mount.name)


def _make_empty_volume(path: str, mode: int, uid: int, gid: int) -> None:
    os.makedirs(contract.SHARED_VOLUMES, mode=0o755, exist_ok=True)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)

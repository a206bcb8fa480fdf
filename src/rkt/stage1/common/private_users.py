# SPDX-License-Identifier: Apache-2.0
"""The pod's user namespace in stage1; imported only by pods that have one (invariant RN19).

Pid 1 is born in it, together with the namespaces that it owns. The supervisor stays outside. An app's child makes the
app's mounts with the host's rights, in a mount namespace that belongs to the host, as the owner of the pod's files; then
it joins, and from there on nothing of what it mounted can be changed from inside, whatever capabilities an app keeps.
"""

from __future__ import annotations

import errno
import os

from rkt.errors import Stage1Error
from rkt.linux import libc, userns
from rkt.linux.userns import IdRange, UserNamespace
from rkt.stage1.common.say import say
from rkt.stage1.common.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rkt.stage2.exec import ExecPlan

#: A file system that cannot be mapped, one that is mapped already, a kernel that cannot.
_CANNOT_MAP = frozenset((errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP))


def parse_ids(text: str) -> IdRange:
    """The value of ``--private-users``.

    Raises:
        Stage1Error: it is no range of ids.
    """
    try:
        return IdRange.parse(text)
    except ValueError as e:
        raise Stage1Error(f"invalid value {text!r} of --private-users") from e


def open_users(pid: int, ids: IdRange) -> UserNamespace:
    """The pod's user namespace, by its first process."""
    return UserNamespace(ids, os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC))


def check_ids(name: str, plan: ExecPlan, ids: IdRange) -> None:
    """Refuse an app whose ids the pod does not have.

    Raises:
        Stage1Error: naming the app and the id.
    """
    for what, number in (
        ("user", plan.uid),
        ("group", plan.gid),
        *(("supplementary group", gid) for gid in plan.groups),
    ):
        if number >= ids.count:
            raise Stage1Error(
                f"app {name!r}: {what} {number} is outside the ids of the pod, 0 to {ids.count - 1}",
                hint="rkt run without --private-users",
            )


def give(paths: Iterable[str], ids: IdRange) -> None:
    """Make files of the engine's own the pod's root's."""
    for path in paths:
        os.chown(path, ids.first, ids.first, follow_symlinks=False)


def map_volume(tree_fd: int, users: UserNamespace, depth: int, what: str) -> None:
    """Show a detached mount with ids on disk as ids of the pod, as far as its file systems can.

    What cannot be mapped stays as it is: files of others than the pod's ids are nobody's there, which gives the pod less,
    never more. So it is a notice, not an error.

    Args:
        tree_fd: detached mount.
        users: the pod's.
        depth: ``AT_RECURSIVE`` when there may be mounts below, else 0.
        what: names the volume in the notice.
    """
    flags = libc.AT_EMPTY_PATH
    try:
        libc.mount_setattr(tree_fd, b"", flags | depth, set_=libc.MOUNT_ATTR_IDMAP, userns_fd=users.idmap_fd)
    except OSError as e:
        if e.errno not in _CANNOT_MAP:
            raise
    else:
        return
    part = "its files"
    if depth:
        try:
            libc.mount_setattr(tree_fd, b"", flags, set_=libc.MOUNT_ATTR_IDMAP, userns_fd=users.idmap_fd)
            part = "files of mounts below it"
        except OSError as e:
            if e.errno not in _CANNOT_MAP:
                raise
    say(f"{what}: {part} belong to nobody in the pod, the file system cannot map ids")


class OwnFiles(Step):
    """What is made from here on belongs to the pod's root; the rights of the host's root stay."""

    __slots__ = ("ids",)

    def __init__(self, ids: IdRange) -> None:
        self.ids = ids

    def describe(self) -> str:
        """See ``Step``."""
        return f"own files as {self.ids.first}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        userns.assume_owner(self.ids.first)


class Give(Step):
    """Make a directory of the app's own ``/dev``, which the kernel made root's, the pod's root's."""

    __slots__ = ("ids", "path")

    def __init__(self, path: bytes, ids: IdRange) -> None:
        self.path = path
        self.ids = ids

    def describe(self) -> str:
        """See ``Step``."""
        return f"give /{os.fsdecode(self.path)} to {self.ids.first}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        os.chown(self.path, self.ids.first, self.ids.first, dir_fd=root_fd, follow_symlinks=False)


class JoinUsers(Step):
    """Join the pod's user namespace, where the process has every capability over what is the pod's, and none beyond.

    Until it executes something, no process of the pod may look into this one, which still remembers the host
    (CVE-2016-8649).
    """

    __slots__ = ("users",)

    def __init__(self, users: UserNamespace) -> None:
        self.users = users

    def describe(self) -> str:
        """See ``Step``."""
        return f"join the user namespace {self.users.ids}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        libc.prctl(libc.PR_SET_DUMPABLE, 0)
        # A terminal that is opened from here on must be somebody's whom the namespace knows.
        userns.assume_owner(self.users.ids.first)
        libc.setns(self.users.idmap_fd, libc.CLONE_NEWUSER)

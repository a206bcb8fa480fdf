# SPDX-License-Identifier: Apache-2.0
"""The host's view, for a process that is in the pod's: where plugins run, and where network namespaces are mounted.

stage1 works in a mount namespace of the pod's own, out of which no mount gets. A network namespace has to be seen by the
plugins' own daemons, by ``ip netns``, and after the pod was killed by whoever takes it back; so that one mount is made
where stage0 came from. Children, too, must be born outside the pod: its pid namespace may have ended.
"""

from __future__ import annotations

import errno
import os

from rkt.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class HostView:
    """Namespaces of the host, entered by ``with``; afterwards everything is as it was.

    All that runs inside must have been imported before: stage1's files may be where only the pod sees them.
    """

    __slots__ = ("_back", "_directory", "_places", "_root")

    def __init__(self, mounts_fd: int = -1) -> None:
        """Remember where the caller is; to be called before it enters the pod.

        Args:
            mounts_fd: of the host's mount namespace, -1 for the caller's own; owned by this object.
        """
        if mounts_fd < 0:
            mounts_fd = _open("mnt")
        os.set_inheritable(mounts_fd, False)
        self._places = [
            (_open("pid"), libc.CLONE_NEWPID),
            (_open("net"), libc.CLONE_NEWNET),
            (mounts_fd, libc.CLONE_NEWNS),
        ]
        self._back: list[tuple[int, int]] = []
        self._directory = self._root = -1

    def close(self) -> None:
        """Close the descriptors."""
        for fd, _ in self._places:
            os.close(fd)
        self._places = []

    def __enter__(self) -> Self:
        self._directory, self._root = (
            os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in (".", "/")
        )
        self._back = [(_open("net"), libc.CLONE_NEWNET), (_open("mnt"), libc.CLONE_NEWNS)]
        try:
            self._back.append((_open("pid_for_children"), libc.CLONE_NEWPID))
        except FileNotFoundError:
            pass  # the pod's pid namespace has no process yet, or none any more
        for fd, flag in self._places:
            libc.setns(fd, flag)
        _stay_below(self._root)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd, flag in self._back:
            libc.setns(fd, flag)
            os.close(fd)
        os.fchdir(self._root)
        os.chroot(".")
        os.fchdir(self._directory)
        for fd in (self._root, self._directory):
            os.close(fd)
        self._back = []


def _stay_below(root_fd: int) -> None:
    """Go to the root that the caller had in its mount namespace: joining one leads to the uppermost, also from below a chroot.

    Raises:
        OSError: there is no such directory.
    """
    root = os.fstat(root_fd)
    if os.path.samestat(root, os.stat("/")):
        return
    # Of a directory that is not below the root the kernel says where it is in its own mount namespace, a copy of this one.
    path = os.readlink(f"/proc/self/fd/{root_fd}")
    if not os.path.samestat(root, os.stat(path)):
        raise FileNotFoundError(errno.ENOENT, "the root directory is not found among the host's mounts", path)
    os.chroot(path)
    os.chdir("/")


def _open(kind: str) -> int:
    return os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)

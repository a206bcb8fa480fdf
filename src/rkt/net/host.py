# SPDX-License-Identifier: Apache-2.0
"""The host's view, for a process that is in the pod's: where plugins run, and where network namespaces are mounted.

stage1 works in a mount namespace of the pod's own, out of which no mount gets. A network namespace has to be seen by the
plugins' own daemons, by ``ip netns``, and after the pod was killed by whoever takes it back; so that one mount is made
where stage0 came from. Children, too, must be born outside the pod: its pid namespace may have ended.
"""

from __future__ import annotations

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

    __slots__ = ("_back", "_directory", "_host_root", "_places", "_root")

    def __init__(self, mounts_fd: int = -1, root_fd: int = -1) -> None:
        """Remember where the caller is; to be called before it enters the pod.

        Args:
            mounts_fd: of the host's mount namespace, -1 for the caller's own; owned by this object.
            root_fd: of the root directory to have there, -1 for the caller's own; likewise.
        """
        if mounts_fd < 0:
            mounts_fd = _open("mnt")
        self._host_root = root_fd if root_fd >= 0 else _open_directory("/")
        for fd in (mounts_fd, self._host_root):
            os.set_inheritable(fd, False)
        self._places = [
            (_open("pid"), libc.CLONE_NEWPID),
            (_open("net"), libc.CLONE_NEWNET),
            (mounts_fd, libc.CLONE_NEWNS),
        ]
        self._back: list[tuple[int, int]] = []
        self._directory = self._root = -1

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self._host_root, *(fd for fd, _ in self._places)):
            os.close(fd)
        self._places = []

    def __enter__(self) -> Self:
        self._directory, self._root = _open_directory("."), _open_directory("/")
        self._back = [(_open("net"), libc.CLONE_NEWNET), (_open("mnt"), libc.CLONE_NEWNS)]
        try:
            self._back.append((_open("pid_for_children"), libc.CLONE_NEWPID))
        except FileNotFoundError:
            pass  # the pod's pid namespace has no process yet, or none any more
        try:
            for fd, flag in self._places:
                libc.setns(fd, flag)
            # Joining a mount namespace leads to its uppermost root, also from below a chroot.
            _enter_root(self._host_root)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd, flag in self._back:
            libc.setns(fd, flag)
            os.close(fd)
        _enter_root(self._root)
        os.fchdir(self._directory)
        for fd in (self._root, self._directory):
            os.close(fd)
        self._back = []


def _enter_root(fd: int) -> None:
    os.fchdir(fd)
    os.chroot(".")


def _open(kind: str) -> int:
    return os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def _open_directory(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

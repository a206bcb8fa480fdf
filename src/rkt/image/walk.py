# SPDX-License-Identifier: Apache-2.0
"""Walking below one directory descriptor, component by component, following nothing (invariants UN1, UN2, UN13)."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self, TypeAlias

    #: Components of a path below the root: no empty ones, no ``.``, no ``..``.
    Path: TypeAlias = tuple[bytes, ...]

#: Directories held open at most; what is deeper is walked to each time. Two stacks fit the workers' limit of files.
_MAX_HELD = 64
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Open a regular file, whatever somebody put in its place.
READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class DirectoryStack:
    """The directories on the way to the one used last, held open.

    Archives and walks stay in one directory for a while, so most calls open nothing. Below ``_MAX_HELD`` levels only the
    last directory is held. Each component is opened below
    the one before with ``O_NOFOLLOW | O_DIRECTORY``: a symbolic link is an error wherever it stands.
    """

    __slots__ = ("_deep_fd", "_fds", "_missing", "_names", "_root_fd")

    def __init__(self, root_fd: int, missing: Callable[[int, Path], None] | None = None) -> None:
        """Prepare.

        Args:
            root_fd: stays the caller's.
            missing: called with (descriptor of the parent, path) to make a directory that is not there.
        """
        self._root_fd = root_fd
        self._missing = missing
        self._names: list[bytes] = []
        self._fds: list[int] = []
        self._deep_fd = -1

    def enter(self, path: Path) -> int:
        """Descriptor (``O_PATH``) of a directory, valid until the next call.

        Raises:
            OSError: ``ENOENT``, or ``ENOTDIR`` when a component is something else than a directory.
        """
        names = self._names
        common = 0
        for have, want in zip(names, path, strict=False):
            if have != want:
                break
            common += 1
        while len(names) > common:
            names.pop()
            os.close(self._fds.pop())
        fd = self._fds[-1] if self._fds else self._root_fd
        for depth in range(common, len(path)):
            fd = self._open(fd, path, depth)
            if depth < _MAX_HELD:
                self._fds.append(fd)
                names.append(path[depth])
            else:
                self._close_deep()
                self._deep_fd = fd
        return fd

    def _open(self, parent_fd: int, path: Path, depth: int) -> int:
        try:
            return os.open(path[depth], _DIRECTORY, dir_fd=parent_fd)
        except FileNotFoundError:
            if self._missing is None:
                raise
        self._missing(parent_fd, path[: depth + 1])
        return os.open(path[depth], _DIRECTORY, dir_fd=parent_fd)

    def _close_deep(self) -> None:
        if self._deep_fd >= 0:
            os.close(self._deep_fd)
            self._deep_fd = -1

    def close(self) -> None:
        """Close what is held open."""
        self._close_deep()
        self._names.clear()
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

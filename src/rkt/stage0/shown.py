# SPDX-License-Identifier: Apache-2.0
"""What overlayfs will show of layers that are not mounted: links, whiteouts and opaque directories are honoured.

Images decide what lies in layers, so a way through them has a bound, and nothing is followed but by looking at it first.
"""

from __future__ import annotations

import errno
import os
import stat

from rkt.image.marks import OPAQUE_ATTRIBUTE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: Components and links on the way to one file.
_MAX_STEPS = 256
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class ShownRoot:
    """The root of an app that does not run."""

    def __init__(self, layers: Sequence[str]) -> None:
        """Nothing is opened yet.

        Args:
            layers: directories, the topmost first.
        """
        self._layers = layers
        self._steps = 0

    def open(self, path: bytes, flags: int) -> int:
        """Open a file as ``openat2`` with ``RESOLVE_IN_ROOT`` would in the mounted root.

        Args:
            path: below the root.
            flags: ``O_NOFOLLOW`` is about the last component.
        Raises:
            OSError: there is no such file, or the way to it is too long (``ELOOP``).
        """
        self._steps = 0
        fds = self._walk(path, follow=not flags & os.O_NOFOLLOW)
        try:
            if flags & os.O_PATH:
                return os.dup(fds[0])
            return os.open(f"/proc/self/fd/{fds[0]}", flags & ~os.O_NOFOLLOW | os.O_CLOEXEC)
        finally:
            _close(fds)

    def _walk(self, path: bytes, *, follow: bool) -> list[int]:
        """Descriptors of what makes up the file: one, or for a directory one of each layer that shows in it."""
        done: list[bytes] = []
        left = _components(path)
        here = self._top()
        try:
            while left:
                name = left.pop(0)
                self._count()
                if name == b"..":
                    _close(here)
                    here = []
                    here = self._again(done[:-1])
                    done = done[:-1]
                    continue
                below = _look_up(here, name)
                if stat.S_ISLNK(os.fstat(below[0]).st_mode) and (left or follow):
                    try:
                        target = os.readlink(b"", dir_fd=below[0])
                    finally:
                        _close(below)
                    if target.startswith(b"/"):
                        _close(here)
                        here = []
                        here, done = self._top(), []
                    left = [*_components(target), *left]
                    continue
                _close(here)
                here = below
                done.append(name)
        except BaseException:
            _close(here)
            raise
        return here

    def _again(self, names: list[bytes]) -> list[int]:
        """The way to a directory that was come through before."""
        here = self._top()
        for name in names:
            try:
                self._count()
                below = _look_up(here, name)
            finally:
                _close(here)
            here = below
        return here

    def _top(self) -> list[int]:
        fds: list[int] = []
        try:
            for path in self._layers:
                fds.append(os.open(path, _LOOK | os.O_DIRECTORY))
                if _is_opaque(fds[-1]):
                    break
        except OSError:
            _close(fds)
            raise
        return fds

    def _count(self) -> None:
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _look_up(directories: list[int], name: bytes) -> list[int]:
    """What a name in a directory stands for; ``directories`` are its parts, the topmost first."""
    found: list[int] = []
    try:
        for directory in directories:
            try:
                fd = os.open(name, _LOOK, dir_fd=directory)
            except FileNotFoundError:
                continue
            status = os.fstat(fd)
            if not stat.S_ISDIR(status.st_mode):
                is_gone = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
                if found or is_gone:
                    os.close(fd)
                else:
                    found.append(fd)
                break
            found.append(fd)
            if _is_opaque(fd):
                break
    except OSError:
        _close(found)
        raise
    if not found:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(name))
    return found


def _is_opaque(fd: int) -> bool:
    try:
        # A descriptor by O_PATH has no attributes, what it leads to has.
        return os.getxattr(f"/proc/self/fd/{fd}", OPAQUE_ATTRIBUTE) == b"y"
    except OSError as e:
        if e.errno in {errno.ENODATA, errno.EOPNOTSUPP}:
            return False
        raise


def _components(path: bytes) -> list[bytes]:
    return [name for name in path.split(b"/") if name not in {b"", b"."}]


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)

# SPDX-License-Identifier: Apache-2.0
"""Directories that layers only imply, by entries below them, and whose mode and owner lower layers know.

A tar may have ``a/b`` without an entry ``a``. Laid over a lower layer with its own ``a``, the directory that unpacking had to
make would cover that one's mode, owner and attributes. So the image gets one more layer on top, of directories only, as
they must look: what somebody who unpacked all layers into one directory would have.
"""

from __future__ import annotations

import errno
import os
import stat

from rkt.errors import ImageError
from rkt.image.marks import IMPLIED_LOOK
from rkt.image.tarformat import show
from rkt.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.image.marks import Marks
    from rkt.image.walk import Path

_RESOLVE = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS | libc.RESOLVE_NO_MAGICLINKS
_LOOK = os.O_PATH | os.O_NOFOLLOW
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
#: What a layer has at a path: nothing, a directory, or what hides it in lower layers.
_NOTHING, _DIRECTORY, _HIDDEN = range(3)


class Lower:
    """A layer.

    Attributes:
        root_fd: its ``rootfs``.
        marks: what is known of it.
    """

    __slots__ = ("marks", "root_fd")

    def __init__(self, root_fd: int, marks: Marks) -> None:
        self.root_fd = root_fd
        self.marks = marks

    def look(self, path: Path) -> int:
        """What there is at a path.

        Raises:
            ImageError: neither a directory nor a whiteout.
        """
        try:
            fd = libc.openat2(self.root_fd, b"/".join(path) or b".", _LOOK, _RESOLVE)
        except OSError as e:
            if e.errno == errno.ENOENT:
                above = (path[:end] for end in range(len(path)))
                return _HIDDEN if any(each in self.marks.opaque for each in above) else _NOTHING
            if e.errno in {errno.ENOTDIR, errno.ELOOP}:
                return _HIDDEN  # the directory above it is implied, or replaced what is there: it is judged itself
            raise
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        if stat.S_ISDIR(status.st_mode):
            return _DIRECTORY
        if stat.S_ISCHR(status.st_mode):
            return _HIDDEN
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no directory"
        raise ImageError(
            f"a layer has entries below {show(b'/'.join(path))!r}, which is {what} in a lower layer, "
            "and has no entry for the directory itself"
        )

    def hides_below(self, path: Path) -> bool:
        """Whether nothing of lower layers is left of a directory that this layer has."""
        return any(path[:end] in self.marks.opaque for end in range(len(path)))


def owner(layers: Sequence[Lower], path: Path) -> tuple[int, int]:
    """Which layer knows mode and owner of a directory: the topmost that has an entry for it, else the topmost.

    Args:
        layers: the topmost first.
        path: of a directory that some layer has.
    Returns:
        its index, and that of the topmost layer that has the directory; -1 when the path is no directory in the end.
    Raises:
        ImageError: one layer implies it, and a lower one has something else there.
    """
    first = -1
    for index, layer in enumerate(layers):
        try:
            found = layer.look(path)
        except ImageError:
            if first < 0:
                break
            raise
        if found == _NOTHING:
            continue
        if found == _HIDDEN:
            break
        first = index if first < 0 else first
        if path not in layer.marks.implied:
            return index, first
        if layer.hides_below(path):
            break
    return first, first


def missing_parents(layers: Sequence[Lower]) -> dict[Path, int]:
    """Directories that must be on top of all layers.

    Args:
        layers: the topmost first.
    Returns:
        path -> index of the layer whose directory of that name it must look like; a directory before what is in it.
    Raises:
        ImageError: as ``owner``.
    """
    wrong = []
    for path in {path for layer in layers[:-1] for path in layer.marks.implied}:
        index, first = owner(layers, path)
        if index != first and _is_special(layers[index], path):
            wrong.append(path)
    found: dict[Path, int] = {}
    for path in sorted(wrong):
        # Those on the way are made too, so they must not look as made.
        for end in range(len(path) + 1):
            if path[:end] not in found:
                found[path[:end]], _ = owner(layers, path[:end])
    return found


def _is_special(layer: Lower, path: Path) -> bool:
    """Whether a directory looks different from an implied one; nobody asks for its time."""
    fd = libc.openat2(layer.root_fd, b"/".join(path) or b".", _OPEN, _RESOLVE)
    try:
        return _look(fd) != IMPLIED_LOOK or bool(_attributes(fd))
    finally:
        os.close(fd)


def make_parents(layers: Sequence[Lower], parents: dict[Path, int], root_fd: int) -> None:
    """Make the directories.

    Args:
        layers: as for ``missing_parents``.
        parents: what it returned.
        root_fd: empty directory, becomes the root of the layer.
    Raises:
        OSError: the file system refused.
    """
    for path in sorted(parents):
        if path:
            parent_fd = libc.openat2(
                root_fd, b"/".join(path[:-1]) or b".", os.O_PATH | os.O_DIRECTORY, _RESOLVE
            )
            try:
                os.mkdir(path[-1], 0o700, dir_fd=parent_fd)
            finally:
                os.close(parent_fd)
    # Making a directory in another changes the time of that one.
    for path in sorted(parents, reverse=True):
        name = b"/".join(path) or b"."
        source_fd = libc.openat2(layers[parents[path]].root_fd, name, _OPEN, _RESOLVE)
        try:
            target_fd = libc.openat2(root_fd, name, _OPEN, _RESOLVE)
            try:
                _copy_look(source_fd, target_fd)
            finally:
                os.close(target_fd)
        finally:
            os.close(source_fd)


def differing_parents(
    layers: Sequence[Lower], parents: dict[Path, int], root_fd: int
) -> list[tuple[Path, str]]:
    """What ``make_parents`` would make otherwise than it is: (path, ``missing``, ``mode``, ``attributes`` or ``extra``)."""
    found: list[tuple[Path, str]] = []
    for path in sorted(parents):
        name = b"/".join(path) or b"."
        source_fd = libc.openat2(layers[parents[path]].root_fd, name, _OPEN, _RESOLVE)
        try:
            target_fd = libc.openat2(root_fd, name, _OPEN, _RESOLVE)
        except OSError:
            found.append((path, "missing"))
            continue
        else:
            try:
                if _look(source_fd) != _look(target_fd):
                    found.append((path, "mode"))
                if _attributes(source_fd) != _attributes(target_fd):
                    found.append((path, "attributes"))
                names = map(os.fsencode, os.listdir(target_fd))
                found += [((*path, name), "extra") for name in sorted(names) if (*path, name) not in parents]
            finally:
                os.close(target_fd)
        finally:
            os.close(source_fd)
    return found


def _look(fd: int) -> tuple[int, int, int]:
    status = os.fstat(fd)
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def _copy_look(source_fd: int, target_fd: int) -> None:
    status = os.fstat(source_fd)
    if os.geteuid() == 0:
        os.fchown(target_fd, status.st_uid, status.st_gid)
    for name, value in _attributes(source_fd).items():
        os.setxattr(target_fd, name, value)
    os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
    os.utime(target_fd, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _attributes(fd: int) -> dict[str, bytes]:
    """Attributes that came with the image."""
    try:
        names = os.listxattr(fd)
    except OSError as e:
        if e.errno != errno.EOPNOTSUPP:
            raise
        return {}
    return {
        name: os.getxattr(fd, name)
        for name in names
        if name.startswith("user.") or name == "security.capability"
    }

# SPDX-License-Identifier: Apache-2.0
"""Copies of layer directories, for pods without overlays; not on the hot path.

Source and target are directories that only root can reach, and nothing runs in the target yet. Owners, modes, times,
extended attributes, hard links and symbolic links are kept; holes come back where the file system clones extents.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 24
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: What ``copy_file_range`` says where it cannot be used between these two files.
_NO_RANGE = {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}


def copy_layers(layers: list[str], target: str) -> None:
    """Copy layers into an existing directory, the lowest first, so that upper ones win.

    Args:
        layers: root directories of the layers, the topmost first.
        target: takes the attributes of the topmost layer's root.
    """
    for layer in reversed(layers):
        _copy_tree(layer, target)


def _copy_tree(source: str, target: str) -> None:
    links: dict[tuple[int, int], str] = {}
    stack: list[tuple[int, int, str, Iterator[str]]] = []

    def enter(source_fd: int, target_fd: int, path: str) -> None:
        stack.append((source_fd, target_fd, path, iter(sorted(os.listdir(source_fd)))))

    try:
        enter(os.open(source, _DIRECTORY), os.open(target, _DIRECTORY), target)
        while stack:
            source_fd, target_fd, path, entries = stack[-1]
            name = next(entries, None)
            if name is None:
                # Attributes last: filling the directory changed its times, and its mode may forbid it.
                _copy_attributes(source_fd, target_fd)
                stack.pop()
                os.close(source_fd)
                os.close(target_fd)
                continue
            status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                _make_directory(name, target_fd)
                enter(
                    os.open(name, _DIRECTORY, dir_fd=source_fd),
                    os.open(name, _DIRECTORY, dir_fd=target_fd),
                    f"{path}/{name}",
                )
                continue
            _clear(name, target_fd)
            inode = (status.st_dev, status.st_ino)
            if status.st_nlink > 1 and inode in links:
                os.link(links[inode], name, dst_dir_fd=target_fd, follow_symlinks=False)
                continue
            _copy_entry(name, source_fd, target_fd, status)
            if status.st_nlink > 1:
                links[inode] = f"{path}/{name}"
    finally:
        for source_fd, target_fd, _, _ in stack:
            os.close(source_fd)
            os.close(target_fd)


def _make_directory(name: str, target_fd: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=target_fd)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=target_fd, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=target_fd)
            os.mkdir(name, 0o700, dir_fd=target_fd)


def _clear(name: str, target_fd: int) -> None:
    from rkt.linux.files import remove_tree

    remove_tree(name, dir_fd=target_fd)


def _copy_entry(name: str, source_fd: int, target_fd: int, status: os.stat_result) -> None:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        _copy_file(name, source_fd, target_fd)
    elif stat.S_ISLNK(mode):
        os.symlink(os.readlink(name, dir_fd=source_fd), name, dir_fd=target_fd)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target_fd, follow_symlinks=False)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target_fd, follow_symlinks=False)
    elif stat.S_ISFIFO(mode):
        os.mkfifo(name, 0o600, dir_fd=target_fd)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target_fd, follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(mode), dir_fd=target_fd)
    else:
        # Layers hold no device nodes and no sockets (invariant UN8).
        raise OSError(errno.EINVAL, "neither file, directory, link nor pipe", name)


def _copy_file(name: str, source_fd: int, target_fd: int) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source_fd)
    try:
        target = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target_fd
        )
        try:
            _copy_bytes(source, target)
            _copy_attributes(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_bytes(source: int, target: int) -> None:
    try:
        while os.copy_file_range(source, target, _CHUNK):
            pass
    except OSError as e:
        if e.errno not in _NO_RANGE:
            raise
    else:
        return
    while os.sendfile(target, source, None, _CHUNK):
        pass


def _copy_attributes(source: int, target: int) -> None:
    status = os.fstat(source)
    # Owner before mode and capabilities: a change of owner clears both.
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for attribute in os.listxattr(source):
        os.setxattr(target, attribute, os.getxattr(source, attribute))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

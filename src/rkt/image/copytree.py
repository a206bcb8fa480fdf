# SPDX-License-Identifier: Apache-2.0
"""Copying a layer out of the store."""

from __future__ import annotations

import os

from rkt.errors import ImageError
from rkt.image.tarformat import show
from rkt.image.walk import DirectoryStack
from rkt.linux.copytree import Copier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rkt.image.render import Selection
    from rkt.image.walk import Path
    from rkt.linux.userns import IdRange

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_tree(
    source_fd: int,
    target_fd: int,
    *,
    selection: Selection | None = None,
    link: bool = False,
    ids: IdRange | None = None,
) -> None:
    """Copy what is in one directory to another one.

    Args:
        source_fd: directory to read.
        target_fd: directory to fill. Without a selection it is empty, and gets the first one's mode, owner and time.
        selection: what to copy; ``None`` for all. Directories may then be there already.
        link: give files of the source a second name where that can be done; for trees that nobody writes to.
        ids: owners of the copy are those of the source, as a pod with this range sees them.

    Raises:
        ImageError: a file cannot be copied; its name is in the message. The target is left as far as it got.
    """
    try:
        Copier(selection, link=link, ids=ids).run(source_fd, target_fd)
    except OSError as e:
        raise ImageError(f"cannot copy {show(os.fsencode(e.filename))!r}: {e.strerror}") from e


def copy_layers(
    source_fds: Sequence[int],
    selections: Sequence[Selection],
    target_fd: int,
    *,
    link: bool = False,
    ids: IdRange | None = None,
) -> None:
    """Copy several layers over each other.

    Args:
        source_fds: their root directories, the topmost first.
        selections: of each, as ``render.select`` says.
        target_fd: empty directory to fill.
        link: as for ``copy_tree``.
        ids: likewise.
    Raises:
        ImageError: as for ``copy_tree``.
    """
    # From below: the part that a directory's time is taken from is the last that puts something into it.
    for source_fd, selection in zip(reversed(source_fds), reversed(selections), strict=True):
        copy_tree(source_fd, target_fd, selection=selection, link=link, ids=ids)


def list_tree(root_fd: int) -> Iterator[tuple[Path, bool]]:
    """Every path below a directory with whether it is a directory; the root itself first, as the empty path.

    Raises:
        OSError: something cannot be read.
    """
    yield (), True
    with DirectoryStack(root_fd) as directories:
        pending: list[Path] = [()]
        while pending:
            path = pending.pop()
            fd = os.open(b".", _OPEN_DIRECTORY, dir_fd=directories.enter(path))
            try:
                with os.scandir(fd) as entries:
                    found = [
                        (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries
                    ]
            finally:
                os.close(fd)
            for name, is_directory in sorted(found):
                yield (*path, name), is_directory
                if is_directory:
                    pending.append((*path, name))

# SPDX-License-Identifier: Apache-2.0
"""Files of the operator's as standard input of a process in a pod: their bytes, never the files themselves.

Root in an app could open ``/proc/self/fd/0`` again for writing, or change mode and owner of the file behind it, which is
a file of the host's. So a process outside the pod reads it, and the app has a pipe.
"""

from __future__ import annotations

import os

from rkt.linux import libc

_CHUNK_BYTES = 64 << 10
_S_IFMT, _S_IFIFO, _S_IFSOCK = 0o170000, 0o010000, 0o140000


def is_channel(fd: int) -> bool:
    """Whether a descriptor is a pipe or a socket, behind which there is no file."""
    return os.fstat(fd).st_mode & _S_IFMT in {_S_IFIFO, _S_IFSOCK}


def feed(source: int) -> int:
    """Start a process that copies ``source`` to a pipe; to be called outside the pod.

    Returns:
        The end of the pipe to read from, close-on-exec and owned by the caller.
    """
    read_fd, write_fd = os.pipe()
    feed_to(source, write_fd)
    return read_fd


def feed_to(source: int, write_fd: int) -> None:
    """Start a process that copies ``source``, until the end of the file, until nobody reads any more, or with the caller.

    Args:
        source: any descriptor.
        write_fd: of a pipe; closed here, and the process's from now on.
    """
    parent = os.getpid()
    if os.fork() == 0:
        try:
            libc.die_with(parent)
            _copy(source, write_fd)
        finally:
            os._exit(0)
    os.close(write_fd)


def _copy(source: int, target: int) -> None:
    os.dup2(source, 0)
    os.dup2(target, 1)
    # The lock of the pod among others: it says that the pod is alive.
    libc.close_range(2, 0xFFFFFFFF, 0)
    try:
        while chunk := os.read(0, _CHUNK_BYTES):
            view = memoryview(chunk)
            while view:
                view = view[os.write(1, view) :]
    except OSError:
        # Nobody reads, or there is nothing to read, such as from a directory.
        pass

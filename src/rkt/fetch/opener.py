# SPDX-License-Identifier: Apache-2.0
"""Files of an image layout, opened for a worker that has no view of the file system.

::

    worker ── "index.json" or 64 hex digits ──> opener (a thread of the command) ──> descriptor, by SCM_RIGHTS

Which files make up an image only its documents tell, and these are foreign: the worker reads them and says which blob it
needs next. The command opens nothing but the files that a layout has, by names that it puts together itself from checked
digits, and follows no link out of the layout (``openat2``, ``RESOLVE_BENEATH``; invariants UN2, UN15, HH3).
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading

from rkt.errors import FetchError, ImageError
from rkt.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

#: The two documents of a layout that have names.
INDEX = "index.json"
MARK = "oci-layout"
_HEX = frozenset("0123456789abcdef")
_MAX_REQUEST = 128
_GIVEN = b"+"
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


class Opener:
    """Answers requests for files of one layout until ``close``, or the end of ``with``.

    Attributes:
        worker_fd: what the worker gets; closed with the rest.
    """

    def __init__(self, directory_fd: int) -> None:
        """Start; the directory stays the caller's."""
        self._directory_fd = directory_fd
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._theirs = theirs
        self.worker_fd = theirs.fileno()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while request := self._ours.recv(_MAX_REQUEST):
                self._answer(request)

    def _answer(self, request: bytes) -> None:
        try:
            fd = open_file(self._directory_fd, request.decode("ascii", "replace"))
        except (OSError, ImageError) as e:
            text = e.strerror if isinstance(e, OSError) else str(e)
            self._ours.send((text or "error").encode())
            return
        try:
            socket.send_fds(self._ours, [_GIVEN], [fd])
        finally:
            os.close(fd)

    def close(self) -> None:
        """End."""
        self._theirs.close()
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._ours.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_file(directory_fd: int, name: str) -> int:
    """Open one of the files that a layout has.

    Args:
        directory_fd: the layout.
        name: ``INDEX``, ``MARK``, or the 64 hex digits of a blob.
    Returns:
        a descriptor for reading a regular file; the caller owns it.
    Raises:
        ImageError: the layout has no such thing.
        OSError: it cannot be opened.
    """
    if name in {INDEX, MARK}:
        path = name
    elif len(name) == 64 and _HEX.issuperset(name):
        path = f"blobs/sha256/{name}"
    else:
        raise ImageError("not a file of an image layout")
    resolve = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_MAGICLINKS
    fd = libc.openat2(directory_fd, path.encode(), _FLAGS, resolve)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ImageError("not a regular file")
    return fd


def ask(connection: socket.socket, name: str) -> int:
    """The worker's side: a descriptor of a file.

    Raises:
        FetchError: it cannot be had.
    """
    connection.send(name.encode("ascii", "replace")[:_MAX_REQUEST])
    data, fds, _, _ = socket.recv_fds(connection, 256, 1)
    if data == _GIVEN and fds:
        return fds[0]
    what = name if name in {INDEX, MARK} else f"blob sha256:{name}"
    raise FetchError(
        f"the image layout has no readable {what}: {data.decode('utf-8', 'replace') or 'no answer'}"
    )

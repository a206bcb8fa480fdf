# SPDX-License-Identifier: Apache-2.0
"""Log mode ``k8s-plain``: an app's output once more, in the form that Kubernetes read before CRI (spec runtime §3.9).

One line per line of output, ``TIME stdout|stderr TEXT``, in a directory that the operator named. It is emptied at each
start of the app and bounded like the log beside which it is written: at its limit it becomes ``NAME.1``.
"""

from __future__ import annotations

import errno
import os

from rkt.errors import Stage1Error
from rkt.linux import libc
from rkt.stage1.common.log import MAX_LINE_BYTES, LogFile, timestamp

_BENEATH = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY
_S_IFMT, _S_IFREG = 0o170000, 0o100000


class PlainLog(LogFile):
    """Appends what an app says to a file of that form."""

    __slots__ = ("_directory_fd", "_name")

    def __init__(self, directory: str, name: str) -> None:
        """Open, empty.

        Args:
            directory: a path of the host.
            name: of the file, one component.
        Raises:
            Stage1Error: it is no directory, or something else than a file is there.
        """
        self._name = name
        try:
            self._directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise Stage1Error(f"cannot log to {directory}/{name}: {e.strerror}") from e
        try:
            super().__init__(f"/proc/self/fd/{self._directory_fd}/{name}")
        except OSError as e:
            os.close(self._directory_fd)
            raise Stage1Error(f"cannot log to {directory}/{name}: {e.strerror}") from e

    def _open(self) -> None:
        # Others may be able to write there: nothing is followed, and nothing emptied that has another name elsewhere.
        fd = libc.openat2(self._directory_fd, self._name.encode(), _FLAGS | os.O_CLOEXEC, _BENEATH, 0o640)
        status = os.fstat(fd)
        if status.st_mode & _S_IFMT != _S_IFREG or status.st_nlink != 1:
            os.close(fd)
            raise OSError(errno.EINVAL, "it is not a file of its own")
        os.ftruncate(fd, 0)
        self._fd = fd
        self._size = 0

    def write(self, stream: bytes, data: bytes) -> None:
        """See ``LogFile``; a line that is too long is cut into several."""
        *lines, rest = (self._partial[stream] + data).split(b"\n")
        while len(rest) > MAX_LINE_BYTES:
            lines.append(rest[:MAX_LINE_BYTES])
            rest = rest[MAX_LINE_BYTES:]
        self._partial[stream] = rest
        stamp = timestamp()
        self._append(b"".join([b"%s %s %s\n" % (stamp, stream, line) for line in lines]))

    def finish(self) -> None:
        """See ``LogFile``."""
        for stream, rest in self._partial.items():
            if rest:
                self._append(b"%s %s %s\n" % (timestamp(), stream, rest))
        os.close(self._fd)
        os.close(self._directory_fd)

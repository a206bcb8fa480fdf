# SPDX-License-Identifier: Apache-2.0
"""An app's log file: Kubernetes' CRI text format, bounded.

One line per line of output: ``2026-01-31T12:00:00.123456789Z stdout F text``. ``P`` instead of ``F`` marks a piece of a
line that goes on in the next record. A file that reaches its limit becomes ``APP.log.1`` and a new one begins, so an app
that never stops talking takes at most twice the limit (invariant LG2). The directory is out of the app's reach (LG1).

``rkt logs --follow`` holds a shared flock(2) on what it has not read yet. While it holds ``APP.log.1``, that file is not
replaced and ``APP.log`` grows past its limit instead, to ``PATIENCE`` times the limit; then the reader loses.
"""

from __future__ import annotations

import fcntl
import os
import time

#: A file larger than this is rotated, in bytes.
MAX_FILE_BYTES = 16 << 20
#: With a reader that is behind, the file may become this many times as large.
PATIENCE = 4
#: A line longer than this is cut into pieces, in bytes.
MAX_LINE_BYTES = 16 << 10


class LogFile:
    """Appends what an app says to its file."""

    __slots__ = ("_fd", "_is_torn", "_partial", "_path", "_size")

    def __init__(self, path: str) -> None:
        self._path = path
        self._partial = {b"stdout": b"", b"stderr": b""}
        self._is_torn = False
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o640)
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: bytes, data: bytes) -> None:
        """Append ``data`` of ``stdout`` or ``stderr``; an unfinished line waits for its rest."""
        data = self._partial[stream] + data
        stamp = timestamp()
        records = []
        *lines, rest = data.split(b"\n")
        for line in lines:
            while len(line) > MAX_LINE_BYTES:
                records.append(b"%s %s P %s\n" % (stamp, stream, line[:MAX_LINE_BYTES]))
                line = line[MAX_LINE_BYTES:]  # noqa: PLW2901 - the rest of the same line
            records.append(b"%s %s F %s\n" % (stamp, stream, line))
        while len(rest) > MAX_LINE_BYTES:
            records.append(b"%s %s P %s\n" % (stamp, stream, rest[:MAX_LINE_BYTES]))
            rest = rest[MAX_LINE_BYTES:]
        self._partial[stream] = rest
        self._append(b"".join(records))

    def finish(self) -> None:
        """Write unfinished lines and close."""
        stamp = timestamp()
        for stream, rest in self._partial.items():
            if rest:
                self._append(b"%s %s F %s\n" % (stamp, stream, rest))
        os.close(self._fd)

    def _append(self, data: bytes) -> None:
        size = self._size + len(data)
        if size > MAX_FILE_BYTES and self._size:
            self._rotate(force=size > MAX_FILE_BYTES * PATIENCE)
        view = memoryview(b"\n" + data if self._is_torn else data)
        self._is_torn = False
        while view:
            try:
                written = os.write(self._fd, view)
            except OSError:
                # A full disk must not stop the app; what does not fit is lost. The next record begins a line.
                self._is_torn = True
                return
            self._size += written
            view = view[written:]

    def _rotate(self, *, force: bool) -> None:
        older = self._path + ".1"
        try:
            fd = os.open(older, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            fd = -1  # there is none yet
        try:
            if fd >= 0:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    if not force:
                        return
            full = self._fd
            try:
                os.rename(self._path, older)
                self._open()
            except OSError:
                return  # a full disk, say: the old file goes on, wherever it is now
            os.close(full)
            self._is_torn = False
        finally:
            if fd >= 0:
                os.close(fd)


def timestamp() -> bytes:
    """Now, in RFC 3339 with nanoseconds."""
    now = time.time_ns()
    seconds = time.gmtime(now // 1_000_000_000)
    return b"%04d-%02d-%02dT%02d:%02d:%02d.%09dZ" % (*seconds[:6], now % 1_000_000_000)

# SPDX-License-Identifier: Apache-2.0
"""What apps say, on its way to the log and to whoever started the pod, without ever blocking the supervisor."""

from __future__ import annotations

import os
import select

#: Output waiting for a slow reader above this is not read from the apps any more, in bytes.
HIGH_WATER_BYTES = 256 << 10
#: A pipe that is writable takes this many bytes without blocking (PIPE_BUF, pipe(7)).
_ATOMIC_BYTES = 4096
READ_BYTES = 64 << 10


class Outlet:
    """The supervisor's own stdout or stderr: written only when poll(2) says that it takes data.

    ``O_NONBLOCK`` would change the caller's terminal or pipe too, since it belongs to the open file description.
    """

    __slots__ = ("fd", "is_closed", "pending")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.pending = bytearray()
        self.is_closed = False

    def add(self, data: bytes) -> None:
        """Queue, and write what can be written now."""
        if self.is_closed:
            return
        self.pending += data
        self.flush()

    def flush(self, timeout_ms: int = 0) -> None:
        """Write while the other side takes it."""
        while self.pending and not self.is_closed:
            poll = select.poll()
            poll.register(self.fd, select.POLLOUT)
            if not poll.poll(timeout_ms):
                return
            try:
                written = os.write(self.fd, self.pending[:_ATOMIC_BYTES])
            except BlockingIOError:
                # Of what is ours alone, such as a pseudo-terminal, which may take less than it says.
                return
            except OSError:
                # The reader is gone; the log goes on.
                self.is_closed = True
                self.pending.clear()
                return
            del self.pending[:written]

    @property
    def is_full(self) -> bool:
        """Whether apps should wait."""
        return len(self.pending) > HIGH_WATER_BYTES


class Prefixer:
    """Marks each line of an app with its name when several apps share one terminal."""

    __slots__ = ("_at_line_start", "_prefix")

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._at_line_start = True

    def mark(self, data: bytes) -> bytes:
        """``data`` with the prefix at the start of each line."""
        if not self._prefix or not data:
            return data
        ends = data.endswith(b"\n")
        body = data[:-1] if ends else data
        marked = (self._prefix if self._at_line_start else b"") + body.replace(b"\n", b"\n" + self._prefix)
        self._at_line_start = ends
        return marked + b"\n" if ends else marked

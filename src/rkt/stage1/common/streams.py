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
#: A marked line that is longer is cut, in bytes.
LONGEST_LINE_BYTES = 64 << 10


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

    def last(self, rest: bytes) -> None:
        """Queue what a source that has ended left unfinished."""
        if rest:
            self.add(rest)

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
    """Marks each line of an app with its name when several apps share one terminal.

    Lines are let out whole: what one app says in two pieces another may speak between.
    """

    __slots__ = ("_prefix", "_rest")

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._rest = b""

    def mark(self, data: bytes) -> bytes:
        """The lines that ``data`` completes, each with the prefix; without a prefix, ``data``."""
        if not self._prefix:
            return data
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > LONGEST_LINE_BYTES:
            lines.append(rest[:LONGEST_LINE_BYTES])
            rest = rest[LONGEST_LINE_BYTES:]
        self._rest = rest
        return b"".join(b"%s%s\n" % (self._prefix, line) for line in lines)

    def rest(self) -> bytes:
        """The line that nothing more comes of, made a whole one; empty if there is none."""
        return self.mark(b"\n") if self._rest else b""


def let_go(outlets: dict[int, tuple[bytes, Prefixer, Outlet]], fd: int) -> None:
    """Close what an app's output came from, and let out what was left unfinished."""
    _, prefixer, outlet = outlets.pop(fd)
    os.close(fd)
    outlet.last(prefixer.rest())

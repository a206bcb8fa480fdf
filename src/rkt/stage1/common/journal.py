# SPDX-License-Identifier: Apache-2.0
"""Lines of an app to journald, by its native protocol: one datagram a line, which never waits.

The path is looked up for each line, so a journal that is started again is found again. What it does not take is counted,
and said with the next line that it does take.

Source: systemd, "Native Journal Protocol"; systemd.journal-fields(7).
"""

from __future__ import annotations

import _socket
import os

from rkt.stage0 import contract

_INFO, _ERROR, _WARNING = 6, 3, 4


class Journal:
    """Sends the lines of one app."""

    __slots__ = ("_covered", "_fields", "_lost", "_socket")

    def __init__(self, fields: dict[str, str]) -> None:
        """Prepare.

        Args:
            fields: of each line; a line feed in a value becomes a space.
        """
        self._socket = _socket.socket(
            _socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        )
        self._fields = b"".join(
            f"{name}={value}".replace("\n", " ").encode("utf-8", "replace") + b"\n"
            for name, value in fields.items()
            if value
        )
        self._lost = 0
        self._covered = _journal_streams()

    def covers(self, fd: int) -> bool:
        """Whether a stream of the supervisor's leads to the journal as well, where each line would come twice."""
        return fd in self._covered

    def send(self, stream: bytes, line: bytes, *, partial: bool) -> None:
        """Send one line, or a piece of one."""
        if self._lost:
            text = b"rkt: %d lines did not reach the journal" % self._lost
            if not self._put(_WARNING, stream, text, partial=False):
                self._lost += 1
                return
            self._lost = 0
        if not self._put(_ERROR if stream == b"stderr" else _INFO, stream, line, partial=partial):
            self._lost += 1

    def _put(self, priority: int, stream: bytes, line: bytes, *, partial: bool) -> bool:
        more = b"CONTAINER_PARTIAL_MESSAGE=true\n" if partial else b""
        message = b"MESSAGE=%s\nPRIORITY=%d\nRKT_STREAM=%s\n%s%s" % (
            line,
            priority,
            stream,
            more,
            self._fields,
        )
        return self._deliver(message)

    def _deliver(self, message: bytes) -> bool:
        try:
            self._socket.sendto(message, contract.JOURNAL_SOCKET)
        except OSError:
            return False  # full, gone, or not there yet
        return True

    def close(self) -> None:
        """Send no more."""
        self._socket.close()


def _journal_streams() -> frozenset[int]:
    """Those of our own streams that systemd connected to the journal, as ``JOURNAL_STREAM`` says (systemd.exec(5))."""
    said = os.environ.get("JOURNAL_STREAM", "")
    found = set()
    for fd in (1, 2):
        try:
            status = os.fstat(fd)
        except OSError:
            continue
        if said and said == f"{status.st_dev}:{status.st_ino}":
            found.add(fd)
    return frozenset(found)

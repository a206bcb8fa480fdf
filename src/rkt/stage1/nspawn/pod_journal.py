# SPDX-License-Identifier: Apache-2.0
"""A copy of what an app says for the pod's own journal, where ``journalctl -M rkt-UUID -u APP`` looks for it.

Lines are sent as the app's process, so that the pod's journald knows the unit; when that is gone, as the pod's root, with
the unit as object. journald is started by the first line, so lines wait for a second: a pod that is over by then has
nobody to look, and need not pay for it.

Source: journalctl(1), ``--unit``; unix(7), SCM_CREDENTIALS.
"""

from __future__ import annotations

import _socket
import os
import struct
import time

from rkt.linux import libc
from rkt.stage1.common.journal import Journal
from rkt.stage1.common.log import journal_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.stage1.nspawn.app_state import App
    from rkt.stage1.nspawn.pod_systemd import PodSystemd

_DIRECTORY = b"run/systemd/journal"
_UCRED = struct.Struct("iII")
_PATIENCE_SECONDS = 1.0
#: What waits is bounded; what is more is lost to the journal, which says so.
_MAX_WAITING_BYTES = 256 << 10


def open_pod_journal(app: App, systemd: PodSystemd) -> PodJournal:
    """The journal that an app's log is to have, instead of the one that it has."""
    return PodJournal(
        {**journal_fields(app.launch.app), "OBJECT_SYSTEMD_UNIT": app.unit},
        app.log.journal,
        leader=systemd.machine.leader,
        uid=systemd.uid,
        process=lambda: app.pid,
    )


class PodJournal(Journal):
    """Sends the lines of one app to the pod's journal, and to the host's as other flavours do (``supervision.Ticker``)."""

    __slots__ = ("_begin_at", "_directory", "_host", "_leader", "_process", "_size", "_uid", "_waiting")

    def __init__(
        self,
        fields: dict[str, str],
        host: Journal | None,
        *,
        leader: int,
        uid: int,
        process: Callable[[], int],
    ) -> None:
        """Prepare.

        Args:
            fields: of each line.
            host: what sends to the host's journal, which is closed together with this one.
            leader: the pod's pid 1.
            uid: of the pod's root on the host.
            process: number of the app's process, 0 or less when there is none.
        """
        super().__init__(fields)
        self._host = host
        self._leader = leader
        self._uid = uid
        self._process = process
        self._directory = -1
        self._begin_at = time.monotonic() + _PATIENCE_SECONDS
        self._waiting: list[bytes] = []
        self._size = 0

    def covers(self, fd: int) -> bool:
        """See ``Journal``; of the host's."""
        return self._host is not None and self._host.covers(fd)

    def send(self, stream: bytes, line: bytes, *, partial: bool) -> None:
        """See ``Journal``."""
        if self._host is not None:
            self._host.send(stream, line, partial=partial)
        super().send(stream, line, partial=partial)

    def _deliver(self, message: bytes) -> bool:
        if self._begin_at:
            if self._size + len(message) > _MAX_WAITING_BYTES:
                return False
            self._waiting.append(message)
            self._size += len(message)
            return True
        return any(self._deliver_as(pid, message) for pid in (self._process(), self._leader) if pid > 0)

    def _deliver_as(self, pid: int, message: bytes) -> bool:
        try:
            if self._directory < 0:
                root = os.open(f"/proc/{self._leader}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    self._directory = libc.openat2(
                        root, _DIRECTORY, os.O_PATH | os.O_DIRECTORY, libc.RESOLVE_IN_ROOT
                    )
                finally:
                    os.close(root)
            credentials = _UCRED.pack(pid, self._uid, self._uid)
            ancillary = [(_socket.SOL_SOCKET, _socket.SCM_CREDENTIALS, credentials)]
            self._socket.sendmsg([message], ancillary, 0, f"/proc/self/fd/{self._directory}/socket")
        except OSError:
            return False
        return True

    def next_at(self) -> float:
        """See ``Ticker``."""
        return self._begin_at if self._waiting else 0.0

    def tick(self, *, is_stopping: bool) -> None:
        """See ``Ticker``."""
        if not self._begin_at or time.monotonic() < self._begin_at or is_stopping:
            return
        self._begin_at = 0.0
        for message in self._waiting:
            if not self._deliver(message):
                self._lost += 1
        self._waiting.clear()

    def close(self) -> None:
        """See ``Journal``."""
        super().close()
        if self._host is not None:
            self._host.close()
        if self._directory >= 0:
            os.close(self._directory)

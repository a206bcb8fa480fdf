# SPDX-License-Identifier: Apache-2.0
"""Word to the service manager that started us (sd_notify(3)), and that its watchdog is answered (sd_watchdog_enabled(3))."""

from __future__ import annotations

import _socket
import os
import time

_MICRO = 1_000_000


def notify(address: str, text: bytes) -> None:
    """Send one message without waiting; a manager that is gone or busy is no failure of the pod."""
    handle = connect(address)
    send(handle, text)
    handle.close()


def connect(address: str) -> _socket.socket:
    """A socket for ``send``, also from where the manager's own cannot be seen any more."""
    target = "\0" + address[1:] if address.startswith("@") else address
    handle = _socket.socket(
        _socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    )
    try:
        handle.connect(target)
    except OSError:
        pass
    return handle


def send(handle: _socket.socket, text: bytes) -> None:
    """As ``notify``."""
    try:
        handle.send(text)
    except OSError:
        pass


class Watchdog:
    """Tells the service manager that the supervisor's loop goes round (``supervision.Ticker``)."""

    __slots__ = ("_address", "_interval_seconds", "_next_at")

    def __init__(self, address: str, interval_seconds: float) -> None:
        self._address = address
        self._interval_seconds = interval_seconds
        self._next_at = time.monotonic() + interval_seconds

    @classmethod
    def from_environment(cls) -> Watchdog | None:
        """As the variables of the service manager say; ``None`` when it asks nothing of this process."""
        address = os.environ.get("NOTIFY_SOCKET", "")
        text = os.environ.get("WATCHDOG_USEC", "")
        pid = os.environ.get("WATCHDOG_PID", "")
        if not address or not text.isdecimal() or not int(text) or (pid and pid != str(os.getpid())):
            return None
        # Twice as often as need be, as the manual says.
        return cls(address, int(text) / _MICRO / 2)

    def next_at(self) -> float:
        """See ``Ticker``."""
        return self._next_at

    def tick(self, *, is_stopping: bool) -> None:
        """Send when it is time; also while the pod stops, which may take longer."""
        now = time.monotonic()
        if now >= self._next_at:
            self._next_at = now + self._interval_seconds
            notify(self._address, b"WATCHDOG=1")

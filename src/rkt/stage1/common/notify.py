# SPDX-License-Identifier: Apache-2.0
"""Word to the service manager that started us (sd_notify(3))."""

from __future__ import annotations

import _socket


def notify_ready(address: str) -> None:
    """Say ``READY=1``; a manager that is gone is no failure of the pod."""
    target = "\0" + address[1:] if address.startswith("@") else address
    handle = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        handle.sendto(b"READY=1", target)
    except OSError:
        pass
    finally:
        handle.close()

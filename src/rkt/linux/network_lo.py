# SPDX-License-Identifier: Apache-2.0
"""The loopback interface of a new network namespace, brought up without any tool."""

from __future__ import annotations

import _socket
import fcntl
import struct

# <linux/sockios.h>, <linux/if.h>
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1
# struct ifreq: 16 bytes of name and a union whose largest member has 24; the flags are its first short.
_IFREQ = struct.Struct("16sh22x")


def loopback_up(name: bytes = b"lo") -> None:
    """Set ``IFF_UP``, which also gives 127.0.0.1 and ::1.

    Raises:
        OSError: ``EPERM`` without CAP_NET_ADMIN over the namespace, ``ENODEV`` without such an interface.
    """
    handle = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        _, flags = _IFREQ.unpack(fcntl.ioctl(handle, SIOCGIFFLAGS, _IFREQ.pack(name, 0)))
        if not flags & IFF_UP:
            fcntl.ioctl(handle, SIOCSIFFLAGS, _IFREQ.pack(name, flags | IFF_UP))
    finally:
        handle.close()

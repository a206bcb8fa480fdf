# SPDX-License-Identifier: Apache-2.0
"""A service manager that passes sockets (sd_listen_fds(3))."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

#: Does what a service manager does between fork and exec: sockets at 3 and so on, and the variables that tell of them.
ACTIVATOR = """
import os, sys
fds = [os.dup(int(word)) for word in sys.argv[1].split(",")]
fds = [os.dup2(os.dup2(fd, 100 + i), 3 + i) for i, fd in enumerate(fds)]
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""


def activator(sockets: Sequence[socket.socket], names: str) -> list[str]:
    """Words before a command that gets sockets."""
    return [sys.executable, "-c", ACTIVATOR, ",".join(str(each.fileno()) for each in sockets), names]

# SPDX-License-Identifier: Apache-2.0
"""Real file systems on loop devices: of any size, and on a device that stops taking writes.

The device's file is a memfd; once it is sealed, every write to the device is an input/output error, as of a dying disk:
file systems learn of it when they write back, callers from fsync(2) and syncfs(2).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from rkt.linux import libc

if TYPE_CHECKING:
    from typing import Self

#: <linux/fcntl.h>
_F_SEAL_FUTURE_WRITE = 16

#: The least size of each, in MiB, and how it is made.
MAKERS = {
    "ext4": (16, ("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal")),
    "xfs": (300, ("mkfs.xfs", "-q", "-f")),
    "btrfs": (128, ("mkfs.btrfs", "-q", "-f", "--mixed")),
}


def missing(kind: str) -> str:
    """Why there can be no such file system here; empty when there can."""
    program = MAKERS[kind][1][0]
    if shutil.which(program) is None:
        return f"{program} is not installed"
    with open("/proc/filesystems", encoding="ascii") as file:
        if not any(line.split()[-1] == kind for line in file):
            return f"the kernel has no {kind}"
    return "" if os.path.exists("/dev/loop-control") else "the host has no loop devices"


class Disk:
    """A file system, mounted while it is open.

    Attributes:
        fd: of the device's file.
    """

    def __init__(self, kind: str, point: str, *, mib: int = 0) -> None:
        """``kind`` is one of ``MAKERS``, ``mib`` the size, by default the least."""
        least, maker = MAKERS[kind]
        self._point = point
        self.fd = os.memfd_create("disk", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.fd, max(mib, least) << 20)
            path = f"/proc/{os.getpid()}/fd/{self.fd}"
            _call(*maker, path)
            _call("mount", "-o", "loop", path, point)
        except BaseException:
            os.close(self.fd)
            raise

    def fail(self) -> None:
        """From now on the device takes no byte any more."""
        fcntl.fcntl(self.fd, libc.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _call("umount", self._point)
        os.close(self.fd)


def _call(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"

# SPDX-License-Identifier: Apache-2.0
"""Namespaces: their kinds, opening and comparing those of a process, joining them in the right order."""

from __future__ import annotations

import os

from rkt.linux import libc

#: (name in ``/proc/PID/ns``, flag of clone(2)), in the order in which they have to be joined one by one: the user
#: namespace first, because it gives the capabilities for the others; the mount namespace last, because paths change.
KINDS = (
    ("user", libc.CLONE_NEWUSER),
    ("cgroup", libc.CLONE_NEWCGROUP),
    ("ipc", libc.CLONE_NEWIPC),
    ("uts", libc.CLONE_NEWUTS),
    ("net", libc.CLONE_NEWNET),
    ("time", libc.CLONE_NEWTIME),
    ("pid", libc.CLONE_NEWPID),
    ("mnt", libc.CLONE_NEWNS),
)
FLAGS = dict(KINDS)


def open_namespace(pid: int | str, kind: str) -> int:
    """Open a namespace of a process; the caller owns the descriptor.

    Raises:
        OSError: the process is gone, or the kernel lacks this kind (``ENOENT``).
    """
    return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def identity(pid: int | str, kind: str) -> tuple[int, int]:
    """(device, inode) that two processes have in common exactly when they share that namespace."""
    status = os.stat(f"/proc/{pid}/ns/{kind}")
    return status.st_dev, status.st_ino


def differing(pid: int | str) -> int:
    """Flags of the kinds in which a process is elsewhere than the caller."""
    flags = 0
    for kind, flag in KINDS:
        try:
            if identity(pid, kind) != identity("self", kind):
                flags |= flag
        except (
            FileNotFoundError
        ):  # a kind that the kernel lacks; for a process that is gone the last line raises
            continue
    os.stat(f"/proc/{pid}/ns/mnt")
    return flags


def join(pidfd: int, flags: int) -> None:
    """Join several namespaces of a process at once: all or none, and no other process by a reused number (EN4).

    The caller must have one thread. Children, not the caller, enter the pid namespace. A user namespace that is
    the caller's own already is refused by the kernel (``EINVAL``): pass the flags of ``differing``.

    Args:
        pidfd: of the process whose namespaces are wanted.
        flags: ``CLONE_NEW*`` bits.
    """
    libc.setns(pidfd, flags)

# SPDX-License-Identifier: Apache-2.0
"""Which errors are the disk's or the host's and no fault of what was asked, and what helps against them."""

from __future__ import annotations

import errno
import os

#: No room, no quota; the device fails; the file system went read-only because it did.
FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
FAILING = frozenset((errno.EIO, errno.EROFS, errno.EUCLEAN))
REFUSED = frozenset((errno.EACCES, errno.EPERM))
_OF_HOST: dict[int | None, str] = {
    errno.EMFILE: "allow a process more open files: ulimit -n 1024, or LimitNOFILE= of the unit",
    errno.ENFILE: "allow the host more open files: sysctl fs.file-max",
    errno.ENOMEM: "see what has the memory: free -m, rkt stats",
}


def is_disk(e: OSError) -> bool:
    """Whether it is one."""
    return e.errno in FULL or e.errno in FAILING


def is_want(number: int | None) -> bool:
    """Whether a number of an error says that the host is short of something: room, memory, open files."""
    return number in FULL or number in _OF_HOST


def remedy(number: int | None) -> str:
    """What to type next; empty for errors that are neither the disk's nor the host's."""
    if number in FULL:
        return "make room: rkt gc, rkt image gc"
    if number in FAILING:
        return "see what the kernel says about the disk (dmesg); later: rkt image gc, rkt image verify"
    if number in REFUSED:
        return "run the command as root" if os.geteuid() else ""
    return _OF_HOST.get(number, "")

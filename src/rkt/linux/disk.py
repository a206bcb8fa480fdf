# SPDX-License-Identifier: Apache-2.0
"""Which errors are the disk's and no fault of what was being written, and what helps against them."""

from __future__ import annotations

import errno

#: No room, no quota; the device fails; the file system went read-only because it did.
FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
FAILING = frozenset((errno.EIO, errno.EROFS, errno.EUCLEAN))


def is_disk(e: OSError) -> bool:
    """Whether it is one."""
    return e.errno in FULL or e.errno in FAILING


def remedy(number: int | None) -> str:
    """What to type next; empty for errors that are not the disk's."""
    if number in FULL:
        return "make room: rkt gc, rkt image gc"
    if number in FAILING:
        return "see what the kernel says about the disk (dmesg); later: rkt image gc, rkt image verify"
    return ""

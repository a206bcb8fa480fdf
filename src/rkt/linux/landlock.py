# SPDX-License-Identifier: Apache-2.0
"""Landlock: a process gives up files, ports and signals for itself and whatever it starts, for good.

The kernel's version of the interface (ABI) says which rights it knows. A ruleset handles, and so refuses, every right
that the kernel knows; what is to stay is allowed below the paths that are given. Rights the kernel does not know yet are
left out, so that the same request is as strict as each kernel can make it.

Descriptors that are open already keep working: that is how a worker writes to what it was handed.
"""

from __future__ import annotations

import errno
import os

from rkt.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: The newest version whose rights are listed below.
NEWEST_ABI = 7

# <linux/landlock.h>
EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
REMOVE_DIR = 1 << 4
REMOVE_FILE = 1 << 5
MAKE_CHAR = 1 << 6
MAKE_DIR = 1 << 7
MAKE_REG = 1 << 8
MAKE_SOCK = 1 << 9
MAKE_FIFO = 1 << 10
MAKE_BLOCK = 1 << 11
MAKE_SYM = 1 << 12
REFER = 1 << 13
TRUNCATE = 1 << 14
IOCTL_DEV = 1 << 15
BIND_TCP = 1 << 0
CONNECT_TCP = 1 << 1
SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0
SCOPE_SIGNAL = 1 << 1

#: What may be done to a file that is not a directory.
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READ = READ_FILE | READ_DIR
#: Everything that fills a directory with files, directories, links and named pipes; no devices, no sockets.
FILL = (
    READ
    | WRITE_FILE
    | TRUNCATE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_FIFO
    | MAKE_SYM
    | REFER
)

_FILE_RIGHTS_OF_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_ALL_FILE_RIGHTS = (1 << 16) - 1
#: Versions from which on ports, and signals and abstract sockets, are known.
_NETWORK_ABI, _SCOPE_ABI = 4, 6
#: Without REFER a kernel of version 1 refuses every link to another directory, which archives are full of.
REFER_ABI = 2


def abi() -> int:
    """The kernel's version of Landlock; 0 when it has none, or was started without."""
    try:
        return libc.landlock_abi()
    except OSError as e:
        if e.errno in {errno.ENOSYS, errno.EOPNOTSUPP}:
            return 0
        raise


def file_rights(version: int) -> int:
    """Every right to files that a version of Landlock knows."""
    return _FILE_RIGHTS_OF_ABI.get(version, _ALL_FILE_RIGHTS) if version > 0 else 0


def restrict(allowed: Iterable[tuple[bytes, int]], *, network: int = BIND_TCP | CONNECT_TCP) -> int:
    """Refuse the calling thread everything that the kernel can refuse, but what is allowed.

    ``no_new_privs`` must be set. Paths that do not exist are passed over: they may be made later, and stay refused.

    Args:
        allowed: (path, rights in and below it); for a file the rights that only directories have are left out.
        network: TCP rights to give up, from ABI 4 on: ``BIND_TCP``, ``CONNECT_TCP``.
    Returns:
        the version of Landlock that is in force, 0 when the kernel has none.
    Raises:
        OSError: the kernel has it and refuses.
    """
    version = min(abi(), NEWEST_ABI)
    if version == 0:
        return 0
    handled = file_rights(version)
    ruleset = libc.landlock_create_ruleset(
        handled,
        network if version >= _NETWORK_ABI else 0,
        SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL if version >= _SCOPE_ABI else 0,
    )
    try:
        for path, rights in allowed:
            _allow(ruleset, path, rights & handled)
        libc.landlock_restrict_self(ruleset)
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, path: bytes, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        # What this user cannot reach needs no rule.
        return
    try:
        if not os.path.isdir(path):
            rights &= FILE_RIGHTS
        libc.landlock_add_path(ruleset, fd, rights)
    finally:
        os.close(fd)

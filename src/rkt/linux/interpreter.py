# SPDX-License-Identifier: Apache-2.0
"""Keeps a pod from writing to the interpreter that makes it (CVE-2019-5736).

Until it executes the app's program, a process of the pod is our interpreter, a file of the host. An image can have it
executed in the pod, where ``/proc/self/exe`` is the program or its ``#!`` line, and a neighbour in the pod may catch it in
between; both then hold that file through ``/proc/PID/exe``, and root could write to it. A mount that was read-only when the
program was executed keeps that from happening, whatever becomes of the process: the file is open on that mount.
"""

from __future__ import annotations

import os

from rkt.linux import libc, mount

_SELF = "/proc/self/exe"


def is_sealed() -> bool:
    """Whether this process runs from a read-only mount."""
    return bool(os.statvfs(_SELF).f_flag & os.ST_RDONLY)


def seal_in_own_namespace() -> None:
    """Leave the caller's mount namespace, and make the interpreter read-only for what is executed from then on.

    Raises:
        OSError: there is no right to, or the program was replaced since it started and cannot be found.
    """
    # Below a chroot the link can only be read from the namespace in which the program was executed.
    path = os.readlink(_SELF)
    mount.enter_own_namespace()
    mount.bind(path, path, attributes=libc.MOUNT_ATTR_RDONLY, recursive=False)

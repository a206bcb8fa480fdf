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


def seal() -> None:
    """Make the interpreter read-only for what is executed from now on; the mount namespace must be our own.

    Raises:
        OSError: it could not be done; a program that was replaced since it started cannot be found.
    """
    path = os.readlink(_SELF)
    mount.bind(path, path, attributes=libc.MOUNT_ATTR_RDONLY, recursive=False)


def seal_in_own_namespace() -> None:
    """Leave the caller's mount namespace, then ``seal``.

    Raises:
        OSError: as ``seal``, or there is no right to.
    """
    mount.enter_own_namespace()
    seal()

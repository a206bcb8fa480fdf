# SPDX-License-Identifier: Apache-2.0
"""Instances of inotify(7), of which a user has few: what systemd as a pod's first process needs, and whether there is room."""

from __future__ import annotations

import os

from rkt.linux import libc

#: That the systemd of a pod holds, from 252 on: its cgroups, the time zone, who asks for passwords.
OF_SYSTEMD = 3
#: How many all processes of a user may have together; the kernel's default is 128.
LIMIT = "fs.inotify.max_user_instances"


def limit() -> int:
    """How many instances each user may have."""
    with open(f"/proc/sys/{LIMIT.replace('.', '/')}", encoding="ascii") as stream:
        return int(stream.read())


def try_room() -> None:
    """Return when there is room for one more systemd of the caller's user.

    Raises:
        OSError: ``EMFILE`` when there is not.
    """
    made: list[int] = []
    try:
        made.extend(libc.inotify_init1(os.O_CLOEXEC) for _ in range(OF_SYSTEMD))
    finally:
        for fd in made:
            os.close(fd)

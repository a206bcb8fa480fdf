# SPDX-License-Identifier: Apache-2.0
"""What a pod that is up says of itself: the files that stage0 waits for, and word to a service manager."""

from __future__ import annotations

import os

from rkt.linux import files, pidfd
from rkt.stage0 import contract


def announce(pid: int) -> None:
    """The files stage0 waits for, the pid last."""
    announce_ready()
    files.replace_file(contract.PID, b"%d" % pid, 0o640, sync=False)


def announce_app(name: str, pid: int, directory: str = ".") -> None:
    """``appsinfo/APP/pid``: pid and start time, by which ``enter`` finds the app and knows it for the same process.

    Args:
        name: of the app.
        pid: of its program; of one that is over already nothing is said.
        directory: the pod's.
    """
    started = pidfd.start_time(pid)
    if started:
        path = f"{directory}/appsinfo/{name}/pid"
        files.replace_file(path, b"%d %d\n" % (pid, started), 0o640, sync=False)


def announce_ready() -> None:
    """Say that the pod is up; what counts is said by its pid."""
    ready = f"{contract.STAGE1_ROOTFS}/{contract.SUPERVISOR_STATUS}"
    try:
        os.unlink(ready)
    except FileNotFoundError:
        pass
    os.symlink("ready", ready)


def notify_ready() -> None:
    """Word to a service manager that asked for it: apps run, and those that can tell are ready."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        from rkt.stage1.common.notify import notify

        notify(address, b"READY=1")

# SPDX-License-Identifier: Apache-2.0
"""The ``stop`` entrypoint: a signal to the app, then to what it left behind, SIGKILL in the end (spec runtime §3.13)."""

from __future__ import annotations

import _signal
import os
import time

from rkt.errors import Stage1Error
from rkt.linux import cgroup_freezer, cgroup_processes, files, pidfd
from rkt.stage0 import contract
from rkt.stage1.common import signals
from rkt.stage1.common.enter import find_app
from rkt.stage1.common.groups import find_groups
from rkt.stage1.common.pod import load_pod
from rkt.stage1.fly.plan import only_app
from rkt.values import PodUUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.linux.cgroup import Group

_PAUSE_SECONDS = 0.02


def main(argv: list[str]) -> int:
    """Stop the pod whose directory is the working directory; ``--force`` kills it.

    Raises:
        Stage1Error: something of it cannot be ended.
    """
    uuid = PodUUID.parse(argv[-1] if argv else "")
    app = only_app(load_pod())
    group = find_groups(uuid)
    try:
        _, process = find_app(app.name)
    except Stage1Error:
        process = -1
    if "--force" not in argv:
        deadline = time.monotonic() + signals.STOP_SECONDS
        number = signals.stop_signal(app)
        if process >= 0:
            pidfd.send_signal(process, number)
        if os.path.exists(contract.PAUSED):
            cgroup_freezer.thaw(group)
        if process >= 0:
            pidfd.wait_exit(process, signals.STOP_SECONDS)
        _ask_others(group, deadline)
    if process >= 0:
        pidfd.send_signal(process, _signal.SIGKILL)
    if not group.directories():
        _kill_process_group()
    elif not cgroup_processes.kill(group):
        raise Stage1Error(
            f"processes of the pod cannot be killed: {' '.join(str(pid) for pid in sorted(cgroup_processes.pids(group)))}",
            hint=f"rkt stop --force {uuid.short}",
        )
    return 0


def _ask_others(group: Group, deadline: float) -> None:
    """SIGTERM to what the app left behind, and the rest of its stop time."""
    for pid in cgroup_processes.pids(group):
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        if pid in cgroup_processes.pids(group):
            # Still the same process: the descriptor pins it.
            pidfd.send_signal(fd, _signal.SIGTERM)
        os.close(fd)
    while cgroup_processes.pids(group) and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)


def _kill_process_group() -> None:
    """Where the pod could have no cgroup: the group of processes that it was, if it was one of its own."""
    pgid = int(files.read_bounded(contract.PGID, 32))
    if pgid == int(files.read_bounded(contract.PID, 32)):
        try:
            os.killpg(pgid, _signal.SIGKILL)
        except ProcessLookupError:
            return

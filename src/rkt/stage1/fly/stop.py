# SPDX-License-Identifier: Apache-2.0
"""The ``stop`` entrypoint: a signal to the app, then to what it left behind, SIGKILL in the end (spec runtime §3.13)."""

from __future__ import annotations

import _signal
import os
import time

from rkt.errors import Stage1Error
from rkt.linux import cgroup, files, pidfd
from rkt.stage0 import contract
from rkt.stage1.common import signals
from rkt.stage1.common.enter import find_app
from rkt.stage1.common.limits import group_name
from rkt.stage1.common.pod import load_pod
from rkt.stage1.fly.plan import only_app
from rkt.values import PodUUID

_RECORD_BYTES = 64 << 10
_PAUSE_SECONDS = 0.02


def main(argv: list[str]) -> int:
    """Stop the pod whose directory is the working directory; ``--force`` kills it.

    Raises:
        Stage1Error: something of it cannot be ended.
    """
    uuid = PodUUID.parse(argv[-1] if argv else "")
    app = only_app(load_pod())
    group = _group(uuid)
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
            group.thaw()
        if process >= 0:
            pidfd.wait_exit(process, signals.STOP_SECONDS)
        _ask_others(group, deadline)
    if process >= 0:
        pidfd.send_signal(process, _signal.SIGKILL)
    if not group.directories():
        _kill_process_group()
    elif not group.kill():
        raise Stage1Error(
            f"processes of the pod cannot be killed: {' '.join(str(pid) for pid in sorted(group.pids()))}",
            hint=f"rkt stop --force {uuid.short}",
        )
    return 0


def _group(uuid: PodUUID) -> cgroup.Group:
    host = cgroup.Cgroups.detect()
    try:
        return host.open_pod(files.read_bounded(contract.SUBCGROUP, _RECORD_BYTES).decode(), group_name(uuid))
    except FileNotFoundError:
        return host.search_pod(group_name(uuid))
    except ValueError as e:
        raise Stage1Error(f"{contract.SUBCGROUP} of pod {uuid} is damaged: {e}") from e


def _ask_others(group: cgroup.Group, deadline: float) -> None:
    """SIGTERM to what the app left behind, and the rest of its stop time."""
    for pid in group.pids():
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        if pid in group.pids():
            # Still the same process: the descriptor pins it.
            pidfd.send_signal(fd, _signal.SIGTERM)
        os.close(fd)
    while group.pids() and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)


def _kill_process_group() -> None:
    """Where the pod could have no cgroup: the group of processes that it was, if it was one of its own."""
    pgid = int(files.read_bounded(contract.PGID, 32))
    if pgid == int(files.read_bounded(contract.PID, 32)):
        try:
            os.killpg(pgid, _signal.SIGKILL)
        except ProcessLookupError:
            return

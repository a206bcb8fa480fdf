# SPDX-License-Identifier: Apache-2.0
"""The ``stop`` entrypoint: ask the supervisor and wait, or kill (spec runtime §1.5)."""

from __future__ import annotations

import _signal
import os
import select

from rkt.errors import Stage1Error
from rkt.linux import files, pidfd
from rkt.stage0 import contract
from rkt.stage1.common import control

#: How long the pod may take beyond its stop time, in seconds.
_GRACE_SECONDS = 20.0
#: How long a killed supervisor, its plugins and who guards its pod may take to be gone.
_RELEASE_SECONDS = 5.0
_RELEASE_PAUSE_SECONDS = 0.002


def main(argv: list[str]) -> int:
    """Stop the pod whose directory is the working directory; ``--force`` kills it.

    Raises:
        Stage1Error: it does not stop, or nobody supervises it.
    """
    force = "--force" in argv
    client = control.connect()
    pid, _, _ = control.peer(client)
    try:
        supervisor = os.pidfd_open(pid)
    except ProcessLookupError:
        return 0  # it has ended since
    if force:
        _kill(supervisor, argv[-1])
        return 0
    answer = control.ask(client, {"op": "stop"})
    if answer is None:
        answer = {"ok": True}  # it is ending
    if not answer.get("ok"):
        raise Stage1Error(f"the pod's supervisor refused: {answer}")
    poll = select.poll()
    poll.register(supervisor, select.POLLIN)
    seconds = float(answer.get("stop_seconds", 0)) + _GRACE_SECONDS
    if not poll.poll(int(seconds * 1000)):
        raise Stage1Error(f"the pod did not stop within {seconds:.0f} s", hint="rkt stop --force UUID")
    return 0


def _kill(supervisor: int, uuid: str) -> None:
    """Kill the supervisor, then the pod's pid 1, so that no process of it is left."""
    try:
        init = os.pidfd_open(int(files.read_bounded(contract.PID, 32)))
    except (FileNotFoundError, ProcessLookupError):
        init = -1
    # In this order, else it might see the end of the pod and end by itself before it is killed.
    pidfd.send_signal(supervisor, _signal.SIGKILL)
    # Also where the supervisor would take it along: it may be stuck in the kernel.
    if init >= 0:
        pidfd.send_signal(init, _signal.SIGKILL)
    if os.path.exists(contract.PAUSED):
        _thaw(uuid)
    _await_end()


def _await_end() -> None:
    """Return when nobody holds the pod any more, or after a while: whoever collects it next finds it over.

    Its networks are given back then, as the supervisor would have done at its end; what is not, gc takes.
    """
    import fcntl
    import time

    has_networks = os.path.lexists(contract.NETNS)
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = time.monotonic() + _RELEASE_SECONDS
    while True:
        try:
            # Shared where there is nothing to do: for others the pod is over, and not somebody's again.
            fcntl.flock(fd, (fcntl.LOCK_EX if has_networks else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                return
            time.sleep(_RELEASE_PAUSE_SECONDS)
    if has_networks and os.path.lexists(contract.NETNS):
        from rkt.stage1.common.networks import release_left

        release_left(os.getcwd(), hold_fd=fd)


def _thaw(uuid: str) -> None:
    """Let processes that are frozen go on to their death: in version 1 they wait for it."""
    from rkt.linux import cgroup_freezer
    from rkt.stage1.common.groups import open_groups

    try:
        cgroup_freezer.thaw(open_groups(uuid))
    except (OSError, ValueError) as e:
        raise Stage1Error(f"the pod is killed, but its processes stay frozen: {e}", hint="rkt gc") from e

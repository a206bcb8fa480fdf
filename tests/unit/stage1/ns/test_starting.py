# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rkt.errors import Stage1Error
from rkt.stage1.ns.starting import Starting


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_full_table_of_descriptors_gets_no_fuller(monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    """Where there is no room for all pipes of a new process, those that there were are closed, and its plan released."""
    released = []
    plan = SimpleNamespace(streams=None, cgroup_fd=-1, release=lambda: released.append(True))
    pipe = os.pipe
    made: list[bool] = []

    def scarce() -> tuple[int, int]:
        if len(made) == left:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        made.append(True)
        return pipe()

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "pipe", scarce)
    with pytest.raises(OSError, match="Too many open files"):
        Starting(cast("Any", plan), -1)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert released == [True]


def test_a_signal_to_a_process_between_fork_and_exec_is_not_the_supervisors() -> None:
    """^C reaches all processes of the terminal; what the new one gets is not read as a second one by the supervisor."""
    plan = SimpleNamespace(
        name="app",
        streams=None,
        cgroup_fd=-1,
        root_fd=-1,
        steps=[SimpleNamespace(apply=lambda _root: os.kill(os.getpid(), signal.SIGUSR1))],
        execute=None,
        release=lambda: None,
    )
    wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    handler = signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    before = signal.set_wakeup_fd(wake_w)
    try:
        with pytest.raises(Stage1Error):
            Starting(cast("Any", plan), -1).wait()
        with pytest.raises(BlockingIOError):
            os.read(wake_r, 1)
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGUSR1, handler)
        os.close(wake_r)
        os.close(wake_w)

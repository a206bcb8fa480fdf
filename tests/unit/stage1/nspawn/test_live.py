# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from rkt.stage1.nspawn.live import LiveSupervisor, in_child


def test_a_stop_while_an_app_waits_to_be_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that could not be started, and is let go of when the pod stops, does not keep the others from being stopped."""
    over: list[str] = []
    supervisor = LiveSupervisor.__new__(LiveSupervisor)
    supervisor._thaw = lambda: None
    apps: dict[str, Any] = {
        name: SimpleNamespace(name=name, is_running=False, goes_on=True, status=254) for name in ("a", "b")
    }
    supervisor._apps = apps

    def let_go(app: SimpleNamespace, _status: int) -> None:
        over.append(app.name)
        del supervisor._apps[app.name]

    monkeypatch.setattr(supervisor, "_over", let_go)
    supervisor._stop()
    assert over == ["a", "b"]


def test_a_signal_to_a_process_that_makes_an_app_ready_is_not_the_supervisors() -> None:
    """^C reaches all processes of the terminal; what the child gets is not read as a second one by the supervisor."""
    wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    handler = signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    before = signal.set_wakeup_fd(wake_w)
    try:
        in_child(lambda: os.kill(os.getpid(), signal.SIGUSR1))
        with pytest.raises(BlockingIOError):
            os.read(wake_r, 1)
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGUSR1, handler)
        os.close(wake_r)
        os.close(wake_w)

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from rkt.stage1.nspawn.live import LiveSupervisor

if TYPE_CHECKING:
    import pytest


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

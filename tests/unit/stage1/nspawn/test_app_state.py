# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from rkt.stage1.nspawn.app_state import App

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("handlers", "is_gated"), [((), False), (("pre-start",), True), (("post-stop",), True)]
)
def test_an_app_with_handlers_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handlers: tuple[str, ...], *, is_gated: bool
) -> None:
    """Each process of an app with handlers waits for output of its own, also where systemd sets the limits: lines do not run together."""
    monkeypatch.chdir(tmp_path)
    os.makedirs("logs")
    execute = SimpleNamespace(uid=1000, working_directory=b"/")
    described = SimpleNamespace(name="web", runtime=SimpleNamespace(annotations={}))
    launch: Any = SimpleNamespace(app=described, execute=execute, handlers=dict.fromkeys(handlers, execute))
    app = App(launch, None)
    app.log.finish()
    assert app.is_gated is is_gated
    assert app.has_later is ("post-stop" in handlers)

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from rkt.stage1.common.streams import Outlet
from rkt.stage1.nspawn.entrance import Entrance
from rkt.stage1.nspawn.root import STREAMS

if TYPE_CHECKING:
    from pathlib import Path


def process(text: str) -> subprocess.Popen[bytes]:
    """Opens its output as systemd does for a process of a unit, one FIFO after the other, and says something."""
    script = 'exec > "$1-stdout"; exec 2> "$1-stderr"; printf "$2"'
    return subprocess.Popen(["/bin/sh", "-c", script, "sh", f"{STREAMS}/web", text])


def taken(app: Any) -> bytes:
    """What has come, and what it came from is closed."""
    found = b""
    for fd in app.outlets:
        try:
            found += os.read(fd, 100)
        except BlockingIOError:
            pass
        os.close(fd)
    app.outlets.clear()
    return found


def test_processes_of_a_unit_do_not_share_a_fifo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is let in says what it has to say; the next waits before the barrier, and is let in by output of its own."""
    monkeypatch.chdir(tmp_path)
    os.makedirs(STREAMS)
    for name in ("stdout", "stderr"):
        os.mkfifo(f"{STREAMS}/web-{name}", 0o200)
    failures: list[str] = []
    arguments: Any = SimpleNamespace(interactive=False)
    entrance = Entrance(SimpleNamespace(), arguments, (Outlet(-1), Outlet(-1)), failures.append)  # type: ignore[arg-type]
    described = SimpleNamespace(name="web", runtime=SimpleNamespace(annotations={}))
    app: Any = SimpleNamespace(
        name="web", outlets={}, barrier="", launch=SimpleNamespace(app=described, handlers={})
    )
    with process("one") as first:
        entrance.let_in(app, first.pid)
        assert first.wait(20) == 0
    assert app.barrier == "stdout"
    with process("two") as second:
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(0.02)
        entrance.lift_barrier(app)
        assert taken(app) == b"one"
        entrance.open_outlets(app)
        assert second.wait(20) == 0
    assert taken(app) == b"two"
    assert (app.barrier, failures) == ("", [])

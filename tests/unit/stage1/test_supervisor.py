# SPDX-License-Identifier: Apache-2.0
"""When the supervisor starts, stops and kills what an app consists of; the processes are plain shells, without isolation."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from rkt.stage1.ns import supervisor as module
from rkt.stage1.ns.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Shell:
    """Stands for ``Starting``: a script in a process of its own."""

    def __init__(self, script: str, stdin_fd: int) -> None:
        self.streams = None
        self.stdout_fd, stdout_w = os.pipe()
        self.stderr_fd, stderr_w = os.pipe()
        self.pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", script],
            {"PATH": "/usr/bin:/bin"},
            file_actions=[(os.POSIX_SPAWN_DUP2, stdout_w, 1), (os.POSIX_SPAWN_DUP2, stderr_w, 2)],
            setpgroup=0,
        )
        self.pidfd = os.pidfd_open(self.pid)
        os.close(stdout_w)
        os.close(stderr_w)

    def wait(self) -> None:
        """Started already."""


class Script:
    """Stands for ``Launch``: scripts by stage."""

    def __init__(self, name: str, **scripts: str) -> None:
        self.name = name
        self._scripts = {stage.replace("_", "-").replace("main", ""): text for stage, text in scripts.items()}
        self.first = "pre-start" if "pre-start" in self._scripts else ""
        self.has_post_stop = "post-stop" in self._scripts
        self.cgroup = SimpleNamespace(
            kill=lambda: True,
            out_of_memory_kills=lambda: ("", 0),
            memory_limit=lambda: None,
            unified_directory=None,
        )

    def plan(self, stage: str) -> str:
        """The script of a stage."""
        return self._scripts[stage]


class Pod:
    """A supervisor with what it said and what its apps wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []
        quiet = SimpleNamespace(
            wait_ready=lambda: None,
            kill=lambda: None,
            wait=lambda: None,
            enter=lambda: None,
            leave=lambda: None,
        )
        self.server_fd = os.eventfd(0)
        server = SimpleNamespace(fileno=lambda: self.server_fd)
        self.supervisor = Supervisor(
            cast("Any", quiet),
            cast("Any", quiet),
            cast("Any", server),
            status_directory=str(path / "status"),
            report=self.said.append,
            thaw=lambda: None,
        )

    def run(self, *launches: Script) -> int:
        """Run the apps to their end."""
        for launch in launches:
            (self.path / "appsinfo" / launch.name).mkdir(parents=True)
        self.supervisor.start(cast("Any", list(launches)))
        return self.supervisor.run()

    def written(self, name: str) -> list[str]:
        """Lines of an app's log."""
        text = (self.path / "logs" / f"{name}.log").read_text()
        return [line.split(" ", 3)[3] for line in text.splitlines()]

    def status(self, name: str) -> int:
        """What is recorded of an app."""
        return int((self.path / "status" / name).read_text())


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    """A pod directory, the working directory; signals are as before afterwards."""
    for name in ("logs", "status"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "Starting", Shell)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = [(number, signal.getsignal(number)) for number in numbers]
    wakeup = signal.set_wakeup_fd(-1)
    try:
        yield Pod(tmp_path)
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before:
            signal.signal(number, handler)


def test_stages_follow_one_another(pod: Pod) -> None:
    """Pre-start, the app, post-stop, each when the one before has ended; the status is the app's."""
    script = Script("a", pre_start="echo 1", main="echo 2; exit 4", post_stop="echo 3; exit 5")
    assert pod.run(script) == 4
    assert pod.written("a") == ["1", "2", "3"]
    assert pod.status("a") == 4
    assert pod.said == ["app 'a': the post-stop handler ended with status 5"]


def test_a_post_stop_handler_has_its_time_and_no_more(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs is killed and reported; the app's status is not touched."""
    monkeypatch.setattr(module, "POST_STOP_SECONDS", 1.0)
    started = time.monotonic()
    assert pod.run(Script("a", main="true", post_stop="trap '' TERM; echo begun; exec sleep 60")) == 0
    assert time.monotonic() - started < 20
    assert pod.written("a") == ["begun"]
    assert pod.said == [
        "app 'a': the post-stop handler did not end within 1 s",
        "app 'a': the post-stop handler ended with status 137",
    ]


def test_the_end_of_the_stop_time_spares_handlers_that_have_begun(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An app that ignores TERM is killed, and its post-stop handler still runs to its end."""
    monkeypatch.setattr(module, "STOP_SECONDS", 0.1)
    scripts = (
        Script(
            "first", main="until [ -e ready ]; do sleep 0.01; done; exit 3", post_stop="sleep 0.3; echo done"
        ),
        Script("stubborn", main="trap '' TERM; : > ready; exec sleep 60", post_stop="echo done"),
    )
    assert pod.run(*scripts) == 3
    assert pod.written("first") == ["done"]
    assert pod.written("stubborn") == ["done"]
    assert pod.status("stubborn") == 137


def test_a_failed_pre_start_handler_stops_the_others(pod: Pod) -> None:
    """Its app never starts and has its status, the others are told to end and have done what they were told."""
    scripts = (
        Script("a", pre_start="exit 9", main="echo started"),
        Script("b", main="exec sleep 60", post_stop="echo cleaned"),
    )
    assert pod.run(*scripts) == 9
    assert pod.written("a") == []
    assert pod.written("b") == ["cleaned"]
    assert (pod.status("a"), pod.status("b")) == (9, 0)
    assert "so the app is not started" in pod.said[0]
    assert pod.said[1] == "app 'a' exited with status 9, stopping the pod"

# SPDX-License-Identifier: Apache-2.0
"""When the supervisor starts, stops and kills what an app consists of; the processes are plain shells, without isolation."""

from __future__ import annotations

import errno
import os
import signal
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from rkt.errors import Stage1Error
from rkt.linux.cgroup import Group
from rkt.stage1.common import restart
from rkt.stage1.common.log import LogFile
from rkt.stage1.common.restart import Restarts
from rkt.stage1.ns import supervisor as module
from rkt.stage1.ns.live import LiveSupervisor
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

    def __init__(self, name: str, *, restart: str = "", **scripts: str) -> None:
        self.name = name
        self._scripts = {stage.replace("_", "-").replace("main", ""): text for stage, text in scripts.items()}
        self.first = "pre-start" if "pre-start" in self._scripts else ""
        self.has_post_stop = "post-stop" in self._scripts
        self.stop_signal = 15
        self.restarts = Restarts(name, restart) if restart else None
        self.cgroup = Group(name, [], [])

    def plan(self, stage: str) -> str:
        """The script of a stage."""
        return self._scripts[stage]

    def open_log(self) -> LogFile:
        """The usual one."""
        return LogFile(f"logs/{self.name}.log")


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
            set_limits=lambda *_: None,
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
    made = Pod(tmp_path)
    try:
        yield made
    finally:
        os.close(signal.set_wakeup_fd(wakeup))
        os.close(made.supervisor._wake_r)
        os.close(made.server_fd)
        for number, handler in before:
            signal.signal(number, handler)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apps are started again sooner."""
    monkeypatch.setattr(restart, "FIRST_DELAY", 0.01)


def test_stages_follow_one_another(pod: Pod) -> None:
    """Pre-start, the app, post-stop, each when the one before has ended; the status is the app's."""
    script = Script("a", pre_start="echo 1", main="echo 2; exit 4", post_stop="echo 3; exit 5")
    assert pod.run(script) == 4
    assert pod.written("a") == ["1", "2", "3"]
    assert pod.status("a") == 4
    assert pod.said == ["app 'a': the post-stop handler ended with status 5"]


@pytest.mark.usefixtures("quick")
def test_a_line_ends_with_who_began_it(pod: Pod) -> None:
    """What a handler or a run of the program leaves unfinished is a line of its own, not the beginning of what comes next."""
    script = Script(
        "a", restart="on-failure:1", pre_start="printf 1", main="printf 2; exit 4", post_stop="printf 3"
    )
    assert pod.run(script) == 4
    assert pod.written("a") == ["1", "2", "3"] * 2


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


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("policy", "main", "runs", "status"),
    [
        ("no", "echo x; exit 3", 1, 3),
        ("on-failure", "echo x; exit 0", 1, 0),
        ("on-failure:2", "echo x; exit 3", 3, 3),
        ("on-failure", "echo x; [ $(ls -A . | grep -c mark) -lt 3 ] || exit 0; : > mark$$; exit 4", 4, 0),
        ("on-failure:1", "echo x; kill -KILL $$", 2, 137),
    ],
)
def test_restart_policies(pod: Pod, policy: str, main: str, runs: int, status: int) -> None:
    """An app is started again as often as its policy says, and the pod has the status of its last run."""
    assert pod.run(Script("a", restart=policy, main=main)) == status
    assert pod.written("a") == ["x"] * runs
    assert pod.status("a") == status
    record = pod.path / "appsinfo" / "a" / "restarts"
    assert (record.read_text().split()[0] if record.exists() else "0") == str(runs - 1)


@pytest.mark.usefixtures("quick")
def test_a_failure_that_is_mended_takes_nobody_down(pod: Pod) -> None:
    """As long as an app is to run again the others go on; when its policy gives up they are stopped."""
    third = "[ $(cut -c1 appsinfo/a/restarts || echo 0) != 2 ]"
    scripts = (
        Script("a", restart="on-failure:2", main=f"{third} || until [ -e all ]; do sleep 0.01; done; exit 6"),
        Script("b", main="until grep -q ^2 appsinfo/a/restarts; do sleep 0.01; done; : > all; exec sleep 60"),
    )
    assert pod.run(*scripts) == 6
    assert (pod.path / "all").exists()
    assert (pod.status("a"), pod.status("b")) == (6, 0)
    again = "app 'a' exited with status 6, starting it again in 0.0 s"
    assert pod.said == [again, again, "app 'a' exited with status 6, stopping the pod"]


@pytest.mark.usefixtures("quick")
def test_handlers_run_around_each_start(pod: Pod) -> None:
    """Every start has its pre-start handler, every end its post-stop handler, and a failed pre-start handler is one more failure."""
    script = Script(
        "a",
        restart="on-failure:2",
        pre_start="echo 1; echo >> starts; [ $(wc -l < starts) != 2 ]",
        main="echo 2; exit 7",
        post_stop="echo 3",
    )
    assert pod.run(script) == 7
    assert pod.written("a") == ["1", "2", "3", "1", "3", "1", "2", "3"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Stage1Error("app 'a': no room", hint="make some"), ["app 'a': no room", "hint: make some"]),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x"),
            ["app 'a': /x: No space left on device", "hint: make room: rkt gc, rkt image gc"],
        ),
    ],
)
def test_a_start_that_fails_says_what_would_help(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, error: Exception, said: list[str]
) -> None:
    """The app of a pod that goes on could not be started again: why, what to type next, and one more failure."""
    starts = 0

    class Failing(Shell):
        """Starts once."""

        def __init__(self, script: str, stdin_fd: int) -> None:
            nonlocal starts
            starts += 1
            if starts == 2:
                raise error
            super().__init__(script, stdin_fd)

    monkeypatch.setattr(module, "Starting", Failing)
    assert pod.run(Script("a", restart="on-failure:2", main="exit 5")) == 5
    assert starts == 3
    first, second = (f"app 'a' exited with status {n}, starting it again in 0.0 s" for n in (5, 254))
    assert pod.said == [first, *said, second]


@pytest.mark.parametrize("when", ["waiting", "running"])
def test_a_stop_stops_it(pod: Pod, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Told to stop, the pod does not start an app again, whether it waits for that or runs; it has the status of its last end."""
    monkeypatch.setattr(restart, "FIRST_DELAY", 0.01 if when == "running" else 60.0)
    main = {
        "waiting": f"echo x; ( until [ -e appsinfo/a/restarts ]; do sleep 0.01; done; kill -TERM {os.getpid()} ) & exit 5",
        "running": f"trap 'exit 5' TERM; echo x; kill -TERM {os.getpid()}; sleep 60 & wait",
    }[when]
    assert pod.run(Script("a", restart="always", main=main)) == 5
    assert pod.written("a") == ["x"]
    assert pod.status("a") == 5


@pytest.mark.parametrize("trap", ["", "trap 'exit 0' TERM;"])
def test_a_stop_before_the_program_runs_again(pod: Pod, monkeypatch: pytest.MonkeyPatch, trap: str) -> None:
    """A pod that is stopped while the handler before another run is at work has the status of the app's last end, and no handler failed."""
    monkeypatch.setattr(restart, "FIRST_DELAY", 0.01)
    stop = f"{trap} kill -TERM {os.getpid()}; while :; do sleep 0.01; done"
    handler = f"echo >> starts; [ $(wc -l < starts) = 1 ] || {{ {stop}; }}"
    assert pod.run(Script("a", restart="always", pre_start=handler, main="echo x; exit 5")) == 5
    assert pod.written("a") == ["x"]
    assert pod.said == ["app 'a' exited with status 5, starting it again in 0.0 s"]


@pytest.mark.parametrize(
    ("stage", "is_told", "raw", "status"),
    [
        ("", True, signal.SIGTERM, 0),
        ("", False, signal.SIGTERM, 143),
        ("", True, signal.SIGKILL, 137),
        ("", True, 143 << 8, 143),
        ("", True, 5 << 8, 5),
        ("pre-start", True, signal.SIGTERM, 0),
        ("post-stop", True, signal.SIGTERM, 143),
    ],
)
def test_only_the_signal_of_a_stop_is_a_success(stage: str, *, is_told: bool, raw: int, status: int) -> None:
    """An app of a sandbox that exits by itself while it is stopped has its own status, whatever that is."""
    supervisor = LiveSupervisor.__new__(LiveSupervisor)
    supervisor._told = {"a": 1.0} if is_told else {}
    app: Any = SimpleNamespace(name="a", stage=stage, launch=SimpleNamespace(stop_signal=15))
    assert supervisor._status(app, raw) == status


def test_apps_that_nobody_looks_after_are_taken_leave_of(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """When an app's log cannot be opened the processes that have been started are reaped: pid 1 cannot go before."""
    started: list[Shell] = []

    class Counted(Shell):
        """Tells who was started."""

        def __init__(self, script: str, stdin_fd: int) -> None:
            super().__init__(script, stdin_fd)
            started.append(self)

    def refuse() -> LogFile:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "logs/a.log")

    monkeypatch.setattr(module, "Starting", Counted)
    first, second = Script("a", main="true"), Script("b", main="true")
    monkeypatch.setattr(first, "open_log", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        pod.run(first, second)
    pod.supervisor.finish()
    assert len(started) == 2
    for each in started:
        with pytest.raises(ChildProcessError):
            os.waitpid(each.pid, os.WNOHANG)
        for fd in (each.pidfd, each.stdout_fd, each.stderr_fd):
            os.close(fd)

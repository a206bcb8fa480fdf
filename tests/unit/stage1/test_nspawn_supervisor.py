# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest

from rkt.errors import Stage1Error
from rkt.stage1.common.streams import Outlet, Prefixer
from rkt.stage1.nspawn import supervisor as module
from rkt.stage1.nspawn.dbus_wire import WireError
from rkt.stage1.nspawn.live import LiveSupervisor
from rkt.stage1.nspawn.supervisor import Supervisor


class Machine:
    """A pod that can be killed."""

    pidfd = leader_pidfd = -1

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.is_over = False

    def kill(self) -> None:
        self.calls.append("kill")

    def wait(self) -> None:
        self.calls.append("wait")
        self.is_over = True


class Bus:
    """A connection on which something goes wrong."""

    has_queued = False

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.is_closed = False

    def receive(self) -> list[tuple[str, dict[str, object]]]:
        raise self.error

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture(params=[Supervisor, LiveSupervisor])
def supervisor(request: pytest.FixtureRequest) -> Any:
    """One that watches nothing yet."""
    found = request.param.__new__(request.param)
    found._thaw = lambda: None
    found.said = []
    found._report = found.said.append
    found._machine = Machine()
    found._bus = found._interactive = None
    found._apps = {}
    found._outlets = ()
    found.tickers = []
    found._first_failure = 0
    found._kill_at = 0.0
    return found


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (WireError("not a D-Bus message"), "what the pod's systemd says cannot be read: not a D-Bus message"),
        (Stage1Error("the pod's systemd does not answer: sending"), "does not answer: sending"),
        (OSError(5, "Input/output error"), "the pod cannot be supervised: Input/output error"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_connection_that_fails_ends_the_pod(supervisor: Any, error: Exception, said: str) -> None:
    """It is said why, every process of the pod is killed and waited for, and the status is the engine's own."""
    bus = supervisor._bus = Bus(error)
    supervisor._apps = {"app.service": SimpleNamespace(goes_on=True, is_running=False, streams=None)}
    supervisor._close = lambda _app: None

    def turn(_timeout: int | None) -> None:
        supervisor._listen()
        # The pod's end, that shows in the next turn.
        supervisor._apps.clear()

    supervisor._timeout_ms = lambda: None
    supervisor._turn = turn
    assert supervisor.run() == 254
    assert supervisor.said[0].endswith(said)
    assert len(supervisor.said) == 1
    assert supervisor._machine.calls[0] == "kill"
    assert supervisor._machine.is_over
    assert bus.is_closed


def test_an_end_during_the_start_gives_the_terminal_back() -> None:
    """The operator's terminal does not stay raw when the pod is given up."""
    calls: list[str] = []
    supervisor: Any = Supervisor.__new__(Supervisor)
    supervisor._thaw = lambda: None
    supervisor._interactive = SimpleNamespace(restore=lambda: calls.append("restored"))
    machine = Machine()
    supervisor.abandon(machine)
    assert (machine.calls, calls) == (["kill", "wait"], ["restored"])


def test_limits_of_a_running_app(supervisor: Any) -> None:
    """A request for other limits is answered with what the flavour does not have, in a sandbox too."""
    answer = supervisor._answer(None, {"op": "app-update", "app": "web"})
    assert answer["error"] == "rkt update not implemented for pod's stage1"
    assert "run another pod" in answer["hint"]


def test_lines_are_marked_once(supervisor: Any) -> None:
    """An output that is led elsewhere keeps its marks, also when a process of its app is heard of again."""
    console, sink = Outlet(-1), Outlet(-1)
    supervisor._outlets = (console,)
    supervisor._several = True
    outlets = {3: (b"stdout", Prefixer(b""), console), 4: (b"stdout", Prefixer(b""), sink)}
    app = SimpleNamespace(name="web", outlets=outlets)
    supervisor._mark(app, 7)
    assert [outlets[fd][1].mark(b"x\n") for fd in (3, 4)] == [b"web[7]: x\n", b"x\n"]


@pytest.mark.parametrize(("was_executed", "status"), [(True, 0), (False, 5)])
def test_a_stop_while_an_app_is_started_again(
    monkeypatch: pytest.MonkeyPatch, supervisor: Any, *, was_executed: bool, status: int
) -> None:
    """An app that is told to end before its program runs once more has the status of its last end; its program would have done as told."""
    monkeypatch.setattr(module, "stop_signal", lambda _app: signal.SIGTERM)
    app = SimpleNamespace(
        name="loop",
        known={"ExecMainCode": 2, "ExecMainStatus": int(signal.SIGTERM)},
        was_told=True,
        status=5,
        has_been_executed=was_executed,
        launch=SimpleNamespace(app=SimpleNamespace(app=None)),
    )
    assert supervisor._status(app) == status
    app.known = {"Result": "success"}
    assert supervisor._status(app) == 5

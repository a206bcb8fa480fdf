# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rkt.errors import Stage1Error
from rkt.stage1.common.streams import Outlet, Prefixer
from rkt.stage1.nspawn.dbus import ENDED_JOB
from rkt.stage1.nspawn.dbus_wire import WireError
from rkt.stage1.nspawn.live import LiveSupervisor
from rkt.stage1.nspawn.pod_systemd import PodSystemd
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
    found._systemd = PodSystemd(Machine(), 0)  # type: ignore[arg-type]
    found._interactive = None
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
    bus = supervisor._systemd._bus = Bus(error)
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
    assert supervisor._systemd.machine.calls[0] == "kill"
    assert supervisor._systemd.machine.is_over
    assert bus.is_closed


@pytest.mark.parametrize(
    ("is_told", "over", "said"),
    [(True, 5, []), (False, 254, ["app 'web' could not be started: its unit was stopped in the pod"])],
)
def test_a_start_that_is_cancelled(supervisor: Any, *, is_told: bool, over: int, said: list[str]) -> None:
    """An app whose unit is stopped before systemd has begun to start it is over, though nothing but its job ever ends."""
    ended: list[int] = []
    supervisor._over = lambda _app, status: ended.append(status)
    supervisor._outlives_apps = True
    app = SimpleNamespace(
        name="web",
        status=5,
        known={},
        job="/job/2",
        was_active=False,
        has_result=False,
        is_running=True,
        was_told=is_told,
        restarts=None,
        goes_on=False,
    )
    for changed in ({"ActiveState": "inactive"}, {ENDED_JOB: "/job/1"}):
        supervisor._heard(app, changed)
    assert ended == []
    supervisor._heard(app, {ENDED_JOB: "/job/2"})
    assert ended == [over]
    assert supervisor.said == said
    app.was_active = True
    supervisor._heard(app, {ENDED_JOB: "/job/2"})
    assert ended == [over]


@pytest.mark.parametrize(("job", "over"), [((0, "/"), [5]), ((9, "/job/9"), [])])
def test_a_start_that_was_cancelled_meanwhile(supervisor: Any, job: tuple[int, str], over: list[int]) -> None:
    """That there is no job for a unit that is not active is noticed too when the connection had to be made again."""
    ended: list[int] = []
    supervisor._over = lambda _app, status: ended.append(status)
    supervisor._outlives_apps = True
    properties = {"ActiveState": "inactive", "Job": job}
    supervisor._systemd._bus = SimpleNamespace(properties=lambda _unit: properties)
    supervisor._apps["web.service"] = SimpleNamespace(
        name="web",
        unit="web.service",
        status=5,
        known={},
        job="/job/2",
        was_active=False,
        has_result=False,
        is_running=True,
        was_told=True,
        restarts=None,
        goes_on=False,
    )
    supervisor._ask()
    assert ended == over


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

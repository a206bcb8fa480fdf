# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest

from rkt.stage1.nspawn import ends
from rkt.stage1.nspawn.ends import Ends

EXITED, KILLED = 1, 2
TERM = int(signal.SIGTERM)
PRE_START = "the pre-start handler ended with status {}, so the app is not started"


@pytest.fixture(autouse=True)
def term(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apps are asked to end by SIGTERM."""
    monkeypatch.setattr(ends, "stop_signal", lambda _app: signal.SIGTERM)


class Pod:
    """One whose systemd tells how handlers ended, and whose operator listens."""

    def __init__(self, **handlers: tuple[int, int]) -> None:
        self.said: list[str] = []
        commands = {name: [("/bin/sh", *end)] for name, end in handlers.items()}
        bus = SimpleNamespace(properties=lambda _unit: commands)
        systemd: Any = SimpleNamespace(bus=bus)
        self.ends = Ends(systemd, self.said.append)


def app(
    *, status: int = 0, was_executed: bool = False, handlers: tuple[str, ...] = (), **known: object
) -> Any:
    """An app of whose unit systemd has said something."""
    return SimpleNamespace(
        name="web",
        unit="web.service",
        known=known,
        status=status,
        has_result=True,
        has_been_executed=was_executed,
        launch=SimpleNamespace(app=None, handlers=dict.fromkeys(handlers)),
    )


@pytest.mark.parametrize(("was_executed", "status"), [(True, 0), (False, 5)])
def test_a_stop_while_an_app_is_started_again(*, was_executed: bool, status: int) -> None:
    """An app that is told to end before its program runs once more has the status of its last end; its program would have done as told."""
    pod = Pod()
    killed = app(status=5, was_executed=was_executed, ExecMainCode=KILLED, ExecMainStatus=TERM)
    assert pod.ends.look(killed, is_told=True) == status
    assert pod.ends.look(app(status=5, Result="success"), is_told=True) == 5
    assert pod.said == []


@pytest.mark.parametrize("number", [5, 128 + TERM])
def test_who_ends_by_itself_has_its_own_status(number: int) -> None:
    """A stop does not make a success of a program that exits meanwhile, nor does the end of the pod when systemd had told before."""
    pod = Pod()
    ended = app(was_executed=True, ExecMainCode=EXITED, ExecMainStatus=number, SubState="final-sigkill")
    assert pod.ends.look(ended, is_told=True) == number
    assert pod.ends.look_at_killed(ended, is_told=True) == number
    assert pod.ends.look_at_killed(app(was_executed=True), is_told=True) == 137


@pytest.mark.parametrize(
    ("end", "is_told", "status"),
    [
        ((KILLED, TERM), True, 5),
        ((KILLED, TERM), False, 128 + TERM),
        ((KILLED, 9), True, 137),
        ((EXITED, 7), True, 7),
        ((EXITED, 128 + TERM), True, 128 + TERM),
    ],
)
def test_the_end_of_a_pre_start_handler(end: tuple[int, int], *, is_told: bool, status: int) -> None:
    """One that a stop ends by its signal leaves its app the status of the last time; one that fails by itself is the app's failure."""
    pod = Pod(ExecStartPre=end)
    assert (
        pod.ends.look(app(status=5, handlers=("pre-start",), Result="exit-code"), is_told=is_told) == status
    )
    assert pod.said == ([] if status == 5 else [f"app 'web': {PRE_START.format(status)}"])

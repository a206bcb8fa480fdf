# SPDX-License-Identifier: Apache-2.0
"""Where a pod of nspawn is a machine of the host: in a unit of processes, which it gets if it has none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.linux.cgroupfs import Hierarchies, Hierarchy
from rkt.stage1.nspawn import command, scope
from rkt.stage1.nspawn.dbus import CallError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("group", "answer"),
    [
        ("/system.slice/web.service", True),
        ("/system.slice/system-getty.slice/getty@tty1.service/rkt-1/rkt.init", True),
        ("/user.slice/user-0.slice/session-1.scope", True),
        ("/machine.slice/rkt-1.scope/rkt-1/rkt.init", True),
        ("/machine.slice/rkt-1/rkt.init", False),
        ("/system.slice/rkt-1/web.service", False),
        ("/", False),
        ("", False),
    ],
)
def test_groups_that_are_below_a_unit(group: str, answer: bool) -> None:
    """The first group below the slices is what systemd takes for the unit of a process."""
    assert command.is_in_unit(group) is answer


class Host:
    """A host with machined, on which the engine is in a group, alone or not."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.said: list[str] = []
        self.group = "/user.slice/session-1.scope"
        self.refuses = False
        self.base = base
        monkeypatch.setattr(command, "has_machined", lambda: True)
        monkeypatch.setattr(command, "own_group", lambda: self.group)
        monkeypatch.setattr(scope, "_ask", self.ask)

    def ask(self, name: str, _description: str) -> None:
        """What the host's systemd does."""
        self.asked.append(name)
        if self.refuses:
            raise CallError("the host's systemd refuses StartTransientUnit", "org.example.No")
        self.group = f"/machine.slice/{name}"

    def enter(self, *others: str, version: int = 2) -> bool:
        """As stage1 does."""
        directory = self.base / self.group.strip("/")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup.procs").write_text("\n".join([str(os.getpid()), *others]) + "\n")
        hierarchy = Hierarchy(version, (), os.fspath(self.base), "/", self.group)
        return scope.enter(Hierarchies([hierarchy]), "1", self.said.append, debug=True)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """One of the test's own."""
    return Host(tmp_path, monkeypatch)


def test_a_pod_beside_others_gets_a_scope(host: Host) -> None:
    """From a shell, whose group has others in it, or outside of every unit, the supervisor moves to a scope of the pod's."""
    assert host.enter("1")
    assert host.asked == ["rkt-1.scope"]
    host.group = "/machine.slice"
    assert host.enter()


def test_a_pod_that_has_a_unit_stays(host: Host) -> None:
    """A service that is the pod is not left; nor is any unit where there is more than version 2."""
    assert not host.enter()
    assert not host.enter("1", version=1)
    assert host.asked == []


def test_a_refusal_costs_the_registration_alone(host: Host) -> None:
    """Where systemd gives no scope the pod goes on, and --debug says what it goes without."""
    host.refuses = True
    assert not host.enter("1")
    assert "machined will not list the pod" in host.said[0]
    assert "refuses" in host.said[0]


def test_no_machined_no_question(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody could list the pod, it stays where it is."""
    monkeypatch.setattr(command, "has_machined", lambda: False)
    assert not host.enter("1")
    assert host.asked == []

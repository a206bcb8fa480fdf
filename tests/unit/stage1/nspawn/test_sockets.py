# SPDX-License-Identifier: Apache-2.0
"""Passed sockets as units of the pod's systemd."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from rkt.errors import Stage1Error
from rkt.linux.listening import Listening
from rkt.stage1.common import activation
from rkt.stage1.common.pod import LoadedPod
from rkt.stage1.nspawn import sockets
from tests.unit.stage1.nspawn.test_units import directives, plan, pod_app, unit

if TYPE_CHECKING:
    from collections.abc import Sequence


def passed(*addresses: tuple[str, str, int]) -> list[Listening]:
    """Sockets from 3 on: protocol, address and port."""
    return [
        Listening(fd=fd, name="x", protocol=protocol, address=address, port=port)
        for fd, (protocol, address, port) in enumerate(addresses, 3)
    ]


def held_later(monkeypatch: pytest.MonkeyPatch, given: Sequence[Listening]) -> list[list[Listening]]:
    """What a pod without apps holds of these."""
    monkeypatch.setattr(activation, "passed", lambda: given)
    return sockets.hold(LoadedPod(manifest=None, apps=[]), is_mutable=True)  # type: ignore[arg-type]


def test_sockets_of_an_app_are_lines_of_one_unit() -> None:
    """In the order in which they were passed, each by the very address; wanted by what is loaded first; nobody opens them or is started."""
    http, dns, other = passed(("tcp", "0.0.0.0", 80), ("udp", "fe80::1%eth0", 53), ("tcp", "::", 80))
    files = sockets.unit_files([[http, other], [dns]])
    first, second = (bytes(files[f"sockets-{fd}.socket"]).decode() for fd in (3, 4))  # type: ignore[arg-type]
    assert [line for line in first.splitlines() if line.startswith("Listen")] == [
        "ListenStream=0.0.0.0:80",
        "ListenStream=[::]:80",
    ]
    assert [line for line in second.splitlines() if line.startswith("Listen")] == [
        "ListenDatagram=[fe80::1]:53"
    ]
    for text in (first, second):
        assert {"ConditionPathExists=!/", "Service=systemd-sockets.service"} <= set(text.splitlines())
    assert b"Wants=sockets-3.socket sockets-4.socket\n" in files["system.slice.d/_sockets.conf"]


def test_apps_that_come_later_find_each_socket_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no app can declare is not held."""
    given = passed(("tcp", "127.0.0.1", 80), ("a Unix socket", "", 0), ("udp", "127.0.0.1", 80))
    assert held_later(monkeypatch, given) == [[given[0]], [given[2]]]


def test_sockets_with_one_address_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming both: systemd would take either for the other."""
    with pytest.raises(Stage1Error, match=r"descriptors 3 \(x\) tcp 127.0.0.1:80 and 5 \(x\) .* one address"):
        held_later(
            monkeypatch, passed(("tcp", "127.0.0.1", 80), ("tcp", "::1", 80), ("tcp", "127.0.0.1", 80))
        )


@pytest.mark.parametrize("is_blocking", [True, False])
def test_an_apps_unit_says_which_are_its_own(is_blocking: bool) -> None:
    """By the unit that has them, and whether they block as they did; an app without has neither line."""
    with socket.socket() as handle:
        handle.setblocking(is_blocking)
        found = directives(unit(execute=plan(sockets=[handle.fileno()])))
        assert found["Sockets"] == [f"sockets-{handle.fileno()}.socket"]
        assert found["NonBlocking"] == ["no" if is_blocking else "yes"]
    assert not {"Sockets", "NonBlocking"} & set(directives(unit(app=pod_app())))


def test_an_app_is_not_started_without_its_sockets() -> None:
    """The descriptors themselves are looked at, in the process that is to have them."""
    with socket.socket() as handle:
        sockets.confirm(os.getpid(), "web", [handle.fileno()])
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
            with pytest.raises(Stage1Error, match=f'app "web" cannot have .* descriptor {handle.fileno()}:'):
                sockets.confirm(other.pid, "web", [handle.fileno()])
            assert other.stdin is not None
            other.stdin.close()

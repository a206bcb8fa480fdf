# SPDX-License-Identifier: Apache-2.0
"""Pods that end while they are paused: their cgroup is removed before every single access to it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.errors import PodError
from rkt.linux import cgroupfs
from rkt.linux.cgroup import Group
from rkt.pod import lifecycle, pause, processes
from rkt.stage0 import contract
from rkt.values import PodUUID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rkt.pod.lifecycle import Pod

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes a cgroup")
UUID = PodUUID("aaaaaaaa-0000-4000-8000-000000000001")
#: More than pause and unpause need.
_MOST_ACCESSES = 20


@pytest.fixture
def directory() -> Iterator[str]:
    """A cgroup of version 2 with nobody in it."""
    unified = cgroupfs.detect().unified
    own = unified and unified.directory(unified.own_path)
    if not own:
        pytest.skip("the host has no cgroup hierarchy of version 2")
    path = f"{own}/rkt-test-{os.getpid()}"
    os.mkdir(path)
    yield path
    if os.path.isdir(path):
        os.rmdir(path)


@pytest.fixture
def pod(tmp_path: object, directory: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    """A running pod with this cgroup."""
    unified = cgroupfs.detect().unified
    group = Group("rkt-test", [(unified, "/rkt-test", directory)], [])  # type: ignore[list-item]
    monkeypatch.setattr(processes, "open_group", lambda _pod: group)
    with lifecycle.create(f"{tmp_path}/data") as made:
        os.close(os.open(contract.POD_LOCK, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=made.fd))
        yield made


def vanish_before(monkeypatch: pytest.MonkeyPatch, directory: str, count: int) -> Callable[[], bool]:
    """The group is removed before the access of this number, from 0; tells whether it was."""
    left = count
    read, write = cgroupfs.read, cgroupfs.write

    def step() -> None:
        nonlocal left
        left -= 1
        if left == -1:
            os.rmdir(directory)

    def counted_read(path: str) -> str:
        step()
        return read(path)

    def counted_write(path: str, data: bytes) -> None:
        step()
        write(path, data)

    monkeypatch.setattr(cgroupfs, "read", counted_read)
    monkeypatch.setattr(cgroupfs, "write", counted_write)
    return lambda: left < 0


@pytest.mark.parametrize("count", range(_MOST_ACCESSES))
@pytest.mark.parametrize("verb", ["pause", "unpause"])
def test_a_pod_that_ends_meanwhile_is_not_running(
    pod: Pod, directory: str, monkeypatch: pytest.MonkeyPatch, verb: str, count: int
) -> None:
    """Whenever the pod ends, the answer is that it does not run, and no mark is left behind; otherwise it is done."""
    if verb == "unpause":
        assert pause.pause(pod)
    vanished = vanish_before(monkeypatch, directory, count)
    said = ""
    try:
        assert (pause.pause if verb == "pause" else pause.unpause)(pod)
    except PodError as e:
        said = str(e)
    if said or count == 0:
        assert vanished()
        assert said == f'pod "{pod.uuid}" is not running'
    assert (contract.PAUSED in os.listdir(pod.path)) is (verb == "pause" and not said)

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import fcntl
import os
import random
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from rkt.net import names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BASE = b"# default\n127.0.0.1 localhost rkt-x\n"
UUIDS = [f"{number:08x}-a507-4694-aabf-bf80d7f1f9f4" for number in range(1, 9)]


class Pod:
    """A pod that lives as long as its lock is held."""

    def __init__(self, root: Path, number: int) -> None:
        self.uuid = UUIDS[number]
        self.path = os.fspath(root / self.uuid)
        os.mkdir(self.path)
        self.live()
        self.called = [f"pod{number}", f"rkt-{self.uuid}"]
        self.address = f"10.0.0.{number + 1}"

    def join(self, *networks: str, base: bytes | None = BASE) -> None:
        """Join networks."""
        addresses = {network: [self.address] for network in networks}
        names.join(self.path, self.uuid, addresses=addresses, names=self.called, base=base)

    def known(self) -> dict[str, str]:
        """Name -> address, as a resolver reads the file."""
        with open(f"{self.path}/hosts", encoding="ascii") as stream:
            text = stream.read()
        assert text.startswith(BASE.decode())
        found = {}
        for line in text.splitlines():
            address, *called = line.partition("#")[0].split() or [""]
            found.update(dict.fromkeys(called, address))
        return {name: address for name, address in found.items() if name.startswith("pod")}

    def live(self) -> None:
        """Run, and hold the lock."""
        self._fd = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def die(self) -> None:
        """Be killed, if it is alive."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


@pytest.fixture
def pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Pod]]:
    """Some pods of a host of their own."""
    monkeypatch.setattr(names, "DIRECTORY", os.fspath(tmp_path / "rkt" / "names"))
    (tmp_path / "pods").mkdir()
    made = [Pod(tmp_path / "pods", number) for number in range(4)]
    yield made
    for pod in made:
        pod.die()


def test_pods_of_a_network_know_each_other(pods: list[Pod]) -> None:
    """Who comes is known to those that are there, and knows them and itself; pods of other networks do not, and who has left is known to nobody."""
    first, second, third, other = pods
    first.join("blue")
    second.join("blue", "red")
    third.join("red")
    other.join("green")
    assert first.known() == {"pod0": "10.0.0.1", "pod1": "10.0.0.2"}
    assert second.known() == {"pod0": "10.0.0.1", "pod1": "10.0.0.2", "pod2": "10.0.0.3"}
    assert third.known() == {"pod1": "10.0.0.2", "pod2": "10.0.0.3"}
    assert other.known() == {"pod3": "10.0.0.4"}
    for _ in range(2):
        names.leave(second.uuid)
        assert first.known() == {"pod0": "10.0.0.1"}
        assert third.known() == {"pod2": "10.0.0.3"}


def test_a_killed_pod_is_forgotten_by_the_next(pods: list[Pod]) -> None:
    """The next pod of one of its networks takes its entries from all of them."""
    first, second, third, _ = pods
    first.join("red")
    second.join("blue", "red")
    second.die()
    assert "pod1" in first.known()
    third.join("blue")
    assert third.known() == {"pod2": "10.0.0.3"}
    assert first.known() == {"pod0": "10.0.0.1"}
    assert os.listdir(f"{names.DIRECTORY}/blue") == [third.uuid]


def test_a_record_that_a_kill_cut_short_is_removed_with_the_pod(
    pods: list[Pod], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod that is killed between writing its record and naming it leaves nothing once it is told to leave; others keep theirs."""

    class KilledError(BaseException):
        """What a SIGKILL is to the code behind it: nothing of it runs."""

    def stop(*_: object) -> None:
        raise KilledError

    pods[0].join("lab")
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", stop)
        patched.setattr(os, "unlink", lambda _: None)
        with pytest.raises(KilledError):
            pods[1].join("lab", base=None)
    place = f"{names.DIRECTORY}/lab"
    assert len(os.listdir(place)) == 2
    names.leave(pods[1].uuid)
    assert os.listdir(place) == [pods[0].uuid]


def test_a_pod_without_a_file_of_its_own_is_known(pods: list[Pod]) -> None:
    """Who has the host's file is told nothing, and others are told of it; a pod directory that is gone is passed over."""
    first, second, third, _ = pods
    first.join("blue", base=None)
    assert not os.path.exists(f"{first.path}/hosts")
    second.join("blue")
    assert second.known() == {"pod0": "10.0.0.1", "pod1": "10.0.0.2"}
    os.unlink(f"{second.path}/hosts")
    third.join("blue")
    names.leave(third.uuid)


def test_the_inode_stays_and_blocks_are_used_again(pods: list[Pod], monkeypatch: pytest.MonkeyPatch) -> None:
    """Apps have the file mounted. A block is used again after its rest, and never before."""
    first, second, third, other = pods
    first.join("blue")
    path = f"{first.path}/hosts"
    inode = os.stat(path).st_ino
    now = [1000.0]
    monkeypatch.setattr("rkt.net.names.time.time", lambda: now[0])
    second.join("blue")
    size = os.stat(path).st_size
    names.leave(second.uuid)
    third.join("blue")
    assert os.stat(path).st_size == size + names.BLOCK_BYTES, "the block rests"
    now[0] += 31
    other.join("blue")
    assert first.known() == {"pod0": "10.0.0.1", "pod2": "10.0.0.3", "pod3": "10.0.0.4"}
    assert (os.stat(path).st_size, os.stat(path).st_ino) == (size + names.BLOCK_BYTES, inode)


def test_a_reader_never_sees_half_a_line(pods: list[Pod]) -> None:
    """Whoever reads while pods come and go sees whole lines of pods that there are."""
    reader, *others = pods
    reader.join("blue")
    allowed = {f"{pod.address} {' '.join(pod.called)}" for pod in pods}
    head = names.render(BASE, ()).decode()
    wrong: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            with open(f"{reader.path}/hosts", encoding="ascii") as stream:
                text = stream.read().removeprefix(head)
            for line in text.splitlines():
                shown = line.partition("#")[0].strip()
                if shown and shown not in allowed:
                    wrong.append(line)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(40):
            for pod in others:
                pod.join("blue")
            for pod in others:
                names.leave(pod.uuid)
    finally:
        done.set()
        thread.join()
    assert wrong == []


def test_a_kill_at_any_moment_leaves_what_the_next_can_clean(pods: list[Pod]) -> None:
    """Whoever is killed while it joins or leaves: each file can be read, and after the next pod has joined nobody knows the killed one."""
    reader, killed, other, _ = pods
    reader.join("blue")
    source = random.Random(7)
    for _ in range(25):
        killed.die()
        child = os.fork()
        if not child:
            killed.live()
            while True:
                killed.join("blue", "red")
                names.leave(killed.uuid)
        time.sleep(source.uniform(0, 0.004))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert reader.known().items() <= {"pod0": "10.0.0.1", "pod1": "10.0.0.2"}.items()
        other.join("blue")
        assert reader.known() == {"pod0": "10.0.0.1", "pod2": "10.0.0.3"}
        assert other.known() == reader.known()
        names.leave(other.uuid)
        killed.live()


def test_a_half_written_block_is_written_over(pods: list[Pod]) -> None:
    """Somebody who was killed while he appended leaves nothing that stays."""
    first, second, *_ = pods
    first.join("blue")
    with open(f"{first.path}/hosts", "ab") as stream:
        stream.write(b"10.9.9")
    second.join("blue")
    assert first.known() == {"pod0": "10.0.0.1", "pod1": "10.0.0.2"}


@pytest.mark.parametrize(
    ("name", "hostname", "expected"),
    [
        ("", "", ["rkt-u"]),
        ("web", "", ["web", "rkt-u"]),
        ("web", "front.example.com", ["web", "front.example.com", "rkt-u"]),
        ("web", "web", ["web", "rkt-u"]),
        ("localhost", "LOCALHOST", ["rkt-u"]),
        ("", "front.", ["front", "rkt-u"]),
    ],
)
def test_what_a_pod_is_called(name: str, hostname: str, expected: list[str]) -> None:
    """Its name, its host name if one was given, and rkt-UUID; nobody becomes localhost to others."""
    assert names.pod_names("u", name, hostname) == expected


def test_the_longest_entry_fits_into_a_block() -> None:
    """An IPv6 address with the longest names that a pod can have."""
    called = names.pod_names(UUIDS[0], "n" * 63, "h" * 64)
    entry = names._entry("fd00:1111:2222:3333:4444:5555:6666:7777", called)
    assert names._block(entry).rstrip() == entry
    assert len(names.render(BASE, [entry])) % names.BLOCK_BYTES == 0

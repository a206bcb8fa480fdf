# SPDX-License-Identifier: Apache-2.0
"""Many pods, one after the other and at once: nothing adds up on the host, and what rkt says of them stays complete.

``make soak`` does it with 10 000, 1 000 and 200 pods and prints how long things took, which no test judges.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib.images import fetch
from tests.lib.nethost import NetHost, marks
from tests.lib.pace import SLOWNESS
from tests.lib.pods import StubPods
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = marks("nft")

#: Pods run and removed, pods known, pods that run at the same time.
CYCLES, KNOWN, RUNNING = (int(each) for each in os.environ.get("RKT_TEST_SCALE", "6,12,4").split(","))
INSECURE = "--insecure-options=image"
SECONDS = 120 + CYCLES + KNOWN + 4 * RUNNING


@pytest.fixture
def host() -> Iterator[NetHost]:
    """A host of the test's own, for addresses and rules."""
    with tempfile.TemporaryDirectory(prefix="rkt-test-") as base, NetHost(f"{base}/host") as made:
        yield made


def inodes(rkt: Rkt) -> int:
    """Files and directories of the engine."""
    return sum(len(names) + len(files) for _, names, files in os.walk(rkt.data))


def timed(rkt: Rkt, *words: str) -> float:
    """Seconds of a command that must succeed."""
    begun = time.monotonic()
    rkt.run(*words, check=0)
    return time.monotonic() - begun


def median_ms(seconds: list[float]) -> float:
    """The median, for people."""
    return statistics.median(seconds) * 1000


@pytest.mark.timeout(SECONDS)
def test_run_and_remove(host: NetHost, images: Images) -> None:
    """After many pods with a network that came and went there are as many files, mounts, cgroups, namespaces, addresses and rules as after the first."""
    rkt = host.rkt()
    image = fetch(rkt, images.busybox())
    words = ("run", INSECURE, "--net=default", image, "--exec=/bin/true")

    def cycle() -> float:
        seconds = timed(rkt, *words)
        rkt.run("rm", *rkt.pods(), check=0)
        return seconds

    cycle()
    files, state = inodes(rkt), host.state()
    taken = [cycle() for _ in range(CYCLES)]
    assert rkt.pods() == {}
    assert inodes(rkt) == files
    assert host.state() == state
    assert rkt.leaks() == []
    tenth = max(1, CYCLES // 10)
    print(
        f"{CYCLES} pods: a start took {median_ms(taken[:tenth]):.0f} ms at first, {median_ms(taken[-tenth:]):.0f} ms at the end"
    )


@pytest.mark.timeout(SECONDS)
def test_many_at_once(rkt: Rkt, images: Images) -> None:
    """Of many pods that are over and many that run every one is listed, answers, and can be stopped; one gc takes them all."""
    stubs = StubPods(rkt)
    image = fetch(rkt, images.busybox())
    empty = timed(rkt, "list")
    first = timed(rkt, "run", INSECURE, image, "--exec=/bin/true")
    for _ in range(KNOWN):
        stubs.exited()
    running = [rkt.popen("run", INSECURE, image, "--exec=/bin/sleep", "--", "10000") for _ in range(RUNNING)]

    def living() -> list[str]:
        return [
            each["name"]
            for each in json.loads(rkt.run("list", "--format=json", check=0).stdout)
            if each["state"] == "running"
        ]

    wait_for(lambda: len(living()) == RUNNING, "the running pods", seconds=60 + RUNNING)
    listed = rkt.run("list", "--no-legend", "--full", check=0).lines
    assert len(listed) == KNOWN + RUNNING + 1
    full = timed(rkt, "list")
    last = timed(rkt, "run", INSECURE, image, "--exec=/bin/true")
    for uuid in living():
        rkt.run("status", "--wait-ready=60s", uuid, check=0)
        assert rkt.run("enter", uuid, "/bin/echo", "here", check=0).stdout == "here\n"
    rkt.run("stop", "--force", *living(), check=0, timeout=60 + RUNNING)
    for process in running:
        process.wait(20)
    begun = time.monotonic()
    rkt.run("gc", "--grace-period=0", check=0, timeout=60 + (KNOWN + RUNNING) / SLOWNESS)
    assert rkt.pods() == {}
    assert rkt.leaks() == []
    print(
        f"{KNOWN} pods known, {RUNNING} running: list took {full * 1000:.0f} ms ({empty * 1000:.0f} without pods), "
        f"a start {last * 1000:.0f} ms ({first * 1000:.0f}), gc {time.monotonic() - begun:.1f} s"
    )

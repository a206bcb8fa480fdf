# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of rkt at random moments of prepare and run (crash points C4 and C5): no command fails, one gc leaves nothing."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.pace import rounds
from tests.lib.pods import APP, FLAGS, StubPods
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods()]

#: The crash matrix has every moment between two calls; these are moments within one.
ROUNDS = rounds(12)
INSECURE = "--insecure-options=image"
#: Printed when a test fails, so that its moments can be had again.
SEED = random.SystemRandom().randrange(1 << 32)


def kill_after(rkt: Rkt, seconds: float, *words: str) -> bool:
    """Start a command and kill it; whether it was still running then."""
    process = rkt.popen(*words)
    time.sleep(seconds)
    running = process.poll() is None
    process.kill()
    process.wait(20)
    return running


def check_and_collect(rkt: Rkt, moment: str) -> None:
    """Every command works on what the kill left, and after one gc there is nothing of it."""
    pods = rkt.pods()
    assert len(pods) <= 1, (moment, "a pod in two places")
    listed = rkt.run("list", "--full", check=0)
    assert listed.stderr == "", moment
    rkt.run("list", "--format=json", check=0)
    for uuid, place in pods.items():
        if place not in {"embryo", "garbage"}:
            rkt.run("status", uuid, check=0)
            rkt.run("status", "--format=json", uuid, check=0)
            logs = rkt.run("logs", uuid)
            assert logs.status == 0 or "its stage1 keeps nothing" in logs.stderr, (moment, logs)

    def over() -> bool:
        # What the killed process left running ends by itself, at the latest when gc asks it to.
        return "\trunning\t" not in rkt.run("list", check=0).stdout

    wait_for(over, "end of the killed pod")
    collected = rkt.run("gc", "--grace-period=0", "--expire-prepared=0", check=0)
    assert rkt.pods() == {}, (moment, collected)
    names = f"{rkt.data}/pods/names"
    assert not os.path.isdir(names) or os.listdir(names) == [], moment
    assert os.listdir(f"{rkt.data}/cas/tmp") == [], moment
    assert rkt.leaks() == [], (moment, collected)


def measure(rkt: Rkt, *words: str) -> float:
    """Seconds that one undisturbed command takes."""
    start = time.monotonic()
    rkt.run(*words, check=0)
    seconds = time.monotonic() - start
    check_and_collect(rkt, "undisturbed")
    return seconds


@pytest.mark.timeout(280)
def test_prepare_killed(rkt: Rkt) -> None:
    """Prepare killed at any moment leaves nothing that gc does not take, and its name is free again."""
    StubPods(rkt)
    words = ("prepare", *FLAGS, "--name=crash", APP)
    whole = measure(rkt, *words)
    moments = random.Random(SEED)
    killed = 0
    for number in range(ROUNDS):
        seconds = moments.uniform(0, whole)
        if kill_after(rkt, seconds, *words):
            killed += 1
        else:
            # Too late: the machine was busier when it was measured.
            whole = seconds
        check_and_collect(rkt, f"seed {SEED}, round {number}, after {seconds:.4f} s")
    assert killed >= ROUNDS // 4, "the moments were too late to mean anything"


@pytest.mark.timeout(280)
def test_run_killed(rkt: Rkt, images: Images) -> None:
    """Run killed at any moment, up to the app's own, leaves no pod, mount, cgroup or process that gc does not take."""
    reference = rkt.run(INSECURE, "fetch", images.busybox(), check=0).stdout.strip()
    words = ("run", INSECURE, "--name=crash", reference, "--exec=/bin/sleep", "--", "0.1")
    whole = measure(rkt, *words)
    moments = random.Random(SEED)
    killed = 0
    for number in range(ROUNDS):
        seconds = moments.uniform(0, whole)
        if kill_after(rkt, seconds, *words):
            killed += 1
        else:
            # Too late: the machine was busier when it was measured.
            whole = seconds
        check_and_collect(rkt, f"seed {SEED}, round {number}, after {seconds:.4f} s")
    assert killed >= ROUNDS // 4, "the moments were too late to mean anything"


@pytest.mark.timeout(280)
def test_gc_killed(rkt: Rkt) -> None:
    """Gc killed at any moment can be run again and then leaves nothing (C8)."""
    pods = StubPods(rkt)
    moments = random.Random(SEED)
    pods.exited()
    whole = measure(rkt, "gc", "--grace-period=0")
    for number in range(ROUNDS):
        pods.exited("--name=crash")
        seconds = moments.uniform(0, whole)
        kill_after(rkt, seconds, "gc", "--grace-period=0")
        check_and_collect(rkt, f"seed {SEED}, round {number}, after {seconds:.4f} s")

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib.aci import write_aci
from tests.lib.pace import SLOWNESS, rounds
from tests.lib.server import Page, Server
from tests.lib.store import listing

if TYPE_CHECKING:
    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"
#: The crash matrix has every moment between two calls; these are moments within one.
ROUNDS = rounds(12)


def make(rkt: Rkt) -> str:
    """An image that takes a moment to unpack."""
    path = f"{rkt.base}/app.aci"
    files = {f"data/{i}": os.urandom(2000) for i in range(300)}
    write_aci(path, ["/bin/app"], files=files, compression="gzip")
    return path


def check_and_collect(rkt: Rkt) -> bool:
    """Every command works; a visible image is complete; after gc nothing else is left. Returns whether it is visible."""
    listed = rkt.run("image", "list", "--no-legend", "--fields=id", "--full", check=0)
    assert listed.stderr == ""
    keys = listed.lines
    assert len(keys) <= 1
    for key in keys:
        # Whole, with its verdict: never present and unverified.
        assert len(listing(f"{rkt.data}/cas/layer/{key}/rootfs/data")) == 300
        assert os.path.getsize(f"{rkt.data}/cas/split/{key}") > 0
        verdict = rkt.run("image", "list", "--no-legend", "--fields=verdict", check=0).stdout
        assert verdict == "NOT VERIFIED\n"
    collected = rkt.run("image", "gc", check=0)
    for directory in ("record", "manifest", "layer", "split", "used"):
        path = f"{rkt.data}/cas/{directory}"
        assert sorted(os.listdir(path)) == keys, (directory, collected)
    assert os.listdir(f"{rkt.data}/cas/tmp") == []
    return bool(keys)


def measure(rkt: Rkt, *words: str) -> float:
    """Seconds that one undisturbed fetch takes."""
    start = time.monotonic()
    rkt.run(INSECURE, "fetch", *words, check=0)
    return time.monotonic() - start


def test_kill_at_random_moments(rkt: Rkt) -> None:
    """After SIGKILL at any moment of a fetch, the image is absent or complete and one gc leaves no residue (C1, C2)."""
    path = make(rkt)
    whole = measure(rkt, path)
    rkt.run("image", "rm", "example.com/app", check=0)
    dice = random.Random(2)
    seen = {False: 0, True: 0}
    for _ in range(ROUNDS):
        process = rkt.popen(INSECURE, "fetch", path)
        time.sleep(dice.uniform(0, whole * 1.1))
        process.kill()
        process.wait(20)
        visible = check_and_collect(rkt)
        seen[visible] += 1
        if visible:
            rkt.run("image", "rm", "example.com/app", check=0)
    assert seen[False] > 0


def test_kill_during_a_download(rkt: Rkt) -> None:
    """The worker dies with its command, staging is collected, another fetch meanwhile is not disturbed (C1)."""
    path = make(rkt)
    with open(path, "rb") as file:
        body = file.read()
    with Server() as server:
        server.put("/ok.aci", body)
        for page in (Page(body, stall=0), Page(body, stall=1000), Page(body, stall=len(body) - 1)):
            url = server.put("/stalls.aci", page)
            server.requests.clear()
            process = rkt.popen(INSECURE, "fetch", url)
            deadline = time.monotonic() + 20 * SLOWNESS
            while not server.requests and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.1)
            rkt.run(INSECURE, "fetch", f"{server.url}/ok.aci", check=0)
            rkt.run("image", "gc", check=0)
            assert len(os.listdir(f"{rkt.data}/cas/tmp")) == 1, "the staging of a living fetch was taken"
            process.kill()
            process.wait(20)
            assert check_and_collect(rkt)
    assert rkt.leaks() == []


def test_interrupt(rkt: Rkt) -> None:
    """SIGINT ends a fetch with its worker, and leaves nothing even without a collection."""
    path = make(rkt)
    with open(path, "rb") as file:
        page = Page(file.read(), stall=1000)
    with Server() as server:
        process = rkt.popen(INSECURE, "fetch", server.put("/stalls.aci", page))
        deadline = time.monotonic() + 20 * SLOWNESS
        while not server.requests and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert os.listdir(f"{rkt.data}/cas/tmp") == []
    assert rkt.leaks() == []


def test_parallel_fetches_of_one_image(rkt: Rkt) -> None:
    """All succeed and leave one image."""
    path = make(rkt)
    processes = [rkt.popen(INSECURE, "fetch", path) for _ in range(6)]
    assert [process.wait(60) for process in processes] == [0] * 6
    assert check_and_collect(rkt)

# SPDX-License-Identifier: Apache-2.0
"""Many pods at once on one data directory: every command succeeds, and nothing is left."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from rkt.linux import inotify
from tests.lib.flavors import pods
from tests.lib.images import fetch
from tests.lib.pace import rounds

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt, Running

pytestmark = [pytest.mark.root, pods("supervision")]

INSECURE = "--insecure-options=image"
COUNT = rounds(100, at_least=20)


def problems(processes: list[Running], seconds: float) -> list[str]:
    """How each of the commands that did not end with 0 ended."""
    found = []
    for process in processes:
        status = process.wait(seconds)
        if status:
            found.append(f"{' '.join(process.args)}: status {status}\n{process.stderr_text}")  # type: ignore[arg-type]
    return found


def test_parallel_runs(rkt: Rkt, images: Images) -> None:
    """A hundred runs started at once, or as many as the host has room for, all end with 0, each said what it should, and nothing of them is on the host (RN25)."""
    image = fetch(rkt, images.busybox())
    words = ("run", INSECURE, image, "--exec=/bin/sh", "--", "-c", "echo $1", "sh")
    # The systemd of each pod of nspawn wants some of what the host gives each user, others of its processes too.
    count = COUNT if rkt.flavor != "nspawn" else min(COUNT, inotify.limit() // inotify.OF_SYSTEMD - 12)
    processes = [rkt.popen(*words, str(number)) for number in range(count)]
    assert problems(processes, 200) == []
    assert [process.stdout_text for process in processes] == [f"{number}\n" for number in range(count)]
    listed = rkt.run("list", "--no-legend", "--full", check=0).lines
    assert len(listed) == count
    assert len({line.split("\t")[0] for line in listed}) == count
    # All that a pod leaves is its directory: what is on the host is gone before any gc.
    assert rkt.leaks() == []
    rkt.run("gc", "--grace-period=0", check=0, timeout=200)
    assert rkt.pods() == {}


def test_everything_at_once(rkt: Rkt, images: Images) -> None:
    """Fifty commands at once, preparing, running, listing, removing and collecting, do not get into each other's way."""
    image = fetch(rkt, images.busybox())
    true = (image, "--exec=/bin/true")
    count = max(COUNT // 10, 2)
    preparing = [rkt.popen("prepare", INSECURE, *true) for _ in range(2 * count)]
    assert problems(preparing, 200) == []
    prepared = [process.stdout_text.strip() for process in preparing]
    assert len(set(prepared)) == 2 * count
    exiting = [rkt.popen("run-prepared", INSECURE, uuid) for uuid in prepared[:count]]
    assert problems(exiting, 200) == []
    mixed = []
    for number in range(count):
        mixed += [
            rkt.popen("rm", prepared[number]),
            rkt.popen("run-prepared", INSECURE, prepared[count + number]),
            rkt.popen("prepare", INSECURE, *true),
            rkt.popen("run", INSECURE, *true),
            # Moves what has exited while others look for it, and deletes nothing yet.
            rkt.popen("gc", "--grace-period=1h") if number % 2 else rkt.popen("list", "--full"),
        ]
    assert problems(mixed, 200) == []
    assert not set(prepared[:count]) & set(rkt.pods())
    assert len(rkt.run("list", "--no-legend", check=0).lines) == 3 * count
    collecting = [rkt.popen("gc", "--grace-period=0", "--expire-prepared=0") for _ in range(4)]
    assert problems(collecting, 200) == []
    assert rkt.pods() == {}
    assert rkt.leaks() == []


def test_parallel_runs_with_users_of_their_own(rkt: Rkt, images: Images) -> None:
    """Pods started at once with --private-users never share a range of ids, and gc gives all ranges back (RN19)."""
    image = fetch(rkt, images.busybox())
    count = max(COUNT // 3, 10)
    words = ("run", INSECURE, "--private-users", image, "--exec=/bin/cat", "--", "/proc/self/uid_map")
    processes = [rkt.popen(*words) for _ in range(count)]
    assert problems(processes, 200) == []
    maps = [[int(word) for word in process.stdout_text.split()] for process in processes]
    assert {(inside, size) for inside, _, size in maps} == {(0, 65536)}
    firsts = sorted(first for _, first, _ in maps)
    assert all(after - before >= 65536 for before, after in pairwise(firsts))
    assert rkt.leaks() == []
    rkt.run("gc", "--grace-period=0", check=0)
    assert rkt.pods() == {}
    assert os.listdir(f"{rkt.data}/ranges") == []

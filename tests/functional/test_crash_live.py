# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of commands that change a living pod, at random moments: the next command mends what is left, and gc leaves nothing."""

from __future__ import annotations

import json
import os
import random
import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.inspect import INSECURE
from tests.lib.live import Sandbox
from tests.lib.pace import rounds

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods("apps that come and go")]

ROUNDS = rounds(2)
#: Printed when a test fails, so that its moments can be had again.
SEED = random.SystemRandom().randrange(1 << 32)
#: Verb -> what comes before it.
_NEEDED = {"add": (), "start": ("add",), "stop": ("add", "start"), "rm": ("add", "start")}
#: What may differ from one moment to another: logs of the pod's own, and names that hold a process number.
_PASSING = re.compile(r"/logs/|/\.[a-z-]+\.")


def tree(pod: Sandbox) -> list[str]:
    """Every file of the pod, and every mount of its supervisor."""
    path = pod.rkt.pod_path(pod.uuid)
    found = [
        os.path.join(parent, name) for parent, names, files in os.walk(path) for name in (*names, *files)
    ]
    with open(f"/proc/{pod.process.pid}/mountinfo", encoding="utf-8") as stream:
        found += sorted(f"mount {line.split()[4]}" for line in stream)
    return sorted(name for name in found if not _PASSING.search(name))


@pytest.mark.timeout(280)
@pytest.mark.parametrize("more", [[], ["--private-users"]], ids=["root", "users"])
def test_changes_killed(rkt: Rkt, images: Images, more: list[str]) -> None:
    """App add, start, stop and rm killed at any moment leave a pod that lists its apps, and that app rm makes what it was; then the same name is there to be added."""
    pod = Sandbox(rkt, images, *more)
    moments = random.Random(SEED)
    own = (
        "--mnt-volume=name=v,kind=tmpfs,target=/v",
        f"--mnt-volume=name=i,kind=image,source={pod.image},target=/i",
    )
    commands = {
        "add": (
            "app",
            "add",
            INSECURE,
            pod.uuid,
            pod.image,
            "--name=app",
            *own,
            "--exec=/bin/sleep",
            "--",
            "100",
        ),
        "start": ("app", "start", pod.uuid, "--app=app"),
        "stop": ("app", "stop", pod.uuid, "--app=app"),
        "rm": ("app", "rm", pod.uuid, "--app=app"),
    }
    whole: dict[str, float] = {}
    for _ in range(2):
        for verb, words in commands.items():
            start = time.monotonic()
            rkt.run(*words, check=0)
            whole[verb] = time.monotonic() - start
    before = tree(pod)
    for number in range(ROUNDS):
        for verb, words in commands.items():
            for earlier in _NEEDED[verb]:
                rkt.run(*commands[earlier], check=0)
            seconds = moments.uniform(0, whole[verb])
            where = f"seed {SEED}, round {number}, {verb} after {seconds:.4f} s"
            process = rkt.popen(*words)
            time.sleep(seconds)
            process.kill()
            process.wait(20)
            rkt.run("list", "--format=json", check=0)
            manifest = json.loads(rkt.run("cat-manifest", pod.uuid, check=0).stdout)
            states = pod.states()
            assert list(states) == [app["name"] for app in manifest.get("apps") or []], where
            if states:
                assert rkt.run("app", "status", pod.uuid, "--app=app").status == 0, where
            removed = pod.app("rm", "--app=app", check=None)
            assert removed.status == 0 or "nonexistent app" in removed.stderr, (where, removed)
            assert pod.states() == {}, where
            if removed.status:
                # Nothing was there to be removed; what a kill left goes with the next change.
                pod.add("app", "true")
                pod.app("rm", "--app=app")
            left = tree(pod)
            assert left == before, (where, set(left) ^ set(before))
    pod.end()


@pytest.mark.timeout(280)
def test_killed_changes_and_gc(rkt: Rkt, images: Images) -> None:
    """A pod that ends with a killed app add and a killed app rm in it is collected without a trace."""
    pod = Sandbox(rkt, images, "--private-users")
    words = ("app", "add", INSECURE, pod.uuid, pod.image, "--exec=/bin/sleep")
    moments = random.Random(SEED)
    for number in range(ROUNDS):
        process = rkt.popen(*words, f"--name=app-{number}", "--", "100")
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.wait(20)
    for name in pod.states():
        process = rkt.popen("app", "rm", pod.uuid, f"--app={name}")
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.wait(20)
    pod.end()
    rkt.run("gc", "--grace-period=0", check=0)
    assert rkt.pods() == {}
    assert os.listdir(f"{rkt.data}/ranges") == []
    assert rkt.leaks() == []

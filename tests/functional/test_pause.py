# SPDX-License-Identifier: Apache-2.0
"""``rkt pause`` and ``rkt unpause``, and how the other commands meet a paused pod; ``rkt wait --ready``."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from rkt.linux import cgroupfs
from tests.lib.flavors import pods
from tests.lib.pace import SLOWNESS
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Rkt, Running

pytestmark = [pytest.mark.root, pods()]

INSECURE = "--insecure-options=image"
#: Counts in its log until it is told to end, which it says.
COUNT = "trap 'echo asked; exit 7' TERM; n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done"


@pytest.fixture(autouse=True)
def _freezer() -> None:
    if cgroupfs.detect().unified is None:
        pytest.skip("the host has no cgroup hierarchy of version 2")


@pytest.fixture
def process(rkt: Rkt, images: Images) -> Iterator[Running]:
    """A pod that counts."""
    image = images.script("example.com/count", COUNT)
    with rkt.popen("run", INSECURE, "--name=counter", image) as running:
        rkt.wait_for_pod()
        yield running
        for uuid in rkt.pods("run"):
            rkt.run("stop", "--force", uuid)


def counted(process: Running) -> int:
    """Lines of what the app has said."""
    return process.stdout_text.count("\n")


def test_a_paused_pod_stands_still_and_goes_on(rkt: Rkt, process: Running) -> None:
    """Between pause and unpause nothing of the pod runs; the state stays running, status and JSON say that it is paused."""
    uuid = rkt.wait_for_pod()
    wait_for(lambda: counted(process) > 2, "output")
    assert "paused" not in rkt.run("status", uuid, check=0).stdout
    assert rkt.run("pause", "counter", check=0).stdout == f'"{uuid}"\n'
    time.sleep(0.1)
    before = counted(process)
    time.sleep(0.3)
    assert counted(process) == before
    lines = rkt.run("status", uuid, check=0).lines
    assert lines[:2] == ["state=running", "paused=true"]
    assert json.loads(rkt.run("list", "--format=json", check=0).stdout)[0]["paused"] is True
    assert rkt.run("pause", uuid, check=0).stdout == f'pod "{uuid}" is already paused\n'
    refused = rkt.run("enter", uuid, "/bin/true", check=254)
    assert f'pod "{uuid}" is paused\n' in refused.stderr
    assert f"hint: rkt unpause {uuid[:8]}" in refused.stderr
    rkt.run("gc", "--grace-period=0", check=0)
    assert rkt.run("unpause", uuid, check=0).stdout == f'"{uuid}"\n'
    wait_for(lambda: counted(process) > before, "more output")
    assert "paused" not in json.loads(rkt.run("status", "--format=json", uuid, check=0).stdout)
    rkt.run("enter", uuid, "/bin/true", check=0)
    assert rkt.run("unpause", uuid, check=0).stdout == f'pod "{uuid}" is not paused\n'


@pytest.mark.parametrize("way", ["stop", "force", pytest.param("signal", marks=pods("supervision"))])
def test_a_paused_pod_is_stopped(rkt: Rkt, process: Running, way: str) -> None:
    """Stop, and a signal to the supervisor, let a paused app go on to its own end; force needs nothing of it."""
    uuid = rkt.wait_for_pod()
    wait_for(lambda: counted(process) > 2, "output")
    rkt.run("pause", uuid, check=0)
    begun = time.monotonic()
    if way == "signal":
        process.terminate()
    else:
        rkt.run("stop", *(["--force"] if way == "force" else []), uuid, check=0)
    status = process.wait(20 * SLOWNESS)
    assert time.monotonic() - begun < 8 * SLOWNESS
    if way != "force":
        assert status == 7
        assert "asked" in process.stdout_text
    assert "paused" not in rkt.run("status", uuid, check=0).stdout
    rkt.run("gc", "--grace-period=0", check=0)
    assert rkt.pods() == {}


def test_only_running_pods_are_paused(rkt: Rkt, images: Images) -> None:
    """A prepared pod is refused, the others are done nevertheless, and the command fails."""
    uuid = rkt.run("prepare", INSECURE, images.busybox(), check=0).stdout.strip()
    for verb in ("pause", "unpause"):
        refused = rkt.run(verb, uuid, check=254)
        assert f'pod "{uuid}" is not running' in refused.stderr
        assert f"failed to {verb} 1 pod(s)" in refused.stderr


def test_wait_until_a_pod_is_ready(rkt: Rkt, images: Images) -> None:
    """``wait --ready`` returns when a prepared pod has been started and is up, with its UUID; one that ended, or takes too long, fails."""
    image = images.script("example.com/count", COUNT)
    uuid = rkt.run("prepare", INSECURE, image, check=0).stdout.strip()
    late = rkt.run("wait", "--ready", "--timeout=300ms", uuid, check=254)
    assert f'pod "{uuid}" was not ready within 0.3s' in late.stderr
    with rkt.popen("wait", "--ready", "--timeout=30s", uuid) as waiting:
        running = rkt.popen("run-prepared", uuid)
        assert waiting.wait(30) == 0
        assert waiting.stdout_text == f"{uuid}\n"
    assert rkt.run("status", uuid, check=0).lines[0] == "state=running"
    rkt.run("stop", "--force", uuid, check=0)
    running.wait(20)
    over = rkt.run("wait", "--ready", uuid, check=254)
    assert "ended before it was ready" in over.stderr

# SPDX-License-Identifier: Apache-2.0
"""The rows of spec runtime §6.8 and spec cli §10.7 with pods that are isolated; those without need of that are in ``test_lifecycle``."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib import host
from tests.lib.flavors import pods
from tests.lib.inspect import INSECURE, NAME, inspect_image, shell_app, stored
from tests.lib.rkt import STATE_DIRECTORIES, wait_for

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt, Running

pytestmark = [pytest.mark.root, pods()]


def exited(rkt: Rkt, images: Images, *flags: str, script: str = "true") -> str:
    """UUID of a pod that ran."""
    before = set(rkt.pods("run"))
    rkt.run("run", INSECURE, *flags, *shell_app(stored(rkt, inspect_image(images)), "app", script), check=0)
    (uuid,) = set(rkt.pods("run")) - before
    return uuid


def prepared(rkt: Rkt, images: Images) -> str:
    """UUID of a pod that did not."""
    words = shell_app(stored(rkt, inspect_image(images)), "app", "true")
    return rkt.run("prepare", INSECURE, *words, check=0).stdout.strip()


def reading(rkt: Rkt, images: Images, *flags: str) -> tuple[Running, str, int]:
    """An interactive pod that reads until it is stopped: its process, its UUID, what to close at the end."""
    source, keep = os.pipe()
    try:
        words = shell_app(stored(rkt, inspect_image(images)), "app", "exec cat")
        process = rkt.popen("run", INSECURE, "--interactive", *flags, *words, stdin=source)
    finally:
        os.close(source)
    return process, rkt.wait_for_pod(), keep


def test_gc_takes_what_is_over(rkt: Rkt, images: Images) -> None:
    """Marking keeps the pods, zero periods leave nothing; two apps of one name make no pod at all (runtime L1, L2, cli P15, P16)."""
    image = stored(rkt, inspect_image(images))
    over, waiting = exited(rkt, images), prepared(rkt, images)
    assert "multiple apps" in rkt.run("prepare", INSECURE, image, image, check=254).stderr
    periods = ("--expire-prepared=0", "--grace-period=0")
    rkt.run("gc", "--mark-only", *periods, check=0)
    assert rkt.pods() == {over: "exited-garbage", waiting: "prepared"}
    rkt.run("gc", *periods, check=0)
    for state in STATE_DIRECTORIES:
        assert os.listdir(f"{rkt.data}/pods/{state}") == []


@pytest.mark.parametrize("verb", ["gc", "rm"])
def test_nothing_of_a_pod_is_left(rkt: Rkt, images: Images, verb: str) -> None:
    """Nothing of a pod is mounted on the host, so a reboot loses nothing; gc and rm say no word of failure, and no cgroup bears its UUID (runtime L3, L4, L5, cli P11, P14, P17)."""
    over = exited(rkt, images)
    assert not any(over in mount.line for mount in host.mounts())
    if verb == "gc":
        said = rkt.run("gc", "--debug", "--grace-period=0", check=0).stderr
        assert f'Garbage collecting pod "{over}"' in said.splitlines()[-1]
    else:
        waiting = prepared(rkt, images)
        for uuid in (over, waiting):
            assert rkt.run("rm", uuid, check=0).stdout == f'"{uuid}"\n'
    assert rkt.pods() == {}
    assert not any(over[:8] in path for path in host.cgroups())


@pods("supervision")
@pytest.mark.parametrize("way", ["uuid", "file"])
def test_stop_of_a_pod_that_reads(rkt: Rkt, images: Images, way: str) -> None:
    """An interactive pod is stopped by UUID and by file: stop and run end with 0, the pod is exited (runtime L8, cli P8, P10)."""
    path = f"{rkt.base}/uuid"
    process, uuid, keep = reading(rkt, images, f"--uuid-file-save={path}")
    begun = time.monotonic()
    rkt.run("stop", uuid if way == "uuid" else f"--uuid-file={path}", check=0)
    assert process.wait(15) == 0
    assert time.monotonic() - begun < 15
    assert "state=exited\n" in rkt.run("status", uuid, check=0).stdout
    os.close(keep)


def test_stop_by_force(rkt: Rkt, images: Images) -> None:
    """With --force the process that was run is killed by a signal (runtime L9, cli P9)."""
    process, uuid, keep = reading(rkt, images)
    rkt.run("stop", "--force", uuid, check=0)
    assert process.wait(15) == -9
    os.close(keep)


@pods("supervision")
def test_what_is_known_of_a_pod_without_its_image(rkt: Rkt, images: Images) -> None:
    """List has UUID, image name and 12 digits of the image ID, and all commands that look at a pod work, also when the image is gone and nothing is mounted (runtime L10, cli P1, P2, P3, P4, P23)."""
    uuid = exited(rkt, images, script="echo said > /file; echo said")
    key = stored(rkt, inspect_image(images))
    for remove in (True, False):
        short = rkt.run("list", "--no-legend", check=0).stdout
        full = rkt.run("list", "--full", "--no-legend", check=0).stdout
        assert short.startswith(f"{uuid[:8]}\t")
        assert full.startswith(f"{uuid}\t")
        assert f"\t{NAME}" in short
        assert f"\t{NAME}" in full
        assert key[: len("sha512-") + 12] in full
        assert "app-app=0\n" in rkt.run("status", uuid, check=0).stdout
        assert json.loads(rkt.run("cat-manifest", uuid, check=0).stdout)["apps"][0]["image"]["name"] == NAME
        assert rkt.run("logs", uuid, check=0).stdout == "said\n"
        if remove:
            rkt.run("image", "rm", key, check=0)
    rkt.run("export", uuid, f"{rkt.base}/out.aci", check=0)
    rkt.run("rm", uuid, check=0)


def test_enter_waits_for_the_pid(rkt: Rkt, images: Images) -> None:
    """A pod that seems to have no first process yet is entered once it has (runtime L16)."""
    process, uuid, keep = reading(rkt, images)
    path = f"{rkt.pod_path(uuid)}/pid"
    os.rename(path, f"{rkt.base}/pid")
    entering = rkt.popen("enter", uuid, "/bin/echo", "entered")
    with pytest.raises(Exception, match="timed out"):
        entering.wait(0.4)
    os.rename(f"{rkt.base}/pid", path)
    assert entering.wait(20) == 0
    assert entering.stdout_text == "entered\n"
    rkt.run("stop", uuid, check=0)
    process.wait(20)
    os.close(keep)


@pods("supervision")
def test_enter_of_a_pod_that_ends_meanwhile(rkt: Rkt, images: Images) -> None:
    """When the pod ends instead, enter fails soon, and says why (runtime L17)."""
    process, uuid, keep = reading(rkt, images)
    os.unlink(f"{rkt.pod_path(uuid)}/pid")
    entering = rkt.popen("enter", uuid, "/bin/true")
    with pytest.raises(Exception, match="timed out"):
        entering.wait(0.4)
    process.terminate()
    assert process.wait(20) == 0
    begun = time.monotonic()
    assert entering.wait(20) == 254
    assert time.monotonic() - begun < 5
    assert f'pod "{uuid}"' in entering.stderr_text
    os.close(keep)
    wait_for(lambda: rkt.run("rm", uuid).status == 0, "the removal")


@pytest.mark.parametrize("flag", ["--wait=60s", "--wait-ready=60s"])
def test_a_pod_that_is_removed_while_somebody_waits(rkt: Rkt, images: Images, flag: str) -> None:
    """Whoever waits hears that it is gone, and not that the time is over."""
    uuid = prepared(rkt, images)
    waiting = rkt.popen("status", flag, uuid)
    table = f"/proc/{waiting.pid}/fd"

    def has_opened() -> bool:
        try:
            return any(uuid in os.readlink(f"{table}/{fd}") for fd in os.listdir(table))
        except FileNotFoundError:
            return False  # closed while it was looked at

    wait_for(has_opened, "the open pod")
    rkt.run("rm", uuid, check=0)
    assert waiting.wait(20) == 254
    assert waiting.stderr_text == f'status: pod "{uuid}" was removed while waiting for it\n'

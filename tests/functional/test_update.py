# SPDX-License-Identifier: Apache-2.0
"""``rkt update``: limits of a running app, read from the kernel and felt by the app."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib.flavors import pods
from tests.lib.inspect import INSECURE, inspect_image, shell_app, stored
from tests.lib.kernel import Kernel
from tests.lib.old_host import hide_version_2
from tests.lib.pods import StubPods
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt, Running

pytestmark = [pytest.mark.root, pods("cgroups", "updates")]

MEBIBYTE = 1 << 20
SLEEP = "sleep 300 & wait"


def plain(images: Images) -> str:
    """An image without limits of its own."""
    return images.busybox("example.com/plain", ("/bin/sh",), file="plain-update")


def isolators(rkt: Rkt, uuid: str, app: str) -> dict[str, Any]:
    """Of an app in the pod manifest."""
    manifest = json.loads(rkt.run("cat-manifest", uuid, check=0).stdout)
    (entry,) = [each for each in manifest["apps"] if each["name"] == app]
    return {each["name"]: each["value"] for each in entry["app"].get("isolators", [])}


class Pod:
    """A running pod of apps that wait."""

    def __init__(
        self, rkt: Rkt, image: str, *names: str, flags: tuple[str, ...] = (), script: str = SLEEP
    ) -> None:
        self.rkt = rkt
        words = [word for name in names for word in shell_app(stored(rkt, image), name, script, *flags)]
        self.process: Running = rkt.popen("run", INSECURE, *words)
        self.uuid = rkt.wait_for_pod()
        self.kernel = Kernel(rkt, self.uuid)

    def update(self, *flags: str, check: int = 0) -> str:
        """Change limits; what was said."""
        return self.rkt.run("update", *flags, self.uuid, check=check).stderr

    def stop(self) -> None:
        """End it."""
        self.rkt.run("stop", "--force", self.uuid, check=0)
        self.process.wait(20)


@pytest.mark.parametrize("limited", [True, False], ids=["other limits before", "none before"])
def test_limits_change_in_the_kernel_and_in_the_manifest(rkt: Rkt, images: Images, limited: bool) -> None:
    """New limits hold for all processes of the app at once, its others are untouched, and so are other apps; a later start has them."""
    flags = ("--memory=32M", "--cpu=300m", "--cpu-shares=100", "--pids-limit=40") if limited else ()
    pod = Pod(rkt, plain(images), "one", "two", flags=flags)
    assert pod.update("--app=one", "--memory=64M", "--cpu=700m", "--pids-limit=50") == ""
    kernel = pod.kernel
    assert kernel.memory_limit("one") == 64_000_000 // 4096 * 4096
    assert kernel.millicores("one") == 700
    assert kernel.max_pids("one") == 50
    if limited:
        assert kernel.shares("one") == kernel.shares("two") != 1024
        assert kernel.memory_limit("two") == 32_000_000 // 4096 * 4096
        assert (kernel.millicores("two"), kernel.max_pids("two")) == (300, 40)
    for controller in ("memory", "cpu", "pids"):
        directory = kernel.directory("one", controller)[1]
        assert directory != kernel.directory("two", controller)[1]
        with open(f"{directory}/cgroup.procs", encoding="ascii") as file:
            assert len(file.read().split()) == 2
    assert rkt.run("enter", "--app=one", pod.uuid, "/bin/true", check=0).stderr == ""
    assert pod.update("--app=one", "--memory=48M") == ""
    assert (kernel.memory_limit("one"), kernel.millicores("one")) == (48_000_000 // 4096 * 4096, 700)
    recorded = isolators(rkt, pod.uuid, "one")
    assert recorded["resource/memory"]["limit"] == "48M"
    assert recorded["resource/cpu"]["limit"] == "700m"
    shown = json.loads(rkt.run("stats", "--apps", "--format=json", pod.uuid, check=0).stdout)
    (mine,) = [each for each in shown if each.get("app") == "one"]
    assert (mine["memory_limit_bytes"], mine["pids_limit"]) == (48_000_000 // 4096 * 4096, 50)
    rkt.run("stop", pod.uuid, check=0)
    pod.process.wait(20)
    assert rkt.leaks(seconds=2) == []
    again = rkt.popen("start", pod.uuid)
    wait_for(lambda: rkt.run("wait", "--ready", pod.uuid).status == 0, "the next run")
    assert (kernel.memory_limit("one"), kernel.millicores("one")) == (48_000_000 // 4096 * 4096, 700)
    rkt.run("stop", pod.uuid, check=0)
    again.wait(20)


@pytest.mark.parametrize(
    ("flag", "controller", "v1", "v2", "value"),
    [
        ("--cpu-shares=512", "cpu", "cpu.shares", "cpu.weight", {"512", "59"}),
        ("--cpuset-cpus=0", "cpuset", "cpuset.cpus", "cpuset.cpus", {"0"}),
        ("--pids-limit=9", "pids", "pids.max", "pids.max", {"9"}),
        ("--pids-limit=9000", "pids", "pids.max", "pids.max", {"9000"}),
    ],
)
def test_each_limit(
    rkt: Rkt, images: Images, flag: str, controller: str, v1: str, v2: str, value: set[str]
) -> None:
    """Each flag means what it means for run; a ceiling of the pod does not stand in the way."""
    pod = Pod(rkt, plain(images), "app")
    pod.kernel.directory("app", controller)
    assert pod.update(flag) == ""
    assert pod.kernel.read("app", controller, v1=v1, v2=v2) in value
    if flag == "--pids-limit=9000":
        assert pod.kernel.max_pids("app", above=1) >= 9000
    pod.stop()


def test_what_the_kernel_refuses(rkt: Rkt, images: Images) -> None:
    """A memory limit below what is in use, a CPU that is not there: refused with all other flags of the command, and the old limits hold."""
    script = f"x=$(head -c 24000000 /dev/zero | tr '\\0' x); echo full; {SLEEP}"
    pod = Pod(rkt, plain(images), "app", flags=("--memory=128M", "--cpu=500m"), script=script)
    wait_for(lambda: "full" in rkt.log(pod.uuid, "app"), "memory in use")
    before = isolators(rkt, pod.uuid, "app")
    said = pod.update("--memory=16M", "--cpu=900m", check=254)
    assert "a memory limit of" in said
    assert "is less than the" in said
    assert "hint: rkt stats" in said
    said = pod.update("--cpuset-cpus=999", "--memory=256M", "--cpu=900m", check=254)
    assert "no CPU 999 among" in said
    assert isolators(rkt, pod.uuid, "app") == before
    assert pod.kernel.memory_limit("app") == 128_000_000 // 4096 * 4096
    assert pod.kernel.millicores("app") == 500
    assert "state=running" in rkt.run("status", pod.uuid, check=0).stdout
    pod.stop()


def test_without_any_cgroup_of_its_own(rkt: Rkt, images: Images) -> None:
    """Where only version 1 is mounted an app without limits shares its pod's cgroups; its first limit gives it one, with its processes alone."""
    hide_version_2(rkt)
    pod = Pod(rkt, plain(images), "one", "two")
    assert pod.update("--app=one", "--memory=64M", "--cpu=700m") == ""
    assert pod.kernel.memory_limit("one") == 64_000_000 // 4096 * 4096
    assert pod.kernel.millicores("one") == 700
    for app in ("one", "two"):
        with open(f"{pod.kernel.directory(app, 'memory')[1]}/cgroup.procs", encoding="ascii") as file:
            assert str(pod.kernel.pid(app)) in file.read().split()
    assert pod.kernel.directory("two", "memory")[1] == os.path.dirname(
        pod.kernel.directory("one", "memory")[1]
    )
    pod.stop()


def test_words_that_are_refused(rkt: Rkt, images: Images) -> None:
    """Without a limit, with a bad one, for several apps without a name, for pods that do not run or of another stage1, nothing is changed and the hint says what to type."""
    pod = Pod(rkt, plain(images), "one", "two")
    assert "hint: one or more of --cpu, " in pod.update(check=254)
    assert 'specify app using "rkt update --app= ..."' in pod.update("--memory=1G", check=254)
    assert "too low" in pod.update("--app=one", "--memory=1", check=254)
    assert "--pids-limit" in pod.update("--app=one", "--pids-limit=none", check=254)
    assert 'no app "three"' in pod.update("--app=three", "--memory=1G", check=254)
    rkt.run("stop", pod.uuid, check=0)
    pod.process.wait(20)
    assert "isn't currently running" in pod.update("--app=one", "--memory=1G", check=254)
    rkt.run("rm", pod.uuid, check=0)
    process, uuid = StubPods(rkt).running()
    refused = rkt.run("update", "--memory=1G", uuid, check=254)
    assert "rkt update not implemented for pod's stage1\nhint: run another pod" in refused.stderr
    rkt.run("stop", uuid, check=0)
    process.wait(20)


def test_apps_of_a_sandbox(rkt: Rkt, images: Images) -> None:
    """An app that has been added gets its new limits when it starts, one that runs at once, one that was started again keeps them."""
    image = stored(rkt, inspect_image(images))
    process = rkt.popen("app", "sandbox", INSECURE)
    uuid = rkt.wait_for_pod()
    words = ("--name=one", "--restart=always", "--exec=/bin/sh", "--", "-c", "sleep 300 & wait")
    rkt.run("app", "add", INSECURE, uuid, image, *words, check=0)
    rkt.run("update", "--memory=64M", uuid, check=0)
    rkt.run("app", "start", uuid, "--app=one", check=0)
    kernel = Kernel(rkt, uuid)
    assert kernel.memory_limit("one") == 64_000_000 // 4096 * 4096
    rkt.run("update", "--memory=96M", "--pids-limit=30", uuid, check=0)
    first = kernel.pid("one")
    rkt.run("enter", uuid, "/bin/kill", "-9", str(inner(rkt, uuid, first)))
    wait_for(lambda: kernel.pid("one") != first, "a restart")
    assert (kernel.memory_limit("one"), kernel.max_pids("one")) == (96_000_000 // 4096 * 4096, 30)
    rkt.run("app", "rm", uuid, "--app=one", check=0)
    rkt.run("stop", uuid, check=0)
    assert process.wait(20) == 0


def test_an_app_that_waits_to_be_started_again(rkt: Rkt, images: Images) -> None:
    """Limits that change while an app waits hold when it runs."""
    image = stored(rkt, plain(images))
    script = "n=$(cat /n 2>/dev/null || echo 0); [ $n = 4 ] && exec sleep 300; echo $((n+1)) > /n; exit 1"
    words = ("--name=app", "--restart=always", "--pids-limit=30", "--exec=/bin/sh", "--", "-c", script)
    process = rkt.popen("run", INSECURE, image, *words)
    uuid = rkt.wait_for_pod()

    def restarts() -> int:
        found = json.loads(rkt.run("status", "--format=json", uuid, check=0).stdout)["apps"][0]
        return int(found.get("restarts", 0))

    wait_for(lambda: restarts() >= 3, "a longer pause")
    rkt.run("update", "--pids-limit=33", "--memory=64M", uuid, check=0)
    kernel = Kernel(rkt, uuid)
    wait_for(lambda: restarts() == 4, "the last pause")
    # The record of the process is of the one before until the program is executed.
    wait_for(lambda: os.path.exists(f"/proc/{kernel.pid('app')}"), "the app")
    assert (kernel.max_pids("app"), kernel.memory_limit("app")) == (33, 64_000_000 // 4096 * 4096)
    rkt.run("stop", uuid, check=0)
    process.wait(20)


def inner(rkt: Rkt, uuid: str, pid: int) -> int:
    """The pod's number of a process of the host."""
    top = json.loads(rkt.run("top", "--format=json", uuid, check=0).stdout)
    return next(int(each["pod_pid"]) for each in top if each["pid"] == pid)

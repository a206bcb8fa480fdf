# SPDX-License-Identifier: Apache-2.0
"""Pods as units of systemd (spec runtime §2.8): the engine is the unit's main process, and the unit's rules hold for the pod."""

from __future__ import annotations

import os
import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.lib import host
from tests.lib.flavors import pods
from tests.lib.images import fetch
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not os.path.isdir("/run/systemd/system"), reason="systemd is not process 1"),
    pods(),
]

#: As docs/systemd.md has them; a slow host needs longer than systemd waits.
PROPERTIES = ("Type=notify", "KillMode=mixed", "Delegate=yes", "TimeoutStopSec=120s", "TimeoutStartSec=120s")
#: Ends with 7 half a second after it was told to stop, and says so in a file of the host.
CLEANS_UP = (
    "trap 'sleep 0.5; echo clean >/out/end; exit 7' TERM; echo up >/out/start; while :; do sleep 0.1; done"
)


class Unit:
    """A transient service that runs ``rkt run`` with a shell script as its app."""

    def __init__(self, rkt: Rkt, image: str) -> None:
        self.rkt = rkt
        self.image = image
        self.name = f"rkt-test-{uuid.uuid4()}.service"
        self.out = f"{rkt.base}/out"
        os.mkdir(self.out)

    def start(self, script: str, *properties: str, flags: tuple[str, ...] = ()) -> None:
        """Start it; returns when systemd says that it is up."""
        words = ["systemd-run", f"--unit={self.name}", "--quiet"]
        words += [f"--property={each}" for each in (*PROPERTIES, *properties)]
        words += [f"--setenv=HOME={self.rkt.home}", f"--setenv=TMPDIR={self.rkt.tmp}", "--setenv=PASSED=on"]
        volume = ("--volume=out,kind=host,source=" + self.out, "--mount=volume=out,target=/out")
        command = self.rkt.command("run", "--insecure-options=image", *volume, *flags, self.image)
        subprocess.run([*words, "--", *command, "--exec=/bin/sh", "--", "-c", script], check=True)

    def systemctl(self, *words: str, check: bool = True) -> None:
        """Do something with it."""
        subprocess.run(["systemctl", "--quiet", *words, self.name], check=check)

    def show(self, name: str) -> str:
        """A property."""
        words = ["systemctl", "show", "--value", f"--property={name}", self.name]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    def read(self, name: str) -> str:
        """A file that the app wrote, empty if there is none."""
        path = f"{self.out}/{name}"
        if not os.path.exists(path):
            return ""
        with open(path, encoding="ascii") as stream:
            return stream.read()

    def cgroups_left(self) -> list[str]:
        """Cgroups of the unit."""
        return [path for path in host.cgroups() if self.name in path]


@pytest.fixture
def unit(rkt: Rkt, images: Images) -> Iterator[Unit]:
    """A unit that is stopped and forgotten at the end."""
    each = Unit(rkt, fetch(rkt, images.busybox()))
    yield each
    each.systemctl("stop", check=False)
    each.systemctl("reset-failed", check=False)


def test_a_unit_is_up_when_its_apps_are(unit: Unit) -> None:
    """With Type=notify the start returns when the apps run; rkt is the main process, and no app hears of the socket."""
    unit.start("env >/out/env; echo up >/out/start; while :; do sleep 0.1; done", "NotifyAccess=main")
    assert unit.show("ActiveState") == "active"
    (pod,) = unit.rkt.pods("run")
    assert "state=running\n" in unit.rkt.run("status", pod, check=0).stdout
    with open(f"/proc/{unit.show('MainPID')}/cmdline", "rb") as stream:
        assert pod.encode() in stream.read()
    wait_for(lambda: unit.read("start"), "app")
    assert "NOTIFY_SOCKET" not in unit.read("env")
    assert "PASSED" not in unit.read("env")


def test_stop_gives_the_app_its_time(unit: Unit) -> None:
    """``systemctl stop`` lets the app clean up; the unit ends as it did, with no cgroup and no process left (runtime L18)."""
    unit.start(CLEANS_UP, "SuccessExitStatus=7")
    wait_for(lambda: unit.read("start"), "app")
    (pod,) = unit.rkt.pods("run")
    unit.systemctl("stop")
    assert unit.read("end") == "clean\n"
    assert unit.show("Result") == "success"
    shown = unit.rkt.run("status", pod, check=0).stdout
    assert "state=exited\n" in shown
    assert "app-busybox=7\n" in shown
    assert unit.cgroups_left() == []
    assert unit.rkt.leaks() == []


def test_the_pod_stays_below_its_unit(unit: Unit) -> None:
    """The pod's cgroups are below the unit's, so that the unit's limits bound the pod, and the pod has its own as well."""
    if not host.is_cgroup2_only():
        pytest.skip("cgroups are not of version 2 alone")
    unit.start("echo up >/out/start; while :; do sleep 0.1; done", "MemoryMax=300M", "TasksMax=77")
    wait_for(lambda: unit.read("start"), "app")
    (pod,) = unit.rkt.pods("run")
    with open(f"{unit.rkt.pod_path(pod)}/subcgroup", encoding="ascii") as stream:
        path = stream.readline().strip()
    assert path.startswith(unit.show("ControlGroup") + "/")
    with open(f"/sys/fs/cgroup{unit.show('ControlGroup')}/memory.max", encoding="ascii") as stream:
        assert int(stream.read()) == 300 << 20
    with open(f"/proc/{unit.rkt.pid(pod)}/cgroup", encoding="ascii") as stream:
        assert path in stream.read()
    with open(f"/sys/fs/cgroup{path}/pids.max", encoding="ascii") as stream:
        assert stream.read() != "max\n"


def test_a_killed_unit_leaves_nothing(unit: Unit) -> None:
    """When systemd kills the main process no process of the pod survives, and the pod counts as exited."""
    unit.start("echo up >/out/start; sleep 600 & sleep 600")
    wait_for(lambda: unit.read("start"), "app")
    (pod,) = unit.rkt.pods("run")
    unit.systemctl("kill", "--kill-whom=main", "--signal=KILL")
    wait_for(lambda: unit.show("ActiveState") in {"failed", "inactive"}, "end of the unit")
    assert unit.show("Result") == "signal"
    assert "state=exited\n" in unit.rkt.run("status", pod, check=0).stdout
    unit.rkt.run("gc", "--grace-period=0", check=0)
    assert unit.rkt.leaks() == []
    assert unit.cgroups_left() == []


def test_one_pod_per_unit(unit: Unit) -> None:
    """A unit that is restarted removes the pod of its last start by the file with its UUID."""
    saved = f"{unit.rkt.base}/uuid"
    remove = " ".join(unit.rkt.command("rm", f"--uuid-file={saved}"))
    unit.start(
        "echo up >/out/start; while :; do sleep 0.1; done",
        f"ExecStopPost=-{remove}",
        f"ExecStartPre=-{remove}",
        flags=(f"--uuid-file-save={saved}",),
    )
    (first,) = unit.rkt.pods("run")
    unit.systemctl("restart")
    (second,) = unit.rkt.pods("run")
    assert second != first
    unit.systemctl("stop")
    assert unit.rkt.pods() == {}

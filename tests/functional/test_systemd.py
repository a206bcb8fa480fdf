# SPDX-License-Identifier: Apache-2.0
"""Pods as units of systemd (spec runtime §2.8): the engine is the unit's main process, and the unit's rules hold for the pod."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.lib import host
from tests.lib.flavors import pods
from tests.lib.images import fetch
from tests.lib.inspect import inspect_image, stored
from tests.lib.pace import SLOWNESS
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
#: The host's Python in a pod of busybox: answers one client on the socket that it was started for, and ends.
SERVE = (
    "import os, socket; connection, _ = socket.socket(fileno=3).accept();"
    "connection.sendall(os.environ['LISTEN_FDNAMES'].encode())"
)
SOCKET_UNIT = """\
[Socket]
ListenStream=127.0.0.1:{port}
FileDescriptorName=front
"""
#: As docs/systemd.md has it.
SERVICE_UNIT = """\
[Unit]
Description=a server that its first client starts
CollectMode=inactive-or-failed

[Service]
Type=notify
Delegate=yes
KillMode=mixed
TimeoutStartSec=240s
Environment=HOME={home} TMPDIR={tmp}
ExecStart={command}
"""


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


@pods("supervision")
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


@pods("supervision")
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


@pods("cgroups")
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


@pods("supervision")
def test_the_watchdog_is_answered(unit: Unit) -> None:
    """With WatchdogSec= the supervisor answers as long as it lives; one that does so no more is killed, with its pod."""
    seconds = 2 * SLOWNESS
    unit.start(
        "echo up >/out/start; while :; do sleep 0.1; done", f"WatchdogSec={seconds}s", "TimeoutAbortSec=1s"
    )
    first = int(unit.show("WatchdogTimestampMonotonic"))
    wait_for(lambda: int(unit.show("WatchdogTimestampMonotonic")) > first, "word to the watchdog")
    (pod,) = unit.rkt.pods("run")
    os.kill(int(unit.show("MainPID")), signal.SIGSTOP)
    wait_for(lambda: unit.show("ActiveState") == "failed", "end of the unit")
    assert unit.show("Result") == "watchdog"
    assert "state=exited\n" in unit.rkt.run("status", pod, check=0).stdout
    unit.rkt.run("gc", "--grace-period=0", check=0)
    assert unit.rkt.leaks() == []


@pods("socket activation")
def test_a_socket_unit_starts_the_pod(rkt: Rkt, images: Images) -> None:
    """Files of units as the documentation has them: each client starts a pod, gets its answer, and the socket goes on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    app = {"ports": [{"name": "http", "protocol": "tcp", "port": 80, "socketActivated": True}]}
    image = stored(
        rkt, inspect_image(images, "server", app=app, links={"lib": "usr/lib", "lib64": "usr/lib64"})
    )
    volume = ("--volume=usr,kind=host,source=/usr,readOnly=true", "--mount=volume=usr,target=/usr")
    flags = ("--insecure-options=image", "--net=none", f"--port=http:{address[1]}", *volume)
    words = rkt.command("run", *flags, image, "--memory=200M", "--exec=/usr/bin/python3", "--", "-c", SERVE)
    command = " ".join(f'"{word}"' for word in words)
    name = f"rkt-test-{uuid.uuid4()}"
    paths = [f"/run/systemd/system/{name}.{kind}" for kind in ("socket", "service")]
    texts = [
        SOCKET_UNIT.format(port=address[1]),
        SERVICE_UNIT.format(home=rkt.home, tmp=rkt.tmp, command=command),
    ]
    try:
        for path, text in zip(paths, texts, strict=True):
            with open(path, "w", encoding="ascii") as stream:
                stream.write(text)
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        subprocess.run(["systemctl", "start", f"{name}.socket"], check=True)
        assert rkt.pods() == {}
        for count in (1, 2):
            with socket.create_connection(address, timeout=60 * SLOWNESS) as client:
                assert client.recv(100) == b"front"
            wait_for(lambda: not _is_active(f"{name}.service"), "end of the unit")
            listed = json.loads(rkt.run("list", "--format=json", check=0).stdout)
            assert [each["state"] for each in listed] == ["exited"] * count
            assert _is_active(f"{name}.socket")
    finally:
        subprocess.run(["systemctl", "--quiet", "stop", f"{name}.socket", f"{name}.service"], check=False)
        for path in paths:
            os.unlink(path)
        subprocess.run(["systemctl", "daemon-reload"], check=True)


def _is_active(name: str) -> bool:
    return subprocess.run(["systemctl", "--quiet", "is-active", name], check=False).returncode == 0

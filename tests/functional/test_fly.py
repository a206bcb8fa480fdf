# SPDX-License-Identifier: Apache-2.0
"""Pods of the ``fly`` flavour: the process becomes the app, all but its root is the host's (spec runtime §3.13)."""

from __future__ import annotations

import os
import signal
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.lib.images import fetch
from tests.lib.rkt import Rkt, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Result, Running

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"
WAITS = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done"


class Fly:
    """An engine whose pods are of this flavour, and an image with a mount point beside one without."""

    def __init__(self, rkt: Rkt, images: Images) -> None:
        self.rkt = rkt
        self.image = fetch(rkt, images.busybox())
        points = [{"name": "data", "path": "/data"}]
        self.with_point = fetch(
            rkt, images.busybox(name="example.com/point", app={"mountPoints": points}, file="point")
        )

    def words(self, script: str, flags: tuple[str, ...], app: tuple[str, ...], image: str = "") -> list[str]:
        """The command line of a pod that runs a shell script."""
        return ["run", INSECURE, *flags, image or self.image, "--exec=/bin/sh", *app, "--", "-c", script]

    def sh(
        self, script: str, *flags: str, app: tuple[str, ...] = (), image: str = "", check: int | None = 0
    ) -> Result:
        """Run a shell script to its end."""
        return self.rkt.run(*self.words(script, flags, app, image), check=check)

    def start(self, script: str, *flags: str, app: tuple[str, ...] = ()) -> tuple[Running, str]:
        """Start a shell script; the process and the UUID of its pod, once that has a pid."""
        before = set(self.rkt.pods("run"))
        process = self.rkt.popen(*self.words(script, flags, app))

        def pod() -> str | None:
            assert process.poll() is None, process.texts()
            new = [uuid for uuid in self.rkt.pods("run") if uuid not in before]
            return next((uuid for uuid in new if os.path.exists(f"{self.rkt.pod_path(uuid)}/pid")), None)

        return process, wait_for(pod, "a pod with a pid file")


@pytest.fixture(scope="module")
def fly(rkt_binary: str, images: Images) -> Iterator[Fly]:
    """One engine for all; what it leaves fails the last test."""
    engine = Rkt(tempfile.mkdtemp(prefix="rkt-test-"), rkt_binary, flavor="fly")
    try:
        yield Fly(engine, images)
    finally:
        engine.close()


def test_the_process_becomes_the_app(fly: Fly) -> None:
    """The app has the pid that was started, the host's namespaces but for mounts, every capability, and its own environment."""
    process, uuid = fly.start(
        "trap 'exit 7' TERM; for kind in net pid mnt; do readlink /proc/self/ns/$kind; done; env; ls -A /tmp;"
        " grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; echo up; while :; do sleep 0.1; done"
    )
    text = wait_for(lambda: process.texts()[0] if "up\n" in process.texts()[0] else None, "the app's word")
    assert fly.rkt.pid(uuid) == process.pid
    lines = text.splitlines()
    assert lines[:2] == [os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "pid")]
    assert lines[2] != os.readlink("/proc/self/ns/mnt")
    assert "AC_APP_NAME=busybox" in lines
    assert not [line for line in lines if line.startswith(("LANG=", "TMPDIR=", "RKT_"))]
    assert f"CapEff:\t{int(_status('CapEff'), 16):016x}" in lines
    assert {"NoNewPrivs:\t0", "Seccomp:\t0"} <= set(lines)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 7
    assert "state=exited\n" in fly.rkt.run("status", uuid, check=0).stdout


def test_stop_enter_and_start(fly: Fly) -> None:
    """A pod is entered with the app's environment and found in PATH, stopped, and started again; by force it is killed."""
    process, uuid = fly.start(WAITS, "--set-env=WORD=two words", app=("--user=1000", "--group=1000"))
    entered = fly.rkt.run("enter", uuid, "sh", "-c", 'echo "$WORD"; id -u; exit 5', check=5)
    assert entered.stdout == "two words\n1000\n"
    fly.rkt.run("stop", uuid, check=0)
    assert process.wait(10) == 7
    assert process.texts()[0] == "up\nbye\n"
    again = fly.rkt.popen("start", INSECURE, uuid)
    wait_for(lambda: "up\n" in again.texts()[0], "the app's word")
    fly.rkt.run("stop", "--force", uuid, check=0)
    assert again.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        pytest.param(("--net=default",), "--net=default is not possible", id="network"),
        pytest.param(("--hostname=other",), "host name", id="hostname"),
    ],
)
def test_what_cannot_be_is_refused(fly: Fly, flags: tuple[str, ...], says: str) -> None:
    """What was asked for and cannot be had ends the run before the app starts, and names it (quirk 19)."""
    result = fly.sh("echo ran", *flags, check=254)
    assert says in result.stderr
    assert "hint: " in result.stderr
    assert not result.stdout


def test_volumes_must_be_given_once(fly: Fly) -> None:
    """A mount point without a volume is an error, and so is a volume that is mounted twice."""
    missing = fly.sh("echo ran", image=fly.with_point, check=254)
    assert "missing volume for mountpoint 'data'" in missing.stderr
    flags = ("--volume=v,kind=empty", "--mount=volume=v,target=/a", "--mount=volume=v,target=/b")
    twice = fly.sh("echo ran", *flags, check=254)
    assert "mounted twice, on /a and /b" in twice.stderr


def _status(name: str) -> str:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(line.split()[1] for line in file if line.startswith(f"{name}:"))

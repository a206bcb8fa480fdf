# SPDX-License-Identifier: Apache-2.0
"""Pods of the ``fly`` flavour: the process becomes the app, all but its root is the host's (spec runtime §3.13)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from rkt.linux.mount import mountinfo
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
        self.images = images
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

    def start(
        self, script: str, *flags: str, app: tuple[str, ...] = (), image: str = ""
    ) -> tuple[Running, str]:
        """Start a shell script; the process and the UUID of its pod, once that has a pid."""
        before = set(self.rkt.pods("run"))
        process = self.rkt.popen(*self.words(script, flags, app, image))

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
    """The app has the pid that was started, the host's namespaces but for mounts (runtime T25), every capability, its own environment."""
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


def test_a_command_that_cannot_be_entered(fly: Fly) -> None:
    """When the app has removed its working directory that is said, in one line."""
    image = fetch(
        fly.rkt, fly.images.busybox(name="example.com/leaving", files={"gone/x": b""}, file="leaving")
    )
    process, uuid = fly.start("rm -r /gone && echo up; sleep 100", app=("--working-dir=/gone",), image=image)
    wait_for(lambda: "up\n" in process.texts()[0], "the app's word")
    refused = fly.rkt.run("enter", uuid, "/bin/true", check=254)
    assert refused.stderr.splitlines()[-1] == (
        "stage1: cannot enter: working directory /gone: No such file or directory"
    )
    fly.rkt.run("stop", "--force", uuid, check=0)
    process.wait(10)


def test_what_the_app_leaves_behind_is_the_pod(fly: Fly) -> None:
    """A child that outlives the app keeps the pod running, and stop ends it (quirk 7)."""
    process, uuid = fly.start("sleep 0.3; sleep 61 & exit 3")
    assert process.wait(10) == 3
    assert "state=running\n" in fly.rkt.run("status", uuid, check=0).stdout
    fly.rkt.run("stop", uuid, check=0)
    assert "state=exited\n" in fly.rkt.run("status", uuid, check=0).stdout


@pytest.mark.parametrize(
    ("flags", "app", "says"),
    [
        pytest.param(("--net=default",), (), "--net=default cannot be", id="network"),
        pytest.param(("--hostname=other",), (), "--hostname=other cannot be", id="hostname"),
        pytest.param(("--private-users",), (), "no users of its own", id="users"),
        pytest.param((), ("--memory=64M",), "a memory limit (resource/memory)", id="memory"),
        pytest.param((), ("--stdout=stream",), "its stdout attached to", id="streams"),
    ],
)
def test_what_cannot_be_is_refused(fly: Fly, flags: tuple[str, ...], app: tuple[str, ...], says: str) -> None:
    """What was asked for and cannot be had ends the command before there is a pod, and names it (quirk 19)."""
    before = fly.rkt.pods()
    result = fly.sh("echo ran", *flags, app=app, check=254)
    assert says in result.stderr
    assert "hint: " in result.stderr
    assert fly.rkt.pods() == before


def test_what_is_not_enforced_is_said_and_recorded(fly: Fly) -> None:
    """Each run says on one line that the app is not confined; status has all words; logs and wait say why they have nothing."""
    prepared = fly.rkt.run("prepare", INSECURE, fly.image, "--exec=/bin/true", check=0)
    assert not prepared.stderr
    uuid = prepared.stdout.strip()
    ran = fly.rkt.run("run-prepared", uuid, check=0)
    (line,) = ran.stderr.splitlines()
    assert "stage1-fly does not confine its app: it has the host's network, processes, IPC" in line
    assert "not-enforced=network,processes,ipc," in fly.rkt.run("status", uuid, check=0).stdout
    shown = json.loads(fly.rkt.run("status", "--format=json", uuid, check=0).stdout)
    assert {"network", "confinement"} <= set(shown["not_enforced"])
    assert "keeps nothing of what the app says" in fly.rkt.run("logs", uuid, check=254).stderr
    assert "its stage1 records none" in fly.rkt.run("wait", uuid, check=254).stderr


def test_what_is_asked_for_is_enforced(fly: Fly) -> None:
    """Capabilities, filter, no_new_privs, limits, ids and the read-only root hold in spite of all that (runtime §3.13)."""
    script = (
        "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; ulimit -n; id -u; id -G;"
        " touch /x 2>/dev/null || echo read-only; echo lost >&2"
    )
    limits = (
        "--caps-retain=CAP_KILL",
        "--no-new-privileges=true",
        "--seccomp=mode=remove,errno=EPERM,mount",
        "--ulimit=nofile=512",
    )
    ids = ("--user=0", "--group=7", "--supplementary-gids=8,9", "--readonly-rootfs=true", "--stderr=null")
    result = fly.sh(script, app=(*limits, *ids))
    lines = result.lines
    assert {f"CapEff:\t{1 << 5:016x}", f"CapBnd:\t{1 << 5:016x}", "NoNewPrivs:\t1", "Seccomp:\t2"} <= set(
        lines
    )
    assert lines[-4:] == ["512", "0", "7 8 9", "read-only"]
    assert "lost" not in result.stderr


class Host:
    """A mount namespace that stands for the host: a shared mount, a private one, a plain directory."""

    SCRIPT = (
        'cd "$1" && mkdir shared private plain && mount -t tmpfs none shared && mount --make-shared shared && mkdir shared/sub'
        " shared/old && mount -t tmpfs none shared/old && mount -t tmpfs none private && echo ready && exec cat"
    )

    def __init__(self, directory: str) -> None:
        self.directory = directory
        words = ["unshare", "--mount", "--propagation=private", "sh", "-c", self.SCRIPT, "sh", directory]
        self._holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        self.prefix = ("nsenter", f"--target={self._holder.pid}", "--mount", "--wdns=/", "--")

    def mounts(self) -> dict[str, bool]:
        """Mounts below the directory, and whether each is shared."""
        found = mountinfo(self._holder.pid)
        return {
            os.path.relpath(each.point, self.directory): "shared:" in each.propagation
            for each in found
            if each.point.startswith(f"{self.directory}/")
        }

    def close(self) -> None:
        """Let it go, with all its mounts."""
        self._holder.communicate()


@pytest.fixture
def host(fly: Fly) -> Iterator[Host]:
    """The host of one test, where the engine's commands run."""
    made = Host(tempfile.mkdtemp(dir=fly.rkt.base))
    fly.rkt.prefix = made.prefix
    try:
        yield made
    finally:
        fly.rkt.prefix = ()
        made.close()


def volume(name: str, source: str, target: str, more: str = "") -> tuple[str, str]:
    """Flags of a volume of the host and its mount."""
    return f"--volume={name},kind=host,source={source}{more}", f"--mount=volume={name},target={target}"


def test_mounts_of_the_app_are_seen_on_the_host(fly: Fly, host: Host) -> None:
    """Below a shared mount both see what the other mounts; a private mount point is made shared, which is said; else nothing changes."""
    before = host.mounts()
    fly.sh("mkdir /v/new && mount -t tmpfs none /v/new", *volume("v", f"{host.directory}/shared", "/v"))
    assert host.mounts() == {**before, "shared/new": True}
    said = fly.sh("mkdir /v/a && mount -t tmpfs none /v/a", *volume("v", f"{host.directory}/private", "/v"))
    assert f"{host.directory}/private is a shared mount on the host from now on" in said.stderr
    assert host.mounts() == {**before, "shared/new": True, "private": True, "private/a": True}
    plain = fly.sh("mkdir /v/a && mount -t tmpfs none /v/a", *volume("v", f"{host.directory}/plain", "/v"))
    assert "shared" not in plain.stderr
    assert "plain/a" not in host.mounts()


def test_volumes_by_depth_and_read_only_all_the_way(fly: Fly, host: Host) -> None:
    """A nested target is never hidden and never mounted on the host; a recursive read-only volume is so below, too."""
    before = host.mounts()
    inner = volume("a", f"{host.directory}/plain", "/v/sub")
    outer = volume("z", f"{host.directory}/shared", "/v")
    fly.sh("echo in >/v/sub/file; mount -t tmpfs none /v/old", *inner, *outer)
    assert os.listdir(f"{host.directory}/plain") == ["file"]
    assert host.mounts() == before
    script = "for d in /v /v/old; do touch $d/x 2>/dev/null && echo $d; done; mount -t tmpfs none /v/sub"
    fly_volume = volume("v", f"{host.directory}/shared", "/v", ",readOnly=true,recursive=true")
    assert not fly.sh(script, *fly_volume).stdout
    assert host.mounts() == before


@pytest.mark.parametrize(
    ("target", "says"),
    [
        pytest.param("/dev/absent", "/dev/absent is not there, and nothing is made", id="new in dev"),
        pytest.param("/link/shm", "which the host shares", id="link to dev"),
    ],
)
def test_nothing_is_made_or_covered_in_what_is_the_hosts(
    fly: Fly, host: Host, target: str, says: str
) -> None:
    """A target in the host's own /dev must be there, and an image's link cannot lead a volume into what the host shares."""
    subprocess.run([*host.prefix, "mount", "--make-rshared", "/dev"], check=True)
    image = fetch(fly.rkt, fly.images.busybox(name="example.com/link", file="link", links={"link": "/dev"}))
    flags = volume("v", f"{host.directory}/plain", target)
    result = fly.sh("echo ran", *flags, image=image, check=254)
    assert says in result.stderr
    assert not os.path.exists("/dev/absent")


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

# SPDX-License-Identifier: Apache-2.0
"""After gc and rm the host is as before: no process, mount, cgroup or file of the pod is left (spec runtime §6.8 L2 to L5)."""

from __future__ import annotations

import fcntl
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.images import fetch
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods()]

INSECURE = "--insecure-options=image"


@pytest.fixture
def image(rkt: Rkt, images: Images) -> str:
    """A busybox image in the engine's store, by hash."""
    return fetch(rkt, images.busybox())


def cgroups(uuid: str) -> list[str]:
    """Cgroup directories that carry the pod's UUID."""
    found = []
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        found += [os.path.join(directory, name) for name in names if uuid[:8] in name]
    return found


def data_files(rkt: Rkt) -> set[str]:
    """Every path of the data directory but the marks of last use."""
    found: set[str] = set()
    for directory, names, files in os.walk(rkt.data):
        found.update(os.path.relpath(os.path.join(directory, name), rkt.data) for name in names + files)
    return found


@pytest.mark.parametrize("command", ["gc", "rm"])
@pytest.mark.parametrize("flags", [(), ("--no-overlay",)])
def test_nothing_is_left(rkt: Rkt, image: str, command: str, flags: tuple[str, ...]) -> None:
    """After a pod ran and was removed, the data directory holds exactly the files it held before."""
    rkt.run("run", INSECURE, image, "--exec=/bin/true", check=0)
    rkt.run("gc", "--grace-period=0", check=0)
    before = data_files(rkt)
    rkt.run("run", INSECURE, "--name=web", *flags, image, "--exec=/bin/true", check=0)
    (uuid,) = rkt.pods("run")
    if command == "gc":
        rkt.run("gc", "--grace-period=0", check=0)
    else:
        assert rkt.run("rm", "web", check=0).stdout == f'"{uuid}"\n'
    assert data_files(rkt) == before
    assert cgroups(uuid) == []
    assert rkt.leaks() == []


def test_a_killed_supervisor(rkt: Rkt, image: str) -> None:
    """After kill -9 of a running pod's rkt process the pod is exited, its app dies, and gc leaves nothing (C6)."""
    process = rkt.popen("run", INSECURE, image, "--exec=/bin/sleep", "--", "1000")
    uuid = rkt.wait_for_pod()
    rkt.run("status", "--wait-ready=10s", uuid, check=0)
    process.kill()
    process.wait(10)
    wait_for(lambda: "state=exited\n" in rkt.run("status", uuid).stdout, "exited pod")
    rkt.run("gc", "--grace-period=0", check=0)
    assert rkt.pods() == {}
    assert cgroups(uuid) == []
    assert rkt.leaks() == []


def test_files_that_an_app_made_hard_to_remove(rkt: Rkt, image: str) -> None:
    """Directories without permissions, odd names, deep trees, links and pipes all go with the pod (HH6)."""
    script = (
        "mkdir -p /a/b/c; touch /a/b/c/f; ln -s / /a/b/c/root; mknod /a/p p; touch '/a/ \n-rf'; "
        "d=/deep; for i in $(seq 300); do d=$d/dddddddd; done; mkdir -p $d; "
        "chmod 0 /a/b/c /a/b /a"
    )
    rkt.run("run", INSECURE, image, "--exec=/bin/sh", "--", "-c", script, check=0)
    rkt.run("gc", "--grace-period=0", check=0)
    assert rkt.pods() == {}


def test_gc_does_not_follow_what_the_app_left(rkt: Rkt, image: str) -> None:
    """A link in the pod's files to a host directory goes, what it points to stays."""
    victim = f"{rkt.base}/victim"
    os.mkdir(victim)
    with open(f"{victim}/file", "w", encoding="ascii"):
        pass
    script = f"ln -s {victim} /link; rm -rf /tmp; ln -s {victim} /tmp"
    rkt.run("run", INSECURE, image, "--exec=/bin/sh", "--", "-c", script)
    rkt.run("gc", "--grace-period=0", check=0)
    assert rkt.pods() == {}
    assert os.listdir(victim) == ["file"]


def test_gc_sweeps_what_killed_commands_left(rkt: Rkt, image: str) -> None:
    """Embryos, aborted prepares, dead staging directories, dangling names and unfinished configuration go with one gc."""
    rkt.run("run", INSECURE, image, "--exec=/bin/true", check=0)
    uuids = [f"0000000{i}-0000-4000-8000-000000000000" for i in range(3)]
    os.makedirs(f"{rkt.data}/pods/embryo/{uuids[0]}")
    os.makedirs(f"{rkt.data}/pods/prepare/{uuids[1]}/appsinfo/app")
    os.makedirs(f"{rkt.data}/pods/garbage/{uuids[2]}/overlay/x")
    os.makedirs(f"{rkt.data}/cas/tmp/{'0' * 32}-1-1-aa/layer")
    os.symlink(uuids[0], f"{rkt.data}/pods/names/web")
    os.makedirs(f"{rkt.local}/trust.d")
    unfinished = f"{rkt.local}/trust.d/.web.toml.1f.0123abcd"
    os.close(os.open(unfinished, os.O_CREAT))
    os.utime(unfinished, (1, 1))
    rkt.run("gc", "--grace-period=0", check=0)
    assert not os.path.exists(unfinished)
    assert rkt.pods() == {}
    assert os.listdir(f"{rkt.data}/pods/names") == []
    assert os.listdir(f"{rkt.data}/cas/tmp") == []


def test_gc_in_another_mount_namespace(rkt: Rkt, image: str) -> None:
    """A gc that runs in a mount namespace of its own, as under a service manager, removes pods all the same."""
    rkt.run("run", INSECURE, image, "--exec=/bin/true", check=0)
    command = rkt.command("gc", "--grace-period=0")
    subprocess.run(["unshare", "--mount", *command], check=True, env=rkt.environment(), capture_output=True)
    assert rkt.pods() == {}


def test_a_pod_that_is_read_stays(rkt: Rkt, image: str) -> None:
    """While somebody holds a pod's lock shared, gc and rm leave it, say so, and do not wait."""
    rkt.run("run", INSECURE, image, "--exec=/bin/true", check=0)
    (uuid,) = rkt.pods("run")
    fd = os.open(rkt.pod_path(uuid), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        assert "is in use" in rkt.run("rm", uuid, check=254).stderr
        rkt.run("gc", "--grace-period=0", check=0)
        assert list(rkt.pods()) == [uuid]
    finally:
        os.close(fd)
    rkt.run("gc", "--grace-period=0", check=0)
    assert rkt.pods() == {}

# SPDX-License-Identifier: Apache-2.0
"""The checker is checked: what a test could leave behind is noticed."""

from __future__ import annotations

import os
import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.lib import host
from tests.lib.rkt import Rkt, wait_for

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root


def test_nothing_left_is_no_leak(rkt: Rkt) -> None:
    """An engine that did nothing leaves nothing."""
    assert rkt.leaks(seconds=0) == []


def test_mount_is_noticed(rkt: Rkt) -> None:
    """A mount below the engine's directories is a leak until it is gone."""
    point = os.path.join(rkt.data, "mounted")
    os.mkdir(point)
    subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
    try:
        assert [line for line in rkt.leaks(seconds=0) if point in line]
    finally:
        subprocess.run(["umount", point], check=True)
    assert rkt.leaks(seconds=0) == []


def test_process_is_noticed_by_its_environment(rkt: Rkt) -> None:
    """A process that was started with the engine's directories in its environment is a leak."""
    with subprocess.Popen(["sleep", "60"], env=rkt.environment()) as process:
        try:
            mark = f"process {process.pid}:"
            # execve(2) lets go of the caller's descriptors before the new environment can be read.
            wait_for(lambda: [line for line in rkt.leaks(seconds=0) if line.startswith(mark)], "the process")
        finally:
            process.kill()
    assert rkt.leaks(seconds=0) == []


def test_process_is_noticed_by_its_mounts(rkt: Rkt) -> None:
    """A process in a mount namespace of its own that has the engine's directories mounted is a leak."""
    script = 'mount -t tmpfs none "$1" && cd / && exec env -i sleep 60'
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", script, "sh", rkt.data]) as process:
        try:
            assert [line for line in rkt.leaks(seconds=1) if line.startswith(f"process {process.pid}:")]
            assert not [line for line in rkt.leaks(seconds=0) if line.startswith("mount")]
        finally:
            process.kill()
    assert rkt.leaks(seconds=1) == []


def test_cgroup_of_a_pod_is_noticed(rkt: Rkt) -> None:
    """A cgroup that carries the UUID of one of the engine's pods is a leak; anybody else's is not."""
    pod = str(uuid.uuid4())
    os.makedirs(os.path.join(rkt.data, "pods", "garbage", pod))
    root = next(iter(host.cgroup_roots().values()))
    own, foreign = os.path.join(root, f"rkt-{pod}"), os.path.join(root, f"rkt-{uuid.uuid4()}")
    try:
        os.mkdir(own)
        os.mkdir(foreign)
        leaks = rkt.leaks(seconds=0)
        assert [line for line in leaks if own in line]
        assert not [line for line in leaks if foreign in line]
    finally:
        for path in (own, foreign):
            if os.path.isdir(path):
                os.rmdir(path)
        os.rmdir(os.path.join(rkt.data, "pods", "garbage", pod))


def test_a_strangers_copy_of_our_mounts_is_none_of_ours(rkt: Rkt) -> None:
    """A mount namespace that somebody else made while a test had something mounted on the host is not a leak."""
    point = os.path.join(rkt.data, "mounted")
    os.mkdir(point)
    subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
    # A program of its own, as the runner of another suite is: nobody of ours is among its ancestors.
    script = "unshare --mount --propagation=private sleep 60 & echo $!; read -r end; kill $!"
    with subprocess.Popen(
        ["setsid", "--fork", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
        text=True,
    ) as stranger:
        assert stranger.stdin is not None
        assert stranger.stdout is not None
        try:
            pid = int(stranger.stdout.readline())
            wait_for(lambda: _namespace(pid) != _namespace(os.getpid()), "its mount namespace")
            leaks = rkt.leaks(seconds=0)
        finally:
            subprocess.run(["umount", point], check=True)
            after = rkt.leaks(seconds=0)
            stranger.stdin.close()
    assert [line for line in leaks if not line.startswith("mount: ")] == []
    assert after == []


def test_an_orphan_of_another_test_is_none_of_ours(rkt: Rkt) -> None:
    """What names another test's directory is that test's, even when it copied our mounts and has lost its parent."""
    point = os.path.join(rkt.data, "mounted")
    os.mkdir(point)
    subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
    words = [
        "unshare",
        "--mount",
        "--propagation=private",
        "sh",
        "-c",
        "read -r end",
        "/tmp/rkt-test-other/x",
    ]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as other:
        try:
            wait_for(lambda: _namespace(other.pid) != _namespace(os.getpid()), "its mount namespace")
            leaks = rkt.leaks(seconds=0)
        finally:
            subprocess.run(["umount", point], check=True)
            other.kill()
    assert not [line for line in leaks if line.startswith(f"process {other.pid}:")]


def test_interfaces_count_for_those_who_are_alone(tmp_path: Path) -> None:
    """While another test is under way a new network interface can be anybody's; a test that is alone is told of it."""
    first = host.Presence(str(tmp_path))
    assert first.is_alone()
    second = host.Presence(str(tmp_path))
    assert not first.is_alone()
    assert not second.is_alone()
    second.end()
    assert first.is_alone()
    first.end()


def _namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/mnt")

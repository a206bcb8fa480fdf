# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.linux import cgroupfs

V1_TOGETHER = b"""\
31 24 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
32 31 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
33 31 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
34 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
35 31 0:30 / /sys/fs/cgroup/net_cls,net_prio rw - cgroup cgroup rw,net_cls,net_prio
"""
V1_MEMBERSHIP = b"""\
4:net_prio,net_cls:/
3:memory:/user.slice
2:cpuacct,cpu:/user.slice/x
1:name=systemd:/user.slice/user-0.slice/session-1.scope
0::/user.slice
"""
V2 = b"27 22 0:24 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def test_detect_controllers_together() -> None:
    """Controllers that share a mount are found in whatever order the kernel names them, options are no controllers."""
    found = cgroupfs.detect(V1_TOGETHER, V1_MEMBERSHIP)
    assert [(item.version, item.key, item.own_path) for item in found] == [
        (1, "name=systemd", "/user.slice/user-0.slice/session-1.scope"),
        (1, "cpu,cpuacct", "/user.slice/x"),
        (1, "memory", "/user.slice"),
        (1, "net_cls,net_prio", "/"),
    ]
    assert found.unified is None


def test_detect_hybrid() -> None:
    """On a hybrid host the version 2 hierarchy is found beside the others."""
    line = b"41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    found = cgroupfs.detect(V1_TOGETHER + line, V1_MEMBERSHIP)
    assert found.unified is not None
    assert (found.unified.key, found.unified.own_path) == ("", "/user.slice")


def test_detect_unified() -> None:
    """A version 2 host has one hierarchy."""
    found = cgroupfs.detect(V2, b"0::/system.slice/x.service\n")
    (unified,) = found
    assert unified.version == 2
    assert unified.directory(unified.own_path) == "/sys/fs/cgroup/system.slice/x.service"


def test_detect_takes_the_first_mount() -> None:
    """A hierarchy that is mounted twice counts once."""
    again = b"50 22 0:24 /machine /mnt rw - cgroup2 cgroup2 rw\n"
    found = cgroupfs.detect(V2 + again, b"0::/\n")
    assert [item.mount_point for item in found] == ["/sys/fs/cgroup"]


@pytest.mark.parametrize(
    ("root", "path", "directory"),
    [
        ("/", "/", "/c"),
        ("/", "/a/b", "/c/a/b"),
        ("/docker/x", "/docker/x", "/c"),
        ("/docker/x", "/docker/x/y", "/c/y"),
        ("/docker/x", "/docker/xy", None),
        ("/docker/x", "/", None),
        ("/", "/../../other", None),
    ],
)
def test_directory(root: str, path: str, directory: str | None) -> None:
    """A cgroup is found below what is mounted, and one that is outside of it is not."""
    assert cgroupfs.Hierarchy(2, (), "/c", root, "/").directory(path) == directory

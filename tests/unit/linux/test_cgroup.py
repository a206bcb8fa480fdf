# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from rkt.linux import cgroup, cgroup_limits, cgroupfs
from tests.lib.unified import NAME, create

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lib.unified import UnifiedKernel


def test_no_hierarchy() -> None:
    """A host without cgroups gives a group without directories, and warnings."""
    group = cgroup.create_pod(cgroupfs.detect(b"1 1 0:1 / / rw - ext4 /dev/sda rw\n", b"0::/\n"), NAME)
    assert group.directories() == []
    assert [text for text in group.warnings if "memory" in text]
    with pytest.raises(OSError, match="memory is not available") as refused:
        cgroup_limits.set_memory_limit(group, 1 << 20)
    assert refused.value.errno == errno.ENOTSUP


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a"])
def test_name_of_a_pod(name: str) -> None:
    """Invariant HH3: a name is one component."""
    with pytest.raises(ValueError, match="not a name for a cgroup"):
        cgroup.create_pod(cgroupfs.Hierarchies([]), name)


def test_record() -> None:
    """The record's first line is the path of version 2; other paths follow by controller."""
    memory = cgroupfs.Hierarchy(1, ("memory",), "/m", "/", "/a")
    pids = cgroupfs.Hierarchy(1, ("pids",), "/p", "/", "/")
    unified = cgroupfs.Hierarchy(2, (), "/u", "/", "/")
    paths = [(memory, f"/a/{NAME}", "/m"), (pids, f"/{NAME}", "/p"), (unified, f"/{NAME}", "/u")]
    assert cgroup.Group(NAME, paths, []).record() == f"/{NAME}\nmemory:/a/{NAME}\n"
    assert cgroup.Group(NAME, paths[:2], []).record() == f"/a/{NAME}\npids:/{NAME}\n"
    assert (
        cgroup.open_pod(cgroupfs.Hierarchies([]), cgroup.Group(NAME, [], []).record(), NAME).directories()
        == []
    )


@pytest.mark.parametrize(
    "record",
    [
        "/a/other\n",
        f"/a/../{NAME}\n",
        f"/{NAME}\nmemory:/x\n",
        f"/{NAME}\nmemory\n",
        f"/{NAME}/\n",
        "/\n",
    ],
)
def test_damaged_record(record: str) -> None:
    """A record that does not name this pod's cgroup is refused: its directories will be killed and removed."""
    groups = cgroupfs.Hierarchies([cgroupfs.Hierarchy(1, ("memory",), "/nowhere", "/", "/")])
    with pytest.raises(ValueError, match="not a cgroup of"):
        cgroup.open_pod(groups, record.replace(f"/{NAME}\nmemory\n", f"/{NAME}\nmemory:\n"), NAME)


def test_search(tmp_path: Path) -> None:
    """A pod without a record is found by its whole name at any depth, and nothing that is only called alike."""
    for path in (
        "v1/a/b",
        f"v1/a/{NAME}/app",
        f"v1/{NAME}-2",
        f"v2/x/{NAME}",
        f"v2/x/{NAME}.supervisor",
        "v2/y",
    ):
        (tmp_path / path).mkdir(parents=True)
    memory = cgroupfs.Hierarchy(1, ("memory",), f"{tmp_path}/v1", "/", "/")
    unified = cgroupfs.Hierarchy(2, (), f"{tmp_path}/v2", "/docker", "/docker/z")
    groups = cgroupfs.Hierarchies([memory, unified])
    found = cgroup.search_pod(groups, NAME)
    assert found.directories() == [f"{tmp_path}/v1/a/{NAME}", f"{tmp_path}/v2/x/{NAME}"]
    assert cgroup.open_pod(groups, found.record(), NAME).directories() == found.directories()
    assert not (tmp_path / f"v2/x/{NAME}.supervisor").exists()
    assert found.remove() == []
    assert cgroup.search_pod(groups, NAME).directories() == []
    assert (tmp_path / f"v1/{NAME}-2").exists()


def test_children(kernel: UnifiedKernel) -> None:
    """An app's cgroup gets the controllers that it will have limits of."""
    group = create("/")
    app = group.child("app", ("memory",))
    assert app.warnings == []
    assert kernel.controllers[f"/c/{NAME}/app"] == {"memory"}
    kernel.members[f"/c/{NAME}"] = {5}
    other = group.child("other", ("memory", "cpu"))
    assert len(other.warnings) == 1
    assert not other.has("cpu")


def test_where_a_service_manager_has_put_an_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app is joined where it is in version 2 and in systemd's own hierarchy, and where its limits are in the others of version 1."""
    paths = []
    for version, key in ((2, ""), (1, "name=systemd"), (1, "memory"), (1, "pids")):
        mount_point = tmp_path / (key or "unified")
        (mount_point / "rkt-pod/app").mkdir(parents=True)
        hierarchy = cgroupfs.Hierarchy(version, [key] if key else [], str(mount_point), "/", "/")
        paths.append((hierarchy, "/rkt-pod", f"{mount_point}/rkt-pod"))
    (tmp_path / "pids/rkt-pod/app").rmdir()
    unit = "/rkt-pod/init/system.slice/app.service"
    monkeypatch.setattr(
        cgroupfs, "membership", lambda _pid: dict.fromkeys(("", "name=systemd", "memory", "pids"), unit)
    )
    group = cgroup.Group("rkt-pod", paths, [])
    assert group.open_child("app", 1).directories() == [
        f"{tmp_path}/unified{unit}",
        f"{tmp_path}/name=systemd{unit}",
        f"{tmp_path}/memory/rkt-pod/app",
    ]
    monkeypatch.setattr(cgroupfs, "membership", lambda _pid: {"name=systemd": "/rkt-pod/../../other"})
    assert f"{tmp_path}/name=systemd/rkt-pod/app" in group.open_child("app", 1).directories()


def test_a_group_that_cannot_be_set_up(tmp_path: Path) -> None:
    """A group whose first setting fails is not left behind: no record would have it, and no gc would find it."""
    mounts = f"31 24 0:26 / {tmp_path} rw - cgroup cgroup rw,cpuset\n".encode()
    group = cgroup.create_pod(cgroupfs.detect(mounts, b"1:cpuset:/\n"), NAME, ("cpuset",))
    assert any(NAME in warning for warning in group.warnings)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EAGAIN])
def test_no_room_for_a_group(kernel: UnifiedKernel, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Where the kernel has no room for another cgroup there is an error, not a pod or an app without its ceilings."""
    group = create("/")

    def mkdir(path: str, _mode: int = 0o777) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(OSError, match="cannot make a cgroup") as refused:
        group.child("app", ("memory",))
    assert (refused.value.errno, refused.value.filename) == (number, f"/c/{NAME}/app")
    with pytest.raises(OSError, match="cannot make a cgroup"):
        create("/user.slice")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_no_leave_to_make_a_group(
    kernel: UnifiedKernel, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Where the caller may make no cgroups, as in many containers, there is a warning."""

    def mkdir(path: str, _mode: int = 0o777) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "mkdir", mkdir)
    assert any(os.strerror(number) in text for text in create("/user.slice").warnings)

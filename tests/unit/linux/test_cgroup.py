# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from rkt.linux import cgroup

if TYPE_CHECKING:
    from pathlib import Path

NAME = "rkt-6e3f2d8a"

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
    found = cgroup.Cgroups.detect(V1_TOGETHER, V1_MEMBERSHIP)
    assert [(item.version, item.key, item.own_path) for item in found.hierarchies] == [
        (1, "name=systemd", "/user.slice/user-0.slice/session-1.scope"),
        (1, "cpu,cpuacct", "/user.slice/x"),
        (1, "memory", "/user.slice"),
        (1, "net_cls,net_prio", "/"),
    ]
    assert found.unified is None


def test_detect_hybrid() -> None:
    """On a hybrid host the version 2 hierarchy is found beside the others."""
    line = b"41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    found = cgroup.Cgroups.detect(V1_TOGETHER + line, V1_MEMBERSHIP)
    assert found.unified is not None
    assert (found.unified.key, found.unified.own_path) == ("", "/user.slice")


def test_detect_unified() -> None:
    """A version 2 host has one hierarchy."""
    found = cgroup.Cgroups.detect(V2, b"0::/system.slice/x.service\n")
    (unified,) = found.hierarchies
    assert unified.version == 2
    assert unified.directory(unified.own_path) == "/sys/fs/cgroup/system.slice/x.service"


def test_detect_takes_the_first_mount() -> None:
    """A hierarchy that is mounted twice counts once."""
    again = b"50 22 0:24 /machine /mnt rw - cgroup2 cgroup2 rw\n"
    found = cgroup.Cgroups.detect(V2 + again, b"0::/\n")
    assert [item.mount_point for item in found.hierarchies] == ["/sys/fs/cgroup"]


def test_no_hierarchy() -> None:
    """A host without cgroups gives a group without directories, and warnings."""
    group = cgroup.Cgroups.detect(b"1 1 0:1 / / rw - ext4 /dev/sda rw\n", b"0::/\n").create_pod(NAME)
    assert group.directories() == []
    assert [text for text in group.warnings if "memory" in text]
    with pytest.raises(OSError, match="memory is not available") as refused:
        group.set_memory_limit(1 << 20)
    assert refused.value.errno == errno.ENOTSUP


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
    assert cgroup.Hierarchy(2, (), "/c", root, "/").directory(path) == directory


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a"])
def test_name_of_a_pod(name: str) -> None:
    """Invariant HH3: a name is one component."""
    with pytest.raises(ValueError, match="not a name for a cgroup"):
        cgroup.Cgroups([]).create_pod(name)


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
    groups = cgroup.Cgroups([cgroup.Hierarchy(1, ("memory",), "/nowhere", "/", "/")])
    with pytest.raises(ValueError, match="not a cgroup of"):
        groups.open_pod(record.replace(f"/{NAME}\nmemory\n", f"/{NAME}\nmemory:\n"), NAME)


def test_record() -> None:
    """The record's first line is the path of version 2; other paths follow by controller."""
    memory = cgroup.Hierarchy(1, ("memory",), "/m", "/", "/a")
    pids = cgroup.Hierarchy(1, ("pids",), "/p", "/", "/")
    unified = cgroup.Hierarchy(2, (), "/u", "/", "/")
    paths = [(memory, f"/a/{NAME}", "/m"), (pids, f"/{NAME}", "/p"), (unified, f"/{NAME}", "/u")]
    assert cgroup.Group(NAME, paths, []).record() == f"/{NAME}\nmemory:/a/{NAME}\n"
    assert cgroup.Group(NAME, paths[:2], []).record() == f"/a/{NAME}\npids:/{NAME}\n"
    assert cgroup.Cgroups([]).open_pod(cgroup.Group(NAME, [], []).record(), NAME).directories() == []


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
    memory = cgroup.Hierarchy(1, ("memory",), f"{tmp_path}/v1", "/", "/")
    unified = cgroup.Hierarchy(2, (), f"{tmp_path}/v2", "/docker", "/docker/z")
    groups = cgroup.Cgroups([memory, unified])
    found = groups.search_pod(NAME)
    assert found.directories() == [f"{tmp_path}/v1/a/{NAME}", f"{tmp_path}/v2/x/{NAME}"]
    assert groups.open_pod(found.record(), NAME).directories() == found.directories()
    assert not (tmp_path / f"v2/x/{NAME}.supervisor").exists()
    assert found.remove() == []
    assert groups.search_pod(NAME).directories() == []
    assert (tmp_path / f"v1/{NAME}-2").exists()


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(0, 1), (2, 1), (1024, 100), (262144, 10000), (1 << 30, 10000), (2048, 174), (512, 59)],
)
def test_weight(shares: int, weight: int) -> None:
    """Shares of version 1 become weights of version 2 such that both defaults and both ends correspond."""
    assert cgroup.weight_of_shares(shares) == weight


def test_weight_grows() -> None:
    """More shares are never less weight."""
    weights = [cgroup.weight_of_shares(shares) for shares in range(2, 262145, 97)]
    assert weights == sorted(weights)


class FakeKernel:
    """Version 2 cgroups in memory, with the kernel's rule that children get controllers only without processes above."""

    def __init__(self, controllers: str) -> None:
        self.controllers = {"/c": set(controllers.split())}
        self.subtree: dict[str, set[str]] = {"/c": set()}
        self.members: dict[str, set[int]] = {"/c": set()}

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        """A new cgroup has what its parent's subtree_control says."""
        if path in self.controllers:
            raise FileExistsError(errno.EEXIST, "exists", path)
        self.controllers[path] = set(self.subtree[os.path.dirname(path)])
        self.subtree[path] = set()
        self.members[path] = set()

    def read(self, path: str) -> str:
        """The three files that matter here."""
        directory, name = os.path.split(path)
        if name == "cgroup.procs":
            return "".join(f"{pid}\n" for pid in sorted(self.members[directory]))
        table = {"cgroup.controllers": self.controllers, "cgroup.subtree_control": self.subtree}[name]
        return " ".join(sorted(table[directory])) + "\n"

    def write(self, path: str, data: bytes) -> None:
        """Enabling controllers, and moving the caller."""
        directory, name = os.path.split(path)
        if name == "cgroup.procs":
            for members in self.members.values():
                members.discard(os.getpid())
            self.members[directory].add(os.getpid())
            return
        assert name == "cgroup.subtree_control"
        wanted = {word.removeprefix("+") for word in data.decode().split()}
        if not wanted <= self.controllers[directory]:
            raise OSError(errno.ENOENT, "no such controller", path)
        if self.members[directory] and directory != "/c":
            raise OSError(errno.EBUSY, "processes are in the way", path)
        self.subtree[directory] |= wanted
        for child in self.controllers:
            if os.path.dirname(child) == directory and child != "/c":
                self.controllers[child].update(wanted)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    """A version 2 host with the slice and scope of a login session."""
    fake = FakeKernel("cpu memory pids io")
    fake.mkdir("/c/user.slice")
    fake.mkdir("/c/user.slice/session.scope")
    monkeypatch.setattr(cgroup, "_read", fake.read)
    monkeypatch.setattr(cgroup, "_write", fake.write)
    monkeypatch.setattr(os, "mkdir", fake.mkdir)
    return fake


def create(own_path: str) -> cgroup.Group:
    """A pod made by a caller in that cgroup."""
    unified = cgroup.Hierarchy(2, (), "/c", "/", own_path)
    return cgroup.Cgroups([unified]).create_pod(NAME, ("memory", "pids", "devices", "cpu"))


def test_room_in_the_root(kernel: FakeKernel) -> None:
    """In the root cgroup, where the rule about processes does not hold, the pod is a child of it."""
    kernel.members["/c"] = {1, os.getpid()}
    group = create("/")
    assert group.unified_directory == f"/c/{NAME}"
    assert group.warnings == []
    assert kernel.controllers[f"/c/{NAME}"] == {"cpu", "memory", "pids"}
    assert os.getpid() in kernel.members["/c"]


def test_room_when_alone(kernel: FakeKernel) -> None:
    """A caller that is alone in its cgroup, as the main process of a unit, moves aside and stays below its unit."""
    kernel.members["/c/user.slice/session.scope"] = {os.getpid()}
    group = create("/user.slice/session.scope")
    assert group.unified_directory == f"/c/user.slice/session.scope/{NAME}"
    assert group.warnings == []
    assert kernel.members[f"/c/user.slice/session.scope/{NAME}.supervisor"] == {os.getpid()}
    assert kernel.controllers[f"/c/user.slice/session.scope/{NAME}"] == {"cpu", "memory", "pids"}


def test_room_beside_others(kernel: FakeKernel) -> None:
    """A shell in the same cgroup is left alone: the pod goes beside it, no higher than needed, and nobody is moved."""
    kernel.members["/c/user.slice/session.scope"] = {os.getpid(), 1}
    group = create("/user.slice/session.scope")
    assert group.unified_directory == f"/c/user.slice/{NAME}"
    assert group.record() == f"/user.slice/{NAME}\n"
    assert group.warnings == []
    assert kernel.members["/c/user.slice/session.scope"] == {os.getpid(), 1}
    assert kernel.controllers[f"/c/user.slice/{NAME}"] == {"cpu", "memory", "pids"}


def test_missing_controller(kernel: FakeKernel) -> None:
    """A controller that the host lacks is a warning, and an error only when a limit is asked for."""
    for table in kernel.controllers.values():
        table.discard("cpu")
    group = create("/user.slice")
    assert group.warnings == ["cgroup controller cpu is not available on this host"]
    assert group.has("memory")
    with pytest.raises(OSError, match="cpu is not available") as refused:
        group.set_cpu_limit(500)
    assert refused.value.errno == errno.ENOTSUP


def test_children(kernel: FakeKernel) -> None:
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
        hierarchy = cgroup.Hierarchy(version, [key] if key else [], str(mount_point), "/", "/")
        paths.append((hierarchy, "/rkt-pod", f"{mount_point}/rkt-pod"))
    (tmp_path / "pids/rkt-pod/app").rmdir()
    unit = "/rkt-pod/init/system.slice/app.service"
    monkeypatch.setattr(
        cgroup, "membership", lambda _pid: dict.fromkeys(("", "name=systemd", "memory", "pids"), unit)
    )
    group = cgroup.Group("rkt-pod", paths, [])
    assert group.open_child("app", 1).directories() == [
        f"{tmp_path}/unified{unit}",
        f"{tmp_path}/name=systemd{unit}",
        f"{tmp_path}/memory/rkt-pod/app",
    ]
    monkeypatch.setattr(cgroup, "membership", lambda _pid: {"name=systemd": "/rkt-pod/../../other"})
    assert f"{tmp_path}/name=systemd/rkt-pod/app" in group.open_child("app", 1).directories()


@pytest.mark.parametrize(
    ("version", "file", "text", "limit_bytes"),
    [
        (1, "memory.limit_in_bytes", "9223372036854771712\n", 0),
        (1, "memory.limit_in_bytes", "67108864\n", 67108864),
        (2, "memory.max", "max\n", 0),
        (2, "memory.max", "67108864\n", 67108864),
    ],
)
def test_the_memory_limit_of_a_group(
    tmp_path: Path, version: int, file: str, text: str, limit_bytes: int
) -> None:
    """A group without a limit has none with either version, though version 1 has a number for it."""
    (tmp_path / file).write_text(text)
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    hierarchy = cgroup.Hierarchy(version, ["memory"] if version == 1 else [], str(tmp_path), "/", "/")
    assert cgroup.Group(NAME, [(hierarchy, "/", str(tmp_path))], []).memory_limit() == limit_bytes


def test_a_group_that_cannot_be_set_up(tmp_path: Path) -> None:
    """A group whose first setting fails is not left behind: no record would have it, and no gc would find it."""
    mounts = f"31 24 0:26 / {tmp_path} rw - cgroup cgroup rw,cpuset\n".encode()
    group = cgroup.Cgroups.detect(mounts, b"1:cpuset:/\n").create_pod(NAME, ("cpuset",))
    assert any(NAME in warning for warning in group.warnings)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EAGAIN])
def test_no_room_for_a_group(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
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
def test_no_leave_to_make_a_group(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Where the caller may make no cgroups, as in many containers, there is a warning."""

    def mkdir(path: str, _mode: int = 0o777) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "mkdir", mkdir)
    assert any(os.strerror(number) in text for text in create("/user.slice").warnings)

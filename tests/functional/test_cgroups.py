# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import signal
import stat
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from rkt.linux import (
    cgroup,
    cgroup_devices,
    cgroup_limits,
    cgroup_processes,
    cgroupfs,
    libc,
    mount,
    pidfd,
)
from tests.lib.isolated import errno_of, run_isolated
from tests.lib.pace import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.fixture
def name() -> Iterator[str]:
    """Name of a pod's cgroup; the test has to leave nothing of that name behind."""
    text = f"rkt-test-{uuid.uuid4()}"
    yield text
    left = [
        path
        for hierarchy in cgroupfs.detect()
        for path, _, _ in os.walk(hierarchy.mount_point)
        if text in path
    ]
    for path in sorted(left, reverse=True):
        os.rmdir(path)
    assert left == []


@pytest.fixture
def groups() -> cgroupfs.Hierarchies:
    """The host's hierarchies."""
    found = cgroupfs.detect()
    if not found:
        pytest.skip("no cgroups are mounted")
    return found


@pytest.fixture
def pod(groups: cgroupfs.Hierarchies, name: str) -> Iterator[cgroup.Group]:
    """A pod's cgroup that is killed and removed at the end."""
    group = cgroup.create_pod(groups, name, (*cgroup.DEFAULT_CONTROLLERS, "cpu"))
    if not group.directories():
        pytest.skip(f"no cgroup can be made: {group.warnings}")
    yield group
    assert cgroup_processes.kill(group)
    assert group.remove() == []


def start(group: cgroup.Group, function: Callable[[], Any]) -> int:
    """Run a function in a child that was born in, or has moved itself to, a group; its number, once it is there."""
    joiner = group.joiner()
    read_fd, write_fd = os.pipe()
    pid, fd = libc.clone3(0, cgroup_fd=joiner.cgroup_fd)
    if pid == 0:
        status = 99
        try:
            joiner.join(unified=False)
            os.write(write_fd, b"x")
            os.close(write_fd)
            status = function() or 0
        finally:
            os._exit(status)
    os.close(write_fd)
    joined = os.read(read_fd, 1)
    for number in (fd, read_fd):
        os.close(number)
    joiner.close()
    assert joined == b"x"
    return pid


def status_of(pid: int) -> int:
    """Exit code of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def sleep() -> None:
    """Wait to be killed."""
    time.sleep(60)


def members(pid: int, text: str) -> set[str]:
    """Controllers in which a process is in a cgroup of that name; the empty word for version 2."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    return {controller for _, names, path in lines if text in path for controller in names.split(",")}


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what a child is about to do."""
    deadline = time.monotonic() + 20 * SLOWNESS
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)


def test_membership(pod: cgroup.Group, name: str) -> None:
    """A child is in the pod's cgroup of every hierarchy that matters, and the test itself in none."""
    pid = start(pod, sleep)
    expected = {item for hierarchy, _, _ in pod.places for item in hierarchy.controllers or [""]}
    assert members(pid, name) == expected
    assert cgroup_processes.pids(pod) == {pid}
    assert members(os.getpid(), name) == set()
    assert cgroup_processes.kill(pod)
    assert status_of(pid) == -signal.SIGKILL
    assert cgroup_processes.pids(pod) == set()


def test_memory_limit(pod: cgroup.Group) -> None:
    """A process that takes more memory than its pod has is killed."""
    if not pod.has("memory"):
        pytest.skip("no memory controller")
    cgroup_limits.set_memory_limit(pod, 64 << 20)
    cgroup_limits.set_memory_limit(pod, 96 << 20)
    cgroup_limits.set_memory_limit(pod, 48 << 20)

    def hog() -> None:
        data = bytearray(200 << 20)
        for position in range(0, len(data), 4096):
            data[position] = 1

    assert status_of(start(pod, hog)) == -signal.SIGKILL
    assert status_of(start(pod, lambda: len(bytearray(1 << 20)) and 0)) == 0


def test_pids_limit(pod: cgroup.Group) -> None:
    """Invariant RN24: a fork bomb ends at the ceiling."""
    if not pod.has("pids"):
        pytest.skip("no pids controller")
    cgroup_limits.set_pids_limit(pod, 5)

    def bomb() -> int:
        for count in range(1, 50):
            try:
                if os.fork() == 0:
                    sleep()
                    os._exit(0)
            except BlockingIOError:
                return count
        return 50

    # The bomber itself counts: four children fit.
    assert status_of(start(pod, bomb)) == 5
    assert cgroup_processes.kill(pod)


def test_cpu_limit(pod: cgroup.Group) -> None:
    """Quota and shares arrive at the kernel."""
    if not pod.has("cpu"):
        pytest.skip("no cpu controller")
    cgroup_limits.set_cpu_limit(pod, 250)
    cgroup_limits.set_cpu_shares(pod, 512)
    found = {}
    for directory in pod.directories():
        for file_name in ("cpu.cfs_quota_us", "cpu.shares", "cpu.max", "cpu.weight"):
            if os.path.exists(f"{directory}/{file_name}"):
                with open(f"{directory}/{file_name}", encoding="ascii") as file:
                    found[file_name] = file.read().strip()
    assert found in (
        {"cpu.cfs_quota_us": "25000", "cpu.shares": "512"},
        {"cpu.max": "25000 100000", "cpu.weight": "59"},
    )


def test_limit_without_controller(pod: cgroup.Group) -> None:
    """A limit of a controller that the group was not made for is an error."""
    child = pod.child("app", ())
    assert child.warnings == []
    if child.has("memory"):
        pytest.skip("version 2 gives what the parent has")
    with pytest.raises(OSError, match="memory is not available") as refused:
        cgroup_limits.set_memory_limit(child, 1 << 20)
    assert refused.value.errno == errno.ENOTSUP


def block_device() -> tuple[int, int] | None:
    """Numbers of some block device."""
    for entry in sorted(os.listdir("/sys/class/block")):
        with open(f"/sys/class/block/{entry}/dev", encoding="ascii") as file:
            major, minor = file.read().split(":")
        return int(major), int(minor)
    return None


def device_answers(node: str) -> int:
    """0 when null works and the device of ``node`` is refused in all ways, else which test failed."""
    with open("/dev/null", "r+b", buffering=0) as null:
        null.write(b"x")
    with open("/dev/urandom", "rb", buffering=0) as random:
        if len(random.read(4)) != 4:
            return 1
    for flags in (os.O_RDONLY, os.O_WRONLY):
        if errno_of(lambda flags=flags: os.close(os.open(node, flags | os.O_NONBLOCK))) != errno.EPERM:  # type: ignore[misc]
            return 2
    number = os.stat(node).st_rdev
    if errno_of(lambda: os.mknod(f"{node}-2", 0o600 | stat.S_IFBLK, number)) != errno.EPERM:
        return 3
    if errno_of(lambda: os.mknod(f"{node}-null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))):
        return 4
    return 0


@pytest.fixture
def node(tmp_path: object) -> str:
    """A block device node that root may open, outside of the pod."""
    numbers = block_device()
    if numbers is None:
        pytest.skip("no block device")
    path = f"{tmp_path}/disk"
    os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(*numbers))
    os.close(os.open(path, os.O_RDONLY))
    return path


def test_devices(pod: cgroup.Group, node: str) -> None:
    """Invariant UN8: in a pod the usual devices work and a disk cannot be opened or made, though root may."""
    cgroup_devices.restrict(pod, cgroup_devices.DEFAULT_DEVICES)
    app = pod.child("app", ("memory",))
    assert status_of(start(app, lambda: device_answers(node))) == 0


def test_devices_of_version_2(groups: cgroupfs.Hierarchies, name: str, node: str) -> None:
    """The program for version 2 refuses the same, wherever that hierarchy is mounted."""
    if groups.unified is None:
        pytest.skip("no version 2 hierarchy")
    group = cgroup.create_pod(cgroupfs.Hierarchies([groups.unified]), name)
    try:
        cgroup_devices.restrict(group, cgroup_devices.DEFAULT_DEVICES)
        assert status_of(start(group, lambda: device_answers(node))) == 0
    finally:
        assert cgroup_processes.kill(group)
        assert group.remove() == []


def test_devices_after_children(pod: cgroup.Group) -> None:
    """A policy that comes too late is an error and not half a policy."""
    if pod.child("app", cgroup.DEFAULT_CONTROLLERS).warnings or not any(
        "/devices/" in d for d in pod.directories()
    ):
        pytest.skip("version 1 only")
    with pytest.raises(OSError, match="cannot write"):
        cgroup_devices.restrict(pod, cgroup_devices.DEFAULT_DEVICES)


def test_kill_of_a_fork_bomb(pod: cgroup.Group) -> None:
    """Processes that fork as fast as they are killed all end, with and without version 2."""

    def bomb() -> None:
        for _ in range(4):
            os.fork()
        while True:
            if os.fork() == 0:
                continue
            time.sleep(0.001)
            if len(os.listdir("/proc")) > 1000:
                sleep()

    if pod.has("pids"):
        cgroup_limits.set_pids_limit(pod, 60)
    pid = start(pod, bomb)
    wait_until(lambda: len(cgroup_processes.pids(pod)) > 10)
    old = [place for place in pod.places if place[0].version == 1]
    if old:
        assert cgroup_processes.kill(cgroup.Group(pod.name, old, []))
    assert cgroup_processes.kill(pod)
    assert status_of(pid) in {-signal.SIGKILL, 99}
    wait_until(lambda: cgroup_processes.pids(pod) == set())


def test_kill_spares_the_caller(pod: cgroup.Group) -> None:
    """A supervisor in the pod's cgroup ends the others and lives on (without version 2, where the kernel kills all)."""
    old = [place for place in pod.places if place[0].version == 1]
    if not old:
        pytest.skip("version 1 only")
    group = cgroup.Group(pod.name, old, [])

    def supervise() -> int:
        pid = os.fork()
        if pid == 0:
            sleep()
        killed = cgroup_processes.kill(group)
        return 0 if killed and status_of(pid) == -signal.SIGKILL else 1

    assert status_of(start(group, supervise)) == 0


def test_found_again(groups: cgroupfs.Hierarchies, pod: cgroup.Group, name: str) -> None:
    """From its record the same group is found in a later process, with its apps, and removing it twice is fine."""
    app = pod.child("app", ("memory", "pids"))
    found = cgroup.open_pod(groups, pod.record(), name)
    assert found.directories() == pod.directories()
    assert found.open_child("app").directories() == app.directories()
    pid = start(found.open_child("app"), sleep)
    assert cgroup_processes.pids(app) == {pid}
    assert cgroup_processes.pids(found) == {pid}
    assert found.remove(0.05) != []
    assert cgroup_processes.kill(found)
    status_of(pid)
    assert found.remove() == []
    assert found.remove() == []
    assert cgroup.open_pod(groups, pod.record(), name).directories() == []


def test_remove_waits(pod: cgroup.Group) -> None:
    """Processes that are about to end do not keep the directories."""

    def soon() -> None:
        time.sleep(0.5)

    pid = start(pod, soon)
    assert pod.remove(20) == []
    assert status_of(pid) == 0


def test_in_a_cgroup_namespace(groups: cgroupfs.Hierarchies, name: str, tmp_path: Path) -> None:
    """Inside a cgroup namespace, whose root is not the host's, groups are made below that root."""
    if groups.unified is None:
        pytest.skip("no version 2 hierarchy")

    def check() -> Any:
        outer = cgroup.create_pod(groups, f"{name}-outer")
        joiner = outer.joiner()
        joiner.join(unified=True)
        joiner.close()
        libc.unshare(libc.CLONE_NEWCGROUP)
        # The mounts that are there still show the host's tree, in which the caller's own place cannot be named.
        hidden = cgroupfs.detect().unified
        mount.attach(mount.create(b"cgroup2"), str(tmp_path))
        inner = cgroupfs.detect()
        group = cgroup.create_pod(cgroupfs.Hierarchies([item for item in inner if item.version == 2]), name)
        made = group.directories()
        group.remove()
        return hidden is not None and hidden.directory(hidden.own_path), made

    try:
        hidden, made = run_isolated(check)
    finally:
        assert cgroup.search_pod(groups, f"{name}-outer").remove() == []
    assert hidden is None
    assert made == [f"{tmp_path}/{name}"]


def has_controllers_below(directory: str) -> bool:
    """Whether version 2 can give memory and pids to children."""
    with open(f"{directory}/cgroup.controllers", encoding="ascii") as file:
        return {"memory", "pids"} <= set(file.read().split())


def test_alone_in_its_cgroup(groups: cgroupfs.Hierarchies, name: str) -> None:
    """On version 2 the main process of a unit makes room by moving aside, and the pod stays below the unit."""
    if groups.unified is None or not has_controllers_below(groups.unified.mount_point):
        pytest.skip("version 2 has no controllers here")

    def check() -> Any:
        unit = cgroup.create_pod(groups, f"{name}-unit", ("memory", "pids"))
        joiner = unit.joiner()
        joiner.join(unified=True)
        joiner.close()
        group = cgroup.create_pod(cgroupfs.detect(), name)
        cgroup_limits.set_memory_limit(group, 64 << 20)
        cgroup_limits.set_pids_limit(group, 10)
        pid = start(group.child("app", ("memory",)), sleep)
        inside = [
            sorted(members(os.getpid(), f"{name}-unit/{name}.supervisor")),
            sorted(members(pid, f"{name}-unit/{name}/app")),
        ]
        cgroup_processes.kill(group)
        status_of(pid)
        return inside, group.remove(), group.unified_directory, unit.unified_directory, group.warnings

    try:
        inside, left, pod_directory, unit_directory, warnings = run_isolated(check, 0)
    finally:
        assert cgroup.search_pod(groups, f"{name}-unit").remove() == []
    assert inside == [[""], [""]]
    assert (left, warnings) == ([], [])
    assert pod_directory == f"{unit_directory}/{name}"


def test_cost(groups: cgroupfs.Hierarchies, name: str) -> None:
    """Making, limiting and entering a pod's cgroup costs about as much as a fork: no grace period is waited for."""
    best = bare = 1.0
    for _ in range(5):
        begin = time.perf_counter()
        pid, fd = libc.clone3(0)
        if pid == 0:
            os._exit(0)
        pidfd.wait_exit(fd, 10)
        bare = min(bare, time.perf_counter() - begin)
        os.close(fd)
        status_of(pid)
        begin = time.perf_counter()
        found = cgroupfs.detect()
        group = cgroup.create_pod(found, name)
        cgroup_devices.restrict(group, cgroup_devices.DEFAULT_DEVICES)
        joiner = group.joiner()
        pid, fd = libc.clone3(0, cgroup_fd=joiner.cgroup_fd)
        if pid == 0:
            joiner.join(unified=False)
            os._exit(0)
        pidfd.wait_exit(fd, 10)
        best = min(best, time.perf_counter() - begin)
        os.close(fd)
        joiner.close()
        status_of(pid)
        assert group.remove() == []
        time.sleep(0.05)
    assert best < 5 * bare + 0.005

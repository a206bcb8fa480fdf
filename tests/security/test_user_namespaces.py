# SPDX-License-Identifier: Apache-2.0
"""What root in a pod with ``--private-users`` is to the host: nobody (invariants RN19, VL4, docs/security.md 40 to 44)."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.idmap import needs_idmapped_mounts
from tests.lib.images import fetch
from tests.lib.inspect import newest_pod, shell_app
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, needs_idmapped_mounts, pods("user namespaces")]

INSECURE = "--insecure-options=image"
USERS = "--private-users"
#: ioctl_ns(2): the user namespace that owns a namespace.
NS_GET_USERNS = 0xB701
COUNT = 65536


def owner(pid: int, kind: str) -> int:
    """Inode of the user namespace that owns a namespace of a process."""
    fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
    try:
        owning = fcntl.ioctl(fd, NS_GET_USERNS)
    finally:
        os.close(fd)
    try:
        return os.fstat(owning).st_ino
    finally:
        os.close(owning)


def app_pids(rkt: Rkt, uuid: str) -> list[int]:
    """First processes of a pod's apps, as the host sees them."""
    directory = f"{rkt.pod_path(uuid)}/appsinfo"
    found = []
    for app in sorted(os.listdir(directory)):
        with open(f"{directory}/{app}/pid", encoding="ascii") as stream:
            found.append(int(stream.read().split()[0]))
    return found


def status(pid: int) -> dict[str, list[str]]:
    """Fields of ``/proc/PID/status``."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as stream:
        return {key: rest.split() for key, _, rest in (line.partition(":") for line in stream)}


def user_namespace(pid: int | str) -> int:
    """Inode of a process's user namespace."""
    return os.stat(f"/proc/{pid}/ns/user").st_ino


def two_apps(rkt: Rkt, images: Images) -> tuple[int, list[int], int]:
    """A running pod of two apps: its first process, those of the apps, and the first id of its range."""
    image = fetch(rkt, images.busybox())
    words = [*shell_app(image, "one", "sleep 600"), *shell_app(image, "two", "sleep 600", "--user=alice")]
    rkt.popen("run", INSECURE, USERS, *words)
    uuid = rkt.wait_for_pod()
    with open(f"{rkt.pod_path(uuid)}/private-users-prepared", encoding="ascii") as stream:
        first = int(stream.read().split(":")[0])
    return rkt.pid(uuid), app_pids(rkt, uuid), first


def test_every_process_of_a_pod_is_in_its_user_namespace(rkt: Rkt, images: Images) -> None:
    """Pid 1 and all apps share one user namespace, and their ids are of its range."""
    init, (one, two), first = two_apps(rkt, images)
    own = user_namespace(init)
    assert own != user_namespace("self")
    for pid, uid in ((init, 0), (one, 0), (two, 1000)):
        assert user_namespace(pid) == own
        assert status(pid)["Uid"] == [str(first + uid)] * 4
        for kind in ("uts", "pid"):
            assert owner(pid, kind) == own, kind


@pods("powerless pid 1")
def test_whose_the_namespaces_of_a_pod_are(rkt: Rkt, images: Images) -> None:
    """The user namespace owns the pod's other namespaces, the mounts of apps belong to the host's; pid 1 has no capability."""
    init, apps, _ = two_apps(rkt, images)
    own, host = user_namespace(init), user_namespace("self")
    for pid in (init, *apps):
        for kind in ("net", "ipc"):
            assert owner(pid, kind) == own, kind
        assert owner(pid, "mnt") == (own if pid == init else host)
    assert status(init)["Groups"] == []
    assert {int(status(init)[name][0], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapInh")} == {0}


def test_two_pods_are_strangers(rkt: Rkt, images: Images) -> None:
    """Two pods have user namespaces and ids of their own, so one's files and processes are nobody's to the other."""
    image = fetch(rkt, images.busybox())
    ranges = set()
    for number in range(2):
        rkt.popen("run", INSECURE, USERS, f"--name=pod{number}", image, "--exec=/bin/sleep", "--", "600")
    for number in range(2):
        wait_for(
            lambda name=f"pod{number}": not rkt.run("enter", name, "/bin/true").status,  # type: ignore[misc]
            "a running pod",
        )
        ranges.add(rkt.run("enter", f"pod{number}", "/bin/cat", "/proc/self/uid_map", check=0).stdout)
    assert len(ranges) == 2
    firsts = sorted(int(text.split()[1]) for text in ranges)
    assert firsts[1] - firsts[0] >= COUNT


@pods("locked masks")
@pytest.mark.parametrize("layout", ["overlay", "copy"])
def test_full_privileges_in_the_pod_are_none_on_the_host(rkt: Rkt, images: Images, layout: str) -> None:
    """With every capability, every call and no mask, root in the pod still mounts nothing, makes no device, and sets nothing."""
    script = """\
grep CapEff /proc/self/status
attempt() { "$@" 2>/dev/null && echo "DONE $*"; }
attempt mount -t tmpfs none /tmp
attempt mount -t proc none /tmp
attempt mount --bind /bin /tmp
attempt mount -o remount,rw /sys
attempt umount /sys
attempt mknod /tmp/disk b 8 0
attempt mknod /tmp/null c 1 3
attempt sh -c 'echo x > /proc/sys/kernel/core_pattern'
attempt sh -c 'echo 1 > /proc/sys/vm/drop_caches'
attempt sh -c 'echo h > /proc/sysrq-trigger'
attempt sh -c 'echo 1 > /sys/kernel/profiling'
attempt head -c 1 /proc/kcore
attempt head -c 1 /proc/kmsg
attempt head -c 1 /dev/mem
attempt sh -c 'echo -1000 > /proc/self/oom_score_adj'
hostname inside && echo named
echo over"""
    path = images.busybox()
    flags = ("--no-overlay",) if layout == "copy" else ()
    words = ("--insecure-options=image,all-run", "run", USERS, *flags, path, "--exec=/bin/sh")
    result = rkt.run(*words, "--", "-c", script, check=0)
    # The host name is the pod's own, and with it a proof that the attempts had capabilities.
    assert [line for line in result.lines if not line.startswith("CapEff")] == ["named", "over"], str(result)
    (granted,) = [line for line in result.lines if line.startswith("CapEff")]
    assert int(granted.split()[1], 16) & 0x200000, "CAP_SYS_ADMIN"


@pods("locked masks")
def test_another_mount_namespace_uncovers_nothing(rkt: Rkt, images: Images) -> None:
    """An unconfined root may make a mount namespace of its own; what was hidden stays hidden and read-only there."""
    script = """\
unshare -m sh -c '
    umount /proc/sys; umount /proc/keys; mount -o remount,rw,bind /proc/sys
    (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null && echo WRITTEN
    head -c 1 /proc/keys
    echo over' 2>/dev/null || echo none"""
    words = ("--insecure-options=image,capabilities,seccomp", "run", USERS, images.busybox())
    result = rkt.run(*words, "--exec=/bin/sh", "--", "-c", script, check=0)
    assert result.lines in (["over"], ["none"])


def test_a_volume_gives_what_its_owners_give(rkt: Rkt, images: Images) -> None:
    """Through a volume a user of the pod reads and writes what the user with that id may on the host, and a setuid bit is worth nothing."""
    volume = f"{rkt.tmp}/volume"
    os.mkdir(volume, 0o755)
    for name, uid, mode in (("root", 0, 0o600), ("alice", 1000, 0o600), ("open", 0, 0o644)):
        with open(f"{volume}/{name}", "w", encoding="ascii") as stream:
            stream.write(name)
        os.chown(f"{volume}/{name}", uid, uid)
        os.chmod(f"{volume}/{name}", mode)
    script = "for f in root alice open; do cat /v/$f 2>/dev/null || echo denied; echo; done; (echo x > /v/new) 2>/dev/null || echo refused"
    flags = (f"--volume=v,kind=host,source={volume}", "--mount=volume=v,target=/v")
    words = ("run", INSECURE, USERS, *flags, images.busybox(), "--user=alice", "--group=alice")
    result = rkt.run(*words, "--exec=/bin/sh", "--", "-c", script, check=0)
    assert [line for line in result.lines if line] == ["denied", "alice", "open", "refused"]
    setuid = (
        "cp /bin/busybox /v/busybox && chown 1000 /v/busybox && chmod 4755 /v/busybox && /v/busybox id -u"
    )
    result = rkt.run(
        "run", INSECURE, USERS, *flags, images.busybox(), "--exec=/bin/sh", "--", "-c", setuid, check=0
    )
    assert result.stdout == "0\n"


def test_what_a_pod_makes_is_worth_nothing_on_the_host(rkt: Rkt, images: Images) -> None:
    """A setuid program in a pod's own root belongs on disk to an id that nobody else has, below directories for root alone."""
    script = "cp /bin/busybox /evil && chmod 6755 /evil && stat -c '%u %a' /evil"
    words = ("run", INSECURE, USERS, images.busybox(), "--exec=/bin/sh", "--", "-c", script)
    assert rkt.run(*words, check=0).stdout == "0 6755\n"
    pod = newest_pod(rkt)
    (path,) = [
        os.path.join(directory, "evil")
        for directory, _, files in os.walk(f"{pod}/overlay")
        if "evil" in files
    ]
    found = os.stat(path)
    assert found.st_uid > COUNT
    assert found.st_gid > COUNT
    assert any(os.stat(above).st_mode & 0o007 == 0 for above in (pod, os.path.dirname(os.path.dirname(path))))


def test_a_pod_ends_with_its_supervisor(rkt: Rkt, images: Images) -> None:
    """A kill of the supervisor takes every process of the user namespace along (docs/security.md 32)."""
    process = rkt.popen(
        "run", INSECURE, USERS, images.busybox(), "--exec=/bin/sh", "--", "-c", "sleep 600 & sleep 601"
    )
    uuid = rkt.wait_for_pod()
    init = rkt.pid(uuid)
    own = user_namespace(init)
    process.kill()
    process.wait()

    def members() -> list[str]:
        found = []
        for pid in os.listdir("/proc"):
            if pid.isdigit():
                try:
                    if user_namespace(pid) == own:
                        found.append(pid)
                except OSError:
                    continue
        return found

    wait_for(lambda: not members(), "end of the pod")

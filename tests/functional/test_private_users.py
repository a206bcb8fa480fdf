# SPDX-License-Identifier: Apache-2.0
"""Pods in a user namespace of their own: ids, files, volumes and leased ranges (spec runtime §3.11, invariants RN19, VL4)."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib.aci import Entry, write_aci
from tests.lib.flavors import pods
from tests.lib.idmap import needs_idmapped_mounts
from tests.lib.images import fetch
from tests.lib.inspect import (
    INSECURE,
    by_app,
    inspect_image,
    manifest_app,
    newest_pod,
    shell_app,
    write_pod_manifest,
)
from tests.lib.pace import SLOWNESS, rounds
from tests.lib.pods import FLAGS, StubPods
from tests.lib.rkt import wait_for
from tests.lib.terminal import Operator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Result, Rkt

pytestmark = [pytest.mark.root, needs_idmapped_mounts, pods("user namespaces")]

USERS = "--private-users"
COUNT = 65536
#: What the issue asks for; a slow host may do with fewer.
PODS = int(os.environ.get("RKT_TEST_PODS", "0")) or rounds(100)
LAYOUTS = {"overlay": (USERS,), "copy": (USERS, "--no-overlay")}
both_layouts = pytest.mark.parametrize("layout", LAYOUTS)


def sh(rkt: Rkt, image: str, script: str, *flags: str, check: int | None = 0) -> Result:
    """Run one app that is a shell script, in a user namespace."""
    return rkt.run("run", INSECURE, USERS, *flags, image, "--exec=/bin/sh", "--", "-c", script, check=check)


def pool(rkt: Rkt, *ranges: str) -> None:
    """Configure the ids that pods may lease."""
    os.makedirs(f"{rkt.local}/users.d", exist_ok=True)
    with open(f"{rkt.local}/users.d/pool.json", "w", encoding="utf-8") as stream:
        json.dump({"rktKind": "privateUsers", "rktVersion": "v1", "ranges": ranges}, stream)


def leases(rkt: Rkt) -> dict[str, str]:
    """First id of each leased range to the pod that has it."""
    directory = f"{rkt.data}/ranges"
    if not os.path.isdir(directory):
        return {}
    return {name: os.readlink(f"{directory}/{name}") for name in os.listdir(directory)}


@pytest.fixture(scope="module")
def image(module_rkt: Rkt, private: str) -> Iterator[str]:
    """That image in the store of the engine that most tests share."""
    yield fetch(module_rkt, private)
    module_rkt.run("gc", "--grace-period=0", check=0)
    assert leases(module_rkt) == {}


@pytest.fixture(scope="module")
def private(images: Images) -> str:
    """Path of an image with files of several owners, a setuid program, and names."""
    entries = [
        Entry("rootfs/owned", uid=1234, gid=4321),
        Entry("rootfs/setuid", content=b"x", mode=0o4755),
        Entry("rootfs/secret", content=b"secret\n", mode=0o600),
    ]
    return inspect_image(images, "private", name="example.com/private", entries=entries)


@both_layouts
def test_the_image_looks_as_without(module_rkt: Rkt, image: str, layout: str) -> None:
    """Owners, modes and contents in the pod are the image's, ``/`` is root's; pid 1 cannot be looked into (runtime U15)."""
    script = """\
[ -e /proc/1/root/ ] || echo hidden
stat -c '%u:%g %A %n' / /owned /setuid /secret /bin /etc/hostname /etc/hosts /dev /dev/pts /dev/shm /dev/mqueue /dev/null /tmp
cat /secret; readlink /etc/mtab; stat -c %u:%g /etc/mtab"""
    said = sh(module_rkt, image, script, *LAYOUTS[layout][1:]).lines
    assert said == [
        "hidden",
        "0:0 drwxr-xr-x /",
        "1234:4321 -rw-r--r-- /owned",
        "0:0 -rwsr-xr-x /setuid",
        "0:0 -rw------- /secret",
        "0:0 drwxr-xr-x /bin",
        "0:0 -rw-r--r-- /etc/hostname",
        "0:0 -rw-r--r-- /etc/hosts",
        "0:0 drwxr-xr-x /dev",
        "0:0 drwxr-xr-x /dev/pts",
        "0:0 drwxrwxrwt /dev/shm",
        "0:0 drwxrwxrwt /dev/mqueue",
        "0:0 crw-rw-rw- /dev/null",
        "0:0 drwxrwxrwt /tmp",
        "secret",
        "../proc/self/mounts",
        "0:0",
    ]


def test_layers_of_dependencies(rkt: Rkt, images: Images) -> None:
    """An image over two others, one with a white list, shows every file of theirs as its own."""
    fetch(rkt, images.busybox("example.com/base", entries=[Entry("rootfs/base")]))
    white_list = ["/bin/busybox", "/bin/sh", "/bin/stat", "/middle", "/listed"]
    for name, uid, more in (
        ("middle", 5, {"dependencies": [{"imageName": "example.com/base"}]}),
        ("top", 6, {"dependencies": [{"imageName": "example.com/middle"}]}),
        ("listed", 7, {"dependencies": [{"imageName": "example.com/middle"}], "pathWhitelist": white_list}),
    ):
        entries = [Entry(f"rootfs/{name}", uid=uid, gid=uid)]
        path = f"{rkt.tmp}/{name}.aci"
        write_aci(path, name=f"example.com/{name}", entries=entries, **more)
        rkt.run(INSECURE, "fetch", "--pull-policy=new", path, check=0)
    for flags in LAYOUTS.values():
        for name, seen in (("top", "/base /middle /top"), ("listed", "/middle /listed")):
            words = (
                f"example.com/{name}",
                "--exec=/bin/sh",
                "--",
                "-c",
                f"stat -c %u:%g {seen}; echo x >> /middle",
            )
            said = rkt.run("run", INSECURE, *flags, *words, check=0).lines
            assert said == (["0:0", "5:5", "6:6"] if name == "top" else ["5:5", "7:7"])
    rkt.run("image", "verify", "example.com/base", "example.com/middle", "example.com/listed", check=0)


def test_event_handlers(module_rkt: Rkt, images: Images) -> None:
    """Handlers run as root of the pod, before and after an app of another user, and share its files."""
    listed = [
        {"name": name, "exec": ["/bin/sh", "-c", script]}
        for name, script in (
            ("pre-start", "echo pre $(id -u); touch /made; chown 1000 /made"),
            ("post-stop", "echo post $(id -u) $(stat -c %u /made /app); cat /proc/self/uid_map"),
        )
    ]
    path = inspect_image(
        images,
        "private-handlers",
        name="example.com/private-handlers",
        app={"user": "1000", "group": "100", "eventHandlers": listed},
    )
    script = "echo app $(id -u); echo x > /made; touch /tmp/app; cat /proc/self/uid_map"
    said = module_rkt.run("run", INSECURE, USERS, path, "--", "-c", script, check=0).lines
    assert said[:2] == ["pre 0", "app 1000"]
    assert said[3].startswith("post 0 1000")
    assert said[2] == said[4]


@pytest.mark.parametrize(
    "flags", ["--net=host", "--ipc=parent", "--net=host --ipc=parent --no-overlay", "--interactive"]
)
def test_together_with_other_namespaces(module_rkt: Rkt, image: str, flags: str) -> None:
    """A pod that shares namespaces of the host has them without rights over them."""
    script = "echo x > /dev/null && ls /sys/class/net > /dev/null && (hostname -F /etc/hostname || ip link set lo down) 2>/dev/null; echo up"
    assert sh(module_rkt, image, script, *flags.split()).lines == ["up"]


def test_a_read_only_root(module_rkt: Rkt, image: str) -> None:
    """A root that is read-only is so to the pod's root."""
    words = (image, "--readonly-rootfs=true", "--", "-c", "echo x > /new || echo refused; cat /secret")
    assert module_rkt.run("run", INSECURE, USERS, *words, check=0).lines == ["refused", "secret"]


@both_layouts
def test_files_are_the_pods_on_disk_and_the_stores_stay(module_rkt: Rkt, image: str, layout: str) -> None:
    """What a pod writes belongs to its own ids on disk, and no file of the store changes its owner (CVE-2021-21284)."""
    flags = LAYOUTS[layout][1:]
    script = "echo more >> /owned; touch /new; chown 7:8 /new; mkdir /d; chmod 4755 /new; chown 0:0 /secret; rm /setuid; echo done"
    assert sh(module_rkt, image, script, *flags).stdout == "done\n"
    pod = newest_pod(module_rkt)
    with open(f"{pod}/private-users-prepared", encoding="ascii") as stream:
        own, _, count = stream.read().partition(":")
    assert count == str(COUNT)
    assert leases(module_rkt)[own] == os.path.basename(pod)
    key = os.readlink(f"{pod}/summary").split("\t")[-1].strip()
    root = (
        f"{pod}/overlay/{key}/upper/private"
        if layout == "overlay"
        else f"{pod}/stage1/rootfs/opt/stage2/private/rootfs"
    )
    shift = int(own)
    owners = {name: os.lstat(f"{root}/{name}") for name in ("", "owned", "new", "d", "secret")}
    assert {name: (found.st_uid - shift, found.st_gid - shift) for name, found in owners.items()} == {
        "": (0, 0),
        "owned": (1234, 4321),
        "new": (7, 8),
        "d": (0, 0),
        "secret": (0, 0),
    }
    layer = f"{module_rkt.data}/cas/layer/{key}/rootfs"
    assert os.stat(f"{layer}/owned").st_uid == 1234
    assert os.stat(f"{layer}/secret").st_uid == 0
    assert os.path.exists(f"{layer}/setuid")
    module_rkt.run("image", "verify", key, check=0)


@both_layouts
def test_an_export_has_the_ids_of_the_pod(module_rkt: Rkt, image: str, layout: str) -> None:
    """An exported app holds what it wrote with the ids it saw, and runs as an image (runtime L15, cli P20)."""
    flags = LAYOUTS[layout][1:]
    sh(module_rkt, image, "echo more > /owned; touch /new; chown 7:8 /new; touch /mine", *flags)
    uuid = os.path.basename(newest_pod(module_rkt))
    output = f"{module_rkt.tmp}/{layout}.aci"
    module_rkt.run("export", uuid, output, check=0)
    script = "stat -c '%u:%g %n' / /owned /new /mine /secret; cat /owned"
    result = module_rkt.run("run", INSECURE, output, "--exec=/bin/sh", "--", "-c", script, check=0)
    assert result.lines == ["0:0 /", "1234:4321 /owned", "7:8 /new", "0:0 /mine", "0:0 /secret", "more"]


@both_layouts
def test_file_capabilities(rkt: Rkt, images: Images, layout: str) -> None:
    """Capabilities of a file count for the pod's root on disk, and an export has them as the image had."""
    value = bytes.fromhex("0100000200040000000000000000000000000000")
    records = {b"SCHILY.xattr.security.capability": value}
    entries = [
        Entry(f"rootfs/{name}", content=b"x", mode=0o755, records=records) for name in ("same", "changed")
    ]
    image = fetch(rkt, images.busybox("example.com/capable", entries=entries))
    sh(rkt, image, "touch /changed", *LAYOUTS[layout][1:])
    (uuid,) = rkt.pods()
    on_disk = {}
    for directory, _, names in os.walk(rkt.pod_path(uuid)):
        for name in {"same", "changed"} & set(names):
            on_disk[name] = os.getxattr(f"{directory}/{name}", "security.capability")
    first = int(next(iter(leases(rkt))))
    assert on_disk.keys() == ({"changed"} if layout == "overlay" else {"same", "changed"})
    assert {int.from_bytes(found[20:], "little") for found in on_disk.values()} == {first}
    rkt.run("export", uuid, f"{rkt.tmp}/capable.aci", check=0)
    key = fetch(rkt, f"{rkt.tmp}/capable.aci")
    (layer,) = [name for name in os.listdir(f"{rkt.data}/cas/layer") if name.startswith(key)]
    for name in ("same", "changed"):
        assert os.getxattr(f"{rkt.data}/cas/layer/{layer}/rootfs/{name}", "security.capability") == value


def test_groups_can_be_changed(module_rkt: Rkt, image: str) -> None:
    """A program of the pod may become another user with other groups, as on a host (setgroups stays allowed)."""
    words = (image, "--supplementary-gids=5,6", "--", "-c", "cat /proc/self/setgroups; id -G")
    said = module_rkt.run("run", INSECURE, USERS, *words, check=0).lines
    assert [line.strip() for line in said] == ["allow", "0 5 6"]


def test_what_a_pod_needs_works(module_rkt: Rkt, image: str) -> None:
    """Devices, pseudo-file systems, signals to its own processes, standard streams by name, and its host name."""
    script = """\
head -c 3 /dev/zero | wc -c
echo x > /dev/null && echo null
head -c 1 /dev/urandom | wc -c
echo out > /dev/stdout
echo x > /dev/shm/f && echo shm
sleep 100 & kill $! && echo killed
chown 5:6 /dev/shm/f && stat -c %u:%g /dev/shm/f
hostname
[ -d /proc/self ] && [ -d /sys/class ] && echo mounted"""
    said = sh(module_rkt, image, script, "--hostname=private").lines
    assert said == ["3", "null", "1", "out", "shm", "killed", "5:6", "private", "mounted"]


@pytest.mark.parametrize("way", ["run", "prepare"])
def test_pod_manifest_users(module_rkt: Rkt, image: str, way: str) -> None:
    """Users and groups of a pod manifest: numbers, names, owners of files (runtime P18)."""
    rows = {
        "numbers": ("1000", "100", "1000:100"),
        "names": ("user1", "group1", "1000:100"),
        "root": ("root", "root", "0:0"),
        "paths": ("/etc/passwd", "/etc/group", "0:0"),
        "other": ("/owned", "/owned", "1234:4321"),
    }
    identity = json.loads(module_rkt.run("image", "list", "--format=json", check=0).stdout)
    image_id = next(entry["id"] for entry in identity if entry["name"].startswith("example.com/private"))
    apps = [
        manifest_app(image_id, name, "echo $(id -u):$(id -g)", user=user, group=group)
        for name, (user, group, _) in rows.items()
    ]
    path = write_pod_manifest(f"{module_rkt.tmp}/users-{way}.json", apps)
    if way == "run":
        result = module_rkt.run("run", INSECURE, USERS, f"--pod-manifest={path}", check=0)
    else:
        uuid = module_rkt.run("prepare", INSECURE, USERS, f"--pod-manifest={path}", check=0).stdout.strip()
        result = module_rkt.run("run-prepared", uuid, check=0)
    assert by_app(result.stdout) == {name: f"{expected}\n" for name, (_, _, expected) in rows.items()}


def test_statuses_and_stop(rkt: Rkt, private: str) -> None:
    """Exit statuses, status, list, stop, rm and gc are as without; the range goes with the pod's directory."""
    image = fetch(rkt, private)
    sh(rkt, image, "exit 7", check=7)
    (uuid,) = rkt.pods()
    assert "app-private=7\n" in rkt.run("status", uuid, check=0).stdout
    assert list(leases(rkt).values()) == [uuid]
    rkt.run("rm", uuid, check=0)
    assert leases(rkt) == {}
    script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"
    running = rkt.popen("run", INSECURE, USERS, image, "--", "-c", script)
    uuid = rkt.wait_for_pod()
    assert "\trunning\t" in rkt.run("list", "--full", "--no-legend", check=0).stdout
    wait_for(lambda: "up" in running.stdout_text, "a word of the app")
    rkt.run("stop", uuid, check=0)
    assert running.wait(20) == 3
    rkt.run("gc", "--grace-period=0", check=0)
    assert leases(rkt) == {}


@both_layouts
def test_enter_is_in_the_same_namespace(rkt: Rkt, private: str, layout: str) -> None:
    """A command that enters has the app's user namespace, ids, capabilities, filter and groups (runtime §7.3, EN1)."""
    image = fetch(rkt, private)
    lines = "^(Cap|NoNew|Seccomp:|Uid|Gid|Groups)"
    probe = f"readlink /proc/self/ns/user; grep -E '{lines}' /proc/self/status; cat /proc/self/uid_map; stat -c %u /proc/self"
    rkt.popen("run", INSECURE, *LAYOUTS[layout], image, "--", "-c", f"({probe}) > /probe; sleep 600")
    uuid = rkt.wait_for_pod()
    wait_for(lambda: not rkt.run("enter", uuid, "/bin/sh", "-c", "[ -s /probe ]").status, "the app's word")
    entered = rkt.run("enter", uuid, "/bin/sh", "-c", probe, check=0).stdout
    script = "cat /probe; touch /entered; stat -c %u /entered"
    assert rkt.run("enter", uuid, "/bin/sh", "-c", script, check=0).stdout == f"{entered}0\n"
    assert os.readlink("/proc/self/ns/user") not in entered
    # To files, as tests have them, so that the command has pipes of the engine's.
    assert rkt.run("enter", uuid, "/bin/sh", "-c", "echo out > /dev/stdout", check=0).stdout == "out\n"


def test_interactive(module_rkt: Rkt, image: str) -> None:
    """An app with a terminal owns it: its standard input has a name and belongs to its user."""
    operator = Operator(
        module_rkt,
        "run",
        INSECURE,
        USERS,
        "--interactive",
        image,
        "--user=user1",
        "--exec=/bin/sh",
        "--",
        "-c",
        "tty; stat -c %u:%g $(tty); read word; exit $word",
    )
    operator.until("/dev/pts/0")
    operator.until("1000:5")
    operator.type("5\r")
    assert operator.status() == 5


def test_enter_with_a_terminal(rkt: Rkt, private: str) -> None:
    """Who enters from a terminal gets one of the app's own, which belongs to the app's user."""
    image = fetch(rkt, private)
    rkt.popen("run", INSECURE, USERS, image, "--user=user1", "--exec=/bin/sleep", "--", "600")
    uuid = rkt.wait_for_pod()
    operator = Operator(
        rkt, "enter", uuid, "/bin/sh", "-c", "tty; stat -c %u:%g $(tty); read word; exit $word"
    )
    operator.until("1000:5")
    operator.type("5\r")
    assert operator.status() == 5


def test_host_volumes_are_unchanged_on_disk(module_rkt: Rkt, image: str) -> None:
    """A host's directory looks the same inside as without a user namespace, and what is written there has those ids on disk."""
    volume = f"{module_rkt.tmp}/volume"
    os.makedirs(f"{volume}/below")
    for name, owner, mode in (("roots", 0, 0o600), ("users", 1000, 0o644), ("huge", 70000, 0o600)):
        with open(f"{volume}/{name}", "w", encoding="ascii") as stream:
            stream.write(name)
        os.chown(f"{volume}/{name}", owner, owner)
        os.chmod(f"{volume}/{name}", mode)
    script = """\
stat -c '%u:%g %a %n' /v/roots /v/users /v/huge; cat /v/roots; echo
cat /v/huge || echo denied
echo new > /v/new; echo more >> /v/users; mkdir /v/below/d; chown 1000:100 /v/below/d; chown 5 /v/huge || echo refused"""
    flags = (f"--volume=v,kind=host,source={volume}", "--mount=volume=v,target=/v")
    result = sh(module_rkt, image, script, *flags)
    assert result.lines == [
        "0:0 600 /v/roots",
        "1000:1000 644 /v/users",
        "65534:65534 600 /v/huge",
        "roots",
        "denied",
        "refused",
    ]
    owners = {
        name: (os.stat(f"{volume}/{name}").st_uid, os.stat(f"{volume}/{name}").st_gid)
        for name in ("new", "roots", "users", "huge", "below/d")
    }
    assert owners == {
        "new": (0, 0),
        "roots": (0, 0),
        "users": (1000, 1000),
        "huge": (70000, 70000),
        "below/d": (1000, 100),
    }
    read_only = sh(module_rkt, image, "echo x > /v/new", *(f"{flags[0]},readOnly=true", flags[1]), check=None)
    assert read_only.status != 0
    assert "Read-only file system" in read_only.stderr


def test_a_volume_that_cannot_be_mapped_is_nobodys(module_rkt: Rkt, image: str) -> None:
    """A file system without idmapped mounts is shown as it is, where the pod owns nothing, and a notice says so."""
    result = sh(
        module_rkt,
        image,
        "stat -c %u /v; mkdir /v/x 2>/dev/null || echo refused",
        "--volume=v,kind=host,source=/sys/class",
        "--mount=volume=v,target=/v",
    )
    assert result.lines == ["65534", "refused"]
    assert "belong to nobody in the pod, the file system cannot map ids" in result.stderr


@both_layouts
def test_empty_volumes(module_rkt: Rkt, image: str, layout: str) -> None:
    """An empty volume has the mode and the owners that were asked for, inside, and two apps share it."""
    script = "stat -c '%a %u %g' /v; echo x > /v/$AC_APP_NAME; until [ -e /v/one ] && [ -e /v/two ]; do sleep 0.01; done; ls /v"
    words = [
        "--mount=volume=v,target=/v",
        *shell_app(image, "one", script),
        *shell_app(image, "two", script),
    ]
    result = module_rkt.run(
        "run",
        INSECURE,
        *LAYOUTS[layout],
        "--volume=v,kind=empty,mode=0123,uid=9991,gid=9992",
        *words,
        check=0,
    )
    assert by_app(result.stdout) == dict.fromkeys(("one", "two"), "123 9991 9992\none\ntwo\n")


def test_a_converted_image_fills_its_volume(module_rkt: Rkt, images: Images) -> None:
    """An implicit volume gets mode, owners and contents of the image's directory, as the pod sees them (runtime V19)."""
    entries = [
        Entry("rootfs/data", b"5", mode=0o750, uid=33, gid=44),
        Entry("rootfs/data/file", content=b"kept\n", uid=5, gid=6),
    ]
    path = inspect_image(
        images,
        "private-converted",
        name="example.com/private-converted",
        entries=entries,
        app={"mountPoints": [{"name": "data", "path": "/data"}]},
        annotations=[{"name": "appc.io/docker/repository", "value": "library/x"}],
    )
    script = "stat -c '%a %u:%g' /data /data/file; cat /data/file; touch /data/new && stat -c %u:%g /data/new"
    assert sh(module_rkt, path, script).lines == ["750 33:44", "644 5:6", "kept", "0:0"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--user=65536",), "user 65536 is outside the ids"),
        (("--group=70000",), "group 70000 is outside the ids"),
        (("--supplementary-gids=1,65536",), "supplementary group 65536 is outside the ids"),
        (("--volume=v,kind=empty,uid=65536",), 'volume "v": uid 65536 is outside the ids'),
        (("--user=far",), "user 70000 is outside the ids"),
    ],
)
def test_ids_that_the_pod_has_not(
    module_rkt: Rkt, images: Images, flags: tuple[str, ...], message: str
) -> None:
    """An id beyond 65535 is an error that names it; a number is refused before there is a pod (UN9)."""
    passwd = b"root:x:0:0::/:/bin/sh\nfar:x:70000:0::/:/bin/sh\n"
    path = images.busybox("example.com/far", files={"etc/passwd": passwd}, without=("etc/passwd",))
    before = module_rkt.pods()
    result = module_rkt.run("run", INSECURE, USERS, path, *flags, "--", "-c", "id", check=254)
    assert message in result.stderr
    if "far" not in flags[0]:
        assert module_rkt.pods() == before


def test_files_with_ids_that_the_pod_has_not(module_rkt: Rkt, images: Images) -> None:
    """A file of the image that belongs to nobody of the pod is nobody's in an overlay, and refused where it would be copied."""
    path = images.busybox("example.com/huge", entries=[Entry("rootfs/huge", uid=70000, gid=70000)])
    assert sh(module_rkt, path, "stat -c %u:%g /huge").stdout == "65534:65534\n"
    before = set(module_rkt.pods())
    result = sh(module_rkt, path, "true", "--no-overlay", check=254)
    assert "id 70000 is outside the pod's, 0 to 65535" in result.stderr
    assert set(module_rkt.pods()) == before
    assert set(leases(module_rkt).values()) <= before


def test_the_pool_is_configured_and_can_be_exhausted(rkt: Rkt) -> None:
    """A pool of two ranges serves two pods; the third is told so and is no pod; a removed pod's range is leased again."""
    pods = StubPods(rkt)
    pool(rkt, "3000000:65536", "4000000000:70000", "100000:65535")
    one, two = pods.prepared(USERS), pods.prepared(USERS)
    assert leases(rkt) == {"3000000": one, "4000000000": two}
    refused = rkt.run("prepare", *FLAGS, USERS, "example.com/app", check=254)
    assert "no range of 65536 ids is left for --private-users: pods have leased 2" in refused.stderr
    assert "hint: rkt gc" in refused.stderr
    assert set(rkt.pods()) == {one, two}
    rkt.run("rm", one, check=0)
    assert leases(rkt) == {"4000000000": two}
    three = pods.prepared(USERS)
    assert leases(rkt) == {"3000000": three, "4000000000": two}


def test_a_changed_pool_does_not_overlap_with_leases(rkt: Rkt) -> None:
    """Ranges that an earlier configuration placed otherwise are passed over, not cut."""
    pods = StubPods(rkt)
    pool(rkt, "3030000:65536")
    one = pods.prepared(USERS)
    pool(rkt, "3000000:262144")
    two = pods.prepared(USERS)
    assert leases(rkt) == {"3030000": one, "3131072": two}


@pytest.mark.parametrize("text", ["1000:65536", "4294960000:65536", "1:2:3", "-5:65536", "70000", "a:b", ""])
def test_ranges_that_cannot_be_are_refused(rkt: Rkt, text: str) -> None:
    """A pool with ids of the host's people, beyond the last id, or no ids at all is an error before there is a pod."""
    StubPods(rkt)
    pool(rkt, text)
    rkt.run("prepare", *FLAGS, USERS, "example.com/app", check=254)
    assert rkt.pods() == {}


def test_a_pool_without_one_whole_range(rkt: Rkt) -> None:
    """Fewer ids than a pod needs are an error that says where they are configured."""
    StubPods(rkt)
    pool(rkt, "100000:65535")
    refused = rkt.run("prepare", *FLAGS, USERS, "example.com/app", check=254)
    assert "no 65536 ids in a row" in refused.stderr
    assert "privateUsers" in refused.stderr


def test_parallel_prepares_never_share(rkt: Rkt) -> None:
    """A hundred pods prepared at once have a hundred different ranges, each recorded by the pod that has it."""
    StubPods(rkt)
    processes = [rkt.popen("prepare", *FLAGS, USERS, "example.com/app") for _ in range(PODS)]
    for process in processes:
        assert process.wait(120) == 0, process.stderr_text
    uuids = [process.stdout_text.strip() for process in processes]
    found = leases(rkt)
    assert sorted(found.values()) == sorted(uuids)
    for first, uuid in found.items():
        with open(f"{rkt.pod_path(uuid)}/private-users-prepared", encoding="ascii") as stream:
            assert stream.read() == f"{first}:{COUNT}"
    rkt.run("gc", "--expire-prepared=0s", check=0)
    assert leases(rkt) == {}


def test_killed_commands_leak_no_range(rkt: Rkt) -> None:
    """However early or late prepare, rm and gc are killed, the next gc has every range back."""
    pods = StubPods(rkt)
    chance = random.Random(4)
    pool(rkt, f"3000000:{COUNT * 20}")
    for _ in range(rounds(12)):
        prepare = rkt.popen("prepare", *FLAGS, USERS, "example.com/app")
        time.sleep(chance.uniform(0.01, 0.12) * SLOWNESS)
        prepare.send_signal(signal.SIGKILL)
        prepare.wait()
    for uuid in [pods.prepared(USERS) for _ in range(4)]:
        remove = rkt.popen("rm", uuid)
        time.sleep(chance.uniform(0.01, 0.06) * SLOWNESS)
        remove.send_signal(signal.SIGKILL)
        remove.wait()
    rkt.run("gc", "--grace-period=0", "--expire-prepared=0s", check=0)
    rkt.run("gc", "--grace-period=0", "--expire-prepared=0s", check=0)
    assert rkt.pods() == {}
    assert leases(rkt) == {}


def test_killed_pods_leave_nothing(rkt: Rkt, images: Images) -> None:
    """However early or late run is killed, no process and no mount of its pod is left, and gc takes back the rest."""
    image = fetch(rkt, images.busybox())
    chance = random.Random(5)
    for number in range(rounds(12)):
        flags = LAYOUTS["copy" if number % 4 == 0 else "overlay"]
        running = rkt.popen("run", INSECURE, *flags, image, "--exec=/bin/sleep", "--", "600")
        time.sleep(chance.uniform(0.05, 0.4) * SLOWNESS)
        running.kill()
        running.wait()
    wait_for(
        lambda: not [line for line in rkt.leaks(seconds=0) if not line.startswith("cgroup: ")], "a clean host"
    )
    rkt.run("gc", "--grace-period=0", check=0)
    rkt.run("gc", "--grace-period=0", check=0)
    assert rkt.pods() == {}
    assert leases(rkt) == {}
    assert rkt.leaks() == []


def test_a_range_that_somebody_else_has_got_is_not_used(rkt: Rkt) -> None:
    """A prepared pod whose range was given away does not run; one whose lease was merely lost takes it again."""
    pods = StubPods(rkt)
    one, two = pods.prepared(USERS), pods.prepared(USERS)
    first = next(name for name, uuid in leases(rkt).items() if uuid == one)
    os.unlink(f"{rkt.data}/ranges/{first}")
    os.symlink(two, f"{rkt.data}/ranges/{first}")
    refused = rkt.run("run-prepared", "--insecure-options=image", one, check=254)
    assert f'belong to pod "{two}"' in refused.stderr
    os.unlink(f"{rkt.data}/ranges/{first}")
    rkt.run("run-prepared", "--insecure-options=image", "--hostname=exit-0", one, check=0)
    assert leases(rkt)[first] == one


def test_the_contract_has_the_range(rkt: Rkt) -> None:
    """stage1's run gets ``--private-users=FIRST:COUNT`` as the pod's file says, and not without the flag (runtime §1.5)."""
    pods = StubPods(rkt)
    uuid = pods.exited(USERS)
    (first,) = leases(rkt)
    assert f"--private-users={first}:{COUNT}" in pods.report(uuid)["arg"]
    plain = pods.exited()
    assert not [word for word in pods.report(plain)["arg"] if "private" in word]
    assert not os.path.exists(f"{rkt.pod_path(plain)}/private-users-prepared")

# SPDX-License-Identifier: Apache-2.0
"""Volumes and mounts (spec runtime §6.3 and §6.4, spec cli §10.8 R27 and R28); what must never happen is in tests/security."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib.aci import directory, write_aci
from tests.lib.flavors import pods
from tests.lib.images import fetch
from tests.lib.rkt import Rkt, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Result

pytestmark = [pytest.mark.root, pods()]

INSECURE = "--insecure-options=image"
READ_ONLY = "Read-only file system"
DOCKER = {"annotations": [{"name": "appc.io/docker/repository", "value": "library/app"}]}
#: As rkt's own inspect image, see spec runtime §6.
FILES: dict[str, bytes | tuple[bytes, int]] = {"dir1/file": b"dir1\n", "dir2/file": b"dir2\n"}
LINKS = {
    "dir1/link_rel_dir2": "../dir2",
    "dir1/link_abs_dir2": "/dir2",
    "dir1/link_abs_dotdot_dir2": "/dir1/../../../dir2",
    "dir1/link_abs_notexists": "/notexists",
    "dir1/link_abs_root": "/",
}


class Bench:
    """An engine for all rows of this file, and host directories for each."""

    def __init__(self, rkt: Rkt, images: Images) -> None:
        self.rkt = rkt
        self._images = images
        self._keys: dict[str, str] = {}

    def image(self, *points: dict[str, Any], docker: bool = False) -> str:
        """Hash of an image with these mount points."""
        wish = json.dumps([points, docker])
        if wish not in self._keys:
            more: dict[str, Any] = DOCKER if docker else {}
            path = self._images.busybox(
                "example.com/inspect",
                file=f"volumes-{sha256(wish.encode()).hexdigest()[:8]}",
                files=FILES,
                links=dict(LINKS),
                entries=[directory("rootfs/owned", mode=0o751, uid=71, gid=72)],
                app={"mountPoints": list(points)},
                **more,
            )
            self._keys[wish] = fetch(self.rkt, path)
        return self._keys[wish]

    def run(self, image: str, script: str, *flags: str, app: tuple[str, ...] = (), check: int = 0) -> Result:
        """Run one app that is a shell script; ``flags`` before the image, ``app`` after it."""
        words = [INSECURE, *flags, image, *app, "--exec=/bin/sh", "--", "-c", script]
        return self.rkt.run("run", *words, check=check)

    def manifest(self, document: dict[str, Any], *, how: str, check: int = 0) -> Result:
        """Run a pod manifest, by ``run`` or by ``prepare`` and ``run-prepared``."""
        path = f"{self.rkt.tmp}/manifest"
        with open(path, "w", encoding="utf-8") as stream:
            json.dump({"acKind": "PodManifest", "acVersion": "0.8.11", **document}, stream)
        if how == "run":
            return self.rkt.run("run", INSECURE, f"--pod-manifest={path}", check=check)
        uuid = self.rkt.run("prepare", INSECURE, f"--pod-manifest={path}", check=0).stdout.strip()
        return self.rkt.run("run-prepared", INSECURE, uuid, check=check)


@pytest.fixture(scope="module")
def bench(rkt_binary: str, flavor: str, images: Images) -> Iterator[Bench]:
    """The engine; whatever is left of all rows at the end is an error."""
    engine = Rkt(tempfile.mkdtemp(prefix="rkt-test-"), rkt_binary, flavor=flavor)
    try:
        yield Bench(engine, images)
    finally:
        engine.close()


@pytest.fixture
def host(bench: Bench) -> Iterator[str]:
    """A directory of the host with one file, that a volume is made of."""
    path = tempfile.mkdtemp(prefix="host-", dir=bench.rkt.base)
    os.chmod(path, 0o755)
    with open(f"{path}/file", "w", encoding="ascii") as stream:
        stream.write("host\n")
    yield path
    shutil.rmtree(path)


def point(name: str, path: str, *, read_only: bool = False) -> dict[str, Any]:
    """A mount point of an image."""
    return {"name": name, "path": path, **({"readOnly": True} if read_only else {})}


def content(path: str) -> str:
    """Text of a file of the host."""
    with open(path, encoding="ascii") as stream:
        return stream.read()


# One mount, one script: §6.4 ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """What is given and what is expected; ``HOST`` in flags stands for the host directory."""

    name: str
    script: str
    points: tuple[dict[str, Any], ...] = ()
    flags: tuple[str, ...] = ()
    app: tuple[str, ...] = ()
    stdout: str = ""
    stderr: str = ""
    status: int = 0
    written: str = ""
    docker: bool = False
    needs: tuple[str, ...] = ()


PRIVATE = [
    pytest.param((), id="host ids"),
    pytest.param(("--private-users",), id="own ids", marks=pods("user namespaces")),
]
VOLUME = "--volume=data,kind=host,source=HOST"
MOUNT = "--mount=volume=data,target=dir1"
RW = (point("data", "/dir1"),)
RO = (point("data", "/dir1", read_only=True),)
IMPLICIT = ("implicit volumes",)
READ = "cat /dir1/file"
WRITE = "echo new > /dir1/file && cat /dir1/file"
ROWS = [
    Row("V2 no volume, read", READ, stdout="dir1\n"),
    Row("V3 relative target, mount point rw", READ, RW, (VOLUME,), (MOUNT,), stdout="host\n"),
    Row("V3 relative target, mount point ro", READ, RO, (VOLUME,), (MOUNT,), stdout="host\n"),
    Row(
        "V4 parents of a missing target",
        "stat -c %A /a/b",
        (point("data", "/a/b/c"),),
        (VOLUME,),
        stdout="drwxr-xr-x\n",
    ),
    Row("V5 no volume, write", WRITE, stdout="new\n"),
    Row("V6 mount point rw, write", WRITE, RW, (VOLUME,), stdout="new\n", written="new\n"),
    Row("V7 mount point ro, write", WRITE, RO, (VOLUME,), stderr=READ_ONLY, status=1),
    Row("V8 no mount point, write", WRITE, (), (VOLUME,), (MOUNT,), stdout="new\n", written="new\n"),
    Row(
        "V8 no mount point, read-only volume",
        WRITE,
        (),
        (f"{VOLUME},readOnly=true",),
        (MOUNT,),
        stderr=READ_ONLY,
        status=1,
    ),
    Row(
        "V9 implicit empty volume",
        f"ls -A /dir1; {WRITE}",
        RW,
        stdout="new\n",
        stderr='warning: no volume specified for mount point /dir1 of app inspect, implicitly creating an "empty" volume',
        needs=IMPLICIT,
    ),
    Row(
        "V9 implicit empty volume at a missing place",
        "stat -c %a:%u /x/y",
        (point("a", "/x/y"),),
        stdout="755:0\n",
        needs=IMPLICIT,
    ),
    Row(
        "V11 target missing in an existing directory",
        "echo x > /dir1/dir2/dir3/file",
        (),
        (VOLUME,),
        ("--mount=volume=data,target=/dir1/dir2/dir3",),
        written="x\n",
    ),
    Row(
        "V11 target missing at all",
        "echo x > /a/b/c/file",
        (),
        (VOLUME,),
        ("--mount=volume=data,target=/a/b/c",),
        written="x\n",
    ),
    Row(
        "V16 not recursive, read-only root",
        WRITE,
        (),
        (f"{VOLUME},recursive=false",),
        (MOUNT, "--readonly-rootfs=true"),
        stdout="new\n",
        written="new\n",
    ),
    Row("V20 no mount on /sys", "stat -c %A /sys/class", stdout="drwxr-xr-x\n"),
    Row(
        "V21 mount point on /sys without volume",
        "stat /sys/class",
        (point("data", "/sys"),),
        stderr="No such file or directory",
        status=1,
        needs=IMPLICIT,
    ),
    Row(
        "V22 the host's /sys",
        "stat -c %A /sys/class",
        (),
        ("--volume=data,kind=host,source=/sys,readOnly=true",),
        ("--mount=volume=data,target=/sys",),
        stdout="drwxr-xr-x\n",
    ),
    Row(
        "V23 a device on /sys/class",
        "stat -c '%A %t:%T' /sys/class",
        (point("data", "/sys/class"),),
        ("--volume=data,kind=host,source=/dev/null",),
        stdout="crw-rw-rw- 1:3\n",
        needs=("masks",),
    ),
    Row("R27 per app", READ, (), (VOLUME,), (MOUNT,), stdout="host\n"),
    Row("R27 for all apps", READ, (), (VOLUME, MOUNT), stdout="host\n"),
    Row("R27 volume alone serves the mount point", READ, RW, (VOLUME,), stdout="host\n"),
    Row(
        "R27 per app over global",
        READ,
        (),
        (VOLUME, "--volume=other,kind=empty", "--mount=volume=other,target=/dir1/"),
        (MOUNT,),
        stdout="host\n",
    ),
    Row(
        "R27 global does not reach a place that the app took",
        "cat /dir1/file; cat /dir2/file",
        (),
        (VOLUME, "--volume=other,kind=empty", MOUNT),
        ("--mount=volume=other,target=/dir2",),
        stdout="host\n",
        stderr="No such file",
        status=1,
    ),
    Row(
        "R27 mounts in each other, the deeper one first",
        "cat /data/file; echo in > /data/sub/x; cat /data/sub/x; ls /data",
        (),
        (VOLUME, "--volume=other,kind=empty"),
        ("--mount=volume=other,target=/data/sub", "--mount=volume=data,target=/data"),
        stdout="host\nin\nfile\nsub\n",
    ),
    Row(
        "R28 not when a host volume is given",
        "ls /dir1",
        (point("data", "/dir1"),),
        (VOLUME,),
        stdout="file\n",
        docker=True,
    ),
    Row(
        "an image that was not converted gets an empty volume",
        "ls -A /dir1 /dir2",
        (point("data", "/dir1"),),
        stdout="/dir1:\n\n/dir2:\nfile\n",
        needs=IMPLICIT,
    ),
    Row("V31 /etc/mtab", "readlink /etc/mtab", stdout="../proc/self/mounts\n"),
]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name, marks=pods(*row.needs)) for row in ROWS])
def test_rows_of_volumes(bench: Bench, host: str, row: Row) -> None:
    """Each row of spec runtime §6.4 that is one mount and one command."""
    image = bench.image(*row.points, docker=row.docker)
    flags = [flag.replace("HOST", host) for flag in row.flags]
    result = bench.run(image, row.script, *flags, app=row.app, check=row.status)
    assert result.stdout == row.stdout
    assert row.stderr in result.stderr
    assert content(f"{host}/file") == (row.written or "host\n")


#: Target of the mount -> where it is found. The links are those of the image.
TARGETS = {
    "V24 link_abs": ("/dir1/link_abs_dir2/foo", "/dir2/foo"),
    "V24 link_rel": ("/dir1/link_rel_dir2/bar", "/dir2/bar"),
    "V24 dots": ("/dir1/../dir1/.//link_rel_dir2/foo", "/dir2/foo"),
    "V25 up": ("/dir1/../../../foo", "/foo"),
    "V25 relative up": ("../../../../../../foo", "/foo"),
    "V26 link_abs_dotdot": ("/dir1/link_abs_dotdot_dir2/foo", "/dir2/foo"),
    "V27 up, new": ("/dir1/../../../newdir/foo", "/newdir/foo"),
    "V27 link_rel, new": ("/dir1/link_rel_dir2/newdir/foo", "/dir2/newdir/foo"),
    "V27 link_abs, new": ("/dir1/link_abs_dir2/newdir/foo", "/dir2/newdir/foo"),
    "V28 dangling": ("/dir1/link_abs_notexists/newdir1/newdir2/foo", "/notexists/newdir1/newdir2/foo"),
    "V28 root": ("/dir1/link_abs_root/newdir1/newdir2/foo", "/newdir1/newdir2/foo"),
    "the link itself": ("/dir1/link_abs_notexists", "/notexists"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_targets_are_resolved_inside_the_root(bench: Bench, host: str, name: str) -> None:
    """A single file is mounted where links and ``..`` lead inside the app's root; what is missing is made (V24 to V28, R27)."""
    target, found = TARGETS[name]
    flags = (f"--volume=data,kind=host,source={host}/file", f"--mount=volume=data,target={target}")
    result = bench.run(bench.image(), f"cat {found}; echo new > {found}", *flags)
    assert result.stdout == "host\n"
    assert content(f"{host}/file") == "new\n"


@pods("implicit volumes")
@pytest.mark.parametrize("path", ["/dir1", "/dir2", "/dir1/link_rel_dir2", "/dir1/link_abs_dir2"])
@pytest.mark.parametrize("by", ["flags", "manifest"])
def test_implicit_volume_of_a_converted_image_has_its_content(bench: Bench, path: str, by: str) -> None:
    """V19, R28: what a converted Docker image has at its mount point is copied, by command line and pod manifest."""
    image = bench.image(point("data", path), docker=True)
    expected = "dir1\n" if path == "/dir1" else "dir2\n"
    if by == "flags":
        assert bench.run(image, f"cat {path}/file").stdout == expected
        return
    app = {
        "exec": ["/bin/cat", f"{path}/file"],
        "user": "0",
        "group": "0",
        "mountPoints": [point("data", path)],
    }
    result = bench.manifest({"apps": [{"name": "a", "image": {"id": image}, "app": app}]}, how="run")
    assert result.stdout == expected


@pods("implicit volumes")
def test_implicit_volume_has_mode_and_owner_and_belongs_to_the_pod(bench: Bench) -> None:
    """V19: mode and owner are the image's too; what an app writes there reaches neither the image nor another pod."""
    image = bench.image(point("data", "/owned"), point("more", "/dir1"), docker=True)
    script = (
        "stat -c %a:%u:%g /owned; cat /dir1/file; echo changed > /dir1/file; readlink /dir1/link_abs_root"
    )
    for _ in range(2):
        assert bench.run(image, script).stdout == "751:71:72\ndir1\n/\n"


@pods("user namespaces")
def test_implicit_volume_with_a_user_namespace(bench: Bench) -> None:
    """Owners in the copy are those of the image, as the pod sees them."""
    image = bench.image(point("data", "/owned"), point("more", "/dir1"), docker=True)
    script = "stat -c %a:%u:%g /owned; stat -c %u:%g /dir1/file; echo changed > /dir1/file"
    assert bench.run(image, script, "--private-users").stdout == "751:71:72\n0:0\n"


# Recursive and read-only: V12 to V16 -----------------------------------------------------------------------------------


@pytest.fixture
def nested(host: str) -> Iterator[str]:
    """A directory of the host below which a tmpfs is mounted: ``inner/file`` says ``inner``, below it ``outer``."""
    os.mkdir(f"{host}/inner")
    with open(f"{host}/inner/file", "w", encoding="ascii") as stream:
        stream.write("outer\n")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", f"{host}/inner"], check=True)
    with open(f"{host}/inner/file", "w", encoding="ascii") as stream:
        stream.write("inner\n")
    yield host
    subprocess.run(["umount", f"{host}/inner"], check=True)


@pytest.mark.parametrize(
    ("options", "script", "stdout", "stderr"),
    [
        pytest.param(",recursive=true", "cat /mnt/inner/file", "inner\n", "", id="V12"),
        pytest.param(
            "", "cat /mnt/inner/file", "inner\n", "", id="V12 by default", marks=pods("implicit volumes")
        ),
        pytest.param(
            ",recursive=true,readOnly=true",
            "echo x > /mnt/inner/file || cat /mnt/inner/file",
            "inner\n",
            READ_ONLY,
            id="V13",
        ),
        pytest.param(",recursive=false", "cat /mnt/inner/file", "outer\n", "", id="V14"),
        pytest.param(
            ",recursive=false,readOnly=true",
            "echo x > /mnt/inner/file || cat /mnt/inner/file",
            "outer\n",
            READ_ONLY,
            id="V15",
        ),
    ],
)
@pytest.mark.parametrize("by", ["flags", "manifest"])
def test_mounts_below_a_source(
    bench: Bench, nested: str, options: str, script: str, stdout: str, stderr: str, by: str
) -> None:
    """Recursive volumes bring the mounts below their source along, read-only if the volume is (VL2); others hide them."""
    image = bench.image()
    if by == "flags":
        result = bench.run(
            image,
            script,
            f"--volume=data,kind=host,source={nested}{options}",
            "--mount=volume=data,target=/mnt",
        )
    else:
        members = dict(option.split("=") for option in options.split(",") if option)
        volume = {
            "name": "data",
            "kind": "host",
            "source": nested,
            **{k: v == "true" for k, v in members.items()},
        }
        app = {"exec": ["/bin/sh", "-c", script], "user": "0", "group": "0"}
        entry = {
            "name": "a",
            "image": {"id": image},
            "app": app,
            "mounts": [{"volume": "data", "path": "/mnt"}],
        }
        result = bench.manifest({"apps": [entry], "volumes": [volume]}, how="run")
    assert result.stdout == stdout
    assert stderr in result.stderr
    assert content(f"{nested}/inner/file") == "inner\n"


@pytest.mark.parametrize("options", [",readOnly=true", ",recursive=false", ""])
def test_later_mounts_of_the_host_do_not_arrive(bench: Bench, host: str, options: str) -> None:
    """What the host mounts below a volume's source after the start is not seen: it would be writable, and not be asked for."""
    os.mkdir(f"{host}/later")
    script = (
        "echo ready; read word; ls -A /mnt/later; echo x > /mnt/later/y && echo written; rm -f /mnt/later/y"
    )
    words = [
        INSECURE, "--interactive", f"--volume=data,kind=host,source={host}{options}",
        "--mount=volume=data,target=/mnt", bench.image(), "--exec=/bin/sh", "--", "-c", script,
    ]  # fmt: skip
    read_end, write_end = os.pipe()
    with (
        open(write_end, "wb", buffering=0) as stdin,
        bench.rkt.popen("run", *words, stdin=read_end) as process,
    ):
        os.close(read_end)
        wait_for(lambda: "ready\n" in process.stdout_text, "app")
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", f"{host}/later"], check=True)
        try:
            with open(f"{host}/later/seen", "wb"):
                pass
            stdin.write(b"go\n")
            process.wait(20)
        finally:
            subprocess.run(["umount", "--lazy", f"{host}/later"], check=True)
        assert process.stdout_text == ("ready\n" if "readOnly" in options else "ready\nwritten\n")


# Errors ---------------------------------------------------------------------------------------------------------------


def test_missing_source_is_named(bench: Bench) -> None:
    """V1: a source that is not there is said in systemd-nspawn's words; the status is ours (see docs/compatibility.md)."""
    missing = "/this/directory/does/not/exist"
    result = bench.run(
        bench.image(),
        "true",
        f"--volume=data,kind=host,source={missing}",
        "--mount=volume=data,target=/x",
        check=254,
    )
    assert f"stage1: Failed to stat {missing}: No such file or directory\n" in result.stderr


def test_two_volumes_of_one_name(bench: Bench, host: str) -> None:
    """V17: names of volumes are unique."""
    volume = f"--volume=data,kind=host,source={host}"
    before = bench.rkt.pods()
    result = bench.run(bench.image(), "true", volume, volume, check=254)
    assert 'duplicate volume name "data"' in result.stderr
    assert bench.rkt.pods() == before


def test_two_mounts_on_one_place(bench: Bench, host: str) -> None:
    """V18: of mounts on /mnt and /mnt/ the first counts, without an error."""
    result = bench.run(
        bench.image(),
        "cat /mnt/file",
        f"--volume=one,kind=host,source={host}",
        "--volume=two,kind=empty",
        app=("--mount=volume=one,target=/mnt", "--mount=volume=two,target=/mnt/"),
    )
    assert result.stdout == "host\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--volume=data",), 'invalid value in --volume flag "data": bad kind ""'),
        (("--volume=data,kind=odd",), 'bad kind "odd" of volume "data"'),
        (("--volume=data,kind=host",), 'source for host volume "data" cannot be empty'),
        (("--volume=data,kind=host,source=a",), 'source for host volume "data" must be absolute path: "a"'),
        (("--volume=data,kind=host,source=/a,mode=0755",), 'mode cannot be set on host volume "data"'),
        (("--volume=data,kind=host,source=/a,uid=0",), 'uid cannot be set on host volume "data"'),
        (("--volume=data,kind=host,source=/a,gid=0",), 'gid cannot be set on host volume "data"'),
        (("--volume=data,kind=empty,source=/a",), 'source for empty volume "data" must be empty'),
        (("--volume=data,kind=empty,mode=0999",), 'invalid mode "0999"'),
        (("--volume=data,kind=empty,uid=x",), 'invalid uid "x"'),
        (("--volume=data,kind=empty,readOnly=maybe",), '"maybe" is neither true nor false'),
        (("--volume=data,kind=empty,kind=host",), 'volume parameter "kind" is given twice'),
        (("--volume=data,kind=empty,more=1",), 'unknown volume parameter "more"'),
        (("--volume=Data,kind=empty",), 'invalid volume name "Data"'),
        (("--mount=volume=data,target=/a,more=1",), 'unknown mount parameter "more"'),
        (("--mount=volume=data,volume=a,target=/a",), 'mount parameter "volume" given twice'),
        (("--mount=volume=data",), 'mount parameter "target" missing'),
        (("--mount=volume=data,target=/a",), 'dangling mount point "/a": volume "data" not found'),
        (
            ("--volume=data,kind=empty", "--mount=volume=data,target=/proc"),
            'must not have a mount on "/proc"',
        ),
        (
            ("--volume=data,kind=empty", "--mount=volume=data,target=/x/../proc/sys"),
            "must not have a mount on",
        ),
        (
            ("--volume=data,kind=empty", "--mount=volume=data,target=/x/.."),
            'must not have a mount on "/x/.."',
        ),
    ],
)
def test_what_is_wrong_is_said_before_a_pod_is_made(
    bench: Bench, flags: tuple[str, ...], message: str
) -> None:
    """Spec cli §1.7: malformed volumes and mounts end the command, and no pod is left."""
    before = bench.rkt.pods()
    result = bench.rkt.run("run", INSECURE, *flags, bench.image(), check=254)
    assert message in result.stderr
    assert bench.rkt.pods() == before


def test_values_of_a_mount_are_taken_as_they_are(bench: Bench, host: str) -> None:
    """Spec cli §1.7: ``%``, ``+``, ``&`` and ``;`` in a target mean themselves; only commas split."""
    result = bench.run(
        bench.image(),
        "ls -d '/a%2Fb+c&d;e' && cat '/a%2Fb+c&d;e/file'",
        f"--volume=data,kind=host,source={host}",
        "--mount=volume=data,target=/a%2Fb+c&d;e",
    )
    assert result.stdout == "/a%2Fb+c&d;e\nhost\n"


@pods("several apps")
def test_a_volume_that_cannot_be_mounted_ends_a_pod_whose_other_apps_run(
    bench: Bench, images: Images
) -> None:
    """One app's mount is refused when the other one has started: the pod ends at once, and says why."""
    image = fetch(bench.rkt, images.busybox("example.com/odd", file="odd-target", links={"p": "/proc"}))
    words = [
        INSECURE,
        "--volume=data,kind=empty",
        image,
        "--name=a",
        "--exec=/bin/sleep",
        "--",
        "600",
        "---",
    ]
    words += [image, "--name=b", "--mount=volume=data,target=/p/sys", "--exec=/bin/true"]
    result = bench.rkt.run("run", *words, check=254, timeout=20)
    assert "app 'b': volume data on /p/sys: nothing may be mounted over /proc" in result.stderr


# Several apps ---------------------------------------------------------------------------------------------------------


@pods("several apps")
def test_two_images_share_the_volume_of_one_name(bench: Bench, host: str) -> None:
    """V10: two images with the same mount point name and one volume see each other's files."""
    image = bench.image(point("data", "/dir1"))
    other = bench.image(point("data", "/dir2"))
    words = [INSECURE, f"--volume=data,kind=host,source={host}"]
    words += [image, "--name=a", "--exec=/bin/sh", "--", "-c", "echo hello > /dir1/new", "---"]
    script = "while ! grep -q hello /dir2/new; do sleep 0.02; done 2>/dev/null; cat /dir2/new"
    words += [other, "--name=b", "--exec=/bin/sh", "--", "-c", script]
    assert "hello\n" in bench.rkt.run("run", *words, check=0).stdout
    assert content(f"{host}/new") == "hello\n"


@pods("several apps")
def test_apps_that_mount_below_one_volume_do_not_meet(bench: Bench) -> None:
    """Two apps that start at once make the same directories below a shared volume, and both start."""
    words = [INSECURE, "--volume=all,kind=empty", "--volume=deep,kind=empty"]
    words += ["--mount=volume=all,target=/data", "--mount=volume=deep,target=/data/a/b/c/d/e/f"]
    for name in "abcd":
        words += [
            bench.image(),
            f"--name={name}",
            "--exec=/bin/sh",
            "--",
            "-c",
            f"touch /data/a/b/c/d/e/f/{name}",
            "---",
        ]
    bench.rkt.run("run", *words, check=0)


# Pod manifests: §6.3 --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pod:
    """A row of §6.3; ``app`` says whether the pod manifest has an app section of its own."""

    name: str
    script: str
    points: tuple[dict[str, Any], ...] = ()
    app_points: tuple[dict[str, Any], ...] | None = ()
    volume: dict[str, Any] | None = None
    stdout: str = ""
    stderr: str = ""
    status: int = 0
    written: str = ""


HOST_VOLUME = {"name": "data", "kind": "host", "source": "HOST"}
AT2 = (point("data", "/dir2"),)
PODS = [
    Pod("P2 working directory", "pwd", stdout="/dir1\n"),
    Pod("P3 read", READ, stdout="dir1\n"),
    Pod("P4 empty volume", WRITE, (), RW, {"name": "data", "kind": "empty"}, "new\n"),
    Pod(
        "P5 mode and owner",
        "stat -c %A:%u:%g /dir1",
        (),
        RW,
        {"name": "data", "kind": "empty", "mode": "0123", "uid": 9991, "gid": 9992},
        "d--x-w--wx:9991:9992\n",
    ),
    Pod("P6 host volume", WRITE, (), RW, HOST_VOLUME, "new\n", written="new\n"),
    Pod("P7 mount point read-only", WRITE, (), RO, HOST_VOLUME, "", READ_ONLY, 1),
    Pod("P8 volume read-only", WRITE, RW, RW, {**HOST_VOLUME, "readOnly": True}, "", READ_ONLY, 1),
    Pod("P9 the manifest's app counts", "echo new > /dir2/file", RO, AT2, HOST_VOLUME, written="new\n"),
    Pod("P10 the image's app", WRITE, RW, None, HOST_VOLUME, "new\n", written="new\n"),
    Pod("P11 volume writable", WRITE, RO, None, {**HOST_VOLUME, "readOnly": False}, "new\n", written="new\n"),
    Pod("P12 volume read-only", WRITE, RW, None, {**HOST_VOLUME, "readOnly": True}, "", READ_ONLY, 1),
]


@pytest.mark.parametrize(
    ("how", "readonly"), [("run", False), ("prepare", True)], ids=["run, root rw", "prepare, root ro"]
)
@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod.name)
def test_rows_of_pod_manifests(
    bench: Bench, images: Images, host: str, pod: Pod, how: str, *, readonly: bool
) -> None:
    """P2 to P12: with a writable root by run, with a read-only one by prepare and run-prepared."""
    section = {"user": "0", "group": "0", "workingDirectory": "/dir1", "exec": ["/bin/sh", "-c", pod.script]}
    entry: dict[str, Any] = {"name": "a", "readOnlyRootFS": readonly}
    if pod.app_points is None:
        path = images.busybox(
            "example.com/own",
            section["exec"],
            file=f"own-{pod.name.partition(' ')[0]}",
            files=FILES,
            app={"mountPoints": list(pod.points)},
        )
        entry["image"] = {"id": fetch(bench.rkt, path)}
    else:
        entry["image"] = {"id": bench.image(*pod.points)}
        entry["app"] = {**section, "mountPoints": list(pod.app_points)}
    volumes = []
    if pod.volume is not None:
        volumes = [{k: host if v == "HOST" else v for k, v in pod.volume.items()}]
    result = bench.manifest({"apps": [entry], "volumes": volumes}, how=how, check=pod.status)
    assert result.stdout == pod.stdout
    assert pod.stderr in result.stderr
    assert content(f"{host}/file") == (pod.written or "host\n")


@pods("several apps")
@pytest.mark.parametrize("how", ["run", "prepare"])
def test_two_apps_of_one_image_share_a_host_volume(bench: Bench, host: str, how: str) -> None:
    """P15: one app writes, the other one reads it."""
    image = {"id": bench.image(point("data", "/dir1"))}
    scripts = {
        "writer": "echo hello > /dir1/new",
        "reader": "while ! grep hello /dir1/new; do sleep 0.02; done 2>/dev/null",
    }
    apps = [
        {
            "name": name,
            "image": image,
            "app": {
                "exec": ["/bin/sh", "-c", script],
                "user": "0",
                "group": "0",
                "mountPoints": [point("data", "/dir1")],
            },
        }
        for name, script in scripts.items()
    ]
    volume = {"name": "data", "kind": "host", "source": host}
    assert "hello\n" in bench.manifest({"apps": apps, "volumes": [volume]}, how=how).stdout


# Devices --------------------------------------------------------------------------------------------------------------

LOOP_CONTROL = "/dev/loop-control"
needs_loop = pytest.mark.skipif(not os.path.exists(LOOP_CONTROL), reason=f"the host has no {LOOP_CONTROL}")


@pods("own devices")
@needs_loop
@pytest.mark.parametrize("options", ["", ",readOnly=true"])
def test_a_device_may_be_a_volume(bench: Bench, options: str) -> None:
    """A7: a device that is mounted is in the app's device policy, read-only if the volume is; other apps do not get it."""
    words = [INSECURE, f"--volume=loop,kind=host,source={LOOP_CONTROL}{options}", bench.image()]
    script = f"cat {LOOP_CONTROL}; (: > {LOOP_CONTROL}); mknod /x c 10 237; cat /x; true"
    words += [
        "--name=a",
        f"--mount=volume=loop,target={LOOP_CONTROL}",
        "--exec=/bin/sh",
        "--",
        "-c",
        script,
        "---",
    ]
    words += [
        bench.image(),
        "--name=b",
        "--exec=/bin/sh",
        "--",
        "-c",
        f"ls {LOOP_CONTROL} || mknod /x c 10 237; true",
    ]
    result = bench.rkt.run("run", *words, check=0)
    assert "read error: Invalid argument" in result.stderr
    assert (f"can't create {LOOP_CONTROL}: Operation not permitted" in result.stderr) is bool(options)
    assert result.stderr.count("mknod: /x: Operation not permitted") == 2


@pods("own devices")
@needs_loop
@pytest.mark.parametrize(
    ("access", "open_read", "open_write", "make"),
    [("", True, True, False), (":r", True, False, False), (":rwm", True, True, True)],
)
def test_device_flag(bench: Bench, access: str, *, open_read: bool, open_write: bool, make: bool) -> None:
    """--device gives one app one device with the access asked for: reading, writing, making nodes."""
    script = f"""
(exec 3< {LOOP_CONTROL}) 2>/dev/null && echo read
(exec 3> {LOOP_CONTROL}) 2>/dev/null && echo write
mknod /made c 10 237 2>/dev/null && echo make
true
"""
    result = bench.run(
        bench.image(), script, app=(f"--device={LOOP_CONTROL}{access}", "--caps-retain=CAP_MKNOD")
    )
    wanted = {"read": open_read, "write": open_write, "make": make}
    assert result.lines == [word for word, given in wanted.items() if given]


@pods("own devices")
@needs_loop
def test_device_flag_for_all_apps_at_another_place(bench: Bench) -> None:
    """Before the first image it is for every app, and a target may be given."""
    words = [INSECURE, f"--device={LOOP_CONTROL}:/dev/my/loop:rw"]
    for name in "ab":
        words += [bench.image(), f"--name={name}", "--exec=/bin/cat", "--", "/dev/my/loop", "---"]
    result = bench.rkt.run("run", *words, check=1)
    assert result.stderr.count("cat: read error: Invalid argument") >= 1
    assert "not permitted" not in result.stderr


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--device=loop", 'source for device volume "loop" must be absolute path'),
        ("--device=/dev/null:rx", 'invalid access "rx"'),
        ("--device=/dev/null:/dev/x:r:w", "at most a source, a target and the access"),
        (
            "--volume=a,kind=device,source=/dev/null,readOnly=true",
            'readOnly cannot be set on device volume "a"',
        ),
        ("--volume=a,kind=host,source=/a,access=r", 'access cannot be set on host volume "a"'),
        ("--volume=a,kind=empty,size=1M", 'size cannot be set on empty volume "a"'),
        ("--volume=a,kind=tmpfs,size=0", 'size of volume "a" cannot be 0'),
        ("--volume=a,kind=tmpfs,size=lots", 'invalid size of volume "a" "lots"'),
        ("--volume=a,kind=tmpfs,source=/a", 'source for tmpfs volume "a" must be empty'),
    ],
)
def test_what_is_wrong_with_other_kinds_is_said_before_a_pod_is_made(
    bench: Bench, flag: str, message: str
) -> None:
    """Malformed values of --device and of the kinds beyond rkt's."""
    before = bench.rkt.pods()
    result = bench.rkt.run("run", INSECURE, flag, bench.image(), check=254)
    assert message in result.stderr
    assert bench.rkt.pods() == before


def test_a_device_volume_must_be_a_device(bench: Bench, host: str) -> None:
    """kind=device with a file, or with nothing there, is an error that says so."""
    result = bench.run(bench.image(), "true", app=(f"--device={host}/file",), check=254)
    assert f"{host}/file is no device" in result.stderr
    result = bench.run(bench.image(), "true", app=("--device=/dev/there-is-none",), check=254)
    assert "Failed to stat /dev/there-is-none: No such file or directory" in result.stderr


# Images ---------------------------------------------------------------------------------------------------------------


def data_image(directory: str, name: str, **more: Any) -> str:
    """Path of an image with a file ``data`` that names it, without an app section."""
    path = f"{directory}/{name}.aci"
    files: dict[str, bytes | tuple[bytes, int]] = {"data": (f"{name}\n".encode(), 0o640), f"of-{name}": b""}
    write_aci(path, None, name=f"example.com/{name}", files=files, labels={"version": "1"}, **more)
    return path


@pytest.mark.parametrize("private", PRIVATE)
@pytest.mark.parametrize("by", ["hash", "name", "file", "manifest"])
def test_files_of_an_image_as_a_volume(bench: Bench, by: str, private: tuple[str, ...]) -> None:
    """kind=image shows the files of an image and of what it depends on, read-only, however it is called."""
    base = tempfile.mkdtemp(dir=bench.rkt.base)
    fetch(bench.rkt, data_image(base, "below"))
    depends = {"imageName": "example.com/below", "labels": [{"name": "version", "value": "1"}]}
    path = data_image(base, "data", dependencies=[depends])
    key = bench.rkt.run(INSECURE, "fetch", "--pull-policy=new", path, check=0).lines[-1]
    script = "cat /img/data; ls /img; stat -c %a:%u /img/data; touch /img/x 2>&1"
    expected = ["data", "data", "of-below", "of-data", "640:0", f"touch: /img/x: {READ_ONLY}"]
    source = {"hash": key, "name": "example.com/data:1", "file": path, "manifest": key}[by]
    if by == "manifest":
        entry = {
            "name": "a",
            "image": {"id": bench.image()},
            "app": {"exec": ["/bin/sh", "-c", script], "user": "0", "group": "0"},
            "mounts": [{"volume": "img", "path": "/img"}],
        }
        volume = {"name": "img", "kind": "image", "source": source}
        result = bench.manifest({"apps": [entry], "volumes": [volume]}, how="prepare", check=1)
    else:
        flags = (f"--volume=img,kind=image,source={source}", "--mount=volume=img,target=/img")
        result = bench.run(bench.image(), script, *private, *flags, check=1)
    assert result.lines == expected


def test_an_image_that_is_a_volume_is_judged_and_kept(rkt: Rkt, images: Images) -> None:
    """Like an app's: not without a signature, not by gc, not after its key is gone."""
    app = images.busybox("example.com/signed-app")
    path = data_image(rkt.base, "signed-data")
    for each in (app, path):
        images.sign(each)
    volume = (f"--volume=img,kind=image,source={path}", "--mount=volume=img,target=/img")
    rkt.run("trust", "--prefix=example.com/signed-app", "--skip-fingerprint-review", images.key_file, check=0)
    words = (app, "--exec=/bin/cat", "--", "/img/data")
    result = rkt.run("run", *volume, *words, check=254)
    assert "verification failed" in result.stderr
    assert rkt.pods() == {}
    rkt.run(
        "trust", "--prefix=example.com/signed-data", "--skip-fingerprint-review", images.key_file, check=0
    )
    assert rkt.run("run", *volume, *words, check=0).stdout == "signed-data\n"
    prepared = [rkt.run("prepare", *volume, *words, check=0).stdout.strip() for _ in range(2)]
    rkt.run("gc", "--grace-period=0", check=0)
    rkt.run("image", "gc", "--grace-period=0s", check=0)
    assert rkt.run("run-prepared", prepared[0], check=0).stdout == "signed-data\n"
    directory = f"{rkt.local}/trustedkeys/prefix.d/example.com/signed-data"
    (key,) = os.listdir(directory)
    os.unlink(f"{directory}/{key}")
    result = rkt.run("run-prepared", prepared[1], check=254)
    assert "is no longer trusted" in result.stderr


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--volume=a,kind=image", 'source for image volume "a" cannot be empty'),
        ("--volume=a,kind=image,source=example.com/x,readOnly=false", 'image volume "a" is always read-only'),
        ("--volume=a,kind=image,source=localhost/there-is-none", "localhost/there-is-none"),
    ],
)
def test_what_is_wrong_with_an_image_is_said_before_a_pod_is_made(
    bench: Bench, flag: str, message: str
) -> None:
    """An image that cannot be had ends the command."""
    before = bench.rkt.pods()
    result = bench.rkt.run("run", INSECURE, "--pull-policy=never", flag, bench.image(), check=254)
    assert message in result.stderr
    assert bench.rkt.pods() == before


# In memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("private", PRIVATE)
def test_tmpfs(bench: Bench, private: tuple[str, ...]) -> None:
    """kind=tmpfs is a file system in memory with the size, mode and owner asked for, and holds no more than that."""
    script = """
stat -f -c %T /m; stat -c %a:%u:%g /m
dd if=/dev/zero of=/m/file bs=1024 count=2048 2>/dev/null || echo full
stat -c %a /n
"""
    result = bench.run(
        bench.image(),
        script,
        *private,
        "--volume=m,kind=tmpfs,size=1M,mode=0750,uid=7,gid=8",
        "--volume=n,kind=tmpfs",
        "--mount=volume=m,target=/m",
        "--mount=volume=n,target=/n",
    )
    assert result.lines == ["tmpfs", "750:7:8", "full", "1777"]


@pods("several apps")
def test_tmpfs_is_shared_and_may_be_read_only(bench: Bench) -> None:
    """Apps that mount the same tmpfs see each other's files; pod manifests know the kind too."""

    def app(name: str, script: str, *mounts: dict[str, str]) -> dict[str, Any]:
        section = {"exec": ["/bin/sh", "-c", script], "user": "0", "group": "0"}
        return {"name": name, "image": {"id": bench.image()}, "app": section, "mounts": list(mounts)}

    reader = (
        "while ! grep hello /m/new; do sleep 0.02; done 2>/dev/null; touch /r/x 2>/dev/null || echo read-only"
    )
    document = {
        "apps": [
            app("a", "echo hello > /m/new", {"volume": "m", "path": "/m"}),
            app("b", reader, {"volume": "m", "path": "/m"}, {"volume": "r", "path": "/r"}),
        ],
        "volumes": [
            {"name": "m", "kind": "tmpfs", "size": "64Ki"},
            {"name": "r", "kind": "tmpfs", "readOnly": True},
        ],
    }
    result = bench.manifest(document, how="prepare")
    assert "hello\n" in result.stdout
    assert "read-only\n" in result.stdout


# Places ---------------------------------------------------------------------------------------------------------------


def test_data_directory_with_colons_and_commas(rkt_binary: str, flavor: str, images: Images) -> None:
    """V29: names that overlayfs would take apart are no trouble."""
    engine = Rkt(tempfile.mkdtemp(prefix="rkt-test:a,b\\c "), rkt_binary, flavor=flavor)
    try:
        words = (INSECURE, images.busybox(), "--exec=/bin/echo", "--", "works")
        assert engine.run("run", *words, check=0).stdout == "works\n"
    finally:
        engine.close()


@pods("several apps")
def test_an_app_has_a_mount_namespace_of_its_own(rkt: Rkt, images: Images) -> None:
    """V30: it differs from that of the pod's pid 1."""
    script = "readlink /proc/self/ns/mnt; sleep 60"
    process = rkt.popen("run", INSECURE, images.busybox(), "--exec=/bin/sh", "--", "-c", script)
    uuid = rkt.wait_for_pod()
    wait_for(lambda: "\n" in process.stdout_text, "app")
    assert os.readlink(f"/proc/{rkt.pid(uuid)}/ns/mnt") != process.stdout_text.strip()

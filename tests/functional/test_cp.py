# SPDX-License-Identifier: Apache-2.0
"""``rkt cp``: files and trees between the host and pods that run, are over, or were prepared."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from rkt.config.settings import Installation, Settings
from rkt.pod import lifecycle
from rkt.stage0 import copy, held
from tests.lib.flavors import pods
from tests.lib.images import fetch
from tests.lib.isolated import run_isolated
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rkt.pod.lifecycle import Pod
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods()]

INSECURE = "--insecure-options=image"
#: Files of many kinds, then sleep.
KINDS = """
mkdir -p /data/sub/deep /data/empty /other
echo one >/data/one; chmod 640 /data/one; chown 1000:2000 /data/one
echo two >/data/sub/two; echo three >/data/sub/deep/three
ln -s ../one /data/sub/link; ln -s /etc /data/out; ln -s /data /todata
cp /bin/busybox /data/privileged; chmod 6755 /data/privileged
echo ready >/ready; sleep 1000
"""
SCRIPT = ("--exec=/bin/sh", "--", "-c", KINDS)


@pytest.fixture(scope="module")
def image(images: Images) -> str:
    """An image with a shell."""
    return images.busybox("example.com/copied", files={"etc/greeting": b"hello\n"})


@pytest.fixture(scope="module")
def pod(module_rkt: Rkt, image: str) -> Iterator[str]:
    """A running pod with files of many kinds, for all tests that only add to them; its UUID."""
    rkt = module_rkt
    rkt.popen("run", INSECURE, "--name=files", image, *SCRIPT)
    uuid = rkt.wait_for_pod()
    wait_for(lambda: rkt.run("cp", "files:/ready", "-").status == 0, "files of the app")
    yield uuid
    rkt.run("stop", "--force", uuid)


def tree(path: Path) -> list[str]:
    """Everything below a directory, links with where they lead."""
    found = []
    for parent, directories, names in os.walk(path):
        for name in (*directories, *names):
            full = os.path.join(parent, name)
            shown = os.path.relpath(full, path)
            found.append(f"{shown} -> {os.readlink(full)}" if os.path.islink(full) else shown)
    return sorted(found)


TREE = ["deep", "deep/three", "link -> ../one", "two"]


def test_where_things_go_on_the_host(module_rkt: Rkt, pod: str, tmp_path: Path) -> None:
    """Files and directories go into a directory that is there, else they become the target; a trailing /. means the contents."""
    rkt = module_rkt
    rkt.run("cp", "files:/data/one", str(tmp_path), check=0)
    assert (tmp_path / "one").read_text() == "one\n"
    rkt.run("cp", f"{pod[:8]}:copied:data/one", str(tmp_path / "renamed"), check=0)
    assert (tmp_path / "renamed").read_text() == "one\n"
    (tmp_path / "into").mkdir()
    rkt.run("cp", "files:/data/sub", str(tmp_path / "into"), check=0)
    assert tree(tmp_path / "into") == ["sub", *(f"sub/{each}" for each in TREE)]
    rkt.run("cp", "files:/data/sub", str(tmp_path / "new"), check=0)
    assert tree(tmp_path / "new") == TREE
    (tmp_path / "contents").mkdir()
    rkt.run("cp", "files:/data/sub/.", str(tmp_path / "contents"), check=0)
    assert tree(tmp_path / "contents") == TREE
    # Once more over what is there.
    rkt.run("cp", "files:/data/sub/.", str(tmp_path / "contents"), check=0)
    assert tree(tmp_path / "contents") == TREE


def test_where_things_go_in_the_pod(module_rkt: Rkt, pod: str, tmp_path: Path) -> None:
    """The same rules hold in the other direction, and the app sees what came."""
    rkt = module_rkt
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_text("text\n")
    os.symlink("sub/file", source / "link")
    rkt.run("cp", str(source / "sub" / "file"), "files:/other", check=0)
    rkt.run("cp", str(source / "sub" / "file"), "files:/other/renamed", check=0)
    rkt.run("cp", str(source), "files:/other", check=0)
    rkt.run("cp", str(source), "files:/other/new", check=0)
    rkt.run("cp", f"{source}/.", "files:/other", check=0)
    seen = rkt.run(
        "enter", pod, "/bin/sh", "-c", "cd /other; for f in * */* */*/*; do echo $f; done", check=0
    )
    assert seen.lines == [
        *("file", "link", "new", "renamed", "source", "sub"),
        *("new/link", "new/sub", "source/link", "source/sub", "sub/file"),
        *("new/sub/file", "source/sub/file"),
    ]
    assert rkt.run("enter", pod, "/bin/cat", "/other/link", check=0).stdout == "text\n"


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("files:/missing", ".", "/missing: No such file or directory"),
        ("files:/data", "{host}/file", "is not a directory"),
        ("files:/data/one", "{host}/missing/", "directory missing/ does not exist"),
        ("files:/data/one", "{host}/missing/file", "No such file or directory"),
        ("files:/data/one/", ".", "Not a directory"),
        ("files:/dev/null", ".", "/dev/null is neither a file, a directory nor a link"),
        ("files:/proc/version", ".", "file system of the kernel's"),
        ("{host}/file", "files:/proc", "file system of the kernel's"),
        ("{host}/missing", "files:/", "No such file or directory"),
        ("{host}/file", "files:/data/one/", "/data/one/: Not a directory"),
        ("{host}/file", "files:/data/one/below", "Not a directory"),
        ("{host}/file", "{host}/other", "one of the two must be of a pod"),
        ("files:", ".", 'no path in "files:"'),
        ("nopod:/x", ".", "nopod"),
        ("files:noapp:/x", ".", 'no app "noapp"'),
        ("files:/data/one", "-extra", None),
    ],
)
def test_refusals(
    module_rkt: Rkt, pod: str, tmp_path: Path, source: str, target: str, words: str | None
) -> None:
    """What cannot be done is refused with the name of what is in the way."""
    rkt = module_rkt
    (tmp_path / "file").write_text("kept\n")
    arguments = [each.format(host=tmp_path) for each in (source, target)]
    result = rkt.run("cp", *arguments, cwd=str(tmp_path), check=254)
    if words is not None:
        assert words in result.stderr, result
    assert (tmp_path / "file").read_text() == "kept\n"


def test_owners_modes_and_times(module_rkt: Rkt, pod: str, tmp_path: Path) -> None:
    """What arrives is root's unless -a keeps the owner; modes and times stay, bits that give privileges never do."""
    rkt = module_rkt
    (tmp_path / "plain").mkdir()
    (tmp_path / "kept").mkdir()
    rkt.run("cp", "files:/data/.", str(tmp_path / "plain"), check=0)
    rkt.run("cp", "-a", "files:/data/.", str(tmp_path / "kept"), check=0)
    for directory, owner in (("plain", (0, 0)), ("kept", (1000, 2000))):
        status = os.stat(tmp_path / directory / "one")
        assert (status.st_uid, status.st_gid) == owner
        assert stat.S_IMODE(status.st_mode) == 0o640
        assert stat.S_IMODE(os.stat(tmp_path / directory / "privileged").st_mode) == 0o755
    os.chown(tmp_path / "kept" / "one", 1000, 100)
    os.utime(tmp_path / "kept" / "one", (1_000_000_000, 1_000_000_000))
    os.utime(tmp_path / "kept" / "empty", (1_000_000_000, 1_000_000_000))
    os.chmod(tmp_path / "kept" / "privileged", 0o6755)
    rkt.run("cp", "--archive", str(tmp_path / "kept"), "files:/kept", check=0)
    shown = rkt.run("enter", pod, "/bin/stat", "-c", "%u:%g %a %Y", "/kept/one", check=0)
    assert shown.stdout == "1000:100 640 1000000000\n"
    assert rkt.run("enter", pod, "/bin/stat", "-c", "%Y", "/kept/empty").stdout == "1000000000\n"
    assert rkt.run("enter", pod, "/bin/stat", "-c", "%a", "/kept/privileged").stdout == "755\n"
    rkt.run("cp", str(tmp_path / "kept" / "one"), "files:/other", check=0)
    assert rkt.run("enter", pod, "/bin/stat", "-c", "%u:%g", "/other/one").stdout == "0:0\n"


def test_links_as_source(module_rkt: Rkt, pod: str, tmp_path: Path) -> None:
    """A link is copied as a link, and with -L what it leads to inside the app's root is."""
    rkt = module_rkt
    rkt.run("cp", "files:/data/out", str(tmp_path / "link"), check=0)
    assert os.readlink(tmp_path / "link") == "/etc"
    rkt.run("cp", "-L", "files:/data/out", str(tmp_path / "etc"), check=0)
    assert (tmp_path / "etc" / "greeting").read_text() == "hello\n"
    rkt.run("cp", "files:/todata/one", str(tmp_path / "one"), check=0)
    assert (tmp_path / "one").read_text() == "one\n"
    # What stands in the way is replaced, and never written through.
    (tmp_path / "victim").write_text("untouched\n")
    (tmp_path / "into").mkdir()
    os.symlink(tmp_path / "victim", tmp_path / "into" / "one")
    rkt.run("cp", "files:/data/one", str(tmp_path / "into"), check=0)
    assert not (tmp_path / "into" / "one").is_symlink()
    assert (tmp_path / "victim").read_text() == "untouched\n"


def test_tar_streams(module_rkt: Rkt, pod: str, tmp_path: Path) -> None:
    """With - a tar goes out with the owners of the pod and comes in, compressed or not, through links to directories."""
    rkt = module_rkt
    with open(tmp_path / "out.tar", "wb") as stream:
        subprocess.run(
            rkt.command("cp", "files:/data", "-"), env=rkt.environment(), stdout=stream, check=True
        )
    with tarfile.open(tmp_path / "out.tar") as archive:
        members = {member.name: member for member in archive}
    assert {"data", "data/one", "data/sub/link", "data/sub/deep/three", "data/empty"} <= set(members)
    assert (members["data/one"].uid, members["data/one"].gid) == (1000, 2000)
    assert members["data/sub/link"].linkname == "../one"
    for mode in ("w", "w:gz"):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode=mode) as archive:
            for name, content in (("./todata/in", b"in\n"), ("/etc/absolute", b"absolute\n")):
                member = tarfile.TarInfo(name)
                member.size, member.uid = len(content), 77
                archive.addfile(member, io.BytesIO(content))
            again = tarfile.TarInfo("data/second")
            again.type, again.linkname = tarfile.LNKTYPE, "todata/in"
            archive.addfile(again)
            device = tarfile.TarInfo("data/device")
            device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
            archive.addfile(device)
        command = rkt.command("cp", "-a", "-", "files:/")
        done = subprocess.run(
            command, env=rkt.environment(), input=packed.getvalue(), check=True, capture_output=True
        )
        assert b'1 left out, neither files, directories nor links: "data/device"' in done.stderr
    shown = rkt.run(
        "enter", pod, "/bin/sh", "-c", "cat /data/in /data/second /etc/absolute; stat -c %u /data/in"
    )
    assert shown.stdout == "in\nin\nabsolute\n77\n"
    refused = rkt.run("cp", "-", "files:/data/one", input="", check=254)
    assert "is not a directory" in refused.stderr
    refused = rkt.run("cp", "-", "files:/data", input="no tar at all" * 100, check=254)
    assert 'cannot copy to "files:/data"' in refused.stderr


def test_volumes(rkt: Rkt, image: str, tmp_path: Path) -> None:
    """Of a running app volumes are there, and one that is read-only for the app is so for the copy."""
    for name in ("writable", "readonly"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(f"{name}\n")
    rkt.popen(
        *("run", INSECURE, f"--volume=w,kind=host,source={tmp_path}/writable"),
        f"--volume=r,kind=host,source={tmp_path}/readonly,readOnly=true",
        *(
            "--mount=volume=w,target=/w",
            "--mount=volume=r,target=/r",
            image,
            "--exec=/bin/sleep",
            "--",
            "1000",
        ),
    )
    uuid = rkt.wait_for_pod()
    rkt.run("cp", f"{uuid}:/r/file", str(tmp_path / "out"), check=0)
    assert (tmp_path / "out").read_text() == "readonly\n"
    rkt.run("cp", str(tmp_path / "out"), f"{uuid}:/w/in", check=0)
    assert (tmp_path / "writable" / "in").read_text() == "readonly\n"
    refused = rkt.run("cp", str(tmp_path / "out"), f"{uuid}:/r/in", check=254)
    assert "Read-only file system" in refused.stderr
    assert not (tmp_path / "readonly" / "in").exists()
    rkt.run("stop", "--force", uuid, check=0)


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--no-overlay",),
        pytest.param(("--private-users",), marks=pods("user namespaces")),
        pytest.param(("--private-users", "--no-overlay"), marks=pods("user namespaces")),
    ],
)
def test_pods_that_do_not_run(rkt: Rkt, image: str, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """A prepared pod can be given files before it runs and asked for what it left; owners are the pod's in every case."""
    key = fetch(rkt, image)
    script = "cat /given; stat -c %u:%g /given; echo left >/left; chown 1000:2000 /left"
    words = ("--exec=/bin/sh", "--", "-c", script)
    uuid = rkt.run("prepare", INSECURE, *flags, key, *words, check=0).lines[-1]
    (tmp_path / "given").write_text("given\n")
    os.chown(tmp_path / "given", 1000, 2000)
    rkt.run("cp", "-a", str(tmp_path / "given"), f"{uuid}:/", check=0)
    result = rkt.run("run-prepared", uuid, check=0)
    assert result.lines[-2:] == ["given", "1000:2000"]
    rkt.run("cp", "-a", f"{uuid}:/left", str(tmp_path), check=0)
    status = os.stat(tmp_path / "left")
    assert (status.st_uid, status.st_gid) == (1000, 2000)
    rkt.run("cp", f"{uuid}:/etc/greeting", str(tmp_path), check=0)
    rkt.run("cp", str(tmp_path / "left"), f"{uuid}:/again", check=0)
    rkt.run("cp", f"{uuid}:/again", str(tmp_path), check=0)
    assert (tmp_path / "again").read_text() == "left\n"


@pytest.mark.parametrize("flags", [(), ("--no-overlay",)])
def test_a_pod_that_gc_marks_meanwhile(
    rkt: Rkt, image: str, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    """An exited pod is in another place by the time that its root is opened: the root is found."""
    rkt.run("run", INSECURE, *flags, image, "--exec=/bin/touch", "--", "/left", check=0)
    (shown,) = json.loads(rkt.run("list", "--format=json", check=0).stdout)
    installation = Installation(package_path="", library_paths=[], stage1_images_path="")
    settings = Settings(installation=installation, data_dir=rkt.data)

    def hold(pod: Pod) -> bool:
        is_held = held.hold(pod)
        os.rename(pod.path, f"{pod.pods_dir}/{lifecycle.EXITED_GARBAGE}/{pod.uuid}")
        return is_held

    def look() -> list[str]:
        with lifecycle.find(settings.pods_dir, shown["name"]) as pod:
            root = copy._open_app(settings, pod, shown["app_names"][0], writable=False)["world"]
            return os.listdir(f"/proc/self/fd/{root}")

    monkeypatch.setattr(copy, "hold", hold)
    assert "left" in run_isolated(look)


@pods("user namespaces")
def test_private_users(rkt: Rkt, image: str, tmp_path: Path) -> None:
    """In a running pod with ids of its own what arrives belongs to the pod's root, or with -a to the pod's user of that number."""
    rkt.popen("run", INSECURE, "--private-users", image, *SCRIPT)
    uuid = rkt.wait_for_pod()
    wait_for(lambda: rkt.run("cp", f"{uuid}:/ready", "-").status == 0, "files of the app")
    rkt.run("cp", "-a", f"{uuid}:/data/one", str(tmp_path), check=0)
    status = os.stat(tmp_path / "one")
    assert (status.st_uid, status.st_gid) == (1000, 2000)
    rkt.run("cp", "-a", str(tmp_path / "one"), f"{uuid}:/kept", check=0)
    rkt.run("cp", str(tmp_path / "one"), f"{uuid}:/plain", check=0)
    shown = rkt.run("enter", uuid, "/bin/stat", "-c", "%u:%g", "/kept", "/plain", check=0)
    assert shown.lines == ["1000:2000", "0:0"]
    os.chown(tmp_path / "one", 70000, 0)
    refused = rkt.run("cp", "-a", str(tmp_path / "one"), f"{uuid}:/kept", check=254)
    assert "Invalid argument" in refused.stderr
    rkt.run("stop", "--force", uuid, check=0)


@pods("apps that come and go")
def test_an_app_that_is_over_in_a_live_pod(rkt: Rkt, image: str, tmp_path: Path) -> None:
    """Of a pod that runs on, the files of an app that has ended can be copied, and those of a paused pod too."""
    key = fetch(rkt, image)
    rkt.popen("app", "sandbox", INSECURE)
    uuid = rkt.wait_for_pod()
    rkt.run(
        "app",
        "add",
        INSECURE,
        uuid,
        key,
        "--name=short",
        "--exec=/bin/sh",
        "--",
        "-c",
        "echo gone >/left",
        check=0,
    )
    rkt.run("app", "start", uuid, "--app=short", check=0)
    wait_for(lambda: "exited" in rkt.run("app", "list", uuid).stdout, "the end of the app")
    rkt.run("cp", f"{uuid}:short:/left", str(tmp_path), check=0)
    assert (tmp_path / "left").read_text() == "gone\n"
    rkt.run("cp", str(tmp_path / "left"), f"{uuid}:short:/back", check=0)
    rkt.run("cp", f"{uuid}:/back", str(tmp_path), check=0)
    rkt.run("stop", "--force", uuid, check=0)


def test_from_pod_to_pod(module_rkt: Rkt, pod: str, tmp_path: Path) -> None:
    """Both sides may be pods, also the same one."""
    rkt = module_rkt
    rkt.run("cp", "files:/data/sub", "files:/other", check=0)
    assert rkt.run("enter", pod, "/bin/cat", "/other/sub/deep/three").stdout == "three\n"

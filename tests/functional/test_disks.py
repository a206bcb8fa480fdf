# SPDX-License-Identifier: Apache-2.0
"""Disks that are full, and disks that fail: said with a path and a next command, half an image nowhere."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from rkt.pod.lifecycle import PLACES
from tests.lib import disks
from tests.lib.aci import write_aci
from tests.lib.server import Page, Server

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"
KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(bool(why := disks.missing(kind)), reason=why))
    for kind in disks.MAKERS
]


def aci(rkt: Rkt, name: str, size: int, *, files: int = 1) -> str:
    """An image that does not compress."""
    path = f"{rkt.base}/{name}.aci"
    content = {f"f{number}": os.urandom(size // files) for number in range(files)}
    write_aci(path, name=f"example.com/{name}", files=content)
    return path


def stored(rkt: Rkt) -> list[str]:
    """Names of the images in the store."""
    return rkt.run("image", "list", "--no-legend", "--fields=name", check=0).lines


def whole(rkt: Rkt) -> None:
    """What is in the store is whole, and there is nothing else."""
    cas = f"{rkt.data}/cas"
    records = set(os.listdir(f"{cas}/record"))
    for part in ("layer", "split", "manifest"):
        assert set(os.listdir(f"{cas}/{part}")) == records
    assert os.listdir(f"{cas}/tmp") == []


def fill(path: str) -> None:
    """Write until there is no room for one more byte."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 16, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass


@pytest.mark.parametrize("way", ["file", "url", "one large file", "many small files"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk(rkt: Rkt, kind: str, way: str) -> None:
    """The fetch names path and remedy; what was there stays; ``image rm`` and ``image gc`` need no room."""
    small = aci(rkt, "small", 1000)
    files = {"one large file": 1, "many small files": 500}.get(way, 20)
    size = disks.MAKERS[kind][0] << 20
    # The compressed image and the unpacked one do not fit together; by file it is copied, by URL downloaded.
    big = aci(rkt, "big", size if way == "url" else size * 2 // 3, files=files)
    with disks.Disk(kind, rkt.data), Server() as server:
        rkt.run(INSECURE, "fetch", small, check=0)
        reference = big
        if way == "url":
            with open(big, "rb") as file:
                reference = server.put("/big.aci", Page(file.read()))
        refused = rkt.run(INSECURE, "fetch", reference, check=254)
        assert "No space left on device" in refused.stderr or "not enough space" in refused.stderr
        assert f"{rkt.data}/cas/" in refused.stderr
        assert "hint: make room: rkt gc, rkt image gc" in refused.stderr
        assert stored(rkt) == ["example.com/small"]
        whole(rkt)
        rkt.run("image", "verify", "example.com/small", check=0)
        fill(f"{rkt.data}/ballast")
        refused = rkt.run(INSECURE, "fetch", aci(rkt, "other", 100_000), check=254)
        assert "hint: make room: rkt gc, rkt image gc" in refused.stderr
        assert rkt.data in refused.stderr
        assert stored(rkt) == ["example.com/small"]
        if way == "file":
            rkt.run("image", "rm", "example.com/small", check=0)
        rkt.run("image", "gc", "--grace-period=0", check=0)
        assert stored(rkt) == []
        whole(rkt)


@pytest.mark.parametrize("kind", KINDS)
def test_pods_on_a_full_disk(rkt: Rkt, images: Images, kind: str) -> None:
    """``rm`` and ``gc`` take exited, prepared and failed pods from a disk without room for one more name, and leave nothing."""
    with disks.Disk(kind, rkt.data):
        rkt.run(INSECURE, "fetch", images.busybox(), check=0)
        name = stored(rkt)[0]
        removed = rkt.run(INSECURE, "prepare", "--quiet", name, check=0).stdout.strip()
        prepared = rkt.run(INSECURE, "prepare", "--quiet", name, check=0).stdout.strip()
        for _ in range(2):
            rkt.run(INSECURE, "run", "--net=none", name, "--exec=/bin/true", check=0)
        exited = rkt.run("list", "--no-legend", "--full", "--format=json", check=0)
        uuid = next(pod["name"] for pod in json.loads(exited.stdout) if pod["state"] == "exited")
        fill(f"{rkt.data}/ballast")
        kept = rkt.run("image", "gc", "--grace-period=0", check=0)
        assert "No space" not in kept.stderr
        rkt.run("rm", removed, uuid, check=0)
        done = rkt.run("gc", "--grace-period=0", "--expire-prepared=0", check=0)
        assert "unable to remove" not in done.stderr
        assert prepared in done.stderr
        assert rkt.run("list", "--no-legend", check=0).stdout == ""
        for place in PLACES:
            assert os.listdir(f"{rkt.data}/pods/{place}") == []
        rkt.run("image", "gc", "--grace-period=0", check=0)
        assert name not in stored(rkt)
        whole(rkt)


def test_what_a_killed_removal_left_is_fetched_whole(rkt: Rkt) -> None:
    """A layer that was half removed where it stood, since there was no room to move it, is not taken for a whole one."""
    path = aci(rkt, "app", 10_000, files=10)
    rkt.run(INSECURE, "fetch", path, check=0)
    (key,) = os.listdir(f"{rkt.data}/cas/layer")
    # As the kill left it: record and split gone, some files too.
    for part in ("record", "split", "manifest"):
        os.unlink(f"{rkt.data}/cas/{part}/{key}")
    os.unlink(f"{rkt.data}/cas/layer/{key}/rootfs/f3")
    rkt.run(INSECURE, "fetch", path, check=0)
    rkt.run("image", "verify", "example.com/app", check=0)


def test_a_damaged_record_on_a_full_disk(rkt: Rkt) -> None:
    """It is named, hides nothing else, and is removed without room."""
    if why := disks.missing("ext4"):
        pytest.skip(why)
    with disks.Disk("ext4", rkt.data):
        for name in ("good", "bad"):
            rkt.run(INSECURE, "fetch", aci(rkt, name, 1000), check=0)
        key = rkt.run("image", "list", "--full", "--fields=id,name", "--no-legend", check=0)
        bad = next(line.split()[0] for line in key.lines if "example.com/bad" in line)
        with open(f"{rkt.data}/cas/record/{bad}", "r+b") as file:
            file.write(b"\0" * 64)
        fill(f"{rkt.data}/ballast")
        listed = rkt.run("image", "list", "--no-legend", "--fields=name", check=0)
        assert listed.lines == ["example.com/good"]
        assert f"{rkt.data}/cas/record/{bad}" in listed.stderr
        assert f"rkt image rm {bad[:39]}" in listed.stderr
        rkt.run("image", "rm", bad, check=0)
        rkt.run("image", "gc", check=0)
        assert stored(rkt) == ["example.com/good"]
        whole(rkt)


@pytest.mark.parametrize("way", ["file", "url"])
def test_a_failing_disk(rkt: Rkt, way: str) -> None:
    """What the device did not take never becomes an image: path, error and next command are named, and what was there lists.

    The device fails while the kernel writes back, long after write(2) said that all was well.
    """
    if why := disks.missing("ext4"):
        pytest.skip(why)
    small = aci(rkt, "small", 1000)
    big = aci(rkt, "big", 10 << 20, files=20)
    with disks.Disk("ext4", rkt.data, mib=64) as disk, Server() as server:
        rkt.run(INSECURE, "fetch", small, check=0)
        disk.fail()
        reference = big
        if way == "url":
            with open(big, "rb") as file:
                reference = server.put("/big.aci", Page(file.read()))
        refused = rkt.run(INSECURE, "fetch", reference, check=254)
        assert "Input/output error" in refused.stderr
        assert f"{rkt.data}/cas/" in refused.stderr
        assert "hint: see what the kernel says about the disk" in refused.stderr
        assert stored(rkt) == ["example.com/small"]
        whole(rkt)
        # Nor does it take the removal: that is said too, not taken for done.
        refused = rkt.run("image", "rm", "example.com/small", check=254)
        assert f"{rkt.data}/cas/record/" in refused.stderr
        assert "hint: see what the kernel says" in refused.stderr


def test_a_disk_that_cannot_be_read(rkt: Rkt) -> None:
    """What the device no longer gives back is named by ``image verify``, and the image can be removed."""
    if why := disks.missing("ext4"):
        pytest.skip(why)
    with disks.Disk("ext4", rkt.data, mib=32) as disk:
        rkt.run(INSECURE, "fetch", aci(rkt, "app", 4 << 20), check=0)
        (key,) = os.listdir(f"{rkt.data}/cas/layer")
        path = f"{rkt.data}/cas/layer/{key}/rootfs/f0"
        # Where the file lies, by filefrag; the loop device's file is cut there, so reading gives an error.
        subprocess.run(["sync", "-f", path], check=True)
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("1")
        blocks = subprocess.run(
            ["filefrag", "-b4096", "-v", path], capture_output=True, text=True, check=True
        )
        first = min(int(line.split(":")[2].split("..")[0]) for line in blocks.stdout.splitlines()[3:-1])
        os.truncate(disk.fd, first * 4096)
        refused = rkt.run("image", "verify", "example.com/app", check=254)
        assert "rootfs/f0" in refused.stderr + refused.stdout
        rkt.run("image", "rm", "example.com/app", check=0)

# SPDX-License-Identifier: Apache-2.0
"""Hostile images: each is refused or harmless, and nothing outside the target changes."""

from __future__ import annotations

import json
import os
import resource
import time
from typing import TYPE_CHECKING

import pytest

from rkt.errors import ImageError, StoreError
from rkt.image.aci import scan_aci
from rkt.image.limits import DEFAULT_LIMITS
from tests.lib import aci
from tests.lib.hostile import REFUSED, ROOTFS, image
from tests.lib.unpacking import stream, unpack

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
@pytest.mark.usefixtures("outside")
def test_hostile_images_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    """The image is refused for the stated reason, and nothing outside its directory has changed."""
    with pytest.raises((ImageError, StoreError), match=words):
        unpack(tmp_path, data)


#: What scanning cannot see, because it depends on the file system it would be written to.
_NEEDS_DISK = {"UN11 claims 2^62"}


@pytest.mark.parametrize("name", sorted(set(REFUSED) - _NEEDS_DISK))
def test_scanning_refuses_the_same_images(name: str) -> None:
    """What unpacking would refuse, ``image create`` does not write."""
    with stream(REFUSED[name][0]) as fd, pytest.raises(ImageError):
        scan_aci(fd)


def test_hard_link_to_a_link_links_the_link(tmp_path: Path, outside: Path) -> None:
    """A hard link to a symbolic link (UN3) is another name of the link, and its metadata reach nobody else."""
    tree = unpack(
        tmp_path,
        image(
            aci.symlink("rootfs/s", "../../outside/victim"),
            aci.hard_link("rootfs/h", "rootfs/s", mode=0o4777, uid=1, mtime=5),
        ),
    ).tree
    assert os.readlink(tree / "rootfs/h") == "../../outside/victim"
    assert os.lstat(tree / "rootfs/h").st_ino == os.lstat(tree / "rootfs/s").st_ino
    assert (outside / "victim").stat().st_mtime != 5


def test_whiteouts_are_ordinary_files(tmp_path: Path) -> None:
    """An ACI has no whiteouts (UN5): such names are files and delete nothing."""
    tree = unpack(
        tmp_path, image(aci.Entry("rootfs/f"), aci.Entry("rootfs/.wh.f"), aci.Entry("rootfs/.wh..wh..opq"))
    ).tree
    assert sorted(os.listdir(tree / "rootfs")) == [".wh..wh..opq", ".wh.f", "f"]


def test_overlay_attributes_never_arrive(tmp_path: Path) -> None:
    """No attribute that steers an overlay mount (UN6) is on the tree."""
    names = (
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "user.overlay.metacopy",
        "user.overlay.opaque",
    )
    records = {b"SCHILY.xattr." + name.encode(): b"y" for name in names}
    result = unpack(
        tmp_path, image(aci.directory("rootfs/d", records=records), aci.Entry("rootfs/f", records=records))
    )
    for name in ("d", "f"):
        assert [a for a in os.listxattr(result.tree / "rootfs" / name) if "overlay" in a] == []
    assert result.result.dropped_xattrs == 8


def test_no_device_is_made(tmp_path: Path) -> None:
    """Device nodes of an image (UN8) do not exist afterwards, an overlay whiteout (0:0) neither."""
    tree = unpack(tmp_path, image(aci.device("rootfs/raw", b"4", mode=0o666), aci.device("rootfs/wh"))).tree
    assert os.listdir(tree / "rootfs") == []


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz"])
def test_decompression_bombs_stop(tmp_path: Path, kind: str) -> None:
    """A bomb (UN10) is refused by its ratio while it is written, in bounded time and space."""
    bomb = aci.compress(image(aci.Entry("rootfs/zeros", content=bytes(100 << 20))), kind)
    limits = DEFAULT_LIMITS.replace(ratio_free_bytes=4 << 20)
    with pytest.raises(ImageError, match="expands more than"):
        unpack(tmp_path, bomb, limits)
    assert (tmp_path / "tree/rootfs/zeros").stat().st_size < 100 << 20


def test_number_of_members_is_bounded(tmp_path: Path) -> None:
    """More members than the limit (UN10) end the unpacking."""
    with pytest.raises(ImageError, match="more than 100 headers"):
        unpack(
            tmp_path,
            image(*(aci.Entry(f"rootfs/{i}") for i in range(200))),
            DEFAULT_LIMITS.replace(entries=100),
        )


def test_memory_for_directories_is_bounded(tmp_path: Path) -> None:
    """An image of directories only (UN10) cannot fill the memory."""
    limits = DEFAULT_LIMITS.replace(directory_memory_bytes=100_000)
    with pytest.raises(ImageError, match="too many directories"):
        unpack(tmp_path, image(*(aci.directory(f"rootfs/{i}") for i in range(500))), limits)


def test_deep_paths_take_linear_time(tmp_path: Path) -> None:
    """Thousands of files at the depth limit (UN13) take a time that grows with their number."""
    deep = "rootfs/" + "d/" * 250

    def seconds(name: str, count: int) -> float:
        (tmp_path / name).mkdir()
        data = image(*(aci.Entry(f"{deep}{i}") for i in range(count)))
        start = time.monotonic()
        unpack(tmp_path / name, data)
        return time.monotonic() - start

    seconds("warm", 10)
    assert seconds("many", 3000) < 30 * max(seconds("few", 300), 0.05)


def test_the_longest_accepted_paths_work(tmp_path: Path) -> None:
    """A path at every limit at once unpacks, is rebuilt and verified (UN13), with few open files."""
    longest = "rootfs/" + "/".join(["n" * 255] * 15) + "/" + "m" * 200
    deepest = "rootfs/" + "d/" * 254 + "f"
    data = image(aci.Entry(longest, content=b"1"), aci.Entry(deepest, content=b"2"))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 140, before[1]))
    try:
        unpacked = unpack(tmp_path, data)
        assert unpacked.rebuild() == data
        assert unpacked.verify() == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_digests_cover_everything(tmp_path: Path) -> None:
    """Two images that differ in one byte of padding (UN15) have two identities."""
    data = image(aci.Entry("rootfs/f", content=b"x"))
    other = bytearray(data)
    other[data.index(aci.padded(b"x")) + 100] = 1
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = unpack(tmp_path / "a", data), unpack(tmp_path / "b", bytes(other))
    assert first.result.image_id != second.result.image_id
    assert second.rebuild() == bytes(other)


def test_messages_cannot_move_the_cursor(tmp_path: Path) -> None:
    """A name with control characters is escaped in the message that refuses it."""
    with pytest.raises(ImageError) as raised:
        unpack(tmp_path, image(aci.Entry("\x1b[2Jevil\n")))
    assert raised.value.message.isprintable()


def test_manifest_is_not_parsed_while_unpacking(tmp_path: Path) -> None:
    """Unpacking hands the manifest over as bytes; what is in it steers nothing."""
    hostile = json.dumps({"acKind": "PodManifest", "name": "../../x"}).encode()
    assert unpack(tmp_path, aci.tar_bytes([aci.manifest_entry(hostile), ROOTFS])).result.manifest == hostile

# SPDX-License-Identifier: Apache-2.0
"""Hostile images: each is refused or harmless, and nothing outside the target changes."""

from __future__ import annotations

import json
import os
import resource
import time
from typing import TYPE_CHECKING

import pytest

from rkt.errors import ImageError
from rkt.image.aci import scan_aci
from rkt.image.limits import DEFAULT_LIMITS
from tests.lib import aci
from tests.lib.unpacking import stream, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OUTSIDE = b"what was there before"
MANIFEST = aci.manifest_entry()
ROOTFS = aci.directory("rootfs")
LINK_OUT = aci.symlink("rootfs/out", "../../outside")
ABSOLUTE_LINK = aci.symlink("rootfs/abs", "/")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A file next to the target, which must stay as it is."""
    directory = tmp_path / "outside"
    directory.mkdir()
    victim = directory / "victim"
    victim.write_bytes(OUTSIDE)
    os.chmod(victim, 0o600)
    before = os.stat(victim)
    yield directory
    after = os.stat(victim)
    assert victim.read_bytes() == OUTSIDE
    assert (before.st_mode, before.st_uid, before.st_nlink) == (after.st_mode, after.st_uid, after.st_nlink)
    assert os.listdir(directory) == ["victim"]


def image(*entries: aci.Entry | bytes) -> bytes:
    """A valid image with these members more."""
    return aci.tar_bytes([MANIFEST, ROOTFS, *entries])


REFUSED = {
    # UN1
    "UN1 climbing": (image(aci.Entry("rootfs/../../outside/victim")), "climbs"),
    "UN1 climbing at the top": (image(aci.Entry("../outside/victim")), "climbs"),
    "UN1 climbing at the end": (image(aci.directory("rootfs/..")), "climbs"),
    "UN1 climbing by PAX": (
        image(aci.Entry("rootfs/x", records={b"path": b"rootfs/a/../../../x"})),
        "climbs",
    ),
    "UN1 climbing by GNU name": (image(aci.Entry("x", before=aci.gnu_long(b"rootfs/../../x"))), "climbs"),
    "UN1 absolute": (image(aci.Entry("/etc/passwd")), "absolute"),
    # UN2
    "UN2 file through a link": (
        image(LINK_OUT, aci.Entry("rootfs/out/victim", content=b"!")),
        "not a directory",
    ),
    "UN2 file through an absolute link": (
        image(ABSOLUTE_LINK, aci.Entry("rootfs/abs/tmp/x")),
        "not a directory",
    ),
    "UN2 directory through a link": (image(LINK_OUT, aci.directory("rootfs/out/d")), "not a directory"),
    "UN2 link through a link": (image(LINK_OUT, aci.symlink("rootfs/out/l", "x")), "not a directory"),
    "UN2 pipe through a link": (image(LINK_OUT, aci.fifo("rootfs/out/p")), "not a directory"),
    "UN2 file onto a link": (
        image(aci.symlink("rootfs/v", "../../outside/victim"), aci.Entry("rootfs/v")),
        "duplicate",
    ),
    "UN2 directory onto a link": (image(LINK_OUT, aci.directory("rootfs/out", mode=0o777)), "duplicate"),
    "UN2 link in the image": (
        image(aci.directory("rootfs/usr"), aci.symlink("rootfs/bin", "usr"), aci.Entry("rootfs/bin/x")),
        "not a directory",
    ),
    # UN3
    "UN3 link to the outside": (image(aci.hard_link("rootfs/h", "../outside/victim")), "climbs"),
    "UN3 link to the host": (image(aci.hard_link("rootfs/h", "/etc/passwd")), "absolute"),
    "UN3 link through a link": (
        image(LINK_OUT, aci.hard_link("rootfs/h", "rootfs/out/victim")),
        "no file so far",
    ),
    "UN3 link to the manifest": (image(aci.hard_link("rootfs/h", "manifest")), "outside rootfs"),
    "UN3 link to a directory": (
        image(aci.directory("rootfs/d"), aci.hard_link("rootfs/h", "rootfs/d")),
        "no file",
    ),
    "UN3 link to rootfs": (image(aci.hard_link("rootfs/h", "rootfs")), "outside rootfs"),
    "UN3 link to what comes later": (
        image(aci.hard_link("rootfs/h", "rootfs/f"), aci.Entry("rootfs/f")),
        "no file",
    ),
    "UN3 link to itself": (image(aci.hard_link("rootfs/h", "rootfs/h")), "no file so far"),
    # UN4
    "UN4 root is a link": (aci.tar_bytes([aci.symlink(".", "/"), MANIFEST, ROOTFS]), "root of the image"),
    "UN4 root is a file": (aci.tar_bytes([aci.Entry("./."), MANIFEST, ROOTFS]), "root of the image"),
    "UN4 root is a device": (aci.tar_bytes([aci.device("."), MANIFEST, ROOTFS]), "root of the image"),
    "UN4 rootfs is a link": (
        aci.tar_bytes([MANIFEST, aci.symlink("rootfs", "/")]),
        "rootfs is not a directory",
    ),
    "UN4 rootfs is a file": (aci.tar_bytes([MANIFEST, aci.Entry("rootfs")]), "rootfs is not a directory"),
    "UN4 rootfs replaced": (image(aci.symlink("./rootfs/.", "/")), "rootfs is not a directory"),
    # UN9
    "UN9 uid 2^32": (image(aci.Entry("rootfs/f", records={b"uid": b"4294967296"})), "out of range"),
    "UN9 uid -1": (image(aci.Entry("rootfs/f", uid=b"\xff" * 8)), "out of range"),
    "UN9 gid 2^32-1": (image(aci.Entry("rootfs/f", records={b"gid": b"4294967295"})), "out of range"),
    # UN11
    "UN11 claims more than there is": (image(aci.header(b"rootfs/f", size=1 << 30)), "truncated|No space"),
    "UN11 claims 2^62": (image(aci.header(b"rootfs/f", size=aci.base256(1 << 62, 12))), "No space"),
    "UN11 giant PAX header": (image(aci.header(b"x", b"x", size=16 << 20)), "extension header of"),
    "UN11 sparse": (image(aci.Entry("rootfs/f", records={b"GNU.sparse.size": b"99999999999"})), "sparse"),
    # UN12
    "UN12 two files": (image(aci.Entry("rootfs/f"), aci.Entry("rootfs/f", content=b"2")), "duplicate"),
    "UN12 two spellings": (image(aci.Entry("rootfs/f"), aci.Entry("./rootfs//./f")), "duplicate"),
    "UN12 two directories": (image(aci.directory("rootfs/d"), aci.directory("rootfs/d/")), "duplicate"),
    "UN12 file over directory": (image(aci.directory("rootfs/d"), aci.Entry("rootfs/d")), "duplicate"),
    "UN12 directory over file": (image(aci.Entry("rootfs/d"), aci.directory("rootfs/d")), "duplicate"),
    "UN12 file over implied directory": (image(aci.Entry("rootfs/d/f"), aci.Entry("rootfs/d")), "duplicate"),
    "UN12 file below file": (image(aci.Entry("rootfs/f"), aci.Entry("rootfs/f/g")), "not a directory"),
    "UN12 device over file": (image(aci.Entry("rootfs/f"), aci.device("rootfs/f")), "duplicate"),
    "UN12 file over device": (image(aci.device("rootfs/f"), aci.Entry("rootfs/f")), "duplicate"),
    "UN12 two devices": (image(aci.device("rootfs/f"), aci.device("rootfs/f")), "duplicate"),
    "UN12 file below device": (image(aci.device("rootfs/f"), aci.Entry("rootfs/f/g")), "not a directory"),
    "UN12 link over file": (
        image(aci.Entry("rootfs/f"), aci.Entry("rootfs/g"), aci.hard_link("rootfs/g", "rootfs/f")),
        "duplicate",
    ),
    "UN12 two roots": (
        aci.tar_bytes([aci.directory("."), aci.directory("./"), MANIFEST, ROOTFS]),
        "duplicate",
    ),
    # UN13
    "UN13 too deep": (image(aci.directory("rootfs/" + "d/" * 256)), "components"),
    "UN13 600 levels": (image(aci.directory("rootfs/" + "d/" * 600)), "components"),
    "UN13 long name": (image(aci.Entry("rootfs/" + "n" * 256)), "name of 256"),
    "UN13 long path": (image(aci.Entry("rootfs/" + "/".join(["n" * 200] * 21))), "path of"),
    "UN13 long link": (image(aci.symlink("rootfs/l", "x" * 4096)), "text of 4096"),
    "UN13 empty link": (image(aci.symlink("rootfs/l", "")), "text of 0"),
    # UN17
    "UN17 hidden behind the end": (image() + b"hidden", "behind the end"),
    "UN17 an archive behind the end": (image() + image(), "behind the end"),
    "UN17 behind gzip": (aci.compress(image(), "gzip") + b"hidden", "trailing"),
    "UN17 a second gzip member": (aci.compress(image(), "gzip") * 2, "behind the end"),
    "UN17 truncated tar": (image()[:-1024], "end-of-archive"),
    "UN17 truncated gzip": (aci.compress(image(), "gzip")[:-1], "truncated"),
    # UN19
    "UN19 two manifests": (image(aci.manifest_entry(b"{}")), "duplicate"),
    "UN19 two spellings of manifest": (image(aci.Entry("./manifest")), "duplicate"),
    "UN19 no manifest": (aci.tar_bytes([ROOTFS]), "no image manifest"),
    "UN19 no rootfs": (aci.tar_bytes([MANIFEST]), "no rootfs"),
    "UN19 something else": (image(aci.Entry("hash")), "unrecognised file path"),
    "UN19 below manifest": (image(aci.Entry("manifest/x")), "unrecognised file path"),
    "UN19 name with the same start": (image(aci.Entry("rootfs-evil/x")), "unrecognised file path"),
    "UN19 manifest is a link": (
        aci.tar_bytes([aci.symlink("manifest", "/etc/passwd"), ROOTFS]),
        "not a regular",
    ),
    "UN19 manifest is a directory": (aci.tar_bytes([aci.directory("manifest"), ROOTFS]), "not a regular"),
    "UN19 giant manifest": (
        aci.tar_bytes([aci.manifest_entry(b" " * (4 << 20) + b"{}"), ROOTFS]),
        "manifest has",
    ),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
@pytest.mark.usefixtures("outside")
def test_hostile_images_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    """The image is refused for the stated reason, and nothing outside its directory has changed."""
    with pytest.raises(ImageError, match=words):
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

# SPDX-License-Identifier: Apache-2.0
"""Hostile archives through the real ``rkt fetch``, both workers and all.

Each is refused with words that name the entry, or unpacked where that does no harm. Nothing outside the store changes,
nothing stays in it of what was refused, and each takes less than 5 seconds of a processor and 128 MiB.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import stat
from typing import TYPE_CHECKING

import pytest

from rkt.image.limits import DEFAULT_LIMITS
from tests.lib import aci
from tests.lib import rkt as rkt_library
from tests.lib.hostile import MANIFEST, REFUSED, ROOTFS, image
from tests.lib.measured import Measured, measure
from tests.lib.pace import SLOWNESS
from tests.lib.server import Page, Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.root

MAX_SECONDS = 5.0
MAX_BYTES = 128 << 20
BOMB_BYTES = 80 << 20


def raw_pax(payload: bytes, size: int | bytes | None = None) -> bytes:
    """A PAX header with any payload, and any claim about its size."""
    return aci.header(b"PaxHeader", b"x", size=len(payload) if size is None else size) + aci.padded(payload)


def pax_file(**records: bytes) -> aci.Entry:
    """A file with PAX records."""
    return aci.Entry("rootfs/f", records={key.encode(): value for key, value in records.items()})


def with_manifest(data: bytes) -> bytes:
    """An image with any bytes for a manifest."""
    return aci.tar_bytes([aci.manifest_entry(data), ROOTFS])


def bomb() -> bytes:
    """A tar that compresses very well."""
    return image(aci.Entry("rootfs/zeros", content=bytes(BOMB_BYTES)))


LONG_XATTR = {b"SCHILY.xattr.user.x": b"v" * 200_000}
MORE_REFUSED: dict[str, tuple[Callable[[], bytes] | bytes, str]] = {
    # Headers
    "header with a wrong checksum": (
        image(aci.header(b"rootfs/f", checksum=b"000001\0 ")),
        "checksum.*rootfs/f",
    ),
    "header without magic": (image(aci.header(b"rootfs/f", magic=bytes(8))), "magic.*rootfs/f"),
    "header of an unknown type": (image(aci.Entry("rootfs/f", b"Z")), "rootfs/f.* type"),
    "header of a GNU sparse file": (image(aci.Entry("rootfs/f", b"S")), "rootfs/f.* type"),
    "header of a second volume": (image(aci.Entry("rootfs/f", b"M")), "rootfs/f.* type"),
    "header of a directory dump": (image(aci.Entry("rootfs/f", b"D")), "rootfs/f.* type"),
    "mode that is no number": (
        image(aci.header(b"rootfs/f", mode=b"abcdefg")),
        "mode.*not a number.*rootfs/f",
    ),
    "negative size": (image(aci.header(b"rootfs/f", size=b"\xff" * 12)), "size.*out of range.*rootfs/f"),
    "uid 2^40 in base 256": (image(aci.Entry("rootfs/f", uid=aci.base256(1 << 40, 8))), "owner.*rootfs/f"),
    "time that no file system keeps": (
        image(aci.Entry("rootfs/f", mtime=aci.base256(1 << 60, 12))),
        "rootfs/f",
    ),
    # PAX
    "PAX record of negative length": (image(raw_pax(b"-9 path=x\n")), "without a length.*PaxHeader"),
    "PAX record of no length": (image(raw_pax(b"0 path=x\n")), "wrong length.*PaxHeader"),
    "PAX record without end": (image(raw_pax(b"99999 path=x\n")), "wrong length.*PaxHeader"),
    "PAX header that never ends": (
        image(raw_pax(b"", aci.base256(1 << 60, 12))),
        "extension header of.*PaxHeader",
    ),
    "PAX header cut off": (
        aci.tar_bytes([MANIFEST, ROOTFS, raw_pax(b"", 9000)], end=b""),
        "inside an extension",
    ),
    "PAX record twice": (image(raw_pax(b"10 path=a\n" * 2)), "appears twice"),
    "PAX header twice": (image(aci.pax({b"path": b"rootfs/a"}) * 2), "two extension headers.*PaxHeader"),
    "PAX header for nobody": (image(aci.pax({b"path": b"rootfs/a"})), "behind an extension header"),
    "PAX header for everybody": (image(aci.pax({b"path": b"x"}, b"g")), "global PAX header sets path"),
    "PAX path with a NUL": (image(pax_file(path=b"rootfs/a\0b")), "NUL in its name"),
    "PAX link with a NUL": (
        image(aci.symlink("rootfs/l", "x", records={b"linkpath": b"a\0b"})),
        "rootfs/l.*NUL",
    ),
    "PAX size negative": (image(pax_file(size=b"-1")), "size.*not a number.*rootfs/f"),
    "PAX size of 10^19": (image(pax_file(size=b"9" * 19)), "rootfs/f"),
    "PAX size of 10^30": (image(pax_file(size=b"9" * 30)), "size.*rootfs/f"),
    "PAX uid negative": (image(pax_file(uid=b"-1")), "uid.*rootfs/f"),
    "PAX time that is none": (image(pax_file(mtime=b"nan")), "mtime.*rootfs/f"),
    "extended attribute too large": (image(aci.Entry("rootfs/f", records=LONG_XATTR)), "rootfs/f"),
    # GNU
    "GNU long names without end": (image(aci.gnu_long(b"rootfs/a") * 50), "two GNU long names.*LongLink"),
    "GNU long link names without end": (image(aci.gnu_long(b"a", b"K") * 50), "two GNU long link.*LongLink"),
    "GNU long name of 2 MiB": (image(aci.gnu_long(b"a" * (2 << 20))), "extension header of.*LongLink"),
    "GNU long name behind PAX": (
        image(aci.pax({b"path": b"rootfs/a"}), aci.gnu_long(b"rootfs/b")),
        "PAX and GNU",
    ),
    # Paths
    "loop of links as a parent": (
        image(aci.symlink("rootfs/a", "b"), aci.symlink("rootfs/b", "a"), aci.Entry("rootfs/a/x")),
        "rootfs/a/x",
    ),
    "link to itself as a parent": (
        image(aci.symlink("rootfs/a", "."), aci.Entry("rootfs/a/a/a/x")),
        "rootfs/a",
    ),
    "300 levels": (image(aci.directory("rootfs/" + "d/" * 300)), "components.*rootfs/d"),
    "name of 300 bytes": (image(aci.Entry("rootfs/" + "n" * 300)), "name of 300.*rootfs/nnn"),
    "path of 4099 bytes": (
        image(aci.Entry("rootfs/" + "x/" * 2045 + "xx")),
        "path of 4099.*rootfs/x",
    ),
    # Manifest and rootfs
    "manifest is a named pipe": (aci.tar_bytes([aci.fifo("manifest"), ROOTFS]), "manifest is not a regular"),
    "manifest is a device": (aci.tar_bytes([aci.device("manifest"), ROOTFS]), "manifest is not a regular"),
    "manifest is a hard link": (
        aci.tar_bytes([ROOTFS, aci.Entry("rootfs/f"), aci.hard_link("manifest", "rootfs/f")]),
        "manifest is not a regular",
    ),
    "manifest of 5 MiB": (with_manifest(b" " * (5 << 20)), "manifest has"),
    "manifest nested 10000 deep": (with_manifest(b'{"a":' + b"[" * 10000 + b"]" * 10000 + b"}"), "manifest"),
    "manifest with a member twice": (with_manifest(b'{"name":"a","name":"b"}'), "name"),
    "manifest that is not UTF-8": (with_manifest(b'{"name":"\xff"}'), "manifest"),
    "manifest with a number of 10^5 digits": (with_manifest(b'{"a":' + b"9" * 100_000 + b"}"), "manifest"),
    "manifest with a climbing name": (
        with_manifest(b'{"acKind":"ImageManifest","acVersion":"0.8.11","name":"../../x"}'),
        "name",
    ),
    "manifest of a pod": (with_manifest(b'{"acKind":"PodManifest","acVersion":"0.8.11"}'), "manifest|acKind"),
    "rootfs is a device": (
        aci.tar_bytes([MANIFEST, aci.device("rootfs", b"4")]),
        "rootfs is not a directory",
    ),
    "rootfs is a named pipe": (aci.tar_bytes([MANIFEST, aci.fifo("rootfs")]), "rootfs is not a directory"),
    # Streams
    "nothing at all": (b"", "empty"),
    "zeros only": (bytes(1 << 20), "unknown image filetype|no image manifest"),
    "noise": (b"\x93\x11" * 5000, "unknown image filetype"),
    "truncated in a header": (image()[: 512 * 2 + 100], "truncated"),
    "truncated in a file": (
        image(aci.Entry("rootfs/f", content=b"x" * 9000))[:-6000],
        "ends inside 'rootfs/f'",
    ),
    "truncated bzip2": (bz2.compress(image())[:-5], "truncated|bzip2"),
    "truncated xz": (lzma.compress(image())[:-5], "truncated|xz"),
    "damaged gzip": (gzip.compress(image(), mtime=0)[:-8] + bytes(8), "gzip"),
    "gzip in gzip": (gzip.compress(gzip.compress(image(), mtime=0), mtime=0), "tar"),
    "noise behind xz": (lzma.compress(image()) + b"junk", "trailing|xz"),
    "noise behind bzip2": (bz2.compress(image()) + b"junk", "trailing|bzip2"),
    "bomb of gzip": (lambda: gzip.compress(bomb(), 9, mtime=0), "expands more than"),
    "bomb of bzip2": (lambda: bz2.compress(bomb()), "expands more than"),
    "bomb of xz": (lambda: lzma.compress(bomb(), preset=1), "expands more than"),
    "xz with a dictionary of 1 GiB": (
        lzma.compress(image(), filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]),
        "xz|memory",
    ),
}
#: Nothing in these has a name: the stream as a whole is wrong, or something is missing.
NAMELESS = re.compile(
    "behind the end|trailing|truncated|no image manifest|no rootfs|expands more|unknown image filetype|is empty"
    "|gzip|bzip2|xz|not a tar|behind an extension header|manifest|image name|global PAX"
)
NAMED = re.compile("'[^']+'|rootfs|root of the image")


def run(place: Path, insecure: str, reference: str) -> Measured:
    """Let the engine fetch something into a store of its own."""
    return measure(
        [
            rkt_library.BINARY,
            f"--dir={place}/data",
            f"--local-config={place}/local",
            f"--system-config={place}/system",
            insecure,
            "fetch",
            reference,
        ]
    )


def fetch(place: Path, data: bytes) -> Measured:
    """Give an archive to the engine."""
    path = place / "hostile.aci"
    path.write_bytes(data)
    return run(place, "--insecure-options=image", str(path))


def everything(directory: Path) -> dict[str, tuple[int, ...]]:
    """All that can be seen of a tree, but for the store."""
    return {
        str(path): (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_nlink,
            status.st_size,
            status.st_mtime_ns,
        )
        for path in sorted(directory.rglob("*"))
        if not path.is_relative_to(directory / "data")
        for status in [path.lstat()]
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with victims at every place to which the archives climb from their target."""
    for directory in (tmp_path / "outside", tmp_path / "data" / "outside"):
        directory.mkdir(parents=True)
        (directory / "victim").write_bytes(b"as it was")
        (directory / "victim").chmod(0o600)
    (tmp_path / "local").mkdir()
    (tmp_path / "system").mkdir()
    (tmp_path / "hostile.aci").touch()
    return tmp_path


def assert_cheap(result: Measured) -> None:
    """In time and memory."""
    assert result.processor_seconds < MAX_SECONDS, result
    # Nothing waits, however busy the host is.
    assert result.seconds < 4 * MAX_SECONDS * SLOWNESS, result
    assert result.peak_bytes < MAX_BYTES, result


ALL_REFUSED: dict[str, tuple[Callable[[], bytes] | bytes, str]] = {**REFUSED, **MORE_REFUSED}


@pytest.mark.parametrize("name", ALL_REFUSED)
def test_refused(place: Path, name: str) -> None:
    """The fetch fails, says what entry is wrong with what, leaves nothing, changes nothing, and is cheap."""
    made, words = ALL_REFUSED[name]
    data = made if isinstance(made, bytes) else made()
    passwd = os.stat("/etc/passwd")
    (place / "hostile.aci").write_bytes(data)
    before = everything(place)
    result = fetch(place, data)
    after = everything(place)
    del before[f"{place}/hostile.aci"], after[f"{place}/hostile.aci"]
    assert result.status not in {0, -9}, result
    assert re.search(words, result.output), result
    assert "Traceback" not in result.output
    assert "without an answer" not in result.output, "a worker died instead of refusing"
    assert NAMED.search(result.output) or NAMELESS.search(result.output), result
    assert after == before
    assert (place / "data/outside/victim").read_bytes() == b"as it was"
    assert os.stat("/etc/passwd") == passwd
    for part in ("layer", "record", "tmp"):
        assert os.listdir(place / "data/cas" / part) == [], part
    assert_cheap(result)


CAPABILITY_V3 = b"\1\0\0\3" + b"\0\4\0\0" + b"\0" * 12 + b"\xe8\3\0\0"
OVERLAY = {
    b"SCHILY.xattr.trusted.overlay.opaque": b"y",
    b"SCHILY.xattr.user.overlay.redirect": b"/../../outside",
}


def mode_of(path: Path) -> int:
    """Type and permissions."""
    return path.lstat().st_mode


HARMLESS: dict[str, tuple[bytes, Callable[[Path], bool]]] = {
    "named pipe for passwd": (
        image(aci.directory("rootfs/etc"), aci.fifo("rootfs/etc/passwd")),
        lambda root: stat.S_ISFIFO(mode_of(root / "etc/passwd")),
    ),
    "devices are left out": (
        image(
            aci.device("rootfs/disk", b"4"), aci.device("rootfs/mem"), aci.hard_link("rootfs/h", "rootfs/mem")
        ),
        lambda root: os.listdir(root) == [],
    ),
    "whiteouts are files": (
        image(aci.Entry("rootfs/f"), aci.Entry("rootfs/.wh.f"), aci.Entry("rootfs/.wh..wh..opq")),
        lambda root: sorted(os.listdir(root)) == [".wh..wh..opq", ".wh.f", "f"],
    ),
    "overlay attributes are dropped": (
        image(aci.directory("rootfs/d", records=OVERLAY), aci.Entry("rootfs/f", records=OVERLAY)),
        lambda root: os.listxattr(root / "d") == os.listxattr(root / "f") == [],
    ),
    "hard link to a link to the outside": (
        image(
            aci.symlink("rootfs/s", "../../../../../../outside/victim"), aci.hard_link("rootfs/h", "rootfs/s")
        ),
        lambda root: (root / "h").lstat().st_ino == (root / "s").lstat().st_ino,
    ),
    "links to everywhere": (
        image(
            aci.symlink("rootfs/a", "/etc/shadow"),
            aci.symlink("rootfs/b", "../" * 40),
            aci.symlink("rootfs/c", "c"),
        ),
        lambda root: os.readlink(root / "a") == "/etc/shadow",
    ),
    "set-uid root": (
        image(aci.Entry("rootfs/su", mode=0o6755)),
        lambda root: mode_of(root / "su") & 0o7777 == 0o6755 and mode_of(root.parent) & 0o7777 == 0o700,
    ),
    "capability of another user namespace": (
        image(aci.Entry("rootfs/f", records={b"SCHILY.xattr.security.capability": CAPABILITY_V3})),
        lambda root: os.listdir(root) == ["f"],
    ),
    "directories that nobody may enter": (
        image(
            aci.directory("rootfs/d", mode=0),
            aci.Entry("rootfs/d/f", mode=0),
            aci.directory("rootfs/d/e", mode=0),
        ),
        lambda root: mode_of(root / "d") & 0o7777 == 0 and sorted(os.listdir(root / "d")) == ["e", "f"],
    ),
    "names that are not text": (
        image(aci.Entry(b"rootfs/\xff\x1b[2J\n"), aci.Entry("rootfs/-rf"), aci.Entry("rootfs/$(id)")),
        lambda root: sorted(os.listdir(os.fsencode(root))) == [b"$(id)", b"-rf", b"\xff\x1b[2J\n"],
    ),
    "4096 links to one file": (
        image(aci.Entry("rootfs/f"), *(aci.hard_link(f"rootfs/{i}", "rootfs/f") for i in range(4096))),
        lambda root: (root / "f").stat().st_nlink == 4097,
    ),
    "10000 directories": (
        image(*(aci.directory(f"rootfs/{i}") for i in range(10000))),
        lambda root: len(os.listdir(root)) == 10000,
    ),
    "as deep as can be": (
        image(aci.Entry("rootfs/" + "d/" * (DEFAULT_LIMITS.depth - 2) + "f")),
        lambda root: os.listdir(root) == ["d"],
    ),
    "owner of the highest number": (
        image(aci.Entry("rootfs/f", records={b"uid": b"4294967294", b"gid": b"4294967294"})),
        lambda root: (root / "f").stat().st_uid == 4294967294,
    ),
    "times before the epoch": (
        image(pax_file(mtime=b"-1000.5")),
        lambda root: (root / "f").stat().st_mtime_ns == -1000_500_000_000,
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless(place: Path, name: str) -> None:
    """What is unusual and does no harm is unpacked as it is, inside the store only, and is cheap."""
    data, check = HARMLESS[name]
    (place / "hostile.aci").write_bytes(data)
    before = everything(place)
    result = fetch(place, data)
    after = everything(place)
    del before[f"{place}/hostile.aci"], after[f"{place}/hostile.aci"]
    assert result.status == 0, result
    assert after == before
    assert (place / "data/outside/victim").read_bytes() == b"as it was"
    (key,) = os.listdir(place / "data/cas/layer")
    root = place / "data/cas/layer" / key / "rootfs"
    assert check(root)
    for parent, directories, files in os.walk(root):
        for entry in directories + files:
            kind = os.lstat(os.path.join(parent, entry)).st_mode
            assert not stat.S_ISBLK(kind), entry
            assert not stat.S_ISCHR(kind), entry
    assert_cheap(result)


ARRIVING = {
    "climbing": (
        image(aci.Entry("rootfs/big", content=bytes(6 << 20)), aci.Entry("rootfs/../../../x")),
        "climbs",
    ),
    "cut off": (image(aci.Entry("rootfs/big", content=bytes(6 << 20)))[: 5 << 20], "truncated.*rootfs/big"),
    "two files": (
        image(aci.Entry("rootfs/big", content=bytes(6 << 20)), aci.Entry("rootfs/big")),
        "duplicate.*rootfs/big",
    ),
}


@pytest.mark.parametrize("name", ARRIVING)
def test_refused_while_it_arrives(place: Path, name: str) -> None:
    """A large image is unpacked while it is downloaded; what is wrong behind its beginning is refused all the same."""
    data, words = ARRIVING[name]
    before = everything(place)
    with Server() as server:
        url = server.put("/hostile.aci", Page(data))
        result = run(place, "--insecure-options=image,http", url)
    assert result.status not in {0, -9}, result
    assert re.search(words, result.output), result
    assert everything(place) == before
    for part in ("layer", "record", "tmp"):
        assert os.listdir(place / "data/cas" / part) == [], part
    assert_cheap(result)


def test_there_are_enough() -> None:
    """At least sixty archives are tried, each under its own name."""
    assert len(ALL_REFUSED) == len(REFUSED) + len(MORE_REFUSED)
    assert len(ALL_REFUSED) + len(HARMLESS) >= 60

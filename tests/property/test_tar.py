# SPDX-License-Identifier: Apache-2.0
"""Any tar: unpacked, taken apart, put together again, checked."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from rkt.errors import ImageError
from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.tarformat import END, Chunks, Member, members, render
from tests.lib import aci
from tests.lib.unpacking import unpack

# Names as they occur, and as nobody wants them.
NAMES = st.one_of(
    st.sampled_from(
        ["a", "b", "bin", "lib", ".wh.a", "é", "with space", "n" * 90, "x" * 101, "y" * 255, "..."]
    ),
    st.text(
        st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=12
    ).filter(lambda name: name not in {".", ".."}),
)
FORMATS = st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
CONTENT = st.one_of(st.binary(max_size=1500), st.sampled_from([b"", bytes(512), bytes(513), b"\xff" * 1024]))
MODES = st.integers(0, 0o7777)
IDS = st.one_of(st.integers(0, 100_000), st.sampled_from([2**21, 2**31, 2**32 - 2]))
TIMES = st.one_of(st.integers(-(10**6), 2**31), st.integers(0, 2**33).map(lambda n: n / 4))


@st.composite
def trees(draw: st.DrawFn) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Members of a root file system, in an order that unpacks: parents are directories, links have targets."""
    directories = ["rootfs"]
    files: list[str] = []
    taken = {"rootfs"}
    found: list[tuple[tarfile.TarInfo, bytes]] = []
    for _ in range(draw(st.integers(0, 12))):
        path = f"{draw(st.sampled_from(directories))}/{draw(NAMES)}"
        if path in taken or any(len(part.encode()) > 255 for part in path.split("/")):
            continue
        taken.add(path)
        info = tarfile.TarInfo(path)
        info.mode, info.uid, info.gid, info.mtime = draw(MODES), draw(IDS), draw(IDS), draw(TIMES)
        kind = draw(st.sampled_from("ffffddslphc"))
        content = b""
        if kind == "f":
            content = draw(CONTENT)
            info.size = len(content)
            files.append(path)
        elif kind == "d":
            info.type = tarfile.DIRTYPE
            directories.append(path)
        elif kind in "ls":
            info.type, info.linkname = (
                tarfile.SYMTYPE,
                draw(st.sampled_from(["a", "/etc/passwd", "../" * 9, "t" * 200])),
            )
        elif kind == "p":
            info.type = tarfile.FIFOTYPE
        elif kind == "c":
            info.type = tarfile.CHRTYPE
        elif files:
            info.type, info.linkname = tarfile.LNKTYPE, draw(st.sampled_from(files))
        found.append((info, content))
    return found


@given(tree=trees(), style=FORMATS, kind=st.sampled_from(["none", "gzip"]), blocks=st.integers(2, 40))
def test_any_tar_comes_back(
    tree: list[tuple[tarfile.TarInfo, bytes]], style: int, kind: str, blocks: int
) -> None:
    """Whatever tarfile writes, unpacking and rebuilding gives the same bytes, the layer verifies, and each file has its content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=style, encoding="utf-8") as archive:
        manifest = tarfile.TarInfo("manifest")
        manifest.size = 2
        archive.addfile(manifest, io.BytesIO(b"{}"))
        rootfs = tarfile.TarInfo("rootfs")
        rootfs.type, rootfs.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(rootfs)
        for info, content in tree:
            archive.addfile(info, io.BytesIO(content))
        end = archive.offset
    tar = buffer.getvalue()[:end] + bytes(512 * blocks)
    with tempfile.TemporaryDirectory() as directory:
        image = unpack(Path(directory), aci.compress(tar, kind))
        assert image.result.image_id == aci.image_id(tar)
        if os.geteuid() == 0:
            assert image.rebuild() == tar
            assert image.verify() == []
            for info, content in tree:
                if info.isreg():
                    assert (image.tree / info.name).read_bytes() == content


MEMBERS = st.builds(
    lambda path, kind, mode, uid, gid, size, mtime_ns, link, xattrs: Member(
        path,
        kind,
        mode=mode,
        uid=uid,
        gid=gid,
        size=size if kind == b"0" else 0,
        mtime_ns=mtime_ns,
        link=link,
        xattrs=xattrs,
    ),
    path=st.binary(min_size=1, max_size=300).filter(lambda p: b"\0" not in p and not p.endswith(b"/")),
    kind=st.sampled_from([b"0", b"1", b"2", b"5", b"6"]),
    mode=MODES,
    uid=IDS,
    gid=IDS,
    size=st.one_of(st.integers(0, 5000), st.integers(0, 2**40)),
    mtime_ns=st.integers(-(2**36) * 10**9, 2**36 * 10**9),
    link=st.binary(max_size=300).filter(lambda p: b"\0" not in p),
    xattrs=st.dictionaries(
        st.text("abc.", min_size=1, max_size=8).map(lambda n: b"user." + n.encode()),
        st.binary(max_size=40),
        max_size=3,
    ),
)


@given(member=MEMBERS)
def test_any_member_is_read_as_it_was_written(member: Member) -> None:
    """A header that we write parses to what it was made of, whatever the names and numbers."""
    source = Chunks(iter([render(member), END]))
    assert next(iter(members(source, DEFAULT_LIMITS))) == member


@given(
    data=st.binary(max_size=3000),
    prefix=st.sampled_from([b"", aci.header(b"rootfs/f", size=100), aci.pax({b"path": b"x"})]),
)
def test_any_bytes_end_in_an_error_or_an_end(data: bytes, prefix: bytes) -> None:
    """The reader ends on any input, and fails only in the way its callers expect."""
    source = Chunks(iter([prefix + data]))
    try:
        for member in members(source, DEFAULT_LIMITS):
            for _ in source.content(member.size):
                pass
    except ImageError as e:
        message = e.message
    else:
        message = ""
    assert message.isprintable()

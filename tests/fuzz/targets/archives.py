# SPDX-License-Identifier: Apache-2.0
"""Tars, whiteouts, and what the unpacker leaves beside a tree for root to read."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zlib

from rkt.errors import DamagedRecord, ImageError
from rkt.image import tarformat
from rkt.image.layer import LayerLayout
from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.marks import parse_marks
from rkt.image.tarformat import Chunks, Member, members, parse_pax, render
from rkt.image.tarsplit import END, FILE, HEAD, LAYER_HEAD, RAW, SplitWriter, records
from rkt.image.tarstream import split_path
from tests.fuzz.target import Target

_LIMITS = DEFAULT_LIMITS.replace(entries=200, header_bytes=1 << 16)
_KINDS = {
    tarformat.REGULAR: tarfile.REGTYPE,
    tarformat.HARD_LINK: tarfile.LNKTYPE,
    tarformat.SYMLINK: tarfile.SYMTYPE,
    tarformat.CHAR_DEVICE: tarfile.CHRTYPE,
    tarformat.BLOCK_DEVICE: tarfile.BLKTYPE,
    tarformat.DIRECTORY: tarfile.DIRTYPE,
    tarformat.FIFO: tarfile.FIFOTYPE,
}


def fix_checksums(data: bytes) -> bytes:
    """Give every block that looks like a header its right checksum, so that damage gets behind it."""
    fixed = bytearray(data)
    for offset in range(0, len(fixed) - 511, 512):
        if fixed[offset + 257 : offset + 262] == b"ustar":
            fixed[offset + 148 : offset + 156] = b" " * 8
            fixed[offset + 148 : offset + 156] = b"%06o\0 " % sum(fixed[offset : offset + 512])
    return bytes(fixed)


def _plan(data: bytes) -> list[Member]:
    """All members, their content passed over."""
    source = Chunks(iter([data]))
    found = []
    for member in members(source, _LIMITS):
        found.append(member)
        if sum(map(len, source.content(member.size))) != member.size:
            raise ImageError("the tar is truncated")
    return found


def _check_path(member: Member) -> None:
    try:
        path = split_path(member.path, _LIMITS)
    except ImageError:
        return
    # What openat2(2) is given one by one.
    assert all(name not in {b"", b".", b".."} and b"/" not in name and b"\0" not in name for name in path), (
        "a path climbs"
    )


def _agree(found: list[Member], data: bytes) -> None:
    """Another reader of tars takes it for the same: what two readers see differently is to be refused (UN12).

    That one ends, by an error or without, at numbers that are none in fields that nobody needs, such as a directory's size.
    """
    try:
        with tarfile.open(
            fileobj=io.BytesIO(data), mode="r:", encoding="utf-8", errors="surrogateescape"
        ) as archive:
            theirs = archive.getmembers()
    except tarfile.TarError:
        return
    assert len(theirs) <= len(found), "another reader sees more members"
    for ours, other in zip(found, theirs, strict=False):
        # The library drops slashes at the end, and reads names before ``hdrcharset`` as UTF-8.
        name = other.name.encode("utf-8", "surrogateescape")
        assert ours.path.rstrip(b"/") == name.rstrip(b"/"), f"a name: {ours.path!r} and {name!r}"
        assert _KINDS[ours.kind] == other.type or (
            ours.kind == tarformat.REGULAR and other.type in tarfile.REGULAR_TYPES
        ), "a type"
        if ours.kind == tarformat.REGULAR:
            assert ours.size == other.size, "a size"
        assert (ours.uid, ours.gid) == (other.uid, other.gid), "an owner"
        if ours.kind in {tarformat.SYMLINK, tarformat.HARD_LINK}:
            assert ours.link == other.linkname.encode("utf-8", "surrogateescape"), "a link"


def read_tar(data: bytes) -> None:
    """A plan without paths that climb, which another reader would make too, and which is written and read as the same."""
    fixed = fix_checksums(data)
    found = _plan(fixed)
    for member in found:
        _check_path(member)
        assert 0 <= member.uid <= 0xFFFFFFFE, "a uid"
        assert 0 <= member.gid <= 0xFFFFFFFE, "a gid"
        assert member.size >= 0, "a size below nothing"
    again = b"".join(
        render(member) + bytes(member.size + tarformat.padding(member.size))
        for member in found
        if member.size < 1 << 16
    )
    if all(member.size < 1 << 16 for member in found):
        assert _plan(again + tarformat.END) == found, "written and read again"
    _agree(found, fixed)


def read_pax(data: bytes) -> None:
    """Records are cut where their lengths say, nothing is left over, and what is written again is the same."""
    found = parse_pax(data)
    assert sum(len(keyword) + len(value) for keyword, value in found.items()) <= len(data), (
        "more than was there"
    )
    again = b"".join(tarformat._pax_record(keyword, value) for keyword, value in found.items())
    assert parse_pax(again) == found, "written and read again"


def read_whiteout(data: bytes) -> None:
    """A whiteout hides one name of its own directory, or what is in it, and nothing else is taken for one (UN5)."""
    layout = LayerLayout(_LIMITS)
    member = Member(data, tarformat.REGULAR)
    if b"\0" in data:
        raise ImageError("the reader of tars refuses it")
    path = layout.place(member)
    assert path[0] == b"rootfs", "outside of the layer"
    found = layout.whiteout(path, member) if len(path) > 1 else None
    assert not any(name.startswith(b".wh.") for name in path[:-1]), "below a whiteout"
    if found is None:
        assert not path[-1].startswith(b".wh."), "a name that is reserved"
        return
    assert path[-1].startswith(b".wh."), "no whiteout"
    if found.opaque:
        assert found.path == path[:-1], "opaque is another directory"
    else:
        assert found.path == (*path[:-1], path[-1][4:]), "it hides another name"
        assert found.path[-1] not in {b"", b".", b".."}, "it hides the directory or its parent"
    link = Member(b"x", tarformat.HARD_LINK, link=data)
    assert all(name not in {b"", b".", b".."} for name in layout.link_target(link)), "a link climbs"


def _split_file(data: bytes) -> list[tuple[bytes, bytes, int, bytes]]:
    fd = os.memfd_create("split", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        return list(records(fd))
    finally:
        os.close(fd)


def _written(head: bytes, found: list[tuple[bytes, bytes, int, bytes]]) -> bytes:
    fd = os.memfd_create("split", os.MFD_CLOEXEC)
    try:
        writer = SplitWriter(fd, head)
        for kind, content, size, digest in found:
            if kind == RAW:
                writer.raw(content)
            elif kind == FILE:
                writer.file(content, size, digest)
            elif kind == END:
                writer.finish(size, digest)
        return os.pread(fd, 1 << 24, 0)
    finally:
        os.close(fd)


def read_tar_split(data: bytes) -> None:
    """Paths lead nowhere else, raw bytes are what was there, and what is written again reads as the same."""
    if data.startswith((HEAD, LAYER_HEAD)):
        head, whole = data[: len(HEAD)], data
    else:
        # The checksum of zlib would catch every change.
        head = LAYER_HEAD if data[:1] == b"2" else HEAD
        whole = head + zlib.compress(data[1:], 1)
    found = _split_file(whole)
    assert found[-1][0] == END, "no end"
    for kind, path, _, _ in found:
        if kind == FILE:
            assert b"\0" not in path, "a NUL"
            assert not {b"", b".", b".."} & set(path.split(b"/")), "a path climbs"
    raw = b"".join(content for kind, content, _, _ in found if kind == RAW)
    again = _split_file(_written(head, found))
    assert b"".join(content for kind, content, _, _ in again if kind == RAW) == raw, "other raw bytes"
    assert [each for each in again if each[0] != RAW] == [each for each in found if each[0] != RAW], (
        "other records"
    )


def read_marks(data: bytes) -> None:
    """What root is told of a layer is whole, leads nowhere else, and is written again as the same."""
    if not data.endswith(b"\0"):
        data += b"E" + hashlib.sha256(data).hexdigest().encode() + b"\0"
    found = parse_marks(data, "marks")
    for paths in (found.implied, found.opaque, found.holders):
        for path in paths:
            assert not {b"", b".", b".."} & set(path), "a path climbs"
            assert not any(b"/" in name or b"\0" in name for name in path), "a path climbs"
    assert parse_marks(found.dump(), "marks") == found, "written and read again"


FIELDS = (
    b"\0", b"\xff" * 8, b"\x80" + b"\0" * 7, b"\x80\0\0\0\xff\xff\xff\xff", b"/", b"..", b"../", b"./", b"0000000\0", b"7777777\0",
    b"77777777777\0", b"ustar\x0000", b"ustar  \0", b"x", b"g", b"L", b"K", b"S", b"5", b"2", b"1", b"12 path=a/b\n", b"13 size=1024\n",
    b"20 GNU.sparse.major=1\n", b"27 SCHILY.xattr.user.k=v\n", b"=", b" ", b"\n", b"10 uid=-1\n", b"9 path=\n", b"19 hdrcharset=BINARY\n",
)  # fmt: skip
NAMES = (
    b".wh.",
    b".wh..wh..opq",
    b".wh..",
    b".wh...",
    b"/",
    b"./",
    b"../",
    b"..",
    b"//",
    b"a",
    b"\xff",
    b"n" * 256,
    b"a/" * 260,
)

TARGETS = (
    Target(name="tar", read=read_tar, refuses=(ImageError,), pieces=FIELDS, max_bytes=16 << 10),
    Target(name="pax", read=read_pax, refuses=(ImageError,), pieces=FIELDS),
    Target(name="whiteout", read=read_whiteout, refuses=(ImageError,), pieces=NAMES),
    Target(
        name="tar-split",
        read=read_tar_split,
        refuses=(DamagedRecord,),
        pieces=(
            HEAD,
            LAYER_HEAD,
            b"R",
            b"F",
            b"E",
            b"\xff\xff\xff\xff",
            b"\0\0\0\0",
            b"../",
            b"a/b",
            b"2",
            b"1",
        ),
    ),
    Target(
        name="layer-marks",
        read=read_marks,
        refuses=(DamagedRecord,),
        pieces=(
            b"rkt layer 1\n",
            b"I",
            b"O",
            b"W",
            b"E",
            b"\0",
            b"/",
            b"..",
            b".",
            b" ",
            b"\n",
            b"9" * 4301,
            b"0",
        ),
        max_bytes=16 << 10,
    ),
)

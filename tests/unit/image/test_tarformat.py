# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import tarfile

import pytest

from rkt.errors import ImageError
from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.tarformat import (
    DIRECTORY,
    END,
    REGULAR,
    SYMLINK,
    Chunks,
    Member,
    members,
    padding,
    parse_pax,
    render,
)
from tests.lib import aci


def read(data: bytes) -> list[Member]:
    """All members; content is passed over."""
    source = Chunks(iter([data]))
    found = []
    for member in members(source, DEFAULT_LIMITS):
        assert sum(map(len, source.content(member.size))) == member.size
        found.append(member)
    return found


def test_ustar_fields_are_read() -> None:
    """Every field of a plain ustar header arrives."""
    data = (
        aci.header(b"name", b"2", mode=0o4755, uid=7, gid=8, mtime=99, link=b"target", prefix=b"some/dir")
        + END
    )
    expected = Member(
        b"some/dir/name", SYMLINK, mode=0o4755, uid=7, gid=8, mtime_ns=99 * 10**9, link=b"target"
    )
    assert read(data) == [expected]


def test_old_names_of_regular_files() -> None:
    """A NUL type and the contiguous type are regular files."""
    data = aci.header(b"a", b"\0") + aci.header(b"b", b"7") + END
    assert [m.kind for m in read(data)] == [REGULAR, REGULAR]


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_the_standard_library(style: int) -> None:
    """What Python's tarfile writes in each of its formats is read with the same meaning."""
    buffer = io.BytesIO()
    names = ["short", "d/" * 40 + "long"] + ([] if style == tarfile.USTAR_FORMAT else ["n" * 200, "é" * 90])
    with tarfile.open(fileobj=buffer, mode="w", format=style) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.mtime = 3, 0o600, 12, 5
            archive.addfile(info, io.BytesIO(b"abc"))
            info = tarfile.TarInfo(name + "-link")
            info.type, info.linkname = tarfile.SYMTYPE, "t" * (90 if style == tarfile.USTAR_FORMAT else 150)
            archive.addfile(info)
    found = read(buffer.getvalue())
    assert [m.path.decode() for m in found[::2]] == names
    assert all((m.size, m.mode, m.uid, m.mtime_ns) == (3, 0o600, 12, 5 * 10**9) for m in found[::2])
    assert {m.link for m in found[1::2]} == {b"t" * (90 if style == tarfile.USTAR_FORMAT else 150)}


def test_base_256_numbers() -> None:
    """GNU's large numbers are read, a negative time too."""
    data = aci.header(b"a", uid=aci.base256(3_000_000, 8), mtime=aci.base256(-5, 12)) + END
    (member,) = read(data)
    assert (member.uid, member.mtime_ns) == (3_000_000, -5 * 10**9)


def test_pax_overrides_the_header() -> None:
    """What a PAX header says of a member replaces the ustar fields."""
    records = {
        b"path": b"p/q",
        b"uid": b"4000000000",
        b"gid": b"5",
        b"mtime": b"-1.25",
        b"size": b"4",
        b"SCHILY.xattr.user.a": b"x\0\n=y",
        b"comment": b"nothing",
    }
    data = aci.pax(records) + aci.header(b"short", size=9) + aci.padded(b"abcd") + END
    expected = Member(
        b"p/q",
        REGULAR,
        uid=4_000_000_000,
        gid=5,
        size=4,
        mtime_ns=-1_250_000_000,
        xattrs={b"user.a": b"x\0\n=y"},
    )
    assert read(data) == [expected]


def test_size_of_members_without_content_is_ignored() -> None:
    """A link whose header states a size has no content, as every reader takes it."""
    data = aci.header(b"a", b"1", size=5000, link=b"b") + aci.header(b"c") + END
    assert [m.path for m in read(data)] == [b"a", b"c"]


HEADER = aci.header(b"file")
PAX = aci.pax({b"path": b"x"})
BROKEN = {
    "no end mark": (HEADER, "end-of-archive"),
    "nothing": (b"", "end-of-archive"),
    "half a header": (HEADER + END[:100], "truncated"),
    "content cut": (aci.header(b"a", size=700) + bytes(700), "truncated"),
    "checksum": (aci.header(b"a", checksum=b"000000\0 ") + END, "checksum"),
    "no magic": (aci.header(b"a", magic=bytes(8)) + END, "magic"),
    "header behind one zero block": (END[:512] + HEADER + END, "behind the end"),
    "bytes behind the end": (HEADER + END + b"hidden", "behind the end"),
    "end behind an extension": (PAX + END, "behind an extension"),
    "two extension headers": (PAX + PAX + HEADER + END, "two extension"),
    "two GNU names": (aci.gnu_long(b"a") + aci.gnu_long(b"b") + HEADER + END, "two GNU"),
    "two GNU links": (aci.gnu_long(b"a", b"K") + aci.gnu_long(b"b", b"K") + HEADER + END, "two GNU"),
    "PAX and GNU": (PAX + aci.gnu_long(b"b") + HEADER + END, "PAX and GNU"),
    "GNU and PAX": (aci.gnu_long(b"b") + PAX + HEADER + END, "two extension"),
    "GNU name that goes on behind its size": (
        aci.header(b"././@LongLink", b"L", size=2, magic=b"ustar  \0") + aci.padded(b"name") + HEADER + END,
        "behind its end",
    ),
    "PAX record behind the size": (
        aci.header(b"pax", b"x", size=9) + aci.padded(b"9 path=a\n9 path=b\n") + HEADER + END,
        "behind its end",
    ),
    "GNU name with a tail": (aci.gnu_long(b"a\0b") + HEADER + END, "behind its end"),
    "global path": (aci.pax({b"path": b"x"}, b"g") + HEADER + END, "global"),
    "sparse by PAX": (aci.pax({b"GNU.sparse.major": b"1"}) + HEADER + END, "sparse"),
    "sparse by type": (aci.header(b"a", b"S") + END, "not supported"),
    "unknown type": (aci.header(b"a", b"Z") + END, "not supported"),
    "uid 2^32-1": (aci.header(b"a", uid=aci.base256(2**32 - 1, 8)) + END, "out of range"),
    "gid 2^32": (aci.pax({b"gid": b"4294967296"}) + HEADER + END, "out of range"),
    "negative uid": (aci.header(b"a", uid=b"\xff" * 8) + END, "out of range"),
    "uid no number": (aci.header(b"a", uid=b"0x10") + END, "not a number"),
    "underscore in octal": (aci.header(b"a", mode=b"0_644") + END, "not a number"),
    "negative size": (aci.header(b"a", size=b"\xff" * 12) + END, "out of range"),
    "time of no file system": (aci.header(b"a", mtime=aci.base256(1 << 40, 12)) + END, "out of range"),
    "file named as directory": (aci.header(b"a/") + END, "directory"),
    "NUL in a PAX path": (aci.pax({b"path": b"a\0b"}) + HEADER + END, "NUL"),
    "huge extension header": (aci.header(b"x", b"x", size=(1 << 20) + 1) + END, "extension header of"),
    "boundless extension header": (aci.header(b"x", b"x", size=aci.base256(1 << 62, 12)) + END, "extension"),
}


@pytest.mark.parametrize(("data", "words"), BROKEN.values(), ids=BROKEN)
def test_ambiguous_or_broken_archives_are_refused(data: bytes, words: str) -> None:
    """An archive that two readers could take differently, or that is cut, is an error that says what is wrong."""
    with pytest.raises(ImageError, match=words):
        read(data)


@pytest.mark.parametrize(
    "payload",
    [
        b"x",
        b" path=a\n",
        b"8 path=a",
        b"9 path=a\n\n",
        b"99 path=a\n",
        b"10 path_a\n",
        b"0 path=a\n",
        b"-9 path=a\n",
        b"9 path=a\n9 path=b\n",
    ],
)
def test_malformed_pax_records_are_refused(payload: bytes) -> None:
    """Lengths that do not fit, records without keyword and repeated keywords are errors."""
    with pytest.raises(ImageError):
        parse_pax(payload)


@pytest.mark.parametrize(
    "member",
    [
        Member(b"a", REGULAR),
        Member(b"d/" * 60 + b"x", DIRECTORY, mode=0o1777),
        Member(b"n" * 101, REGULAR),
        Member(b"d/" + b"n" * 101, REGULAR),
        Member("é".encode(), SYMLINK, link="ü".encode() * 90),
        Member(b"\xff\xfe", REGULAR),
        Member(b"big", REGULAR, size=1 << 40),
        Member(b"ids", REGULAR, uid=2**32 - 2, gid=2097152),
        Member(b"old", REGULAR, mtime_ns=-1_500_000_000),
        Member(b"new", REGULAR, mtime_ns=(1 << 34) * 10**9 + 1),
        Member(b"caps", REGULAR, xattrs={b"security.capability": b"\x01\0\0\x02\n", b"user.b": b""}),
    ],
    ids=lambda m: m.path[:10].decode("latin-1"),
)
def test_what_is_written_is_read(member: Member) -> None:
    """A rendered header parses to the member it was made of."""
    head = render(member)
    assert len(head) % 512 == 0
    source = Chunks(iter([head + bytes(512)]))
    if member.size:
        assert next(iter(members(source, DEFAULT_LIMITS))) == member
    else:
        assert read(head + END) == [member]


def test_written_headers_are_plain_ustar_when_that_is_enough() -> None:
    """No extension header is written without need, and tarfile reads what is written."""
    head = render(Member(b"dir/" * 30 + b"file", REGULAR, mode=0o755, uid=1, gid=2, mtime_ns=10**9))
    assert len(head) == 512
    info = tarfile.TarInfo.frombuf(head, "utf-8", "strict")
    assert (info.name, info.mode, info.uid, info.gid, info.mtime) == ("dir/" * 30 + "file", 0o755, 1, 2, 1)


def test_chunk_borders_do_not_matter() -> None:
    """A tar that arrives byte by byte reads as one that arrives whole."""
    data = aci.pax({b"path": b"x"}) + aci.header(b"a", size=5) + aci.padded(b"hello") + aci.header(b"b") + END
    source = Chunks(iter([data[i : i + 1] for i in range(len(data))]))
    found = [(m.path, b"".join(source.content(m.size))) for m in members(source, DEFAULT_LIMITS)]
    assert found == [(b"x", b"hello"), (b"b", b"")]
    assert source.position == len(data)


def test_headers_are_counted() -> None:
    """A tar of endless headers ends at the limit."""
    data = aci.pax({b"comment": b"x"}, b"g") * 50 + HEADER + END
    with pytest.raises(ImageError, match="more than 20 headers"):
        list(members(Chunks(iter([data])), DEFAULT_LIMITS.replace(entries=20)))


def test_padding() -> None:
    """Padding completes a block."""
    assert [padding(n) for n in (0, 1, 511, 512, 513)] == [0, 511, 1, 0, 511]


@pytest.mark.parametrize(
    ("data", "is_whole"),
    [
        (aci.header(b"a", size=700) + bytes(700), True),
        (aci.header(b"a", size=512) + bytes(512), True),
        (aci.header(b"a", size=700) + bytes(700 + 100), True),
        (aci.header(b"a"), True),
        (aci.header(b"a") + bytes(100), False),
        (aci.header(b"a") + aci.gnu_long(b"b" * 200), False),
        (b"", False),
    ],
    ids=["padding", "mark", "some padding", "empty file", "header", "long name", "nothing"],
)
def test_a_layer_that_ends_early(data: bytes, is_whole: bool) -> None:
    """Where that is allowed, what follows the last content may be missing; a member or a header may not."""

    def read_early() -> None:
        source = Chunks(iter([data] if data else []))
        for member in members(source, DEFAULT_LIMITS, may_end_early=True):
            assert sum(map(len, source.content(member.size))) == member.size

    if is_whole:
        read_early()
        with pytest.raises(ImageError, match="truncated"):
            read(data)
    else:
        with pytest.raises(ImageError, match=r"truncated|ends behind"):
            read_early()

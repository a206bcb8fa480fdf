# SPDX-License-Identifier: Apache-2.0
"""The tar format, read strictly and written deterministically.

Read: POSIX ustar, PAX extended headers, GNU long names and base-256 numbers. What two readers could understand
differently is refused instead of guessed: sparse files, global PAX headers that set more than a comment, repeated or
mixed extension headers, headers without the ustar magic, bytes behind the end of the archive. Headers are cut at fixed
offsets and never searched with regular expressions (CVE-2024-6232, CVE-2025-8194; invariant UN11).

Sources: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

from rkt.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from rkt.image.limits import Limits

    class Source(Protocol):
        """Where headers and padding come from."""

        def take(self, count: int, /) -> bytes:
            """Exactly so many bytes; fewer only at the end of the stream."""


BLOCK = 512
_ZERO_BLOCK = bytes(BLOCK)

#: Member types, as ustar writes them.
REGULAR = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHAR_DEVICE = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"
_REGULAR_TYPES = (b"0", b"\0", b"7")
_PAX = b"x"
_PAX_GLOBAL = b"g"
_GNU_LONG_NAME = b"L"
_GNU_LONG_LINK = b"K"
_KNOWN_TYPES = frozenset((REGULAR, HARD_LINK, SYMLINK, CHAR_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO))
TYPE_WORDS = {
    REGULAR: "regular file",
    HARD_LINK: "hard link",
    SYMLINK: "symbolic link",
    CHAR_DEVICE: "character device",
    BLOCK_DEVICE: "block device",
    DIRECTORY: "directory",
    FIFO: "named pipe",
}

_XATTR = b"SCHILY.xattr."
#: Largest uid or gid; 2^32-1 means "unchanged" to chown(2) (invariant UN9).
MAX_ID = 2**32 - 2
#: Modification times this far from the epoch, in seconds, are refused; no file system keeps them.
_MAX_TIME = 1 << 36
_OCTAL_DIGITS = b"01234567"
_DECIMAL_DIGITS = b"0123456789"
_NANO = 10**9


class Member:
    """One member's metadata.

    Attributes:
        path: as written, extension headers applied.
        kind: one of the type constants; old spellings of a regular file become ``REGULAR``.
        mode: permission bits with setuid, setgid and sticky (07777).
        size: bytes of content that follow; 0 for everything but regular files.
        mtime_ns: modification time in nanoseconds since the epoch.
        link: target of a symbolic or hard link, as written.
        xattrs: name -> value of ``SCHILY.xattr.`` records.
    """

    __slots__ = ("gid", "kind", "link", "mode", "mtime_ns", "path", "size", "uid", "xattrs")

    def __init__(
        self,
        path: bytes,
        kind: bytes,
        *,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime_ns: int = 0,
        link: bytes = b"",
        xattrs: dict[bytes, bytes] | None = None,
    ) -> None:
        self.path = path
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size
        self.mtime_ns = mtime_ns
        self.link = link
        self.xattrs = xattrs or {}

    def __repr__(self) -> str:
        return f"Member({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Member) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    __hash__ = None  # type: ignore[assignment]


def show(path: bytes) -> str:
    """A path from an archive, fit for a message: undecodable and control characters escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


class Chunks:
    """Cuts a stream of chunks into what a tar reader asks for.

    Attributes:
        position: bytes handed out so far.
    """

    __slots__ = ("_chunk", "_chunks", "_offset", "_record", "position")

    def __init__(self, chunks: Iterator[bytes], record: Callable[[bytes], object] | None = None) -> None:
        """Prepare; ``record`` is given everything that ``take`` returns, but not what ``content`` does."""
        self._chunks = chunks
        self._chunk = b""
        self._offset = 0
        self._record = record
        self.position = 0

    def take(self, count: int, /) -> bytes:
        """Exactly ``count`` bytes; fewer only at the end of the stream."""
        end = self._offset + count
        if end <= len(self._chunk):
            data = self._chunk[self._offset : end]
            self._offset = end
        else:
            data = b"".join(self.content(count))
            self.position -= len(data)
        self.position += len(data)
        if self._record is not None and data:
            self._record(data)
        return data

    def content(self, count: int) -> Iterator[memoryview]:
        """The next ``count`` bytes in pieces; fewer only at the end of the stream."""
        while count > 0:
            if self._offset == len(self._chunk):
                self._chunk = next(self._chunks, b"")
                self._offset = 0
                if not self._chunk:
                    return
            piece = memoryview(self._chunk)[self._offset : self._offset + count]
            self._offset += len(piece)
            self.position += len(piece)
            count -= len(piece)
            yield piece


def _take(source: Source, count: int, what: str) -> bytes:
    data = source.take(count)
    if len(data) != count:
        raise ImageError(f"the tar is truncated: it ends inside {what}")
    return data


def padding(size: int) -> int:
    """Bytes between content of that size and the next header."""
    return -size % BLOCK


def members(source: Source, limits: Limits, *, may_end_early: bool = False) -> Iterator[Member]:
    """Parse a tar.

    Between two members the consumer takes exactly ``Member.size`` bytes of content from the source; padding is taken
    here. After the end-of-archive mark only zeros may follow.

    Args:
        source: of headers and padding.
        limits: ceilings.
        may_end_early: the mark, and the padding before it, may be missing. So are layers that umoci makes; that nothing
            else is, their diff ID says.

    Raises:
        ImageError: truncated, ambiguous, beyond a limit, or not a tar.
    """
    pax: dict[bytes, bytes] | None = None
    long_name: bytes | None = None
    long_link: bytes | None = None
    count = 0
    while True:
        block = source.take(BLOCK)
        if block == _ZERO_BLOCK:
            if pax is not None or long_name is not None or long_link is not None:
                raise ImageError("the tar ends behind an extension header")
            _drain(source)
            return
        if not block and may_end_early and count and (pax, long_name, long_link) == (None, None, None):
            return
        if not block:
            raise ImageError("the tar is truncated: the end-of-archive mark is missing")
        if len(block) != BLOCK:
            raise ImageError("the tar is truncated: it ends inside a header")
        count += 1
        if count > limits.entries:
            raise ImageError(f"the tar has more than {limits.entries} headers")
        kind = block[156:157]
        try:
            _check_header(block)
            if kind in {_PAX, _PAX_GLOBAL, _GNU_LONG_NAME, _GNU_LONG_LINK}:
                payload = _extension(source, block, limits)
                if kind == _PAX_GLOBAL:
                    _check_global(parse_pax(payload))
                elif kind == _PAX:
                    if pax is not None or long_name is not None or long_link is not None:
                        raise ImageError("two extension headers for one member")
                    pax = parse_pax(payload)
                elif pax is not None:
                    raise ImageError("PAX and GNU extension headers for one member")
                elif kind == _GNU_LONG_NAME:
                    if long_name is not None:
                        raise ImageError("two GNU long names for one member")
                    long_name = _gnu_text(payload)
                else:
                    if long_link is not None:
                        raise ImageError("two GNU long link names for one member")
                    long_link = _gnu_text(payload)
                continue
            member = _member(block, kind, pax, long_name, long_link)
        except ImageError as e:
            name = repr(show(_text(block, 0, 100)))
            if name in e.message:
                raise
            raise ImageError(f"{e.message} (header {count} of the tar, {name})") from e.__cause__
        pax = long_name = long_link = None
        yield member
        if member.size:
            length = padding(member.size)
            if len(source.take(length)) != length and not (may_end_early and not source.take(1)):
                raise ImageError(f"the tar is truncated: it ends inside {show(member.path)}")


def _extension(source: Source, block: bytes, limits: Limits) -> bytes:
    """Payload of an extension header; other readers look for its end, or for more records, in what follows up to the next block."""
    size = _number(block, 124, 12, "size")
    if size > limits.header_bytes:
        raise ImageError(f"an extension header of {size} bytes, at most {limits.header_bytes} are accepted")
    payload = _take(source, size, "an extension header")
    if _take(source, padding(size), "an extension header").strip(b"\0"):
        raise ImageError("an extension header has bytes behind its end")
    return payload


def _drain(source: Source) -> None:
    """The second zero block, record padding, nothing else."""
    zeros = bytes(64 * BLOCK)
    while data := source.take(len(zeros)):
        if data != zeros[: len(data)]:
            raise ImageError("bytes behind the end of the archive")


def _check_header(block: bytes) -> None:
    magic = block[257:265]
    if magic not in {b"ustar\x0000", b"ustar  \0"}:
        raise ImageError(f"not a tar header: its magic is {magic!r}")
    stored = _number(block, 148, 8, "checksum")
    # POSIX sums unsigned bytes with the field itself taken as spaces.
    if stored != sum(block) - sum(block[148:156]) + 256:
        raise ImageError("a tar header is damaged: its checksum is wrong")


def _number(block: bytes, offset: int, length: int, what: str, *, signed: bool = False) -> int:
    """An octal or base-256 field."""
    field = block[offset : offset + length]
    if field[0] & 0x80:
        if field[0] == 0xFF and signed:
            return int.from_bytes(field, "big", signed=True)
        if field[0] != 0x80:
            raise ImageError(f"{what} in a tar header is out of range")
        return int.from_bytes(field[1:], "big")
    digits = field.rstrip(b" \0").lstrip(b" ")
    if digits.strip(_OCTAL_DIGITS):
        raise ImageError(f"{what} in a tar header is not a number: {field!r}")
    return int(digits, 8) if digits else 0


def _text(block: bytes, offset: int, length: int) -> bytes:
    return block[offset : offset + length].partition(b"\0")[0]


def _gnu_text(payload: bytes) -> bytes:
    text, _, rest = payload.partition(b"\0")
    if rest.strip(b"\0"):
        raise ImageError("a GNU long name has bytes behind its end")
    return text


def _decimal(value: bytes, what: str) -> int:
    if not value or value.strip(_DECIMAL_DIGITS) or len(value) > 20:
        raise ImageError(f"{what} in a PAX header is not a number: {value[:40]!r}")
    return int(value)


def _pax_time_ns(value: bytes) -> int:
    negative = value.startswith(b"-")
    whole, _, fraction = value.removeprefix(b"-").partition(b".")
    if fraction.strip(_DECIMAL_DIGITS):
        raise ImageError(f"mtime in a PAX header is not a number: {value[:40]!r}")
    nanoseconds = _decimal(whole, "mtime") * _NANO + int(fraction[:9].ljust(9, b"0"))
    return -nanoseconds if negative else nanoseconds


def parse_pax(payload: bytes) -> dict[bytes, bytes]:
    """Records of a PAX header: ``LENGTH KEYWORD=VALUE`` and a newline, the length counting all of it.

    Raises:
        ImageError: not well formed, or a keyword appears twice.
    """
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(payload):
        space = payload.find(b" ", position, position + 8)
        digits = payload[position:space] if space > 0 else b""
        if not digits or digits.strip(_DECIMAL_DIGITS):
            raise ImageError("a PAX header is malformed: a record without a length")
        end = position + int(digits)
        equals = payload.find(b"=", space, end)
        if end > len(payload) or equals < 0 or payload[end - 1 : end] != b"\n":
            raise ImageError("a PAX header is malformed: a record with a wrong length")
        keyword = payload[space + 1 : equals]
        if keyword in records:
            raise ImageError(f"a PAX header is ambiguous: {show(keyword)} appears twice")
        records[keyword] = payload[equals + 1 : end - 1]
        position = end
    return records


def _check_global(records: dict[bytes, bytes]) -> None:
    for keyword in records:
        if keyword != b"comment":
            raise ImageError(f"a global PAX header sets {show(keyword)}, which is not supported")


def _member(
    block: bytes,
    kind: bytes,
    pax: dict[bytes, bytes] | None,
    long_name: bytes | None,
    long_link: bytes | None,
) -> Member:
    path = _text(block, 0, 100)
    # GNU headers keep other fields where ustar has the prefix.
    if block[257:265] == b"ustar\x0000" and (prefix := _text(block, 345, 155)):
        path = prefix + b"/" + path
    if kind in _REGULAR_TYPES:
        kind = REGULAR
    elif kind not in _KNOWN_TYPES:
        raise ImageError(f"member {show(path)!r} has type {kind!r}, which is not supported")
    member = Member(
        path,
        kind,
        mode=_number(block, 100, 8, "mode") & 0o7777,
        uid=_number(block, 108, 8, "uid"),
        gid=_number(block, 116, 8, "gid"),
        # Size fields of members without content are ignored by every reader; old writers leave a link's size there.
        size=_number(block, 124, 12, "size") if kind == REGULAR else 0,
        mtime_ns=_number(block, 136, 12, "mtime", signed=True) * _NANO,
        link=_text(block, 157, 100),
    )
    if pax is not None:
        _apply_pax(member, pax)
    if long_name is not None:
        member.path = long_name
    if long_link is not None:
        member.link = long_link
    if kind == REGULAR and member.path.endswith(b"/"):
        # Before ustar had a type for them, directories were files whose name ends in a slash.
        raise ImageError(f"member {show(member.path)!r} is a file with the name of a directory")
    if b"\0" in member.path or b"\0" in member.link:
        raise ImageError(f"member {show(member.path)!r} has a NUL in its name")
    if member.uid > MAX_ID or member.gid > MAX_ID:
        raise ImageError(f"owner {member.uid}:{member.gid} of {show(member.path)!r} is out of range")
    if abs(member.mtime_ns) > _MAX_TIME * _NANO:
        raise ImageError(f"the modification time of {show(member.path)!r} is out of range")
    return member


def _apply_pax(member: Member, records: dict[bytes, bytes]) -> None:
    for keyword, value in records.items():
        if keyword.startswith(_XATTR):
            member.xattrs[keyword[len(_XATTR) :]] = value
        elif not value:
            continue  # "deleted" by an empty value: what the ustar header says holds
        elif keyword == b"path":
            member.path = value
        elif keyword == b"linkpath":
            member.link = value
        elif keyword == b"size":
            if member.kind == REGULAR:
                member.size = _decimal(value, "size")
        elif keyword == b"uid":
            member.uid = _decimal(value, "uid")
        elif keyword == b"gid":
            member.gid = _decimal(value, "gid")
        elif keyword == b"mtime":
            member.mtime_ns = _pax_time_ns(value)
        elif keyword.startswith(b"GNU.sparse."):
            raise ImageError(f"member {show(member.path)!r} is a sparse file, which is not supported")


# --- writing ---------------------------------------------------------------------------------------------------------


def _pax_record(keyword: bytes, value: bytes) -> bytes:
    body = len(keyword) + len(value) + 3  # space, equals sign, newline
    length = body + len(str(body))
    if body + len(str(length)) != length:
        length += 1
    return b"%d %s=%s\n" % (length, keyword, value)


def _split_path(path: bytes) -> tuple[bytes, bytes] | None:
    """(prefix, name) when the path fits a ustar header."""
    if len(path) <= 100:
        return b"", path
    if len(path) > 256:
        return None
    cut = path.rfind(b"/", 0, 156)
    name = path[cut + 1 :]
    if cut <= 0 or not name or len(name) > 100:
        return None
    return path[:cut], name


def _fill(
    kind: bytes, name: bytes, prefix: bytes, link: bytes, numbers: tuple[int, int, int, int, int]
) -> bytes:
    mode, uid, gid, size, mtime = numbers
    block = bytearray(
        b"%s%07o\0%07o\0%07o\0%011o\0%011o\0        %s%sustar\x0000"
        % (name.ljust(100, b"\0"), mode, uid, gid, size, mtime, kind, link.ljust(100, b"\0"))
    )
    block += b"\0" * 64 + b"0000000\x000000000\0" + prefix.ljust(155, b"\0") + b"\0" * 12
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def render(member: Member) -> bytes:
    """Header blocks of a member: ustar, with a PAX header before it only for what ustar cannot say.

    The same member always gives the same bytes: no user or group names, no access times, records in order of keyword.
    """
    records: dict[bytes, bytes] = {_XATTR + name: value for name, value in member.xattrs.items()}
    split = _split_path(member.path)
    if split is None or not member.path.isascii():
        records[b"path"] = member.path
        split = b"", b"PaxPath"
    link = member.link
    if len(link) > 100 or not link.isascii():
        records[b"linkpath"] = link
        link = b"PaxLink"
    numbers = []
    for keyword, value, top in (
        (b"uid", member.uid, 0o7777777),
        (b"gid", member.gid, 0o7777777),
        (b"size", member.size, 0o77777777777),
    ):
        if value > top:
            records[keyword] = b"%d" % value
        numbers.append(value if value <= top else 0)
    seconds, fraction = divmod(member.mtime_ns, _NANO)
    if fraction or not 0 <= seconds <= 0o77777777777:
        records[b"mtime"] = _render_time(member.mtime_ns)
        seconds = min(max(seconds, 0), 0o77777777777)
    if any(not is_utf8(v) for k, v in records.items() if k in {b"path", b"linkpath"}):
        records[b"hdrcharset"] = b"BINARY"
    prefix, name = split
    block = _fill(member.kind, name, prefix, link, (member.mode, *numbers, seconds))  # type: ignore[arg-type]
    if not records:
        return block
    payload = b"".join(_pax_record(keyword, records[keyword]) for keyword in sorted(records))
    head = _fill(_PAX, b"PaxHeader", b"", b"", (0o644, 0, 0, len(payload), 0))
    return b"".join([head, payload, bytes(padding(len(payload))), block])


def _render_time(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    whole, fraction = divmod(abs(nanoseconds), _NANO)
    return (
        sign + (b"%d.%09d" % (whole, fraction)).rstrip(b"0").rstrip(b".")
        if fraction
        else sign + b"%d" % whole
    )


def is_utf8(text: bytes) -> bool:
    """Whether the bytes are UTF-8."""
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


#: What ends an archive.
END = bytes(2 * BLOCK)

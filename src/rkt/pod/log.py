# SPDX-License-Identifier: Apache-2.0
"""What apps wrote, from the log files stage1 keeps in the pod directory.

``logs/APP.log`` has one line per line of output, in the form Kubernetes gave CRI logs::

    2026-01-02T03:04:05.678901234Z stdout F the text

``F`` ends a line, ``P`` is a part of a longer one. ``logs/APP.log.1`` holds what came before a rotation. The directory is not reachable from the pod, but the text is the
app's: it is treated as hostile bytes (LG1, LG3).
"""

from __future__ import annotations

import os

from rkt.errors import PodError
from rkt.schema.record import Record
from rkt.stage0 import contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rkt.pod.lifecycle import Pod

_CHUNK = 1 << 16
#: Longest line that is kept together, in bytes; a longer one comes in parts.
_MAX_LINE_BYTES = 1 << 20


class Entry(Record):
    """One line or part of one.

    Attributes:
        time: RFC 3339 text as recorded.
        stream: ``stdout`` or ``stderr``.
        partial: whether the line goes on in the next entry of that stream.
        begins: whether a line begins here, rather than going on.
        text: bytes as the app wrote them, without the line feed.
    """

    time: bytes
    stream: str
    partial: bool
    text: bytes
    begins: bool = True


def parse_line(line: bytes) -> Entry | None:
    """One line of a log file without its line feed; ``None`` if it is not of that form."""
    fields = line.split(b" ", 3)
    if len(fields) < 3 or fields[1] not in {b"stdout", b"stderr"}:
        return None
    tag = fields[2].split(b":", 1)[0]
    if tag not in {b"F", b"P"}:
        return None
    return Entry(
        time=fields[0],
        stream=fields[1].decode(),
        partial=tag == b"P",
        text=fields[3] if len(fields) == 4 else b"",
    )


def open_logs(pod: Pod, app: str) -> list[int]:
    """Descriptors of an app's log files, the older first; none when it wrote nothing.

    Raises:
        PodError: something else stands where a log should be.
    """
    found: list[int] = []
    try:
        for name in (f"{app}.log.1", f"{app}.log"):
            try:
                flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                fd = os.open(f"{contract.LOGS}/{name}", flags, dir_fd=pod.fd)
            except (FileNotFoundError, NotADirectoryError):
                continue
            found.append(fd)
            if os.fstat(fd).st_mode & 0o170000 != 0o100000:
                raise PodError(f'{contract.LOGS}/{name} in pod "{pod.uuid}" is not a regular file')
    except BaseException:
        for fd in found:
            os.close(fd)
        raise
    return found


def read_entries(fd: int) -> Iterator[Entry]:
    """Entries from the descriptor's position to the present end of the file; a last line still being written is left."""
    goes_on: set[str] = set()
    for line, cut in _lines(fd):
        entry = parse_line(line)
        if entry is None:
            continue
        partial = entry.partial or cut
        yield entry.replace(partial=partial, begins=entry.stream not in goes_on)
        if partial:
            goes_on.add(entry.stream)
        else:
            goes_on.discard(entry.stream)


def _lines(fd: int) -> Iterator[tuple[bytes, bool]]:
    """Whole lines, and whether one was cut because it is longer than allowed; the rest of that one is dropped."""
    rest = b""
    dropping = False
    while chunk := os.read(fd, _CHUNK):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        for line in lines:
            if not dropping:
                yield line, False
            dropping = False
        if len(rest) > _MAX_LINE_BYTES:
            if not dropping:
                yield rest, True
            rest, dropping = b"", True


def read_all(pod: Pod, apps: list[str], tail: int | None) -> Iterator[tuple[str, Entry]]:
    """What several apps wrote, in the order of time.

    Args:
        pod: an open pod.
        apps: their names.
        tail: only this many last lines of each; ``None`` for all.
    """
    from heapq import merge

    def stream(app: str, fds: list[int]) -> Iterator[tuple[str, Entry]]:
        for fd in fds:
            for entry in read_entries(fd):
                yield app, entry

    streams = []
    descriptors = []
    try:
        for app in apps:
            fds = open_logs(pod, app)
            descriptors += fds
            if tail is not None:
                _seek_tail(fds, tail)
            streams.append(stream(app, fds))
        # RFC 3339 times of one form and one zone sort as text.
        yield from merge(*streams, key=lambda item: item[1].time)
    finally:
        for fd in descriptors:
            os.close(fd)


def _seek_tail(fds: list[int], lines: int) -> None:
    for fd in reversed(fds):
        offset, lines = tail_offset(fd, lines)
        os.lseek(fd, offset, os.SEEK_SET)


def tail_offset(fd: int, lines: int) -> tuple[int, int]:
    """Where the last ``lines`` lines of a file begin, in bytes, and how many lines it is short of that."""
    position = os.fstat(fd).st_size
    if lines <= 0 or position == 0:
        return position, lines
    # The line feed that ends the last line begins none.
    index = position - 1 if os.pread(fd, 1, position - 1) == b"\n" else position
    while position > 0:
        start = max(0, position - _CHUNK)
        data = os.pread(fd, position - start, start)
        index = min(index, position) - start
        while (index := data.rfind(b"\n", 0, index)) != -1:
            lines -= 1
            if lines == 0:
                return start + index + 1, 0
        position = index = start
    return 0, lines - 1


def escape_controls(text: bytes) -> bytes:
    r"""Make control characters visible as ``\xNN``, keep tabs and UTF-8 text."""
    decoded = text.decode("utf-8", "backslashreplace")
    return "".join(
        c if c == "\t" or (c >= " " and not "\x7f" <= c <= "\x9f") else f"\\x{ord(c):02x}" for c in decoded
    ).encode()

# SPDX-License-Identifier: Apache-2.0
"""What apps wrote, from the log files stage1 keeps in the pod directory.

``logs/APP.log`` has one line per line of output, in the form Kubernetes gave CRI logs::

    2026-01-02T03:04:05.678901234Z stdout F the text

``F`` ends a line, ``P`` is a part of a longer one. The directory is not reachable from the pod, but the text is the
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


def open_log(pod: Pod, app: str) -> int | None:
    """Descriptor of an app's log, ``None`` when it wrote none.

    Raises:
        PodError: something else stands where the log should be.
    """
    path = f"{contract.LOGS}/{app}.log"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=pod.fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if os.fstat(fd).st_mode & 0o170000 != 0o100000:
        os.close(fd)
        raise PodError(f'log of app "{app}" in pod "{pod.uuid}" is not a regular file')
    return fd


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

    def stream(app: str, fd: int) -> Iterator[tuple[str, Entry]]:
        for entry in read_entries(fd):
            yield app, entry

    streams = []
    descriptors = []
    try:
        for app in apps:
            fd = open_log(pod, app)
            if fd is None:
                continue
            descriptors.append(fd)
            if tail is not None:
                os.lseek(fd, tail_offset(fd, tail), os.SEEK_SET)
            streams.append(stream(app, fd))
        # RFC 3339 times of one form and one zone sort as text.
        yield from merge(*streams, key=lambda item: item[1].time)
    finally:
        for fd in descriptors:
            os.close(fd)


def tail_offset(fd: int, lines: int) -> int:
    """Where the last ``lines`` lines of the file begin, in bytes."""
    end = os.fstat(fd).st_size
    position = end
    wanted = lines
    first = True
    while position > 0:
        start = max(0, position - _CHUNK)
        data = os.pread(fd, position - start, start)
        index = len(data)
        if first and data.endswith(b"\n"):
            index -= 1
        first = False
        while (index := data.rfind(b"\n", 0, index)) != -1:
            wanted -= 1
            if wanted <= 0:
                return start + index + 1
        position = start
    return 0 if lines > 0 else end


def escape_controls(text: bytes) -> bytes:
    r"""Make control characters visible as ``\xNN``, keep tabs and UTF-8 text."""
    decoded = text.decode("utf-8", "backslashreplace")
    return "".join(
        c if c == "\t" or (c >= " " and not "\x7f" <= c <= "\x9f") else f"\\x{ord(c):02x}" for c in decoded
    ).encode()

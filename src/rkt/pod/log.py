# SPDX-License-Identifier: Apache-2.0
"""What apps wrote, from the log files stage1 keeps in the pod directory.

``logs/APP.log`` has one line per line of output, in the form Kubernetes gave CRI logs::

    2026-01-02T03:04:05.678901234Z stdout F the text

``F`` ends a line, ``P`` is a part of a longer one. ``logs/APP.log.1``, ``logs/APP.log.2`` and so on hold what came before
rotations, the last one the oldest. The directory is not reachable from the pod, but the text is the
app's: it is treated as hostile bytes (LG1, LG3).
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from rkt.errors import PodError
from rkt.schema.record import Record
from rkt.stage0 import contract
from rkt.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from rkt.pod.lifecycle import Pod

_CHUNK = 1 << 16
#: Longest line that is kept together, in bytes; a longer one comes in parts.
_MAX_LINE_BYTES = 1 << 20
#: Enough of a record to see its tag, in bytes.
_HEAD_BYTES = 128
#: A pod that is followed is looked at this often, for its end.
_LOOK_SECONDS = 0.2
#: After news this much is waited for more of it.
_GATHER_SECONDS = 0.01


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


def open_logs(pod: Pod, app: str, *, hold: bool = False) -> list[int]:
    """Descriptors of an app's log files, the oldest first; none when it wrote nothing.

    Each follows directly on the one before: a rotation between two looks is noticed.

    Args:
        pod: an open pod.
        app: its name.
        hold: take a shared lock on each, which makes stage1 wait with dropping it (``stage1.common.log``).
    Raises:
        PodError: something else stands where a log should be.
    """
    while True:
        found: list[int] = []
        try:
            names = file_names(pod, app)
            opened = [_open_log(pod, name, found, hold=hold) for name in names]
            if file_names(pod, app) == names and [_identity(pod, name) for name in names] == opened:
                return found
        except BaseException:
            _close_all(found)
            raise
        _close_all(found)


def file_names(pod: Pod, app: str) -> list[str]:
    """Names of an app's log files, the oldest first."""
    current = f"{app}.log"
    older = []
    present = []
    for name in _names(pod):
        if name == current:
            present.append(name)
        elif name.startswith(f"{current}.") and is_number(name[len(current) + 1 :]):
            older.append(name)
    return sorted(older, key=lambda name: -int(name[len(current) + 1 :])) + present


def _open_log(pod: Pod, name: str, found: list[int], *, hold: bool) -> tuple[int, int] | None:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(f"{contract.LOGS}/{name}", flags, dir_fd=pod.fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    found.append(fd)
    held = os.fstat(fd)
    if held.st_mode & 0o170000 != 0o100000:
        raise PodError(f'{contract.LOGS}/{name} in pod "{pod.uuid}" is not a regular file')
    if hold:
        fcntl.flock(fd, fcntl.LOCK_SH)
    return held.st_dev, held.st_ino


def _identity(pod: Pod, name: str) -> tuple[int, int] | None:
    try:
        found = os.stat(f"{contract.LOGS}/{name}", dir_fd=pod.fd, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _identity_of(fd: int) -> tuple[int, int]:
    held = os.fstat(fd)
    return held.st_dev, held.st_ino


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


class AppLog:
    """The log of one app, read on from where it was left, over rotations.

    Attributes:
        app: the app's name.
        missed: whether stage1 dropped a file that may not have been read: this reader fell too far behind.
    """

    __slots__ = (
        "_continues",
        "_dropping",
        "_fds",
        "_follow",
        "_limit",
        "_parts",
        "_pod",
        "_rest",
        "app",
        "missed",
    )

    def __init__(self, pod: Pod, app: str, *, follow: bool = False) -> None:
        self.app = app
        self.missed = False
        self._pod = pod
        self._follow = follow
        self._fds = open_logs(pod, app, hold=follow)
        self._limit = 0
        self._rest = b""
        self._dropping = False
        self._parts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self._continues: set[str] = set()
        self._mark()

    def close(self) -> None:
        """Close the files; what was held for this reader may be dropped then."""
        _close_all(self._fds)

    def refresh(self) -> None:
        """Look what there is to read now; ``entries`` goes as far as that."""
        if not self._fds:
            self._fds = open_logs(self._pod, self.app, hold=self._follow)
        elif _identity(self._pod, f"{self.app}.log") != _identity_of(self._fds[-1]):
            self._follow_rotation()
        self._mark()

    def _mark(self) -> None:
        self._limit = os.fstat(self._fds[-1]).st_size if self._fds else 0

    def _follow_rotation(self) -> None:
        """Add the files after the last one, which is held: without force its successors cannot be dropped."""
        last = _identity_of(self._fds[-1])
        found = open_logs(self._pod, self.app, hold=True)
        identities = [_identity_of(fd) for fd in found]
        if last in identities:
            done = identities.index(last) + 1
            known = found[:done]
            found = found[done:]
            _close_all(known)
        elif len(found) > 1:
            self.missed = True
        self._fds += found

    def seek_tail(self, lines: int) -> None:
        """Pass over what is surely before the last ``lines`` lines."""
        for fd in reversed(self._fds):
            offset, lines = tail_offset(fd, lines)
            os.lseek(fd, offset, os.SEEK_SET)

    def entries(self) -> Iterator[Entry]:
        """Lines up to where the files were at the last ``refresh``; one still being written is left."""
        while self._fds:
            is_last = len(self._fds) == 1
            for line, cut in self._lines(self._fds[0], self._limit if is_last else None):
                entry = parse_line(line)
                if entry is not None:
                    yield from self._join(entry, cut=cut)
            if is_last:
                return
            os.close(self._fds.pop(0))
            self._rest, self._dropping = b"", False

    def leftovers(self) -> Iterator[Entry]:
        """Beginnings of lines whose ends will not come."""
        for stream, parts in self._parts.items():
            if parts:
                yield self._entry(Entry(time=parts[0], stream=stream, partial=True, text=b""))

    def _join(self, entry: Entry, *, cut: bool) -> Iterator[Entry]:
        """Put the parts of a line together. The first item of the list is the time of the last part."""
        parts = self._parts[entry.stream]
        if entry.partial or cut:
            parts[:1] = [entry.time]
            parts.append(entry.text)
            if not cut and sum(map(len, parts)) <= _MAX_LINE_BYTES:
                return
            yield self._entry(entry.replace(partial=True, text=b""))
        elif parts or entry.stream in self._continues:
            yield self._entry(entry)
        else:
            yield entry

    def _entry(self, last: Entry) -> Entry:
        stream = last.stream
        parts = self._parts[stream]
        text = b"".join(parts[1:]) + last.text
        begins = stream not in self._continues
        parts.clear()
        if last.partial:
            self._continues.add(stream)
        else:
            self._continues.discard(stream)
        return Entry(time=last.time, stream=stream, partial=last.partial, text=text, begins=begins)

    def _lines(self, fd: int, limit: int | None) -> Iterator[tuple[bytes, bool]]:
        """Whole lines, and whether one was cut because it is longer than allowed; the rest of that one is dropped."""
        while True:
            left = _CHUNK if limit is None else min(_CHUNK, limit - os.lseek(fd, 0, os.SEEK_CUR))
            chunk = os.read(fd, left) if left > 0 else b""
            if not chunk:
                return
            lines = (self._rest + chunk).split(b"\n")
            self._rest = lines.pop()
            for line in lines:
                if not self._dropping:
                    yield line, False
                self._dropping = False
            if len(self._rest) > _MAX_LINE_BYTES:
                if not self._dropping:
                    yield self._rest, True
                self._rest, self._dropping = b"", True


class Reader:
    """The logs of several apps of a pod, in the order of time.

    Args:
        pod: an open pod.
        apps: their names; ``None`` for all, also those that come later.
        tail: only this many last lines of each at first; ``None`` for all.
        since: only lines of this time or later, in the form of the log; empty for all.
        until: only lines before this time; empty for all.
        follow: hold the files until they are read; see ``turns``.
    """

    def __init__(
        self,
        pod: Pod,
        apps: list[str] | None,
        *,
        tail: int | None = None,
        since: bytes = b"",
        until: bytes = b"",
        follow: bool = False,
    ) -> None:
        self._pod = pod
        self._apps = apps
        self._tail = tail
        self._since = since
        self._until = until
        self._follow = follow
        self._logs: dict[str, AppLog] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for log in self._logs.values():
            log.close()

    @property
    def apps(self) -> list[str]:
        """Names of the apps met so far."""
        return list(self._logs)

    def missed(self) -> list[str]:
        """Apps of whose logs something may be missing since the last call."""
        found = [app for app, log in self._logs.items() if log.missed]
        for app in found:
            self._logs[app].missed = False
        return found

    def turns(self) -> Iterator[Iterator[tuple[str, Entry]]]:
        """What is there now; when following, again and again what is new, until the pod has ended."""
        from rkt.pod import status

        if not self._follow:
            yield self._turn(last=True)
            return
        with _Watch(self._pod) as watch:
            while True:
                # In this order: what was written before the end is read after it was seen.
                ended = not self._pod.refresh() or status.has_ended(self._pod) or self._is_past()
                yield self._turn(last=ended)
                if ended:
                    return
                watch.wait()

    def _is_past(self) -> bool:
        import time

        return bool(self._until) and timestamp(time.time_ns()) >= self._until

    def _turn(self, *, last: bool) -> Iterator[tuple[str, Entry]]:
        from heapq import merge

        fresh: set[str] = set()
        for app in log_names(self._pod) if self._apps is None else self._apps:
            if app not in self._logs:
                self._logs[app] = AppLog(self._pod, app, follow=self._follow)
                fresh.add(app)
            else:
                self._logs[app].refresh()
        tail, self._tail = self._tail, None
        streams = [
            self._of_app(log, tail if app in fresh else None, last=last) for app, log in self._logs.items()
        ]
        # RFC 3339 times of one form and one zone sort as text.
        return merge(*streams, key=lambda item: item[1].time)

    def _of_app(self, log: AppLog, tail: int | None, *, last: bool) -> Iterator[tuple[str, Entry]]:
        if tail is None:
            return self._wanted(log, last=last)
        from collections import deque

        if not self._until:
            log.seek_tail(tail)
        return iter(deque(self._wanted(log, last=last), tail))

    def _wanted(self, log: AppLog, *, last: bool) -> Iterator[tuple[str, Entry]]:
        for entry in log.entries():
            if entry.time >= self._since and (not self._until or entry.time < self._until):
                yield log.app, entry
        if last:
            for entry in log.leftovers():
                yield log.app, entry


class _Watch:
    """Waits for news in a pod's log directory: by inotify(7), or by the clock where there is none to be had."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self._fd = -1
        self._is_watching = False

    def __enter__(self) -> Self:
        from rkt.linux import libc

        with contextlib.suppress(OSError):
            # A user may have 128 of them by default; without one it is a matter of looking more often than needed.
            self._fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def wait(self) -> None:
        """Return at news, and at the latest when the pod should be looked at again."""
        import select
        import time

        from rkt.linux import libc

        if self._fd >= 0 and not self._is_watching:
            with contextlib.suppress(OSError):  # the directory comes with the first app
                path = b"/proc/self/fd/%d/%s" % (self._pod.fd, contract.LOGS.encode())
                libc.inotify_add_watch(self._fd, path, libc.IN_MODIFY | libc.IN_CREATE | libc.IN_MOVED_TO)
                self._is_watching = True
                return
        if not self._is_watching:
            time.sleep(_LOOK_SECONDS)
            return
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if poll.poll(_LOOK_SECONDS * 1000):
            # An app that writes often is read a hundred times a second, not at each word.
            time.sleep(_GATHER_SECONDS)
            with contextlib.suppress(BlockingIOError):
                os.read(self._fd, _CHUNK)


def log_names(pod: Pod) -> list[str]:
    """Names of the apps that have a log, sorted; also those that were removed from the pod."""
    found = set()
    for name in _names(pod):
        app, dot, rest = name.partition(".log")
        if dot and (not rest or (rest[0] == "." and is_number(rest[1:]))):
            found.add(app)
    return sorted(found)


def _names(pod: Pod) -> list[str]:
    try:
        fd = os.open(
            contract.LOGS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=pod.fd
        )
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def timestamp(time_ns: int) -> bytes:
    """A time in the form of the log."""
    import time

    seconds = time.gmtime(time_ns // 1_000_000_000)
    return b"%04d-%02d-%02dT%02d:%02d:%02d.%09dZ" % (*seconds[:6], time_ns % 1_000_000_000)


def tail_offset(fd: int, lines: int) -> tuple[int, int]:
    """Where to begin so that the last ``lines`` lines are read whole, and how many lines the file is short of that.

    Parts of lines are not counted; the offset is so far before the first line wanted that its parts are behind it.
    """
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
            lines -= _ends_line(fd, start + index + 1)
            if lines == 0:
                return _begin_before(fd, start + index + 1), 0
        position = index = start
    return 0, lines - _ends_line(fd, 0)


def _ends_line(fd: int, offset: int) -> bool:
    entry = parse_line(os.pread(fd, _HEAD_BYTES, offset).split(b"\n", 1)[0])
    return entry is not None and not entry.partial


def _begin_before(fd: int, offset: int) -> int:
    """The beginning of a record that is before ``offset`` by the longest line or more, or by none if none has parts."""
    start = max(0, offset - _MAX_LINE_BYTES)
    if start == 0:
        return 0
    data = os.pread(fd, offset - start, start)
    return start + data.find(b"\n") + 1


def escape_controls(text: bytes) -> bytes:
    r"""Make control characters visible as ``\xNN``, keep tabs and UTF-8 text."""
    decoded = text.decode("utf-8", "backslashreplace")
    return "".join(
        c if c == "\t" or (c >= " " and not "\x7f" <= c <= "\x9f") else f"\\x{ord(c):02x}" for c in decoded
    ).encode()

# SPDX-License-Identifier: Apache-2.0
"""An app's log file: Kubernetes' CRI text format, bounded.

One line per line of output: ``2026-01-31T12:00:00.123456789Z stdout F text``. ``P`` instead of ``F`` marks a piece of a
line that goes on in the next record. A file that reaches its limit becomes ``APP.log.1``, that one ``APP.log.2`` if there
may be three, and a new one begins, so an app that never stops talking takes at most so many times the limit (invariant
LG2). The directory is out of the app's reach (LG1).

``rkt logs --follow`` holds a shared flock(2) on what it has not read yet. While it holds the oldest file, that one is not
replaced and ``APP.log`` grows past its limit instead, to ``PATIENCE`` times the limit; then the reader loses.

With a limit of lines a second, what comes on top in that second is left out, and the log says how much: in a record of
``stderr`` whose tag is ``F:rkt``.
"""

from __future__ import annotations

import fcntl
import os
import time

from rkt.errors import Stage1Error
from rkt.stage0 import contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage1.common.journal import Journal
    from rkt.stage1.common.pod import PodApp

#: A file larger than this is rotated, in bytes, and there are so many of them, unless the operator says otherwise.
MAX_FILE_BYTES = 16 << 20
MAX_FILES = 2
#: With a reader that is behind, the file may become this many times as large.
PATIENCE = 4
#: A line longer than this is cut into pieces, in bytes.
MAX_LINE_BYTES = 16 << 10


def find_driver(app: PodApp) -> str:
    """Where an app's output goes, besides its file: empty for nowhere.

    Raises:
        Stage1Error: it is to be in the journal, and there is none.
    """
    driver = app.runtime.annotations.get(contract.ANNOTATION_LOG_DRIVER, "auto")
    if driver != "file" and os.path.exists(contract.JOURNAL_SOCKET):
        return "journald"
    if driver == "journald":
        raise Stage1Error(
            f"app {app.name!r}: there is no journal at {contract.JOURNAL_SOCKET}", hint="--log-driver=file"
        )
    return ""


def open_log(app: PodApp, driver: str) -> LogFile:
    """The log of an app of the pod whose directory is the working directory, as its annotations ask for it."""
    log = LogFile(f"{contract.LOGS}/{app.name}.log")
    if any(name.startswith(contract.ANNOTATIONS_OF_LOGS) for name in app.runtime.annotations):
        from rkt.schema.log_options import parse_log_options

        options = parse_log_options(app.runtime.annotations)
        log.limit(options.size_bytes, options.files, options.rate)
    if driver:
        log.journal = _open_journal(app)
    return log


def _open_journal(app: PodApp) -> Journal:
    from rkt.stage1.common.journal import Journal

    return Journal(journal_fields(app))


def journal_fields(app: PodApp) -> dict[str, str]:
    """What each line of an app says of it in a journal."""
    from rkt.linux import files

    uuid = os.path.basename(os.getcwd())
    try:
        name = files.read_bounded("name", 1024).decode().strip()
    except OSError:
        name = ""
    version = app.image.labels.get("version", "")
    return {
        "SYSLOG_IDENTIFIER": app.name,
        "CONTAINER_ID": uuid,
        "CONTAINER_NAME": f"{name or uuid}/{app.name}",
        "RKT_POD_UUID": uuid,
        "RKT_POD_NAME": name,
        "RKT_APP": app.name,
        "RKT_IMAGE": f"{app.image.name}:{version}" if version else str(app.image.name),
    }


class _Rate:
    """Counts lines second by second."""

    __slots__ = ("_count", "_limit", "_since", "left_out")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._since = 0.0
        self._count = 0
        self.left_out = 0

    def begin(self) -> bytes:
        """To be called before lines of one moment are admitted; what is to be said of the second that is over."""
        now = time.monotonic()
        if now - self._since < 1.0:
            return b""
        self._since = now
        self._count = 0
        return self.report()

    def report(self) -> bytes:
        """What was left out since the last report."""
        if not self.left_out:
            return b""
        text = b"rkt: %d lines left out, the log takes %d a second" % (self.left_out, self._limit)
        self.left_out = 0
        return text

    def admits(self) -> bool:
        """Count a line; false when it is one too many."""
        self._count += 1
        if self._count <= self._limit:
            return True
        self.left_out += 1
        return False


class LogFile:
    """Appends what an app says to its file, and hands it to the journal if there is one.

    Attributes:
        journal: set by ``open_log``.
    """

    __slots__ = (
        "_fd",
        "_is_torn",
        "_max_bytes",
        "_max_files",
        "_partial",
        "_path",
        "_rate",
        "_size",
        "journal",
    )

    def __init__(self, path: str) -> None:
        self._path = path
        self._max_bytes = MAX_FILE_BYTES
        self._max_files = MAX_FILES
        self._rate: _Rate | None = None
        self.journal: Journal | None = None
        self._partial = {b"stdout": b"", b"stderr": b""}
        self._is_torn = False
        self._open()

    def limit(self, size_bytes: int, files: int, rate: int) -> None:
        """Keep within other limits than the usual ones; a rate of 0 is none."""
        self._max_bytes = size_bytes
        self._max_files = files
        self._rate = _Rate(rate) if rate else None

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o640)
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: bytes, data: bytes) -> None:
        """Append ``data`` of ``stdout`` or ``stderr``; an unfinished line waits for its rest."""
        data = self._partial[stream] + data
        stamp = timestamp()
        records = []
        if self._rate is not None:
            records += self._notice(stamp, self._rate.begin())
        *lines, rest = data.split(b"\n")
        for line in lines:
            if self._rate is not None and not self._rate.admits():
                continue
            while len(line) > MAX_LINE_BYTES:
                records.append(self._record(stamp, stream, b"P", line[:MAX_LINE_BYTES]))
                line = line[MAX_LINE_BYTES:]  # noqa: PLW2901 - the rest of the same line
            records.append(self._record(stamp, stream, b"F", line))
        while len(rest) > MAX_LINE_BYTES:
            # A line without end is no way around the limit.
            if self._rate is None or self._rate.admits():
                records.append(self._record(stamp, stream, b"P", rest[:MAX_LINE_BYTES]))
            rest = rest[MAX_LINE_BYTES:]
        self._partial[stream] = rest
        whole = b"".join(records)
        # No file becomes larger than it may be by what came at once.
        for data in (whole,) if len(whole) <= self._max_bytes // 2 else records:
            self._append(data)

    def complete(self, *streams: bytes) -> None:
        """Write unfinished lines, of these streams or of both, which nothing more comes of."""
        stamp = timestamp()
        for stream in streams or tuple(self._partial):
            if rest := self._partial[stream]:
                self._append(self._record(stamp, stream, b"F", rest))
                self._partial[stream] = b""

    def finish(self) -> None:
        """Write unfinished lines and close."""
        self.complete()
        stamp = timestamp()
        if self._rate is not None:
            self._append(b"".join(self._notice(stamp, self._rate.report())))
        os.close(self._fd)
        if self.journal is not None:
            self.journal.close()

    def covers(self, fd: int) -> bool:
        """Whether what is written here needs not go to one of our own streams, because that is the journal too."""
        return self.journal is not None and self.journal.covers(fd)

    def _record(self, stamp: bytes, stream: bytes, tag: bytes, text: bytes) -> bytes:
        if self.journal is not None:
            self.journal.send(stream, text, partial=tag == b"P")
        return b"%s %s %s %s\n" % (stamp, stream, tag, text)

    def _notice(self, stamp: bytes, text: bytes) -> list[bytes]:
        """A record of our own."""
        return [self._record(stamp, b"stderr", b"F:rkt", text)] if text else []

    def _append(self, data: bytes) -> None:
        if not data:
            return
        size = self._size + len(data)
        if size > self._max_bytes and self._size:
            self._rotate(force=size > self._max_bytes * PATIENCE)
        view = memoryview(b"\n" + data if self._is_torn else data)
        self._is_torn = False
        while view:
            try:
                written = os.write(self._fd, view)
            except OSError:
                # A full disk must not stop the app; what does not fit is lost. The next record begins a line.
                self._is_torn = True
                return
            self._size += written
            view = view[written:]

    def _rotate(self, *, force: bool) -> None:
        oldest = f"{self._path}.{self._max_files - 1}"
        try:
            fd = os.open(oldest, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            fd = -1  # there is none yet
        try:
            if fd >= 0:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    if not force:
                        return
            full = self._fd
            try:
                for number in range(self._max_files - 2, 0, -1):
                    try:
                        os.rename(f"{self._path}.{number}", f"{self._path}.{number + 1}")
                    except FileNotFoundError:
                        continue  # not that many yet
                os.rename(self._path, f"{self._path}.1")
                self._open()
            except OSError:
                return  # a full disk, say: the old file goes on, wherever it is now
            os.close(full)
            self._is_torn = False
        finally:
            if fd >= 0:
                os.close(fd)


def timestamp() -> bytes:
    """Now, in RFC 3339 with nanoseconds."""
    now = time.time_ns()
    seconds = time.gmtime(now // 1_000_000_000)
    return b"%04d-%02d-%02dT%02d:%02d:%02d.%09dZ" % (*seconds[:6], now % 1_000_000_000)

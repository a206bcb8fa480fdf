# SPDX-License-Identifier: Apache-2.0
"""What a fetch tells people, or programs, on stderr: messages, diagnostics, progress (spec cli §1.4, §5.7).

For programs each line is one JSON object, whose ``event`` says what else is in it::

    message    text
    download   url, done_bytes, total_bytes (null when the server did not say)
    upload     likewise
    image      reference, name, id
"""

from __future__ import annotations

import contextlib
import json
import sys
import time

from rkt.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID

    from rkt.config.settings import Settings
    from rkt.store.record import ImageRecord

#: How progress is shown: a bar on a terminal and else lines; lines; one JSON object per line; not at all.
AUTO = "auto"
PLAIN = "plain"
JSON = "json"
NONE = "none"
STYLES = (AUTO, PLAIN, JSON, NONE)
_LINE_SECONDS = 1.0
_EVENT_SECONDS = 0.1
#: Of a reference, at most so many characters stand beside its figures.
_LABEL_LENGTH = 48


class Reporter:
    """Words and figures; replaced by tests, and by who tells another process (``fetch.crew``)."""

    def __init__(self, settings: Settings, style: str = AUTO, *, upload: bool = False) -> None:
        """``style`` is one of ``STYLES``; ``upload`` says which way transfers go."""
        self._settings = settings
        self._style = style
        self._verb, self._event = ("Uploading", "upload") if upload else ("Downloading", "download")
        self._bars: _Bars | None = None
        self._meters: dict[str, _Lines | _Events] = {}

    def message(self, text: str, *, source: str = "image") -> None:
        """For everybody; ``source`` is what each line starts with."""
        self.end(of="")
        if self._bars is not None:
            self._bars.hide()
        if self._style == JSON:
            for line in text.splitlines():
                _write_event({"event": "message", "text": line})
        else:
            _write("".join(f"{source}: {line}\n" for line in text.splitlines()))

    def debug(self, text: str) -> None:
        """With ``--debug`` only."""
        if self._settings.debug:
            self.message(text)

    def progress(self, label: str, done: int, total: int | None, url: str = "", *, of: str = "") -> None:
        """How far a transfer is.

        Args:
            label: what is transferred.
            done: bytes so far.
            total: the whole size where it is known.
            url: from where, for programs.
            of: tells one of several transfers from the others.
        """
        if self._style == NONE:
            return
        if of:
            label = f"{label} {of if len(of) <= _LABEL_LENGTH else '…' + of[-_LABEL_LENGTH:]}"
        if of not in self._meters and self._make_bars():
            assert self._bars is not None
            self._bars.update(of, f"{self._verb} {label}", done, total)
            return
        if of not in self._meters:
            self._meters[of] = (
                _Events(self._event, url) if self._style == JSON else _Lines(f"{self._verb} {label}")
            )
        self._meters[of].update(done, total)

    def end(self, *, of: str | None = None) -> None:
        """A transfer is over, or all of them; harmless when there was none."""
        for key in list(self._meters) if of is None else [of]:
            if meter := self._meters.pop(key, None):
                meter.close()
        if self._bars is not None and self._bars.end(of):
            self._bars = None

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """While this lasts, whoever sits at the terminal is spoken to by nobody else."""
        self.end()
        yield

    def result(self, reference: str, image: ImageRecord) -> None:
        """What a reference led to; people see the hash on standard output."""
        if self._style == JSON:
            _write_event({"event": "image", "reference": reference, "name": image.name, "id": image.image_id})

    def _make_bars(self) -> bool:
        """Whether bars can be drawn."""
        if self._bars is None and self._style == AUTO and sys.stderr is not None and sys.stderr.isatty():
            from rkt.privsep import libraries

            libraries.enable(self._settings.installation)
            with contextlib.suppress(ImportError):
                self._bars = _Bars()
        return self._bars is not None


class _Bars:
    """Bars on a terminal, one for each transfer; drawn by no thread of their own, which a fork would not copy."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as SpeedColumn

        self._progress: Progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            SpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            auto_refresh=False,
        )
        self._tasks: dict[str, TaskID] = {}
        self._open: set[str] = set()
        self._is_shown = False

    def update(self, of: str, label: str, done: int, total: int | None) -> None:
        if of not in self._tasks:
            # Only now is the size known, if ever: a bar that first swings to and fro would be unquiet.
            self._tasks[of] = self._progress.add_task(printable(label), total=total)
        self._open.add(of)
        self._progress.update(self._tasks[of], completed=done, total=total)
        if not self._is_shown:
            self._progress.live.transient = False
            self._progress.start()
            self._is_shown = True
        self._progress.refresh()

    def hide(self) -> None:
        """Make room for words; the next figure brings the bars back."""
        if self._is_shown:
            self._progress.live.transient = bool(self._open)
            self._progress.stop()
            self._is_shown = False

    def end(self, of: str | None) -> bool:
        """One is over, or all are; True when they are to be forgotten."""
        self._open = set() if of is None else self._open - {of}
        if not self._open:
            self.hide()
        return not self._open


class _Lines:
    """No terminal: figures, one line per second."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._next = time.monotonic() + _LINE_SECONDS
        self._pending = self._shown = ""

    def update(self, done: int, total: int | None) -> None:
        size = " of an unknown total size" if total is None else f"/{_figure(total)}"
        self._pending = f"{self._label}: {_figure(done)}{size}\n"
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_SECONDS
            self.close()

    def close(self) -> None:
        if self._pending != self._shown:
            _write(self._pending)
            self._shown = self._pending


class _Events:
    """For programs: a line of JSON ten times a second and at the end."""

    def __init__(self, event: str, url: str) -> None:
        self._event = event
        self._url = url
        self._next = 0.0
        self._pending: tuple[int, int | None] | None = None

    def update(self, done: int, total: int | None) -> None:
        self._pending = (done, total)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVENT_SECONDS
            self.close()

    def close(self) -> None:
        if self._pending is not None:
            done, total = self._pending
            _write_event({"event": self._event, "url": self._url, "done_bytes": done, "total_bytes": total})
            self._pending = None


def _figure(count: int) -> str:
    """Decimal units, three significant digits."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            digits = 0 if unit == "B" or value >= 99.95 else 1 if value >= 9.995 else 2
            return f"{value:.{digits}f} {unit}"
        value /= 1000
    raise AssertionError(count)


def _write_event(event: dict[str, object]) -> None:
    # ASCII only: a foreign character can do nothing to a terminal (invariant LG3).
    if sys.stderr is not None:
        sys.stderr.write(json.dumps(event, separators=(",", ":")) + "\n")
        sys.stderr.flush()


def _write(text: str) -> None:
    if sys.stderr is None:
        return
    # Names and URLs are foreign: nothing in them moves the cursor (invariant LG3).
    sys.stderr.write(printable(text))
    sys.stderr.flush()

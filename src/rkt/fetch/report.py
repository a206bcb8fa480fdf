# SPDX-License-Identifier: Apache-2.0
"""What a fetch tells people, or programs, on stderr: messages, diagnostics, progress (spec cli §1.4, §5.7).

For programs each line is one JSON object, whose ``event`` says what else is in it::

    message    text
    download   url, done_bytes, total_bytes (null when the server did not say)
    image      reference, name, id
"""

from __future__ import annotations

import json
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
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


class Reporter:
    """Words and a bar; replaced by tests."""

    def __init__(self, settings: Settings, style: str = AUTO) -> None:
        """``style`` is one of ``STYLES``."""
        self._settings = settings
        self._style = style
        self._meter: _Bar | _Lines | _Events | None = None

    def message(self, text: str, *, source: str = "image") -> None:
        """For everybody; ``source`` is what each line starts with."""
        self.end()
        if self._style == JSON:
            for line in text.splitlines():
                _write_event({"event": "message", "text": line})
        else:
            _write("".join(f"{source}: {line}\n" for line in text.splitlines()))

    def debug(self, text: str) -> None:
        """With ``--debug`` only."""
        if self._settings.debug:
            self.message(text)

    def progress(self, label: str, done: int, total: int | None, url: str = "") -> None:
        """How far a transfer is: bytes so far, and the whole size where it is known; from where, for programs."""
        if self._style == NONE:
            return
        if self._meter is None:
            self._meter = self._make_meter(label, url)
        self._meter.update(done, total)

    def end(self) -> None:
        """The transfer is over; harmless when there was none."""
        if self._meter is not None:
            self._meter.close()
            self._meter = None

    def result(self, reference: str, image: ImageRecord) -> None:
        """What a reference led to; people see the hash on standard output."""
        if self._style == JSON:
            _write_event({"event": "image", "reference": reference, "name": image.name, "id": image.image_id})

    def _make_meter(self, label: str, url: str) -> _Bar | _Lines | _Events:
        if self._style == JSON:
            return _Events(url)
        if self._style == AUTO and sys.stderr is not None and sys.stderr.isatty():
            from rkt.privsep import libraries

            libraries.enable(self._settings.installation)
            try:
                return _Bar(label)
            except ImportError:
                pass
        return _Lines(label)


class _Bar:
    """A bar on a terminal."""

    def __init__(self, label: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as SpeedColumn

        self._progress: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            SpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
        )
        self._label = label
        self._task: TaskID | None = None

    def update(self, done: int, total: int | None) -> None:
        if self._task is None:
            # Only now is the size known, if ever: a bar that first swings to and fro would be unquiet.
            self._task = self._progress.add_task(f"Downloading {self._label}", total=total)
            self._progress.start()
        self._progress.update(self._task, completed=done, total=total)

    def close(self) -> None:
        self._progress.stop()


class _Lines:
    """No terminal: figures, one line per second."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._next = time.monotonic() + _LINE_SECONDS
        self._pending = self._shown = ""

    def update(self, done: int, total: int | None) -> None:
        size = " of an unknown total size" if total is None else f"/{_figure(total)}"
        self._pending = f"Downloading {self._label}: {_figure(done)}{size}\n"
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_SECONDS
            self.close()

    def close(self) -> None:
        if self._pending != self._shown:
            _write(self._pending)
            self._shown = self._pending


class _Events:
    """For programs: a line of JSON ten times a second and at the end."""

    def __init__(self, url: str) -> None:
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
            _write_event({"event": "download", "url": self._url, "done_bytes": done, "total_bytes": total})
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
    sys.stderr.write("".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text))
    sys.stderr.flush()

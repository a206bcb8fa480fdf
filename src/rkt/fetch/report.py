# SPDX-License-Identifier: Apache-2.0
"""What a fetch tells people on stderr: messages, diagnostics, progress (spec cli §1.4, §5.7)."""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from rkt.config.settings import Settings

_LINE_SECONDS = 1.0


class Reporter:
    """Words and a bar; replaced by tests."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bar: _Bar | _Lines | None = None

    def message(self, text: str) -> None:
        """For everybody."""
        self.end()
        _write("".join(f"image: {line}\n" for line in text.splitlines()))

    def debug(self, text: str) -> None:
        """With ``--debug`` only."""
        if self._settings.debug:
            self.message(text)

    def progress(self, label: str, done: int, total: int | None) -> None:
        """How far a transfer is: bytes so far, and the whole size where it is known."""
        if self._bar is None:
            self._bar = _make_bar(self._settings, label)
        self._bar.update(done, total)

    def end(self) -> None:
        """The transfer is over; harmless when there was none."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _make_bar(settings: Settings, label: str) -> _Bar | _Lines:
    if sys.stderr is not None and sys.stderr.isatty():
        from rkt.privsep import libraries

        libraries.enable(settings.installation)
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


def _figure(count: int) -> str:
    """Decimal units, three significant digits."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            digits = 0 if unit == "B" or value >= 99.95 else 1 if value >= 9.995 else 2
            return f"{value:.{digits}f} {unit}"
        value /= 1000
    raise AssertionError(count)


def _write(text: str) -> None:
    if sys.stderr is None:
        return
    # Names and URLs are foreign: nothing in them moves the cursor (invariant LG3).
    sys.stderr.write("".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text))
    sys.stderr.flush()

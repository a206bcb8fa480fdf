# SPDX-License-Identifier: Apache-2.0
"""Use over time: the samples of ``rkt stats``, scales with round numbers, and a drawing of dots for terminals."""

from __future__ import annotations

import math

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rkt.pod.usage import Usage

    #: (seconds since the first sample, value)
    Points = list[tuple[float, float]]

_ROWS = 8
_LABEL_COLUMNS = 9
_MOST_COLUMNS = 120
_LEAST_COLUMNS = 30
#: Bit of each dot of a braille character, by column and row (Unicode, chapter 21.1).
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BRAILLE = 0x2800
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


class Series:
    """One pod or app over time."""

    __slots__ = ("cpu", "label", "limit_bytes", "memory")

    def __init__(self, label: str) -> None:
        self.label = label
        self.limit_bytes = 0
        #: Percent of one CPU, of the time before each point.
        self.cpu: Points = []
        #: Bytes.
        self.memory: Points = []


class History:
    """Everything that was sampled."""

    def __init__(self) -> None:
        self._start_ns = 0
        self._last: dict[tuple[str, str], Usage] = {}
        self._series: dict[tuple[str, str], Series] = {}

    def add(self, samples: Sequence[Usage]) -> None:
        """One round of samples; a first one of a pod only says from where to count."""
        from rkt.pod.usage import cpu_percent

        for each in samples:
            self._start_ns = self._start_ns or each.at_ns
            before = self._last.get(each.key)
            self._last[each.key] = each
            if before is None:
                continue
            series = self._series.get(each.key)
            if series is None:
                pod = each.name or each.uuid[:8]
                series = self._series[each.key] = Series(f"{pod}/{each.app}" if each.app else pod)
            seconds = (each.at_ns - self._start_ns) / 1e9
            series.limit_bytes = each.memory_limit_bytes
            series.cpu.append((seconds, cpu_percent(before, each)))
            series.memory.append((seconds, float(each.memory_bytes)))

    @property
    def series(self) -> list[Series]:
        """Each pod or app with at least one point."""
        return list(self._series.values())

    @property
    def span(self) -> float:
        """Seconds from the first sample to the last."""
        return max((series.cpu[-1][0] for series in self.series), default=0.0)


def ticks(most: float, *, binary: bool = False, count: int = 4) -> list[float]:
    """Round numbers from 0 to at least ``most``, in about ``count`` steps of equal size.

    Args:
        most: largest value to be shown.
        binary: whether steps are round in powers of 1024, for bytes.
        count: how many steps are wanted.
    """
    most = max(most, 1.0)
    rough = most / count
    base = 1024.0 ** max(0, math.floor(math.log(rough, 1024))) if binary else 1.0
    power = base * 10.0 ** math.floor(math.log10(rough / base))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    return [step * number for number in range(math.ceil(most / step * 0.999) + 1)]


def percent_text(value: float) -> str:
    """``25%``."""
    return f"{value:g}%"


def bytes_text(value: float) -> str:
    """In the unit that fits."""
    return _in_unit(value, min(int(math.log(max(value, 1.0), 1024)), len(_UNITS) - 1))


def bytes_label(scale: Sequence[float]) -> Callable[[float], str]:
    """What names the values of a scale: all in the largest unit in which each of them is round."""
    largest = min(int(math.log(max(*scale, 1.0), 1024)), len(_UNITS) - 1)
    for power in range(largest, -1, -1):
        if all(round(value / 1024**power, 1) == value / 1024**power for value in scale):
            return lambda value: _in_unit(value, power)
    return lambda value: _in_unit(value, largest)


def _in_unit(value: float, power: int) -> str:
    return f"{value / 1024**power:.4g} {_UNITS[power]}" if value else "0"


def text_of(history: History, width: int) -> str:
    """CPU and memory of each pod, one above the other, drawn with braille dots."""
    columns = max(_LEAST_COLUMNS, min(width - 1, _MOST_COLUMNS)) - _LABEL_COLUMNS - 1
    # One scale for all, so that heights compare.
    cpu = ticks(max(value for series in history.series for _, value in series.cpu))
    memory = ticks(max(value for series in history.series for _, value in series.memory), binary=True)
    in_bytes = bytes_label([*memory, memory[-1] / 2])
    lines: list[str] = []
    for series in history.series:
        lines += _panel(f"{series.label}  CPU", series.cpu, cpu[-1], percent_text, history.span, columns)
        used = bytes_text(series.memory[-1][1])
        limit = f" of {bytes_text(series.limit_bytes)}" if series.limit_bytes else ""
        title = f"{series.label}  memory, now {used}{limit}"
        lines += _panel(title, series.memory, memory[-1], in_bytes, history.span, columns)
    return "\n".join(lines) + "\n"


def _panel(
    title: str, points: Points, top: float, label: Callable[[float], str], span: float, columns: int
) -> list[str]:
    cells = [[0] * columns for _ in range(_ROWS)]
    height, last = _ROWS * 4, None
    for x in range(columns * 2):
        value = _at(points, span * x / max(1, columns * 2 - 1))
        if value is None:
            last = None
            continue
        level = min(height - 1, round(value / top * (height - 1)))
        # Joined with the dot before, so that steps are lines.
        low, high = (level, level) if last is None else (min(level, last), max(level, last))
        for y in range(low, high + 1):
            row = _ROWS - 1 - y // 4
            cells[row][x // 2] |= _DOTS[x % 2][3 - y % 4]
        last = level
    lines = [title]
    for number, row_cells in enumerate(cells):
        at = {0: top, _ROWS // 2: top / 2, _ROWS - 1: 0.0}.get(number)
        text = "" if at is None else label(at)
        lines.append(f"{text:>{_LABEL_COLUMNS}}┤" + "".join(chr(_BRAILLE + cell) for cell in row_cells))
    end = f"{span:.0f} s"
    lines.append(" " * _LABEL_COLUMNS + "└" + "─" * columns)
    lines.append(" " * (_LABEL_COLUMNS + 1) + "0" + end.rjust(columns - 1))
    return lines


def _at(points: Points, seconds: float) -> float | None:
    """The value at a time: that of the next point; none before the first interval and after the last point."""
    if len(points) > 1 and seconds < points[0][0] - (points[1][0] - points[0][0]) * 1.5:
        return None
    return next((value for at, value in points if at >= seconds - 1e-6), None)

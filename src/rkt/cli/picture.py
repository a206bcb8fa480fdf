# SPDX-License-Identifier: Apache-2.0
"""CPU and memory over time as one SVG file that needs nothing else, readable on light and dark ground."""

from __future__ import annotations

from rkt.cli.graph import bytes_label, percent_text, ticks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.cli.graph import History, Points, Series

_WIDTH = 960
_LEFT, _RIGHT = 84, 28
_PANEL, _GAP, _TOP = 220, 64, 64
_LEGEND_ROW = 24
_LEGEND_COLUMNS = 3
#: Told apart with every kind of colour vision, on white and on black (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
#: Seventh and later series take the colours again, dashed.
_DASHES = ("", "7 4", "2 4")
#: Plain colours first and no variables: many programs that draw SVG know neither those nor ``@media``.
_STYLE = """
.ground { fill: #ffffff; }
text { font: 13px system-ui, "DejaVu Sans", Helvetica, Arial, sans-serif; fill: #1c2024; }
.title { font-size: 15px; font-weight: 600; }
.tick { font-size: 12px; fill: #5b6570; }
.grid { stroke: #dfe3e8; stroke-width: 1; }
.axis { stroke: #5b6570; stroke-width: 1; }
.series { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
@media (prefers-color-scheme: dark) {
.ground { fill: #15181c; }
text { fill: #e8ebee; }
.tick { fill: #a0aab4; }
.grid { stroke: #343a41; }
.axis { stroke: #a0aab4; }
.series { filter: brightness(1.35); }
}
"""


def svg_of(history: History) -> str:
    """The whole file."""
    series = history.series
    rows = -(-len(series) // _LEGEND_COLUMNS)
    height = _TOP + 2 * _PANEL + _GAP + 70 + rows * _LEGEND_ROW
    names = ", ".join(each.label for each in series)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>CPU and memory of {_escape(names)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" width="{_WIDTH}" height="{height}"/>',
    ]
    seconds = ticks(history.span, count=6)
    span = max(history.span, 1e-3)
    cpu = ticks(max(value for each in series for _, value in each.cpu))
    parts += _panel(
        _TOP,
        "CPU, percent of one CPU",
        [(each, each.cpu) for each in series],
        cpu,
        percent_text,
        seconds,
        span,
    )
    memory = ticks(max(value for each in series for _, value in each.memory), binary=True)
    below = _TOP + _PANEL + _GAP
    parts += _panel(
        below,
        "Memory, without idle file cache",
        [(each, each.memory) for each in series],
        memory,
        bytes_label(memory),
        seconds,
        span,
    )
    middle = _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
    parts.append(
        f'<text class="tick" x="{middle:g}" y="{below + _PANEL + 40}" text-anchor="middle">seconds</text>'
    )
    parts += _legend(series, below + _PANEL + 66)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(
    top: int,
    title: str,
    lines: list[tuple[Series, Points]],
    scale: list[float],
    label: Callable[[float], str],
    seconds: list[float],
    span: float,
) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, top + _PANEL

    def x_of(at: float) -> float:
        return _LEFT + (right - _LEFT) * min(at / span, 1.0)

    def y_of(value: float) -> float:
        return bottom - _PANEL * value / scale[-1]

    parts = [f'<text class="title" x="{_LEFT}" y="{top - 16}">{title}</text>']
    for value in scale:
        y = y_of(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{label(value)}</text>'
        )
    for at in seconds:
        if at <= span * 1.001:
            x = x_of(at)
            parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{at:g}</text>'
            )
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    for number, (_, points) in enumerate(lines):
        path = " ".join(f"{x_of(at):.1f},{y_of(value):.1f}" for at, value in points)
        parts.append(f'<polyline class="series" {_stroke(number)} points="{path}"/>')
    return parts


def _legend(series: list[Series], top: int) -> list[str]:
    parts = []
    width = (_WIDTH - _LEFT - _RIGHT) / _LEGEND_COLUMNS
    for number, each in enumerate(series):
        row, column = divmod(number, _LEGEND_COLUMNS)
        x, y = _LEFT + column * width, top + row * _LEGEND_ROW
        parts.append(
            f'<line class="series" {_stroke(number)} x1="{x:.1f}" x2="{x + 26:.1f}" y1="{y}" y2="{y}"/>'
        )
        parts.append(f'<text x="{x + 34:.1f}" y="{y + 4}">{_escape(_short(each.label))}</text>')
    return parts


def _stroke(number: int) -> str:
    dash = _DASHES[number // len(_COLOURS) % len(_DASHES)]
    return f'stroke="{_COLOURS[number % len(_COLOURS)]}"' + (f' stroke-dasharray="{dash}"' if dash else "")


def _short(text: str) -> str:
    return text if len(text) <= 32 else text[:31] + "\u2026"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

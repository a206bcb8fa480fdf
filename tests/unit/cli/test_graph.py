# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.cli import graph, picture
from rkt.pod.usage import Usage


def usage(seconds: float, *, cpu: float, memory: int, name: str = "web") -> Usage:
    """A sample of a pod that has used ``cpu`` seconds."""
    return Usage(
        uuid="5bc080ca-3b14-4b8c-9ff8-ba27b4d4b4c2",
        name=name,
        app="",
        at_ns=int(seconds * 1e9) + 1,
        cpu_ns=int(cpu * 1e9),
        memory_bytes=memory,
        memory_limit_bytes=0,
        pids=1,
        pids_limit=0,
        read_bytes=0,
        write_bytes=0,
    )


@pytest.mark.parametrize(
    ("most", "binary", "expected"),
    [
        (0, False, [0, 1]),
        (100, False, [0, 25, 50, 75, 100]),
        (130, False, [0, 50, 100, 150]),
        (7 << 20, True, [0, 2 << 20, 4 << 20, 6 << 20, 8 << 20]),
    ],
)
def test_scales_are_round(most: float, binary: bool, expected: list[float]) -> None:
    """A scale starts at 0, covers the largest value, and has round steps."""
    found = graph.ticks(most, binary=binary)
    assert found[:2] == expected[:2] or most == 0
    assert found[-1] >= most * 0.99
    if most:
        assert found == expected


@pytest.mark.parametrize(
    ("scale", "labels"),
    [
        ([0, 500 << 10, 1000 << 10, 1500 << 10], ["0", "500 KiB", "1000 KiB", "1500 KiB"]),
        ([0, 1 << 20, 2 << 20], ["0", "1 MiB", "2 MiB"]),
        ([0, 5 << 19, 5 << 20], ["0", "2.5 MiB", "5 MiB"]),
        ([0, 200.0], ["0", "200 B"]),
    ],
)
def test_labels_are_round(scale: list[float], labels: list[str]) -> None:
    """All labels of a scale have one unit, in which they are round numbers."""
    label = graph.bytes_label(scale)
    assert [label(value) for value in scale] == labels


def test_a_picture_needs_nothing_modern() -> None:
    """Colours are written out, so that programs without variables and media queries draw it on white too."""
    history = graph.History()
    for second in range(3):
        history.add([usage(second, cpu=second, memory=10 << 20)])
    text = picture.svg_of(history)
    assert "var(" not in text
    assert text.index(".ground { fill: #ffffff; }") < text.index("@media")


def test_a_graph_fits_its_width() -> None:
    """No line is wider than the terminal, and use of half a CPU is drawn at half the height of 100 %."""
    history = graph.History()
    for second, cpu in enumerate((0, 1, 1.5, 2.5)):
        history.add([usage(second, cpu=cpu, memory=10 << 20)])
    (series,) = history.series
    assert [round(value) for _, value in series.cpu] == [100, 50, 100]
    for width in (40, 80, 300):
        lines = graph.text_of(history, width).splitlines()
        assert max(map(len, lines)) <= min(width, 120)
    assert lines[0] == "web  CPU"


def test_names_cannot_break_a_picture() -> None:
    """What is in the name of a pod stays text in the file."""
    history = graph.History()
    for second in range(3):
        history.add([usage(second, cpu=second, memory=1, name="<b>&")])
    text = picture.svg_of(history)
    assert "<b>" not in text
    assert "&lt;b&gt;&amp;" in text

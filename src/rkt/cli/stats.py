# SPDX-License-Identifier: Apache-2.0
"""``rkt stats``: what running pods use; beyond rkt."""

from __future__ import annotations

import sys

from rkt.cli.command import BOOL, DURATION, Command, Flag
from rkt.cli.format_flag import FORMAT_FLAG
from rkt.errors import HostError, PodError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.cli.command import Invocation
    from rkt.pod.usage import Usage
    from rkt.values import PodUUID

_LEAST_INTERVAL_SECONDS = 0.05
_MOST_SAMPLES = 100_000
_ERASE_BELOW = "\x1b[J"


def run(invocation: Invocation) -> int:
    """Once, again and again, or over some time as a picture."""
    values = invocation.values
    if values["interval"] < _LEAST_INTERVAL_SECONDS:
        raise UsageError(
            f"--interval of {values['interval']:g} s is too short", hint="--interval=1s, at least 50ms"
        )
    find = _pods(invocation)
    if values["plot"] or values["svg"]:
        return _draw(invocation, find)
    is_terminal = sys.stdout.isatty()
    once = (
        values["no-stream"] if "no-stream" in invocation.given else not is_terminal or bool(values["format"])
    )
    return _show(invocation, find, once=once)


def _pods(invocation: Invocation) -> Callable[[], list[PodUUID]]:
    """Which pods to look at, asked before each sample: those named, or whatever runs."""
    from rkt.pod import lifecycle, usage

    pods_dir = invocation.settings.pods_dir
    if not invocation.words:
        return lambda: usage.running(pods_dir)
    named: list[PodUUID] = []
    for word in invocation.words:
        with lifecycle.find(pods_dir, word) as pod:
            if not pod.is_running:
                raise PodError(f'pod "{pod.uuid}" is not running', hint=f"rkt status {pod.uuid.short}")
            if pod.uuid not in named:
                named.append(pod.uuid)
    return lambda: named


def _show(invocation: Invocation, find: Callable[[], list[PodUUID]], *, once: bool) -> int:
    """Tables or JSON; the first says what was used between two samples."""
    import time

    from rkt.cli.output import print_json, table, write
    from rkt.pod import usage

    values = invocation.values
    pods_dir = invocation.settings.pods_dir
    before: dict[tuple[str, str], Usage] = {}
    drawn = 0
    for each in usage.sample(pods_dir, find(), with_apps=values["apps"]):
        before[each.key] = each
    try:
        while True:
            if before or not once:
                time.sleep(values["interval"])
            now = usage.sample(pods_dir, find(), with_apps=values["apps"])
            if values["format"]:
                print_json(
                    [usage.to_json(before.get(each.key), each) for each in now],
                    pretty=values["format"] == "json-pretty",
                )
            else:
                text = table(_rows(before, now))
                if not once and sys.stdout.isatty():
                    text = _cut(text)
                    # Over the table before, which may have been longer.
                    write((f"\x1b[{drawn}A\r" if drawn else "") + _ERASE_BELOW)
                    drawn = text.count("\n")
                write(text)
            sys.stdout.flush()
            if once or (invocation.words and not now):
                return 0
            before = {each.key: each for each in now}
    except KeyboardInterrupt:
        return 0  # the way to end it


def _cut(text: str) -> str:
    """As much of a text as a terminal shows without scrolling, so that it can be drawn over."""
    from rkt.cli import terminal

    columns, height = terminal.size()
    lines = text.expandtabs(8).splitlines()[: max(1, height - 1)]
    return "".join(f"{line[:columns]}\n" for line in lines)


def _rows(before: dict[tuple[str, str], Usage], now: list[Usage]) -> list[list[str]]:
    from rkt.cli.output import human_size
    from rkt.pod import usage

    rows = [["POD", "APP", "CPU", "MEMORY", "LIMIT", "MEM %", "PIDS", "READ", "WRITTEN"]]
    for each in now:

        def cell(text: str, what: str, each: Usage = each) -> str:
            return f"~{text}" if what in each.estimated else text

        limit = each.memory_limit_bytes
        pids = f"{each.pids}/{each.pids_limit}" if each.pids_limit else str(each.pids)
        rows.append(
            [
                each.name or each.uuid[:8],
                each.app or "-",
                cell(f"{usage.cpu_percent(before.get(each.key), each):.1f}%", usage.CPU),
                cell(human_size(each.memory_bytes), usage.MEMORY),
                human_size(limit) if limit else "-",
                f"{100 * each.memory_bytes / limit:.1f}%" if limit else "-",
                cell(pids, usage.PIDS),
                cell(human_size(each.read_bytes), usage.IO),
                cell(human_size(each.write_bytes), usage.IO),
            ]
        )
    return rows


def _draw(invocation: Invocation, find: Callable[[], list[PodUUID]]) -> int:
    """Sample for a while; then, and on a terminal meanwhile too, draw."""
    import time

    from rkt.cli import graph, terminal
    from rkt.cli.output import write
    from rkt.pod import usage

    values = invocation.values
    pods_dir = invocation.settings.pods_dir
    duration, interval = values["duration"], values["interval"]
    if "interval" not in invocation.given:
        interval = max(_LEAST_INTERVAL_SECONDS, min(interval, duration / 60))
    if duration < 2 * interval or duration / interval > _MOST_SAMPLES:
        raise UsageError(
            f"--duration of {duration:g} s does not fit --interval of {interval:g} s", hint="--duration=1m"
        )
    if values["svg"]:
        _check_place(values["svg"])
    live = values["plot"] and sys.stdout.isatty()
    history = graph.History()
    start = time.monotonic()
    drawn = 0
    try:
        while True:
            now = usage.sample(pods_dir, find(), with_apps=values["apps"])
            history.add(now)
            if live and history.series:
                text = _cut(graph.text_of(history, terminal.text_width()))
                write((f"\x1b[{drawn}A\r" if drawn else "") + _ERASE_BELOW + text)
                sys.stdout.flush()
                drawn = text.count("\n")
            elapsed = time.monotonic() - start
            if elapsed >= duration or not now:
                break
            time.sleep(min(interval, max(0.0, duration - elapsed)))
    except KeyboardInterrupt:
        pass  # what there is until now is drawn
    if not history.series:
        raise PodError("no pod ran long enough to draw anything", hint="rkt list")
    if values["plot"]:
        if live and drawn:
            write(f"\x1b[{drawn}A\r{_ERASE_BELOW}")
        write(graph.text_of(history, terminal.text_width()))
    if values["svg"]:
        from rkt.cli.picture import svg_of

        _write_file(values["svg"], svg_of(history))
    return 0


def _check_place(path: str) -> None:
    """See to it now that the picture will not be drawn for nothing."""
    import os

    place = path if os.path.lexists(path) else os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.exists(place) or not os.access(place, os.W_OK):
        raise UsageError(
            f"--svg={path} cannot be written", hint="--svg=FILE in a directory that can be written to"
        )


def _write_file(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as e:
        raise HostError(f"cannot write {path}: {e.strerror}") from e


COMMAND = Command(
    name="stats",
    summary="show what running pods use",
    usage="[--apps] [POD…]",
    description=(
        "CPU (of one CPU, over the last interval), memory without idle file cache, processes and threads, and bytes "
        "read from and written to disks, of the pods named or of all that run. On a terminal the table is renewed "
        "until interrupted. A value after ~ is summed up over processes because the kernel keeps no count for that "
        "cgroup. --plot draws CPU and memory over time in the terminal, --svg=FILE as a picture."
    ),
    run=run,
    flags=(
        FORMAT_FLAG,
        Flag(name="apps", kind=BOOL, default=False, help="show each app of a pod too"),
        Flag(
            name="no-stream",
            kind=BOOL,
            default=False,
            help="once, as without a terminal and with --format unless --no-stream=false",
        ),
        Flag(
            name="interval",
            kind=DURATION,
            default=1.0,
            help="time between two samples",
            metavar="DURATION",
        ),
        Flag(name="plot", kind=BOOL, default=False, help="draw CPU and memory over time"),
        Flag(
            name="svg",
            default="",
            help="write that as a picture",
            metavar="FILE",
            completes="file",
        ),
        Flag(
            name="duration",
            kind=DURATION,
            default=10.0,
            help="how long to sample for --plot and --svg",
            metavar="DURATION",
        ),
    ),
    needs_root=True,
    completes="pod",
    examples=(("rkt stats --apps --plot --duration=1m web", "a minute of the pod named web"),),
)

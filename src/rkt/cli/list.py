# SPDX-License-Identifier: Apache-2.0
"""``rkt list``: all pods and their apps (spec cli §2.8)."""

from __future__ import annotations

import os

from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.format_flag import FORMAT_FLAG
from rkt.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.pod.listing import Glance

#: Characters of an image key in the column IMAGE ID: ``sha512-`` and 12 hex digits.
_SHORT_KEY = 19
_NS = 1_000_000_000


def run(invocation: Invocation) -> int:
    """Print a table or JSON; broken pods are reported at the end and do not fail the command."""
    import gc

    # Nothing here makes cycles, and looking for them among thousands of rows costs a tenth of the time.
    gc.disable()
    from rkt.pod import listing

    values = invocation.values
    errors: list[str] = []
    if values["format"]:
        from rkt.cli.output import print_json

        print_json(
            listing.details(invocation.settings.pods_dir, errors), pretty=values["format"] == "json-pretty"
        )
    else:
        _print_table(invocation, listing.glances(invocation.settings.pods_dir, errors))
    if errors:
        _print_errors(errors)
    return 0


def _print_table(invocation: Invocation, pods: list[Glance]) -> None:
    import time

    from rkt.cli.output import human_time, long_time, print_table, write

    full = invocation.values["full"]
    now_ns = time.time_ns()
    named = any(pod[5] for pod in pods)
    halted = any(pod[7] for pod in pods)
    rows: list[list[str]] = []
    if not invocation.values["no-legend"]:
        rows.append(
            [
                "UUID",
                "APP",
                "IMAGE NAME",
                *(["IMAGE ID"] if full else []),
                "STATE",
                "CREATED",
                "STARTED",
                "NETWORKS",
                *(["NAME"] if named else []),
                *(["PAUSED"] if halted else []),
            ]
        )
    ages: dict[int, str] = {}

    def time_cell(then_ns: int) -> str:
        if full:
            return long_time(then_ns) if then_ns else ""
        if not then_ns:
            return ""
        age = (now_ns - then_ns) // _NS
        text = ages.get(age)
        if text is None:
            text = ages[age] = human_time(then_ns, now_ns)
        return text

    for uuid, state, created_ns, started_ns, networks, name, apps, paused in pods:
        cells = [state, time_cell(created_ns), time_cell(started_ns), networks]
        if named:
            cells.append(name)
        if halted:
            cells.append("yes" if paused else "")
        column = uuid if full else uuid[:8]
        for app, image, key in apps or (("-", "-", "-"),):
            rows.append(
                [column, app, image, key[:_SHORT_KEY], *cells] if full else [column, app, image, *cells]
            )
            column, cells = "", [""] * len(cells)
    if os.isatty(1) and not full and not invocation.values["no-legend"]:
        from rkt.cli.fit import fit
        from rkt.cli.output import cell
        from rkt.cli.terminal import columns as terminal_columns

        columns = terminal_columns()
        if columns:
            clean = [[cell(text) for text in row] for row in rows]
            lines = fit(clean, columns, ("IMAGE NAME", "APP", "NAME", "NETWORKS"))
            write("".join("".join(line).rstrip() + "\n" for line in lines))
            return
    print_table(rows)


def _print_errors(errors: list[str]) -> None:
    import sys

    from rkt.values import AC_VERSION

    line = "-" * 40
    lines = [f"{len(errors)} error(s) encountered when listing pods:", line]
    for error in errors:
        lines += [printable(error), line]
    lines += ["misc:", f"  rkt's appc version: {AC_VERSION}", ""]
    sys.stderr.write("\n".join(lines) + "\n")


COMMAND = Command(
    name="list",
    summary="list pods",
    description=(
        "One line per app, the pod's columns on the first of them. Scripts split the columns at tabs, or use "
        "--format=json. Names of images come from the pods themselves, so they survive image rm."
    ),
    run=run,
    flags=(
        FORMAT_FLAG,
        Flag(name="full", kind=BOOL, default=False, help="full UUIDs, image IDs and exact times"),
        Flag(name="no-legend", kind=BOOL, default=False, help="leave out the line of column names"),
    ),
)

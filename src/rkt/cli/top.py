# SPDX-License-Identifier: Apache-2.0
"""``rkt top``: the processes of a running pod; beyond rkt."""

from __future__ import annotations

from rkt.cli.command import Command
from rkt.cli.format_flag import FORMAT_FLAG
from rkt.errors import NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.pod.processes import Process

#: What the columns before COMMAND take on a terminal.
_LEFT_COLUMNS = 80
_LEAST_COMMAND = 24


def run(invocation: Invocation) -> int:
    """Print a table or JSON, app by app."""
    from rkt.cli.output import print_json, print_table
    from rkt.pod import lifecycle, processes, status

    words = invocation.words
    if not 1 <= len(words) <= 2:
        raise UsageError("a pod is expected: UUID, prefix or name", hint="rkt top POD [APP]")
    with lifecycle.find(invocation.settings.pods_dir, words[0]) as pod:
        apps = [app.name for app in status.read_summary(pod).apps]
        wanted = words[1] if len(words) > 1 else ""
        if wanted and wanted not in apps:
            raise NotFound(f'no app "{wanted}" in pod "{pod.uuid}"', hint=f"apps: {', '.join(apps)}")
        found = processes.processes(pod, processes.open_group(pod), apps)
    order = {name: number for number, name in enumerate(["", *apps])}
    found = sorted((p for p in found if not wanted or p.app == wanted), key=lambda p: (order[p.app], p.pid))
    if invocation.values["format"]:
        print_json(
            [processes.to_json(process) for process in found],
            pretty=invocation.values["format"] == "json-pretty",
        )
    else:
        print_table(_rows(found))
    return 0


def _rows(found: list[Process]) -> list[list[str]]:
    from rkt.cli import terminal
    from rkt.cli.output import human_size

    columns = terminal.columns()
    width = max(_LEAST_COMMAND, columns - _LEFT_COLUMNS) if columns else 0
    rows = [["APP", "PID", "POD PID", "USER", "STATE", "%CPU", "TIME", "MEMORY", "COMMAND"]]
    for process in found:
        command = process.command
        if width and len(command) > width:
            command = command[: width - 1] + "\u2026"
        minutes, seconds = divmod(process.cpu_seconds, 60)
        rows.append(
            [
                process.app or "-",
                str(process.pid),
                str(process.pod_pid),
                str(process.pod_uid),
                process.state,
                f"{process.cpu_percent:.1f}",
                f"{int(minutes)}:{seconds:05.2f}",
                human_size(process.rss_bytes),
                command,
            ]
        )
    return rows


COMMAND = Command(
    name="top",
    summary="list the processes of a running pod",
    usage="POD [APP]",
    description=(
        "Reads the host's /proc and the pod's cgroups; nothing is executed in the pod. USER is the number that the pod "
        "knows the user by, %CPU the share of one CPU since the process was started, MEMORY what it has resident. The "
        "app - is the pod's own first process. What processes call themselves is shown with control characters "
        "escaped, and cut at the edge of a terminal; --format=json has all of it."
    ),
    run=run,
    flags=(FORMAT_FLAG,),
    needs_root=True,
    completes="pod",
)

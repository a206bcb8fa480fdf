# SPDX-License-Identifier: Apache-2.0
"""``rkt logs``: print what the apps of a pod wrote; beyond rkt."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.pod_flags import UUID_FILE_FLAG, one_pod
from rkt.errors import NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Print the log of one app, or of all: what went to standard error goes to standard error again."""
    import os
    import sys

    from rkt.linux.files import write_all
    from rkt.pod import log, status

    values = invocation.values
    tail = _tail(values["tail"])
    with one_pod(invocation) as pod:
        apps = [app.name for app in status.read_summary(pod).apps]
        wanted = values["app"]
        if wanted and wanted not in apps:
            raise NotFound(f'no app "{wanted}" in pod "{pod.uuid}"', hint=f"apps: {', '.join(apps)}")
        sys.stdout.flush()
        terminals = {"stdout": os.isatty(1), "stderr": os.isatty(2)}
        descriptors = {"stdout": 1, "stderr": 2}
        entries = log.read_all(pod, [wanted] if wanted else apps, tail)
        for app, entry in entries:
            text = log.escape_controls(entry.text) if terminals[entry.stream] else entry.text
            parts = []
            if values["timestamps"] and entry.begins:
                parts.append(entry.time + b" ")
            if len(apps) > 1 and not wanted and entry.begins:
                parts.append(f"[{app}] ".encode())
            parts.append(text)
            if not entry.partial:
                parts.append(b"\n")
            write_all(descriptors[entry.stream], b"".join(parts))
    return 0


def _tail(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or len(text) > 9:
        raise UsageError(f"invalid value {text!r} for --tail: a number of lines is expected")
    return int(text)


COMMAND = Command(
    name="logs",
    summary="print what the apps of a pod wrote",
    usage="[--app=APP] UUID",
    description=(
        "Prints the output of the apps so far, of several apps in the order of time, each line marked with its app. "
        "What an app wrote to its standard error goes to standard error. On a terminal, control characters are made "
        "visible instead of being obeyed."
    ),
    run=run,
    flags=(
        Flag(name="app", default="", help="only this app", metavar="APP"),
        Flag(name="tail", default="", help="only the last lines of each app", metavar="N"),
        Flag(
            name="timestamps", kind=BOOL, default=False, help="begin each line with the time it was written"
        ),
        UUID_FILE_FLAG,
    ),
    completes="pod",
    examples=(("rkt logs --tail=20 web", "the last lines of the pod named web"),),
)

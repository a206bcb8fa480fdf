# SPDX-License-Identifier: Apache-2.0
"""``rkt events``: what has happened to pods, and what happens; beyond rkt."""

from __future__ import annotations

import sys

from rkt.cli.command import BOOL, Command, Flag
from rkt.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.pod.events import Event


def run(invocation: Invocation) -> int:
    """Print one line an event."""
    from rkt.pod import events

    pods_dir = invocation.settings.pods_dir
    as_json = bool(invocation.values["format"])
    if not invocation.values["follow"]:
        _print(events.history(pods_dir), as_json=as_json)
        return 0
    try:
        for found in events.follow(pods_dir):
            _print(found, as_json=as_json)
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 0  # the way to end it
    except OSError as e:
        if e.filename is None:
            raise  # of the output, not of what is watched
        raise HostError(
            f"cannot watch {e.filename}: {e.strerror}", hint="sysctl fs.inotify.max_user_watches"
        ) from e
    return 0


def _print(found: list[Event], *, as_json: bool) -> None:
    from rkt.cli.output import long_time, print_json, write
    from rkt.pod.events import to_json

    for event in found:
        if as_json:
            print_json(to_json(event))
            continue
        words = [long_time(event.time_ns), event.uuid, event.kind]
        if event.name:
            words.append(f"name={event.name}")
        if event.app:
            words.append(f"app={event.app}")
        if event.status is not None:
            words.append(f"status={event.status}")
        if event.restarts is not None:
            words.append(f"restarts={event.restarts}")
        write(" ".join(words) + "\n")


COMMAND = Command(
    name="events",
    summary="print what has happened to pods",
    description=(
        "One line an event, in the order of time: created, prepared, started, oom, app-exited, exited, marked (by gc) "
        "and removed. They are told from the directories of the pods that are there, so nothing has to run to record "
        "them, and what is removed is forgotten. With --follow the command goes on and prints what happens."
    ),
    run=run,
    flags=(
        Flag(
            name="format",
            default="",
            help="json: one object a line instead of text",
            metavar="FORMAT",
            choices=("json",),
        ),
        Flag(name="follow", kind=BOOL, default=False, help="go on with what happens, until interrupted"),
    ),
)

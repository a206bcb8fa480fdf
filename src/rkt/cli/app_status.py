# SPDX-License-Identifier: Apache-2.0
"""``rkt app status``: what is known of one app (spec cli §2.25)."""

from __future__ import annotations

from rkt.cli.app_flag import APP_FLAG, pod_and_app
from rkt.cli.command import Command
from rkt.cli.format_flag import FORMAT_FLAG
from rkt.errors import NotFound, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Print what has a value."""
    from rkt.cli.output import print_json, write
    from rkt.pod import status

    pod, name = pod_and_app(invocation, "get status")
    with pod:
        details = status.examine(pod)
    found = next((app for app in details.apps if app.name == name), None)
    if found is None:
        raise NotFound(f'error: nonexistent app "{name}"', hint=f"rkt app list {invocation.words[0]}")
    members = status.app_json(found)
    if invocation.values["format"]:
        print_json(members, pretty=invocation.values["format"] == "json-pretty")
    else:
        write("".join(f"{key}={text}\n" for key, text in _lines(members)))
    return 0


def _lines(members: dict[str, Any]) -> list[tuple[str, str]]:
    from rkt.cli.output import long_time

    lines = []
    for key, value in members.items():
        if key.endswith("_at"):
            text = long_time(value)
        elif key == "mounts":
            text = ",".join(
                f"{each['host_path']}:{each['container_path']}:(read_only:{str(each['read_only']).lower()})"
                for each in value
            )
        elif isinstance(value, dict):
            text = ",".join(f"{name}:{one}" for name, one in value.items())
        else:
            text = str(value)
        lines.append((key, printable(text)))
    return lines


COMMAND = Command(
    name="app status",
    summary="print the state of an app",
    usage="UUID --app=APP",
    description=(
        "Prints key=value lines of what has a value: name, state, exit_code, oom_kills, restart_policy, restarts, last_exit_code, image_id, created_at, started_at, "
        "finished_at, mounts, user_annotations, user_labels."
    ),
    run=run,
    flags=(APP_FLAG, FORMAT_FLAG),
    completes="pod",
)

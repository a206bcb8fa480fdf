# SPDX-License-Identifier: Apache-2.0
"""``rkt status``: what is known of one pod (spec cli §2.9)."""

from __future__ import annotations

from rkt.cli.command import Command, Flag
from rkt.cli.format_flag import FORMAT_FLAG
from rkt.cli.pod_flags import UUID_FILE_FLAG, one_pod
from rkt.errors import PodError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.cli.command import Invocation
    from rkt.pod.lifecycle import Pod


def run(invocation: Invocation) -> int:
    """Wait if asked to, then print."""
    from rkt.cli.output import print_json, write
    from rkt.pod import status

    values = invocation.values
    with one_pod(invocation) as pod:
        _wait(pod, values["wait-ready"], "wait-ready", lambda p: status.is_up(p) or status.has_ended(p))
        _wait(pod, values["wait"], "wait", status.has_ended)
        if values["format"]:
            print_json(status.to_json(status.examine(pod)), pretty=values["format"] == "json-pretty")
        else:
            write("".join(f"{key}={value}\n" for key, value in _lines(pod)))
    return 0


def _wait(pod: Pod, text: str, flag: str, condition: Callable[[Pod], bool]) -> None:
    """``--wait``: ``false``, ``true``, or the longest time to wait."""
    from rkt.cli.parse import parse_duration
    from rkt.pod.status import wait_until

    if text in {"", "false"}:
        return
    limit = None if text == "true" else parse_duration(text, what=f"--{flag}")
    if not wait_until(pod, condition, limit):
        raise PodError(
            f'pod "{pod.uuid}" did not {"end" if flag == "wait" else "get ready"} within {text}'
            if pod.refresh()
            else f'pod "{pod.uuid}" was removed while waiting for it'
        )


def _lines(pod: Pod) -> list[tuple[str, str]]:
    from rkt.cli.output import long_time
    from rkt.pod import status

    glance = status.read_summary(pod)
    lines = [("state", pod.state)]
    if status.is_paused(pod):
        lines.append(("paused", "true"))
    if glance.name:
        lines.append(("name", glance.name))
    lines.append(("created", long_time(glance.created_ns)))
    started = status.started_ns(pod)
    if started:
        lines.append(("started", long_time(started)))
    if glance.insecure:
        lines.append(("insecure-options", glance.insecure))
    if words := status.not_enforced(pod):
        lines.append(("not-enforced", ",".join(words)))
    if not pod.ever_ran:
        return lines
    if pod.is_running or pod.is_exited:
        lines.append(("networks", printable(status.format_networks(status.networks(pod)))))
    if rules := status.egress(pod).get("rules"):
        lines.append(("egress", printable(",".join(rules))))
    pid = status.supervisor_pid(pod)
    if pid is not None:
        lines.append(("pid", str(pid)))
    if pod.is_running:
        apps = status.examine(pod).apps
        if any(app.readiness for app in apps):
            lines.append(("ready", "false" if any(app.readiness == "unready" for app in apps) else "true"))
        lines += [(f"app-{app.name}-readiness", app.readiness) for app in apps if app.readiness]
        lines += [(f"app-{app.name}-liveness", app.liveness) for app in apps if app.liveness]
    lines.append(("exited", "true" if pod.is_exited else "false"))
    if status.was_killed(pod):
        lines.append(("killed", "true"))
    if not pod.is_running:
        codes = status.exit_codes(pod, [app.name for app in glance.apps])
        lines += [(f"app-{app}", str(code)) for app, (code, _) in codes.items()]
    kills = {app.name: status.oom_kills(pod, app.name) for app in glance.apps}
    lines += [(f"oom-kills-{app}", str(count)) for app, count in kills.items() if count]
    starts = {app.name: status.restarts(pod, app.name)[0] for app in glance.apps}
    return lines + [(f"restarts-{app}", str(count)) for app, count in starts.items() if count]


COMMAND = Command(
    name="status",
    summary="print the state of a pod",
    usage="UUID",
    description=(
        "Prints key=value lines: state, times, process id, and once the pod is over the exit status of each app as "
        "app-NAME. Protections that are off for the pod are shown as insecure-options, with the word unsigned where a rule of the trust "
        "policy let an image pass that nobody signed, what its stage1 does not enforce as not-enforced; a pod that is frozen has "
        "paused=true, processes that the kernel killed for want of memory are counted as oom-kills-NAME, "
        "and how often an app was started again as restarts-NAME.\n\n"
        "A pod whose rkt process was killed, by SIGKILL or with the host, is over and has killed=true; apps that ran "
        "then have no exit status."
    ),
    run=run,
    flags=(
        FORMAT_FLAG,
        UUID_FILE_FLAG,
        Flag(
            name="wait",
            default="false",
            bare="true",
            help="wait until the pod is over, at most for a duration if one is given",
            metavar="true|DURATION",
        ),
        Flag(
            name="wait-ready",
            default="false",
            bare="true",
            help="wait until the pod is up and its apps with a readiness probe are ready, at most for a duration if one is given",
            metavar="true|DURATION",
        ),
    ),
    completes="pod",
)

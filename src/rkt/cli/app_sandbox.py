# SPDX-License-Identifier: Apache-2.0
"""``rkt app sandbox``: run a pod without apps, for apps that come and go (spec cli §2.25)."""

from __future__ import annotations

from rkt.cli.command import LIST, Command, Flag
from rkt.cli.pod_flags import (
    PREPARE_FLAGS,
    RUN_FLAGS,
    STAGE1_FLAGS,
    egress_annotation,
    run_options,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation

_OF_PREPARE = ("egress", "locked", "name", "no-overlay", "private-users", "sysctl", "volume")
_OF_RUN = (
    "dns",
    "dns-domain",
    "dns-opt",
    "dns-search",
    "hostname",
    "hosts-entry",
    "ipc",
    "mds-register",
    "net",
)


def run(invocation: Invocation) -> int:
    """Does not return on success: the process becomes the pod."""
    from rkt.pod.request import PodRequest
    from rkt.stage0.prepare import prepare
    from rkt.stage0.run import run as become
    from rkt.stage0.stage1 import choose

    values = invocation.values
    if values["port"]:
        from rkt.schema.shorthand import parse_sandbox_port

        for text in values["port"]:
            parse_sandbox_port(text)
    request = PodRequest(
        annotations={**_pairs(values["annotation"], "annotation"), **egress_annotation(values["egress"])},
        user_annotations=_pairs(values["user-annotation"], "user-annotation"),
        user_labels=_pairs(values["user-label"], "user-label"),
        no_overlay=values["no-overlay"],
        private_users=values["private-users"],
        volumes=values["volume"],
        ports=values["port"],
        sysctls=values["sysctl"],
        name=values["name"],
        mutable=True,
        locked=values["locked"],
    )
    options = run_options(invocation).replace(mutable=True)
    pod = prepare(
        request,
        choose(values),
        invocation.settings,
        uuid_file=values["uuid-file-save"],
        options=options,
        sync=False,
    )
    become(pod, invocation.settings, options)


def _pairs(texts: list[str], flag: str) -> dict[str, str]:
    from rkt.cli.app_args import put_pair
    from rkt.values import ACIdentifier

    pairs: dict[str, str] = {}
    for text in texts:
        key = put_pair(pairs, text, flag=flag)
        if flag == "annotation":
            ACIdentifier.parse(key, what="annotation name")
    return pairs


COMMAND = Command(
    name="app sandbox",
    summary="run a pod without apps, to which apps can be added",
    description=(
        "Makes a pod without apps and becomes it: it stays in the foreground, and ends when its terminal is closed unless "
        "nohup or a service manager runs it. Apps are added, started, stopped and removed while it lives; it goes on when "
        "one of them fails, and ends with status 0 when rkt stop or SIGTERM ends it.\n\n"
        "What its apps have in common is said here: names and addresses, user ids, and volumes, which rkt app add mounts "
        "by name. Devices may come later."
    ),
    run=run,
    flags=(
        Flag(
            name="annotation",
            kind=LIST,
            help="annotation of the pod manifest; repeatable",
            metavar="NAME=VALUE",
        ),
        Flag(
            name="port",
            kind=LIST,
            help="forward a port of the host to a port of the pod; repeatable",
            metavar="NAME:PROTOCOL:PODPORT:HOSTIP:HOSTPORT|[HOSTIP:]HOSTPORT:PODPORT[/udp]",
        ),
        Flag(
            name="user-annotation",
            kind=LIST,
            help="user annotation of the pod; repeatable",
            metavar="NAME=VALUE",
        ),
        Flag(name="user-label", kind=LIST, help="user label of the pod; repeatable", metavar="NAME=VALUE"),
        Flag(
            name="uuid-file-save",
            default="",
            help="write the pod's UUID to a file as soon as the pod exists",
            metavar="FILE",
            completes="file",
        ),
        *(flag for flag in PREPARE_FLAGS if flag.name in _OF_PREPARE),
        *STAGE1_FLAGS,
        *(flag for flag in RUN_FLAGS if flag.name in _OF_RUN),
    ),
    needs_root=True,
    examples=(
        ("rkt app sandbox --uuid-file-save=/run/web.uuid", "a pod for apps to come"),
        (
            "nohup rkt app sandbox --name=web --volume=data,kind=empty &",
            "one that has a name and a volume for its apps, and outlives the terminal",
        ),
    ),
)

# SPDX-License-Identifier: Apache-2.0
"""``rkt cp``: copy files and directories out of pods and into them; beyond rkt."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag
from rkt.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Copy; what was left out is said."""
    from rkt.stage0.copy import copy, parse_end
    from rkt.stage0.messages import tell

    if len(invocation.words) != 2:
        raise UsageError("a source and a target are expected", hint=f"rkt cp {COMMAND.usage}")
    source, target = map(parse_end, invocation.words)
    values = invocation.values
    settings = invocation.settings
    for notice in copy(settings, source, target, keep_owners=values["archive"], follow=values["follow-link"]):
        tell(settings, notice)
    return 0


COMMAND = Command(
    name="cp",
    summary="copy files between the host and a pod",
    usage="[-a] [-L] SRC DST",
    description=(
        "SRC and DST are paths of the host or, as POD:PATH or POD:APP:PATH, of an app; POD is a UUID, the beginning of one, or a "
        "name. The pod may run, be over, or be prepared; volumes are there while the app runs. Nothing is executed in the "
        "pod.\n\n"
        "A file goes into DST if that is a directory, else it becomes DST, in place of what stands there. A directory goes "
        "into DST if that is one; if SRC ends in /. its contents do; if nothing is there it becomes DST, whose parent must "
        "exist. With - as SRC a tar on standard input, compressed or not, is unpacked into the directory DST; with - as DST a "
        "tar goes to standard output. A path of the host with a colon in it starts with / or a dot.\n\n"
        "Paths of a pod are resolved inside the app's root, whatever links its processes make meanwhile; links below SRC are "
        "copied as links. What arrives belongs to root, of the pod or of the host, unless -a keeps owners, by the numbers that "
        "the pod has. Modes and times are kept; set-user-ID and set-group-ID bits, extended attributes and second names of a "
        "file are not. Devices, sockets and named pipes are left out and named."
    ),
    run=run,
    flags=(
        Flag(name="archive", kind=BOOL, default=False, short="a", help="keep owners, as numbers of the pod"),
        Flag(
            name="follow-link", kind=BOOL, default=False, short="L", help="copy what a link as SRC points to"
        ),
    ),
    needs_root=True,
    completes="pod",
    examples=(
        ("rkt cp web:/etc/nginx ./nginx", "a directory out of the pod called web"),
        ("rkt cp index.html web:app:/srv/", "a file into the app called app"),
        ("rkt cp web:/var/log - | tar -t", "as a tar"),
    ),
)

# SPDX-License-Identifier: Apache-2.0
"""``rkt attach``: connect to the standard streams of a running app (spec cli §2.26)."""

from __future__ import annotations

from rkt.cli.command import Command, Flag
from rkt.cli.pod_flags import UUID_FILE_FLAG, one_pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Does not return on success: the process becomes the client."""
    from rkt.stage0.attach import attach, parse_mode
    from rkt.stage0.enter import choose_app

    values = invocation.values
    words = parse_mode(values["mode"])
    if "detach-keys" in invocation.given:
        from rkt.schema.streams import parse_detach_keys

        parse_detach_keys(values["detach-keys"])
        words.append(f"--detach-keys={values['detach-keys']}")
    pod = one_pod(invocation)
    attach(invocation.settings, pod, choose_app(pod, values["app"], "attach"), words)


COMMAND = Command(
    name="attach",
    summary="connect to the standard streams of a running app",
    usage="[--app=APP] [--mode=MODE] UUID",
    description=(
        "Shows what an app writes from now on, and sends it what is typed, until its output ends or the detach keys are "
        "typed; the app goes on then. It must have been given streams or a terminal: --stdin, --stdout and --stderr of rkt "
        "run, prepare and app add.\n\n"
        "On a terminal every key goes to the app's terminal, which takes the size of the one that was attached or resized "
        "last. Streams go line by line. Several can attach at the same time: each sees everything, and nobody waits for "
        "another. What an app wrote before is in rkt logs."
    ),
    run=run,
    flags=(
        Flag(name="app", default="", help="name of the app, where the pod has several", metavar="APP"),
        Flag(
            name="detach-keys",
            default="ctrl-p,ctrl-q",
            help="keys that end it and not the app, on a terminal: ctrl-X or single characters; empty for none",
            metavar="KEY,…",
        ),
        Flag(
            name="mode",
            default="auto",
            help="list what there is, auto for all of it, or some of stdin, stdout, stderr, or of tty, tty-in, tty-out",
            metavar="MODE",
        ),
        UUID_FILE_FLAG,
    ),
    needs_root=True,
    completes="pod",
    examples=(
        ("rkt attach 5bc080ca", "whatever the only app offers"),
        (
            "rkt attach --app=web --mode=stdout,stderr shop",
            "what one app of a pod writes, without typing into it",
        ),
        ("rkt attach --mode=list 5bc080ca", "what there is to attach to, as JSON"),
    ),
)

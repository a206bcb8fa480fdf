# SPDX-License-Identifier: Apache-2.0
"""``rkt explain``: what a pod may do to this machine, before it starts."""

from __future__ import annotations

from rkt.cli.app_args import ALL_APP_FLAGS
from rkt.cli.command import Command, Flag
from rkt.cli.format_flag import FORMAT_FLAG
from rkt.cli.pod_flags import PREPARE_FLAGS, RUN_FLAGS, pod_request, run_options
from rkt.errors import EXIT_FOUND, UsageError, quoted
from rkt.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Explain, print, and hold the score against ``--max-risk``."""
    from rkt.cli.output import message, print_json, write

    values = invocation.values
    most = _max_risk(values["max-risk"])
    explained = _of_pod(invocation) if values["pod"] else _of_request(invocation)
    if values["format"]:
        print_json(explained, pretty=values["format"] == "json-pretty")
    else:
        from rkt.cli.explain_text import render
        from rkt.cli.terminal import text_width

        write(render(explained, text_width()))
    score = explained["risk"]["score"]
    if most is not None and score > most:
        message(invocation.settings, f"risk {score} is above --max-risk={most}")
        return EXIT_FOUND
    return 0


def _max_risk(text: str) -> int | None:
    if not text:
        return None
    if not is_number(text, most_digits=6):
        raise UsageError(f"invalid value {quoted(text)} for --max-risk: a number is expected")
    return int(text)


def _of_request(invocation: Invocation) -> dict[str, Any]:
    from rkt.stage0.explain.document import explain
    from rkt.stage0.explain.subject import of_request
    from rkt.stage0.stage1 import choose

    request = pod_request(invocation)
    settings = invocation.settings
    return explain(
        of_request(request, choose(invocation.values), settings, run_options(invocation)), settings
    )


def _of_pod(invocation: Invocation) -> dict[str, Any]:
    from rkt.pod import lifecycle
    from rkt.stage0.explain.document import explain
    from rkt.stage0.explain.subject import of_pod

    decided = [flag.name for flag in PREPARE_FLAGS if flag.name in invocation.given]
    if decided or invocation.apps or invocation.mounts:
        what = f"--{decided[0]}" if decided else "images"
        raise UsageError(f"{what} and --pod exclude each other: it was decided when the pod was made")
    options = None
    if any(flag.name in invocation.given for flag in RUN_FLAGS):
        options = run_options(invocation)
    with lifecycle.find(invocation.settings.pods_dir, invocation.values["pod"]) as pod:
        return explain(of_pod(pod, invocation.settings, options), invocation.settings)


COMMAND = Command(
    name="explain",
    summary="say what a pod may do to this machine, before it starts",
    usage="[--volume=VOLUME…] [--mount=MOUNT…] IMAGE [--name=APP…] [-- ARG… [---]]…",
    description=(
        "Takes the words of run, finds and verifies the images as run does, and stops before there is a pod. Says what the "
        "pod could reach, who gives it that, a score, and what would lower it. An image that had to be fetched stays in the "
        "store, as after rkt fetch.\n\n"
        "Who gives something is one of: image, flag, pod-manifest, default. The score is a sum of points, low below 20, "
        "moderate below 50, high below 100, else critical; docs/explain.md has the table.\n\n"
        "The status is 3 when the score is above --max-risk, 254 when the pod could not be made, else 0."
    ),
    run=run,
    flags=(
        *PREPARE_FLAGS,
        *RUN_FLAGS,
        FORMAT_FLAG,
        Flag(name="max-risk", default="", help="end with status 3 when the score is above this", metavar="N"),
        Flag(
            name="pod",
            default="",
            help="a pod that was prepared or run, instead of images: UUID, prefix or name",
            metavar="UUID",
            completes="pod",
        ),
    ),
    app_flags=ALL_APP_FLAGS,
    needs_root=True,
    completes="image",
    examples=(
        ("rkt explain example.com/web:1.0", "what can this image do to my machine?"),
        (
            "rkt explain --max-risk=20 example.com/web:1.0 --memory=64M",
            "fail where more than low is not wanted",
        ),
        ("rkt explain --pod=web", "what may this pod do that runs already?"),
    ),
)

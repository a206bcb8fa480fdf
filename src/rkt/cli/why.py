# SPDX-License-Identifier: Apache-2.0
"""``rkt why``: what refuses a fetch or a start, and what to type."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.format_flag import FORMAT_FLAG
from rkt.cli.pod_flags import PLATFORM_FLAG
from rkt.errors import EXIT_FOUND, NotFound, UsageError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.stage0.why import Answer

_MARKS = {"ok": " ", "bad": "!", "note": "-", "skipped": "."}
_LABEL_WIDTH = 11


def run(invocation: Invocation) -> int:
    """Look, and tell."""
    from rkt.cli.output import print_json, write
    from rkt.cli.terminal import text_width
    from rkt.stage0.why import REFUSED

    if len(invocation.words) != 1:
        raise UsageError("an image or a pod is expected", hint="rkt why docker://alpine")
    answer = _ask(invocation)
    if invocation.values["format"]:
        print_json(answer.to_json(), pretty=invocation.values["format"] == "json-pretty")
    else:
        write(printable(render(answer, text_width())))
    return EXIT_FOUND if answer.outcome == REFUSED else 0


def _ask(invocation: Invocation) -> Answer:
    from rkt.pod import lifecycle
    from rkt.stage0.why import why_image, why_pod

    settings, text = invocation.settings, invocation.words[0]
    try:
        pod = lifecycle.find(settings.pods_dir, text)
    except NotFound:
        return why_image(text, settings, offline=invocation.values["offline"])
    with pod:
        return why_pod(pod, text, settings)


def render(answer: Answer, width: int) -> str:
    """The answer, what was looked at, and what to type."""
    from textwrap import wrap

    verb = " would be refused" if answer.outcome == "refused" else ""
    head = f"{answer.subject}{verb}: {answer.summary}"
    lines = [*wrap(head, width, break_long_words=False, break_on_hyphens=False), ""]
    for step in answer.steps:
        label = f"{_MARKS[step.state]} {step.what:<{_LABEL_WIDTH}} "
        indent = " " * max(len(label), 1)
        lines += wrap(
            step.text,
            max(width, len(label) + 20),
            initial_indent=label,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [label.rstrip()]
    if answer.next:
        # Not wrapped: a command is copied as one line.
        lines += [
            "",
            *(f"{'next:' if not number else '  or:'} {text}" for number, text in enumerate(answer.next)),
        ]
    return "\n".join(lines) + "\n"


COMMAND = Command(
    name="why",
    summary="say what refuses a fetch or a start, and what to type",
    usage="[--offline] IMAGE|POD",
    description=(
        "Takes an image, as run and fetch do, or a pod by UUID, prefix or name; what is both is the pod. Makes the decisions of a fetch "
        "and of a start once more, and stops at the first that refuses. Says that in one sentence, then what was looked at, in "
        "order, and then what to type. Nothing is changed: no image is stored, no key added, no pod made.\n\n"
        "An image that is in the store needs no network. Another is asked for as far as needed: its manifest and signatures, "
        "not its layers; of an ACI by name or URL only its signature. With --offline no server is asked.\n\n"
        "What --insecure-options switches off is switched off here too. Lines marked by ! refuse; - is worth knowing; . was left "
        "out.\n\n"
        "The status is 3 when something would be refused, 254 when that cannot be told, else 0. rkt explain says what a pod "
        "that may start could do. docs/why.md lists the causes."
    ),
    flags=(
        Flag(name="offline", kind=BOOL, default=False, help="ask no server"),
        PLATFORM_FLAG,
        FORMAT_FLAG,
    ),
    run=run,
    needs_root=True,
    completes="image",
    examples=(
        ("rkt why docker://registry.example/team/web:1.0", "why can I not fetch this?"),
        ("rkt why 5bc080ca", "why does this pod not start?"),
        ("rkt why --offline example.com/app", "what decides here, before any server is asked?"),
    ),
)

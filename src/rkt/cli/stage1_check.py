# SPDX-License-Identifier: Apache-2.0
"""``rkt stage1 check``: does a stage1 image keep the contract; beyond rkt."""

from __future__ import annotations

from rkt.cli.command import DURATION, LIST, Command, Flag
from rkt.cli.format_flag import FORMAT_FLAG
from rkt.errors import EXIT_FOUND, UsageError, printable, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.conformance.promises import Finding

_FORMAT = "rkt.stage1-check"
_MOST_SECONDS = 86400.0
_MARKS = {"ok": " ", "failed": "!", "not declared": "-", "not reached": "?"}


def run(invocation: Invocation) -> int:
    """Try it, and tell."""
    from rkt.cli.output import print_json, write
    from rkt.cli.terminal import text_width
    from rkt.conformance.check import check
    from rkt.conformance.promises import FAILED, GROUPS, LEFT_OUT, UNREACHED

    if len(invocation.words) != 1:
        raise UsageError("one stage1 image is expected", hint=f"rkt {COMMAND.name} {COMMAND.usage}")
    only = [word for text in invocation.values["only"] for word in text.split(",")]
    for word in only:
        if word not in GROUPS:
            raise UsageError(f"no group of checks {quoted(word)}", hint=f"there are {', '.join(GROUPS)}")
    if not 0 < invocation.values["timeout"] <= _MOST_SECONDS:
        raise UsageError("--timeout is for one step: more than nothing, at most a day", hint="--timeout=20s")
    groups = tuple(group for group in GROUPS if not only or group in only)
    result = check(
        invocation.words[0],
        invocation.settings,
        lambda words: _rkt(words, invocation),
        groups=groups,
        seconds=invocation.values["timeout"],
    )
    findings = [each for each in result.findings if each.state != LEFT_OUT]
    holds = not any(each.state in {FAILED, UNREACHED} for each in findings)
    if invocation.values["format"]:
        document = {
            "format": _FORMAT,
            "version": 1,
            "ok": holds,
            "image": result.name,
            "image_id": result.image_id,
            "interface_version": result.interface_version,
            "findings": [each.as_dict() for each in findings],
        }
        print_json(document, pretty=invocation.values["format"] == "json-pretty")
    else:
        title = f"{result.name} ({result.image_id[:19]}), interface version {result.interface_version}\n\n"
        write(printable(title + render(findings, text_width())))
    return 0 if holds else EXIT_FOUND


def _rkt(words: list[str], invocation: Invocation) -> int:
    from rkt.cli.main import main

    return main(words, invocation.settings.installation)


def render(findings: list[Finding], width: int) -> str:
    """A line for each check, and below one that failed what was seen; a sum at the end."""
    from textwrap import wrap

    from rkt.conformance.promises import FAILED

    states = max(len(each.state) for each in findings)
    names = max(len(each.promise.name) for each in findings)
    lines = []
    for each in findings:
        head = f"{_MARKS[each.state]} {each.state:<{states}}  {each.promise.name:<{names}}  "
        blank = " " * len(head)
        texts = [each.seen or each.promise.text]
        if each.state == FAILED:
            texts = [
                f"expected: {each.promise.text}",
                f"seen: {each.seen}",
                f'guide: "{each.promise.section}"',
            ]
        for number, text in enumerate(texts):
            lines += wrap(
                text,
                max(width, len(head) + 20),
                initial_indent=blank if number else head,
                subsequent_indent=blank,
                break_on_hyphens=False,
            )
    counts = {state: sum(each.state == state for each in findings) for state in _MARKS}
    lines += ["", ", ".join(f"{count} {state}" for state, count in counts.items() if count)]
    return "\n".join(lines) + "\n"


COMMAND = Command(
    name="stage1 check",
    summary="try whether a stage1 image keeps the contract",
    usage="[--only=GROUP…] [--timeout=DURATION] IMAGE",
    description=(
        "Looks at the manifest of a stage1 image, then runs pods of a small app with it, enters, stops, kills and collects "
        "them, and tells what of the contract holds (docs/stage1-implementors-guide.md). What an image need not have and does "
        "not declare is not counted.\n\n"
        "IMAGE is a file, a directory with manifest and rootfs, a name, a hash, a URL, or a flavour that comes with rkt, as ns. "
        "It will be run as root: so it is trusted as any other stage1 is, or refused. Everything happens in a data directory "
        "of its own below TMPDIR, else /var/tmp, and is taken back.\n\n"
        "The status is 3 when a check failed, 0 when none did."
    ),
    run=run,
    flags=(
        Flag(
            name="only",
            kind=LIST,
            default=[],
            help="groups of checks, such as enter or gc: the first words of the checks' names",
            metavar="GROUP",
        ),
        Flag(name="timeout", kind=DURATION, default=20.0, help="how long any single step may take"),
        FORMAT_FLAG,
    ),
    needs_root=True,
    completes="file",
    examples=(
        ("rkt stage1 check ns", "the flavour that is the default"),
        ("rkt --insecure-options=image stage1 check ./stage1.aci", "an image that was just built"),
        (
            "rkt stage1 check --only=enter,stop ./image",
            "some checks, of a directory with manifest and rootfs",
        ),
    ),
)

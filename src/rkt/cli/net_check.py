# SPDX-License-Identifier: Apache-2.0
"""``rkt net check``: whether the networks of this host would work, and those of the running pods do."""

from __future__ import annotations

from rkt.cli.command import Command
from rkt.cli.format_flag import FORMAT_FLAG
from rkt.errors import EXIT_FOUND, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.stage0.net_report import Finding

_FORMAT = "rkt.net-check"
_MARKS = {"ok": " ", "note": "-", "bad": "!"}


def run(invocation: Invocation) -> int:
    """Look, and tell."""
    from rkt.cli.output import print_json, write
    from rkt.cli.terminal import text_width
    from rkt.stage0.net_report import BAD, check

    findings = check(invocation.settings)
    is_well = not any(each.state == BAD for each in findings)
    if invocation.values["format"]:
        document = {
            "format": _FORMAT,
            "version": 1,
            "ok": is_well,
            "findings": [each.as_dict() for each in findings],
        }
        print_json(document, pretty=invocation.values["format"] == "json-pretty")
    else:
        write(printable(render(findings, text_width())))
    return 0 if is_well else EXIT_FOUND


def render(findings: list[Finding], width: int) -> str:
    """What was looked at, what is wrong marked, and what to type."""
    from textwrap import wrap

    labels = max(len(each.about) for each in findings)
    lines = []
    for each in findings:
        label = f"{_MARKS[each.state]} {each.about:<{labels}}  "
        lines += wrap(
            each.text,
            max(width, len(label) + 20),
            initial_indent=label,
            subsequent_indent=" " * len(label),
            break_long_words=False,
            break_on_hyphens=False,
        )
    hints = list(dict.fromkeys(each.hint for each in findings if each.hint))
    if hints:
        # Not wrapped: a command is copied as one line.
        lines += ["", *(f"{' and:' if number else 'next:'} {text}" for number, text in enumerate(hints))]
    return "\n".join(lines) + "\n"


COMMAND = Command(
    name="net check",
    summary="check networks and those of running pods",
    description=(
        "Looks at what networks of pods need, and changes nothing: the programs of the firewall; every configuration file, and "
        "the plugins that it names; with CNI 1.1.0 whether these are ready (STATUS); the interfaces of running pods, which "
        "plugins compare with what they made (CHECK, since CNI 0.4.0); and what pods that are over have left.\n\n"
        "What is wrong is marked by an exclamation mark, with the command to type at the end. The status is 3 then, and 0 "
        "when there is nothing of that kind."
    ),
    run=run,
    flags=(FORMAT_FLAG,),
    needs_root=True,
    examples=(("rkt net check", "after an installation, or when a pod cannot be reached"),),
)

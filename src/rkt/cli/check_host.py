# SPDX-License-Identifier: Apache-2.0
"""``rkt check-host``: what this host can do for pods of each flavour, why not, and what would change it."""

from __future__ import annotations

from rkt.cli.command import Command, Flag
from rkt.cli.format_flag import FORMAT_FLAG
from rkt.stage0.host.facts import FLAVORS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation

#: Status when the flavour that was asked for cannot run here.
EXIT_CANNOT_RUN = 1
_FORMAT = "rkt.check-host"


def run(invocation: Invocation) -> int:
    """Try everything, and tell."""
    from rkt.stage0.host.judge import judge, verdicts
    from rkt.stage0.host.look import look

    facts = look(invocation.settings)
    findings = judge(facts)
    found = verdicts(facts, findings)
    # With a stage1 of somebody else, of which nothing is known, what the usual one needs is the best guess.
    asked = invocation.values["flavor"] or facts.default_flavor or FLAVORS[0]
    can_run = next(each for each in found if each.flavor == asked).can_run
    if invocation.values["format"]:
        from rkt.cli.output import print_json

        document = {
            "format": _FORMAT,
            "version": 1,
            "flavor": asked,
            "ok": can_run,
            "flavors": [each.to_json() for each in found],
            "findings": [each.to_json() for each in findings],
        }
        print_json(document, pretty=invocation.values["format"] == "json-pretty")
    else:
        from rkt.cli.check_host_text import has_colors, render
        from rkt.cli.output import write
        from rkt.cli.terminal import text_width

        if invocation.values["flavor"]:
            found = [each for each in found if each.flavor == asked]
        write(render(findings, found, text_width(), colors=has_colors()))
    return 0 if can_run else EXIT_CANNOT_RUN


COMMAND = Command(
    name="check-host",
    summary="say what this host can do for pods, and what would change it",
    description=(
        "Tries what pods need: kernel, control groups, the file system of the data directory, links and firewall, services, "
        "programs and rkt's own parts. It really tries, in children with namespaces of their own, and leaves nothing; in "
        "the data directory a directory is made and removed. No version number decides.\n\n"
        "Each line begins with ok; limited, when pods go without something; missing, when a flavor cannot run; none, for what "
        "is not there and not missed unless it is asked for; unknown, for what only root can tell. An arrow leads to "
        "what would change it. The last lines say it of each flavor of stage1.\n\n"
        "The status is 0 when the flavor can run, and 1 when it cannot. docs/check-host.md has more."
    ),
    run=run,
    flags=(
        FORMAT_FLAG,
        Flag(
            name="flavor",
            default="",
            help="the flavor that the status is about, instead of the default one",
            metavar="FLAVOR",
            choices=FLAVORS,
        ),
    ),
    examples=(
        ("rkt check-host", "after an installation, or before one: will pods run here?"),
        ("rkt check-host --flavor=nspawn", "would pods of nspawn?"),
    ),
)

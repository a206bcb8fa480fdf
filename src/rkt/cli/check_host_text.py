# SPDX-License-Identifier: Apache-2.0
"""The text of ``rkt check-host``: a table for each area, and a line for each flavour."""

from __future__ import annotations

import os
import sys
from textwrap import wrap

from rkt.errors import printable
from rkt.stage0.host.judge import AREAS, NOT_BUILT, READY
from rkt.stage0.host.needs import LIMITED, MISSING, NONE, OK, UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.stage0.host.judge import Finding, Verdict

_COLORS = {OK: "32", READY: "32", LIMITED: "33", MISSING: "1;31", NONE: "2", UNKNOWN: "35", NOT_BUILT: "2"}
_STATE_WIDTH = max(map(len, (OK, LIMITED, MISSING, NONE, UNKNOWN)))
#: Below this many columns of text a line is let run over.
_LEAST_TEXT = 30
_ARROW = "-> "


def has_colors() -> bool:
    """Whether standard output is a terminal that shows colours, and nobody asked for none (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def render(
    findings: Sequence[Finding], verdicts: Sequence[Verdict], width: int, *, colors: bool = False
) -> str:
    """The whole text.

    Args:
        findings: everything that was looked at; what comes from files and programs of the host is escaped.
        verdicts: of the flavours to tell of.
        width: columns to stay within, but for words that are longer and for what is to be copied.
        colors: whether the words of states have one.
    """
    names = max(len(each.name) for each in findings)
    lines: list[str] = []
    for area, title in AREAS.items():
        lines += [title]
        for each in findings:
            if each.area == area:
                lines += _row(each, names, width, colors=colors)
        lines += [""]
    lines += ["Flavors"]
    flavors = max(len(each.flavor) for each in verdicts)
    for verdict in verdicts:
        lines += _flavor(verdict, flavors, width, colors=colors)
    return "\n".join(lines) + "\n"


def _row(finding: Finding, names: int, width: int, *, colors: bool) -> list[str]:
    label = f"  {finding.state:<{_STATE_WIDTH}}  {finding.name:<{names}}  "
    lines = _hang(label, printable(finding.text), width)
    lines[0] = lines[0].replace(finding.state, _paint(finding.state, finding.state, colors=colors), 1)
    if finding.hint and finding.state != OK:
        # Not wrapped: a command is copied as one line.
        lines.append(" " * len(label) + _ARROW + printable(finding.hint))
    return lines


def _flavor(verdict: Verdict, flavors: int, width: int, *, colors: bool) -> list[str]:
    words, reasons = {
        READY: ("ready", ""),
        LIMITED: ("ready", ", without "),
        MISSING: ("cannot run", ": "),
        UNKNOWN: ("not known", ": "),
        NOT_BUILT: ("not built yet", ""),
    }[verdict.state]
    told = f"{words}{reasons}{', '.join(verdict.reasons)}" if verdict.reasons else words
    if verdict.is_default:
        told += " (the default)"
    label = f"  {verdict.flavor:<{flavors}}  "
    lines = _hang(label, printable(told), width)
    lines[0] = label + _paint(words, verdict.state, colors=colors) + lines[0][len(label) + len(words) :]
    return lines


def _hang(label: str, text: str, width: int) -> list[str]:
    return wrap(
        text,
        max(width, len(label) + _LEAST_TEXT),
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [label.rstrip()]


def _paint(text: str, state: str, *, colors: bool) -> str:
    return f"\x1b[{_COLORS[state]}m{text}\x1b[0m" if colors else text

# SPDX-License-Identifier: Apache-2.0
"""Writes the man pages: rkt(1) and one page per verb.

Names, usage and options come from the command tables, through argparse-manpage; what a table cannot say comes from
Markdown in ``docs/man/PAGE.md``, whose headings become further sections.
"""

from __future__ import annotations

import argparse
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(sys.path[0], "src"))

from argparse_manpage.manpage import Manpage

from rkt import __version__
from rkt.cli.command import Command
from rkt.cli.help import PROGRAM_DESCRIPTION, PROGRAM_SUMMARY
from rkt.cli.parse import GLOBAL_FLAGS
from tools.command_model import manual_parser, visible_commands, visible_flags

PROSE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs", "man")
MANUAL = "rkt manual"
_INLINE = re.compile(r"\*\*(?P<bold>[^*]+)\*\*|`(?P<code>[^`]+)`|\*(?P<italic>[^*\s][^*]*)\*")


def escape(text: str) -> str:
    """Text as roff shows it literally."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def inline(text: str) -> str:
    """Bold, italic and code of one line of Markdown."""
    parts = []
    position = 0
    for found in _INLINE.finditer(text):
        parts.append(escape(text[position : found.start()]))
        words = found["bold"] or found["code"]
        parts.append(f"\\fB{escape(words)}\\fR" if words else f"\\fI{escape(found['italic'])}\\fR")
        position = found.end()
    parts.append(escape(text[position:]))
    return "".join(parts)


def roff(markdown: str) -> str:
    """Paragraphs, lists with ``-``, and code blocks indented by four spaces or more."""
    lines: list[str] = []
    for block in re.split(r"\n\s*\n", markdown.strip("\n")):
        rows = block.split("\n")
        if all(row.startswith("    ") for row in rows):
            lines += [".PP", ".RS 4", ".nf", *(escape(row[4:]) for row in rows), ".fi", ".RE"]
        elif rows[0].startswith("## "):
            lines.append(f".SS {inline(rows[0][3:])}")
            if rows[1:]:
                lines.append(inline(" ".join(rows[1:])))
        elif rows[0].startswith("- "):
            for item in re.split(r"^- ", block, flags=re.MULTILINE)[1:]:
                text = " ".join(item.split())
                term, separator, meaning = text.partition(": ")
                if separator and term.startswith(("`", "*")):
                    lines += [".TP", inline(term), inline(meaning)]
                else:
                    lines += [".IP \\(bu 2", inline(text)]
        else:
            lines += [".PP", inline(" ".join(rows))]
    return "\n".join(lines)


def prose_sections(page: str) -> list[tuple[str, str]]:
    """(heading, Markdown) of the page's file, in order; nothing without a file."""
    path = os.path.join(PROSE, f"{page}.md")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    text = re.sub(r"\A(<!--.*?-->\s*)+", "", text, flags=re.DOTALL)
    parts = re.split(r"^# (.+)$", text, flags=re.MULTILINE)
    return [(heading.upper(), body) for heading, body in zip(parts[1::2], parts[2::2], strict=True)]


def head(title: str) -> str:
    """The first line of a page; no date, so that the same sources make the same bytes."""
    return f'.TH "{escape(title)}" "1" "" "rkt {escape(__version__)}" "{MANUAL}"'


def with_equals(page: str) -> str:
    """Options as they are documented elsewhere: ``--flag=VALUE``, and ``--flag[=VALUE]`` where it may be left out."""
    page = re.sub(
        r"^(\\fB\\-\\-\S+\\fR) \\fI\\,\[(.*)\]\\/\\fR$", r"\1[=\\fI\2\\fR]", page, flags=re.MULTILINE
    )
    return re.sub(r"^(\\fB\\-\\-\S+\\fR) \\fI\\,", r"\1=\\fI\\,", page, flags=re.MULTILINE)


def command_page(command: Command) -> str:
    """The page of one verb."""
    page = f"rkt-{command.name.replace(' ', '-')}"
    synopsis = f"\\fBrkt {escape(command.name)}\\fR {escape(command.usage)}".rstrip()
    manpage = Manpage(
        manual_parser(command),
        _data={"project_name": "rkt", "version": __version__, "manual_title": MANUAL, "date": "1970-01-01"},
    )
    manpage.description = command.summary
    manpage.add_section("synopsis", "=", synopsis)
    manpage.add_section("description", "=", roff(command.description or f"{command.summary.capitalize()}."))
    for heading, body in prose_sections(page):
        manpage.add_section(heading, ">", roff(body))
    if command.examples:
        text = "\n\n".join(f"{what}\n\n    {line}" for line, what in command.examples)
        manpage.add_section("examples", ">", roff(text))
    manpage.add_section("see also", ">", "\\fBrkt\\fR(1)")
    body = with_equals(str(manpage).split("\n", 1)[1])
    return f"{head(page.upper())}\n{body}"


def program_page() -> str:
    """``rkt(1)``."""
    lines = [head("RKT"), ".SH NAME", f"rkt \\- {escape(PROGRAM_SUMMARY)}"]
    lines += [".SH SYNOPSIS", "\\fBrkt\\fR [\\fIFLAG\\fR…] \\fICOMMAND\\fR …"]
    lines += [".SH DESCRIPTION", roff(PROGRAM_DESCRIPTION), ".SH COMMANDS"]
    for command in visible_commands():
        page = f"rkt-{command.name.replace(' ', '-')}"
        lines += [".TP", f"\\fB{escape(page)}\\fR(1)", f"{escape(command.summary)}"]
    lines.append(".SH GLOBAL OPTIONS")
    for flag in visible_flags(GLOBAL_FLAGS):
        default = f" (default: {flag.default})" if flag.default else ""
        value = f"=\\fI{escape(flag.metavar)}\\fR" if flag.metavar else ""
        lines += [".TP", f"\\fB\\-\\-{escape(flag.name)}\\fR{value}", escape(flag.help + default)]
    for heading, body in prose_sections("rkt"):
        lines += [f".SH {heading}", roff(body)]
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """File name to content."""
    result = {"rkt.1": program_page()}
    for command in visible_commands():
        result[f"rkt-{command.name.replace(' ', '-')}.1"] = command_page(command)
    return result


def main() -> None:
    """Write all pages; pages of an earlier build are removed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--output", required=True)
    directory = options.parse_args().output
    os.makedirs(directory, exist_ok=True)
    made = pages()
    for name in os.listdir(directory):
        if name.startswith("rkt") and name.endswith(".1") and name not in made:
            os.unlink(os.path.join(directory, name))
    for name, text in made.items():
        path = os.path.join(directory, name)
        with open(f"{path}.new", "w", encoding="utf-8") as stream:
            stream.write(text)
        os.rename(f"{path}.new", path)


if __name__ == "__main__":
    main()

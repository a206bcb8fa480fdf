# SPDX-License-Identifier: Apache-2.0
"""Help, from the same tables the parser reads (spec cli §1.2), and the command ``help``."""

from __future__ import annotations

from rkt import __version__
from rkt.cli.command import BOOL, DURATION, LIST, Command
from rkt.cli.parse import GLOBAL_FLAGS
from rkt.schema.duration import render_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rkt.cli.command import Flag, Invocation

#: Width when stdout is no terminal, and the bounds when it is, in columns.
_WIDTH = 80
_MAX_WIDTH = 100
_MIN_WIDTH = 40
_INDENT = 2
#: Where descriptions of options start, in columns; on a narrow terminal they stand below the option.
_OPTION_COLUMN = 30
_NARROW_OPTION_COLUMN = 6
_NARROW = 64

PROGRAM_SUMMARY = "runs pods of verified images, without a daemon"
GROUPS = {
    "app": "act on single apps of a pod",
    "image": "look at, check, make and remove images",
    "net": "look at, check and clean up networks of pods",
    "stage1": "check what isolates pods",
}
PROGRAM_DESCRIPTION = """\
A pod is one or more apps, each from an image, that share a network and a lifetime. Every image is verified before it \
may run: trust the key of whoever signs it with rkt trust, then rkt fetch or rkt run it.

rkt help COMMAND tells more about a command. A unique beginning of a command's name is enough."""


def width() -> int:
    """Columns to fill."""
    from rkt.cli.terminal import columns as terminal_columns

    columns = terminal_columns()
    return max(_MIN_WIDTH, min(columns, _MAX_WIDTH)) if columns else _WIDTH


def wrap(text: str, columns: int, indent: int) -> list[str]:
    """Lines of one paragraph, indented; a word longer than a line stays whole."""
    lines = []
    line = ""
    for word in text.split():
        if line and indent + len(line) + 1 + len(word) > columns:
            lines.append(" " * indent + line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    if line:
        lines.append(" " * indent + line)
    return lines


def option_head(flag: Flag) -> str:
    """``--name=default``; strings quoted, what may be left out in brackets."""
    if flag.kind == BOOL:
        short = f"-{flag.short}, " if flag.short else ""
        return f"{short}--{flag.name}={'true' if flag.default else 'false'}"
    if flag.kind == DURATION:
        return f"--{flag.name}={render_duration(flag.default)}"
    if flag.bare:
        return f"--{flag.name}[={flag.bare}]"
    if flag.default and flag.kind != LIST:
        return f'--{flag.name}="{flag.default}"'
    if flag.metavar:
        return f"--{flag.name}={flag.metavar}"
    return f"--{flag.name}=[]" if flag.kind == LIST else f'--{flag.name}=""'


def option_help(flag: Flag) -> str:
    """The description with the words allowed."""
    choices = [choice for choice in flag.choices if choice]
    if choices and not all(choice in flag.help for choice in choices):
        return f"{flag.help} ({', '.join(choices)})"
    return flag.help


def options(flags: Iterable[Flag], columns: int) -> list[str]:
    """Lines for flags, in alphabetical order; hidden and deprecated ones are left out."""
    lines = []
    column = _NARROW_OPTION_COLUMN if columns < _NARROW else _OPTION_COLUMN
    for flag in sorted(flags, key=lambda flag: flag.name):
        if not flag.hidden and not flag.deprecated:
            lines += _item(option_head(flag), option_help(flag), columns, column)
    return lines


def _item(head: str, text: str, columns: int, column: int) -> list[str]:
    lines = wrap(text, columns, column)
    first = " " * _INDENT + head
    if not lines:
        return [first]
    if len(first) + 2 > column:
        return [first, *lines]
    return [first.ljust(column) + lines[0].lstrip(), *lines[1:]]


def _section(title: str, lines: Iterable[str]) -> str:
    body = list(lines)
    return f"{title}:\n" + "".join(f"{line}\n" for line in body) if body else ""


def paragraphs(text: str, columns: int) -> list[str]:
    """Paragraphs are separated by an empty line; indented ones are kept as they are."""
    lines: list[str] = []
    for paragraph in text.strip("\n").split("\n\n"):
        if lines:
            lines.append("")
        if paragraph.startswith(" "):
            lines += [" " * _INDENT + line for line in paragraph.split("\n")]
        else:
            lines += wrap(paragraph, columns, _INDENT)
    return lines


def _command_list(commands: Iterable[Command], columns: int) -> list[str]:
    shown = [command for command in commands if not command.hidden]
    column = max((len(command.name) for command in shown), default=0) + _INDENT + 3
    lines = []
    for command in shown:
        lines += _item(command.name, command.summary, columns, column)
    return lines


def usage_section(command: Command | None) -> str:
    """``USAGE`` and the lines under it."""
    columns = width()
    return _section("USAGE", _usage(command, columns) if command else ["  rkt COMMAND"])


def _usage(command: Command, columns: int) -> list[str]:
    head = f"rkt {command.name}"
    if not command.usage:
        return [" " * _INDENT + head]
    lines = wrap(command.usage, columns, _INDENT + len(head) + 1)
    return [" " * _INDENT + head + " " + lines[0].lstrip(), *lines[1:]]


def command_help(command: Command, columns: int) -> str:
    """Help of one command."""
    from rkt.cli.app_args import APP_FLAGS

    app_flags = [APP_FLAGS[name] for name in command.app_flags]
    sections = (
        _section("NAME", wrap(f"{command.name} - {command.summary}", columns, _INDENT)),
        _section("USAGE", _usage(command, columns)),
        _section("DESCRIPTION", paragraphs(command.description, columns) if command.description else ()),
        _section("OPTIONS", options(command.flags, columns)),
        _section("APP OPTIONS (after an image)", options(app_flags, columns)),
        _section("EXAMPLES", _examples(command, columns)),
        _section("GLOBAL OPTIONS", options(GLOBAL_FLAGS, columns)),
    )
    return "\n".join(section for section in sections if section)


def _examples(command: Command, columns: int) -> list[str]:
    lines: list[str] = []
    for line, what in command.examples:
        if lines:
            lines.append("")
        lines += wrap(what, columns, _INDENT)
        lines.append(" " * (_INDENT + 2) + line)
    return lines


def group_help(group: str, commands: list[Command], columns: int) -> str:
    """Help of a group of commands."""
    sections = (
        _section("NAME", [f"  {group} - {GROUPS[group]}"]),
        _section("USAGE", [f"  rkt {group} COMMAND"]),
        _section("COMMANDS", _command_list(commands, columns)),
        _section("GLOBAL OPTIONS", options(GLOBAL_FLAGS, columns)),
    )
    return "\n".join(sections)


def program_help(commands: list[Command], columns: int) -> str:
    """Help of ``rkt`` itself."""
    sections = (
        _section("NAME", [f"  rkt - {PROGRAM_SUMMARY}"]),
        _section("USAGE", ["  rkt COMMAND"]),
        _section("VERSION", [f"  {__version__}"]),
        _section("COMMANDS", _command_list(commands, columns)),
        _section("DESCRIPTION", paragraphs(PROGRAM_DESCRIPTION, columns)),
        _section("GLOBAL OPTIONS", options(GLOBAL_FLAGS, columns)),
    )
    return "\n".join(sections)


def help_for(name: str) -> str:
    """Help of a command, of a group, or with "" of the program."""
    from rkt.cli.main import COMMANDS, load_command, load_commands

    columns = width()
    if not name:
        return program_help(load_commands(), columns)
    if name in COMMANDS:
        return command_help(load_command(name), columns)
    return group_help(name, [c for c in load_commands() if c.name.startswith(f"{name} ")], columns)


def run(invocation: Invocation) -> int:
    """Print the help of the command that the words name."""
    from rkt.cli.main import COMMANDS
    from rkt.cli.output import write
    from rkt.cli.parse import find

    found = find(invocation.words, list(COMMANDS), lambda _name: GLOBAL_FLAGS)
    write(help_for(found.name))
    return 0


COMMAND = Command(
    name="help",
    summary="tell about a command",
    usage="[COMMAND]",
    run=run,
    completes="command",
)

# SPDX-License-Identifier: Apache-2.0
"""The command tables of ``rkt.cli`` as ``argparse`` parsers, for the libraries that write man pages and completion.

Nothing here reads a command line: ``rkt.cli.parse`` does.
"""

from __future__ import annotations

import argparse
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "src"))

from rkt.cli.app_args import APP_FLAGS  # noqa: E402 - the tools run isolated, so the path comes first
from rkt.cli.command import BOOL, LIST, Command, Flag  # noqa: E402
from rkt.cli.help import GROUPS, PROGRAM_SUMMARY, option_help  # noqa: E402
from rkt.cli.main import load_commands  # noqa: E402
from rkt.cli.parse import GLOBAL_FLAGS  # noqa: E402
from rkt.schema.duration import render_duration  # noqa: E402


def visible_commands() -> list[Command]:
    """Every verb that help lists."""
    return [command for command in load_commands() if not command.hidden]


def visible_flags(flags: tuple[Flag, ...]) -> list[Flag]:
    """Flags that help lists, in its order."""
    return sorted((f for f in flags if not f.hidden and not f.deprecated), key=lambda flag: flag.name)


def app_flags(command: Command) -> tuple[Flag, ...]:
    """The flags that may follow an image."""
    return tuple(APP_FLAGS[name] for name in command.app_flags)


def default_text(flag: Flag) -> str:
    """The default as it would be typed; empty when there is none to speak of."""
    if flag.kind in {BOOL, LIST} or not flag.default:
        return "true" if flag.default is True else ""
    return str(flag.default) if isinstance(flag.default, str) else render_duration(flag.default)


def _words(flag: Flag) -> list[str]:
    return [f"-{flag.short}", f"--{flag.name}"] if flag.short else [f"--{flag.name}"]


def add_flag(group: argparse._ActionsContainer, flag: Flag, *, with_default: bool) -> argparse.Action:
    """One option; its ``completes`` word is kept as an attribute."""
    help_text = option_help(flag)
    if with_default and default_text(flag):
        help_text += f" (default: {default_text(flag)})"
    help_text = help_text.replace("%", "%%")
    if flag.kind == BOOL:
        action = group.add_argument(*_words(flag), action="store_true", help=help_text)
    else:
        choices = [choice for choice in flag.choices if choice] or None
        action = group.add_argument(
            f"--{flag.name}",
            help=help_text,
            metavar=flag.metavar or flag.name.rpartition("-")[2].upper(),
            nargs="?" if flag.bare else None,
            choices=choices,
        )
    action.rkt_completes = flag.completes  # type: ignore[attr-defined]
    return action


def add_command(parser: argparse.ArgumentParser, command: Command, *, with_defaults: bool) -> None:
    """Fill the parser of one verb; a flag that stands in two groups is kept in the first."""
    parser._optionals.title = "options"  # noqa: SLF001 - argparse has no other way to name the group
    seen: set[str] = set()
    for title, flags in (
        ("", command.flags),
        ("app options (after an image)", app_flags(command)),
        ("global options", GLOBAL_FLAGS),
    ):
        group = parser.add_argument_group(title) if title else parser
        for flag in visible_flags(flags):
            if flag.name not in seen:
                seen.add(flag.name)
                add_flag(group, flag, with_default=with_defaults)


def completion_parser() -> argparse.ArgumentParser:
    """The whole program: groups as sub-commands of sub-commands."""
    parser = argparse.ArgumentParser(prog="rkt", description=PROGRAM_SUMMARY)
    for flag in visible_flags(GLOBAL_FLAGS):
        add_flag(parser, flag, with_default=False)
    top = parser.add_subparsers()
    groups = {}
    commands = visible_commands()
    heads = {command.name.partition(" ")[0] for command in commands if " " in command.name}
    for command in commands:
        head, _, member = command.name.partition(" ")
        if member and head not in groups:
            groups[head] = top.add_parser(head, help=GROUPS[head], description=GROUPS[head]).add_subparsers()
        place = groups[head] if member else top
        own = place.add_parser(member or head, help=command.summary, description=command.summary)
        add_command(own, command, with_defaults=False)
        if command.name in heads:
            # A verb that is the head of others, such as ``trust``: its own words would stand where their names do.
            groups[head] = own.add_subparsers()
            continue
        positional = own.add_argument(
            "words", nargs="*", help=command.usage.replace("%", "%%") or argparse.SUPPRESS
        )
        positional.rkt_completes = command.completes or ("image" if command.app_flags else "")  # type: ignore[attr-defined]
    return parser


def manual_parser(command: Command) -> argparse.ArgumentParser:
    """One verb, as its man page describes it."""
    parser = argparse.ArgumentParser(prog=f"rkt-{command.name.replace(' ', '-')}", usage="", add_help=False)
    add_command(parser, command, with_defaults=True)
    return parser

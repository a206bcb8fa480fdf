# SPDX-License-Identifier: Apache-2.0
"""Writes the completion scripts of bash, zsh and fish from the command tables, through shtab."""

from __future__ import annotations

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import shtab

from tools.command_model import completion_parser, visible_commands

#: Shell to file name, as ``rkt completion`` looks for them.
SCRIPTS = {"bash": "rkt.bash", "zsh": "_rkt", "fish": "rkt.fish"}
#: What lists candidates. An image's version is cut off: bash splits words at the colon.
LISTS = {
    "image": "rkt image list --no-legend --fields=name 2>/dev/null | cut -d: -f1 | sort -u",
    "pod": "rkt list --no-legend --full 2>/dev/null | cut -f1 | grep .",
}


def attach(parser: argparse.ArgumentParser) -> None:
    """Turn each ``completes`` word into what shtab understands, in this parser and all below it."""
    for action in parser._actions:  # noqa: SLF001 - argparse offers no other walk
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for child in action.choices.values():
                attach(child)
            continue
        word = getattr(action, "rkt_completes", "")
        if word in LISTS:
            action.complete = shtab.cmd(LISTS[word])  # type: ignore[attr-defined]
        elif word == "file":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif word == "directory":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif word == "shell":
            action.choices = list(SCRIPTS)
        elif word == "command":
            action.choices = list(dict.fromkeys(c.name.partition(" ")[0] for c in visible_commands()))


def scripts() -> dict[str, str]:
    """File name to content."""
    parser = completion_parser()
    attach(parser)
    return {name: shtab.complete(parser, shell=shell) for shell, name in SCRIPTS.items()}


def main() -> None:
    """Write all scripts."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--output", required=True)
    directory = options.parse_args().output
    os.makedirs(directory, exist_ok=True)
    for name, text in scripts().items():
        path = os.path.join(directory, name)
        with open(f"{path}.new", "w", encoding="utf-8") as stream:
            stream.write(text)
        os.rename(f"{path}.new", path)


if __name__ == "__main__":
    main()

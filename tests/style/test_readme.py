# SPDX-License-Identifier: Apache-2.0
"""What the documents point at exists."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

import pytest

from rkt.cli import main
from rkt.cli.parse import GLOBAL_FLAGS, find, parse
from tests.lib.tree import ROOT, read_text, tracked_files

if TYPE_CHECKING:
    from rkt.cli.command import Flag

DOCUMENTS = [
    path
    for path in tracked_files()
    if path.endswith(".md") and not path.startswith("changes.d/") and path != "CHANGELOG.md"
]
#: Two screens, with a margin for people with large ones.
MAX_README_LINES = 130


def _commands(text: str) -> list[str]:
    """Lines of shell blocks that a reader types."""
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line[2:].split(" #")[0].strip() for line in lines if line.startswith(("$ ", "# "))]


def test_readme_begins_with_demo_then_test() -> None:
    """The first command of the README is ``make demo``, the second ``make test``."""
    commands = _commands(read_text("README.md"))
    assert commands[:2] == ["make demo", "make test"]


def test_readme_fits_on_two_screens() -> None:
    """The README stays short."""
    assert len(read_text("README.md").splitlines()) <= MAX_README_LINES


def test_every_document_is_in_the_index() -> None:
    """``docs/README.md`` names each document, of ``docs/adr`` and ``docs/man`` the places."""
    index = read_text("docs/README.md")
    own = [path for path in DOCUMENTS if path.startswith(("docs/", "docs/devel/"))]
    wanted = {path.removeprefix("docs/") for path in own if not path.startswith(("docs/adr/", "docs/man/"))}
    named = set(re.findall(r"\]\(([^)]+)\)", index))
    assert wanted - named - {"README.md"} == set()


def test_make_targets_of_documents_exist() -> None:
    """Every ``make TARGET`` that a document tells to type is a target."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", read_text("Makefile"), re.MULTILINE))
    for path in DOCUMENTS:
        for command in _commands(read_text(path)):
            words = command.split()
            if words[:1] == ["make"] and len(words) > 1:
                assert words[1] in targets, f"{path}: {command}"


@pytest.mark.parametrize("path", DOCUMENTS)
def test_commands_of_documents_are_understood(path: str) -> None:
    """Every ``rkt`` command that a document tells to type is one, with flags that it has."""
    text = read_text(path).replace("\\\n", " ")
    for line in _commands(text):
        command = re.split(r" [|&>;]", line.removeprefix("sudo "))[0].rstrip(" &")
        if not command.startswith("rkt "):
            continue
        words = [word for word in shlex.split(command)[1:] if "…" not in word]
        found = find(words, list(main.COMMANDS), _flags)
        if found.name in main.COMMANDS:
            parse(found.words, main.load_command(found.name))


def _flags(name: str) -> tuple[Flag, ...]:
    return (*main.load_command(name).flags, *GLOBAL_FLAGS) if name in main.COMMANDS else GLOBAL_FLAGS


@pytest.mark.parametrize("path", DOCUMENTS)
def test_relative_links_lead_somewhere(path: str) -> None:
    """A link without a scheme names a file of the repository."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", read_text(path)):
        if "://" in target or target.startswith("mailto:"):
            continue
        assert os.path.exists(os.path.join(ROOT, os.path.dirname(path), target)), target

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from rkt.cli.app_args import APP_FLAGS
from rkt.cli.main import COMMANDS, load_commands
from rkt.cli.parse import GLOBAL_FLAGS
from tools.build_completion import scripts
from tools.build_man import PROSE, pages
from tools.command_model import ROOT, app_flags, visible_commands, visible_flags

PAGES = pages()
SCRIPTS = scripts()
_FLAG = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*)")


def plain(roff: str) -> str:
    """Roff without its escapes of dashes."""
    return roff.replace("\\-", "-")


def test_every_command_has_a_page() -> None:
    """One page for rkt and one for each verb that help lists."""
    names = {f"rkt-{command.name.replace(' ', '-')}.1" for command in visible_commands()}
    assert set(PAGES) == names | {"rkt.1"}


def test_every_flag_is_in_its_page() -> None:
    """What the parser accepts and help lists, the page describes."""
    for command in visible_commands():
        text = plain(PAGES[f"rkt-{command.name.replace(' ', '-')}.1"])
        for flag in visible_flags((*command.flags, *app_flags(command), *GLOBAL_FLAGS)):
            assert f"--{flag.name}" in text, (command.name, flag.name)


def test_prose_names_only_flags_that_exist() -> None:
    """A flag that is renamed or dropped does not live on in docs/man."""
    known = {flag.name for command in load_commands() for flag in command.flags}
    known |= {flag.name for flag in GLOBAL_FLAGS} | set(APP_FLAGS)
    for name in os.listdir(PROSE):
        with open(os.path.join(PROSE, name), encoding="utf-8") as stream:
            assert set(_FLAG.findall(stream.read())) <= known, name


def test_prose_belongs_to_a_command() -> None:
    """No file of docs/man is left without a page."""
    names = {f"rkt-{name.replace(' ', '-')}.md" for name in COMMANDS} | {"rkt.md"}
    assert {name for name in os.listdir(PROSE) if name.endswith(".md")} <= names


def test_summaries_and_help_are_written_in_one_form() -> None:
    """One line, lower case at the start, no full stop at the end; every flag that is shown has words."""
    for command in visible_commands():
        texts = [command.summary, *(f.help for f in visible_flags((*command.flags, *app_flags(command))))]
        for text in texts:
            assert text, command.name
            assert "\n" not in text, text
            assert not text.endswith("."), text
            assert not text.split()[0].istitle(), text


@pytest.mark.parametrize("tool", ["build_man.py", "build_completion.py"])
def test_the_tools_run_isolated(tool: str, tmp_path: os.PathLike[str]) -> None:
    """As make runs them: without the caller's environment and its paths, the same text comes out."""
    path = os.path.join(ROOT, "tools", tool)
    subprocess.run([sys.executable, "-I", path, "--output", os.fspath(tmp_path)], check=True, timeout=60)
    made = {}
    for name in os.listdir(tmp_path):
        with open(os.path.join(tmp_path, name), encoding="utf-8") as stream:
            made[name] = stream.read()
    assert made == (PAGES if tool == "build_man.py" else SCRIPTS)


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("name", sorted(PAGES))
def test_pages_are_valid_roff(name: str) -> None:
    """The formatter has nothing to complain about."""
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-k", "-ww", "-z"],
        input=PAGES[name],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    complaints = [
        line for line in done.stderr.splitlines() if "adjust line" not in line and "break line" not in line
    ]
    assert complaints == []


def test_completion_knows_every_command_and_flag() -> None:
    """The scripts of all three shells name every verb and every flag that help lists."""
    for name, text in SCRIPTS.items():
        for command in visible_commands():
            assert command.name.rpartition(" ")[2] in text, (name, command.name)
            for flag in visible_flags((*command.flags, *app_flags(command))):
                assert f"--{flag.name}" in text or f"-l {flag.name}" in text, (name, flag.name)


def complete(tmp_path: os.PathLike[str], *words: str) -> list[str]:
    """What bash offers for the last word."""
    path = os.path.join(tmp_path, "rkt.bash")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(SCRIPTS["rkt.bash"])
    code = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); '
        'fn=$(complete -p rkt | sed "s/.*-F \\([^ ]*\\).*/\\1/"); "$fn" rkt "${COMP_WORDS[COMP_CWORD]}" ""; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", code, "bash", path, "rkt", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("vers",), "version"),
        (("image", "li"), "list"),
        (("config", "--pre"), "--pretty-print"),
        (("completion", "fi"), "fish"),
        (("help", "compl"), "completion"),
    ],
)
def test_bash_completes(words: tuple[str, ...], expected: str, tmp_path: os.PathLike[str]) -> None:
    """Commands, members of groups, flags and choices are completed by the shell itself."""
    assert expected in [word.strip() for word in complete(tmp_path, *words)]

# SPDX-License-Identifier: Apache-2.0
"""Changelog fragments have the form that CONTRIBUTING.md asks for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib

import pytest

from tests.lib.tree import ROOT, read_text, tracked_files

FRAGMENTS = [
    path for path in tracked_files() if path.startswith("changes.d/") and path != "changes.d/README.md"
]


def _kinds() -> list[str]:
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as stream:
        return [kind["directory"] for kind in tomllib.load(stream)["tool"]["towncrier"]["type"]]


@pytest.mark.parametrize("path", FRAGMENTS)
def test_fragment_is_one_sentence(path: str) -> None:
    """A fragment is ``NUMBER.KIND.md``, or ``NUMBER.KIND.COUNT.md``, and holds one sentence on one line."""
    assert re.fullmatch(rf"changes\.d/\d+\.({'|'.join(_kinds())})(\.\d+)?\.md", path)
    text = read_text(path)
    assert text.endswith(".\n")
    assert text.count("\n") == 1
    assert text[0].isupper() or text[0] == "`"


def test_fragments_assemble() -> None:
    """Towncrier makes a changelog of the fragments."""
    draft = subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "0", "--date", "today"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert draft.returncode == 0, draft.stderr
    for path in FRAGMENTS:
        assert read_text(path).strip()[:60] in draft.stdout

# SPDX-License-Identifier: Apache-2.0
"""Nothing in the repository is true on one machine only."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from tests.lib.tree import ROOT, is_text, read_text, tracked_files


def _words_of_this_machine() -> list[str]:
    """The checkout's own path, and where this machine gets its Python packages from."""
    words = [ROOT] if ROOT.count("/") > 1 else []
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    )
    for line in listing.stdout.splitlines():
        key, _, values = line.partition("=")
        if not key.endswith(("index-url", "find-links")):
            continue
        for value in values.strip("'\"").split():
            parts = urlsplit(value)
            word = parts.hostname or parts.path
            if word.count("/") > 1 or parts.hostname:
                words.append(word)
    name = socket.gethostname()
    # A short name such as "vm" may well be a word of the text.
    return words + ([name] if len(name) > 8 else [])


@pytest.mark.parametrize("word", _words_of_this_machine())
def test_no_file_names_this_machine(word: str) -> None:
    """No tracked file holds the checkout's path, the host's name or the address of a package server."""
    holders = [path for path in tracked_files() if is_text(path) and word in read_text(path)]
    assert not holders


def test_no_file_is_a_link_out_of_the_tree() -> None:
    """Symbolic links in the repository stay inside it."""
    for path in tracked_files():
        full = os.path.join(ROOT, path)
        if os.path.islink(full):
            assert os.path.realpath(full).startswith(ROOT + os.sep)

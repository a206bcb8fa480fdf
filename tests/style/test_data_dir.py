# SPDX-License-Identifier: Apache-2.0
"""The data directory as packagers make it is the one the engine makes."""

from __future__ import annotations

from rkt.pod import lifecycle
from rkt.store import layout
from tests.lib.tree import read_text


def test_tmpfiles_lists_what_the_engine_makes() -> None:
    """Path and mode of every directory agree between tmpfiles.d and the code."""
    listed = {}
    for line in read_text("dist/tmpfiles.d/rkt.conf").splitlines():
        words = line.split()
        if words[:1] == ["d"] and words[1].startswith("@DATA_DIR@"):
            listed[words[1].removeprefix("@DATA_DIR@").lstrip("/")] = int(words[2], 8)
    made = dict(layout._DIRECTORIES)
    for name in ("pods", *(f"pods/{place}" for place in (*lifecycle.PLACES, lifecycle.NAMES))):
        made[name] = lifecycle._STATE_DIRECTORY_MODE
    assert listed == made

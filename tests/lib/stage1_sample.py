# SPDX-License-Identifier: Apache-2.0
"""The sample stage1 of docs/examples: built as the guide says, and with defects put into it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from tests.lib.rkt import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NAME = "example.com/stage1-sample"
SAMPLE = os.path.join(ROOT, "docs", "examples", "stage1-sample")


def build(
    directory: str,
    *,
    defects: Sequence[tuple[str, str]] = (),
    change: Callable[[dict[str, Any]], None] | None = None,
) -> str:
    """Build the image by its own script; returns its path.

    Args:
        directory: empty or missing.
        defects: (text of the program, what stands there instead); each text must be there exactly once.
        change: what to do to the manifest.
    """
    source = os.path.join(directory, "source")
    shutil.copytree(SAMPLE, source)
    program = os.path.join(source, "stage1")
    with open(program, encoding="utf-8") as stream:
        text = stream.read()
    for old, new in defects:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    with open(program, "w", encoding="utf-8") as stream:
        stream.write(text)
    if change is not None:
        path = os.path.join(source, "manifest.json")
        with open(path, encoding="utf-8") as stream:
            manifest = json.load(stream)
        change(manifest)
        with open(path, "w", encoding="utf-8") as stream:
            json.dump(manifest, stream)
    image = os.path.join(directory, "stage1-sample.aci")
    subprocess.run([os.path.join(source, "build.sh"), image], check=True)
    return image

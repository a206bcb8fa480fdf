# SPDX-License-Identifier: Apache-2.0
"""Every reader of hostile bytes, for a short time: its corpus, random changes of that, and what atheris makes of it.

``RKT_FUZZ_SEED`` repeats a run, ``make fuzz`` makes a long one (docs/devel/fuzzing.md).
"""

from __future__ import annotations

import os
import platform
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.changes import changed
from tests.fuzz.target import CORPUS
from tests.fuzz.targets import TARGETS
from tests.lib.pace import SLOWNESS

if TYPE_CHECKING:
    from pathlib import Path

SEED = int(os.environ["RKT_FUZZ_SEED"])
#: Time of the processor for each target: random changes, and atheris.
CHANGES_SECONDS = 0.05
ATHERIS_SECONDS = 0.15


def test_each_target_has_its_corpus() -> None:
    """No target is without samples, and no samples are without their target."""
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    """What is known, real samples and what was found once, is read as it must be; some of it is accepted, some refused."""
    target = TARGETS[name]
    verdicts = {file: target.accepts(data) for file, data in target.corpus().items()}
    wanted = {True, False} if target.refuses else {True}
    assert set(verdicts.values()) == wanted, verdicts


@pytest.mark.parametrize("name", TARGETS)
def test_random_changes(name: str) -> None:
    """What must hold of a reader holds for inputs near those that are known."""
    target = TARGETS[name]
    corpus = list(target.corpus().values())
    source = random.Random(f"{name} {SEED}")
    end = time.thread_time() + CHANGES_SECONDS
    while time.thread_time() < end:
        data = changed(source, source.choice(corpus), corpus, target.pieces)[: target.max_bytes]
        try:
            target.accepts(data)
        except Exception as e:
            e.add_note(f"RKT_FUZZ_SEED={SEED}: {data!r}")
            raise


def test_guided(tmp_path: Path) -> None:
    """What must hold of each reader holds for inputs that reach code which the known ones do not."""
    pytest.importorskip(
        "atheris",
        reason=f"atheris, which fuzzes, is not to be had for Python {platform.python_version()} on {platform.machine()}",
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.engine", f"--cpu-seconds={ATHERIS_SECONDS}", f"--seed={SEED % (1 << 31)}", "--jobs=1",
         f"--findings={tmp_path}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240 * SLOWNESS,
    )  # fmt: skip
    found = "\n".join(path.read_text() for path in tmp_path.glob("*/*.txt"))
    assert done.returncode == 0, f"{done.stderr}\n{found}"
    assert done.stderr.count(" inputs, 0 findings") == len(TARGETS), done.stderr

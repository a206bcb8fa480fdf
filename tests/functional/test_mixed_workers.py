# SPDX-License-Identifier: Apache-2.0
"""Eight workers doing everything to the same pods, against a model of what each answer may be (``tests/lib/mixed.py``)."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from tests.lib.inspect import inspect_image, stored
from tests.lib.mixed import Mixed, lines
from tests.lib.mixed_model import EXITED, MAKING, RUNNING, Subject, Surprise
from tests.lib.pace import SLOWNESS

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root

#: ``make soak MINUTES=10`` takes longer; the suite has a moment only.
SECONDS = float(os.environ.get("RKT_TEST_SOAK_SECONDS", "8"))
#: Printed; with the same one the workers choose the same things, though not at the same moments.
SEED = int(os.environ.get("RKT_TEST_SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)


@pytest.mark.timeout(SECONDS + 300 * SLOWNESS)
def test_mixed_workers(rkt: Rkt, images: Images) -> None:
    """Whatever run, stop, start, gc, rm, list, enter, pause and app do at once: no pod is lost, nothing hangs, every answer is one that the pod's state explains, and one gc leaves nothing."""
    mixed = Mixed(rkt, stored(rkt, inspect_image(images)), SEED)
    mixed.run(SECONDS)
    print("\n".join(lines(mixed)))
    assert not mixed.problems, "\n\n".join(mixed.problems)
    assert mixed.answers, "nobody did anything"


def test_the_model_notices() -> None:
    """An answer that fits no state that was possible is a problem, and so is one that contradicts what was proved."""
    pod = Subject("pod", {MAKING}, frozenset({(MAKING, RUNNING)}))
    stopping = pod.watch("stop", frozenset({(RUNNING, EXITED)}))
    looking = pod.watch("status", frozenset())
    assert looking.seen == {MAKING, RUNNING, EXITED}
    stopping.end("", {EXITED})
    looking.end("", {RUNNING})
    assert pod.possible == {EXITED}
    late = pod.watch("status", frozenset())
    assert late.seen == {EXITED}
    with pytest.raises(Surprise, match="cannot be running"):
        late.end("", {RUNNING})

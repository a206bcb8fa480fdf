# SPDX-License-Identifier: Apache-2.0
"""Power cuts: whatever part of the unsynced writes a disk has kept, the state is whole, and what was reported done is there."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from tests.lib import powercut
from tests.lib.whole import NAME, Subject

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root

#: ``make soak`` takes more.
CUTS = int(os.environ.get("RKT_TEST_POWER_CUTS", "4"))
SEED = int(os.environ["RKT_TEST_FAULTS_SEED"])


@pytest.mark.timeout(300 + 10 * CUTS)
def test_power_cuts(rkt: Rkt, images: Images) -> None:
    """After a cut at any moment of fetch, prepare, run, rm, gc and image rm every command works, and a fetched image runs."""
    if reason := powercut.missing():
        pytest.skip(reason)
    disk = powercut.Recorder(rkt.tmp, rkt.data)
    try:
        subject = Subject(rkt, images)
        fetched = disk.position()
        rkt.run("run", "--name=crash", NAME, check=0)
        uuid = rkt.run("prepare", NAME, check=0).stdout.strip()
        rkt.run("rm", uuid, check=0)
        rkt.run("gc", "--grace-period=0", check=0)
        forgetting = disk.position()
        subject.forget()
        subject.fetch()
        again = disk.position()
        rkt.run("run", NAME, check=0)
    finally:
        disk.close()
    cut = powercut.Cut(disk.base, disk.log)
    end = os.path.getsize(disk.log)
    dice = random.Random(SEED)
    for number in range(CUTS):
        # Fetching is where the most is written: as many cuts in what is later.
        position = dice.randrange(end) if number % 2 else dice.randrange(fetched, end)
        moment = f"seed {SEED}, cut {number} at {position} of {end}"
        with powercut.mounted(cut.image(position, dice), rkt.data):
            subject.check(moment)
            names = rkt.run("image", "list", "--no-legend", "--fields=name", check=0).lines
            if fetched <= position < forgetting or position >= again:
                assert NAME in names, f"{moment}: the image was reported as fetched"
            subject.proves_usable(moment)
    print(f"seed {SEED}: {CUTS} cuts of {end} bytes")

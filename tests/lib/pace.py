# SPDX-License-Identifier: Apache-2.0
"""How slow this host is, for tests that wait for something or do it many times.

``RKT_TEST_SLOWNESS=N`` says that everything takes N times as long as on a usual machine, as in a virtual machine
without acceleration: waits get N times longer, and what is repeated to meet a rare moment is repeated less.
``RKT_TEST_MORE=N`` repeats that N times as often.
"""

from __future__ import annotations

import os

SLOWNESS = max(float(os.environ.get("RKT_TEST_SLOWNESS", "1")), 1.0)


MORE = max(int(os.environ.get("RKT_TEST_MORE", "1")), 1)


def rounds(count: int, *, at_least: int = 4) -> int:
    """How often to do what is done ``count`` times on a usual machine."""
    return max(int(count * MORE / SLOWNESS), min(at_least, count))

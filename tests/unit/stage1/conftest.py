# SPDX-License-Identifier: Apache-2.0
"""What holds of every unit test of stage1."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


def descriptors() -> dict[int, str]:
    """Those that are open, and what they lead to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # of the listing itself
    return found


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    """A supervisor lives for as long as its pod: whoever opens something closes it, tests too."""
    before = descriptors()
    yield
    left = {fd: what for fd, what in descriptors().items() if before.get(fd) != what}
    if left:
        gc.collect()
        left = {fd: what for fd, what in descriptors().items() if before.get(fd) != what}
    assert left == {}

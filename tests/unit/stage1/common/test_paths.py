# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

from rkt.stage1.common import paths


def test_heat_of_each_processor(tmp_path: os.PathLike[str]) -> None:
    """Invariant RN7: where the hardware counts throttling, the directory of each processor is hidden."""
    root = f"{os.fspath(tmp_path)}/"
    assert paths.thermal_directories(root) == []
    for name in ("cpu0/thermal_throttle", "cpu11/thermal_throttle", "cpu2/cache", "cpufreq"):
        os.makedirs(f"{root}sys/devices/system/cpu/{name}")
    assert paths.thermal_directories(root) == [
        b"sys/devices/system/cpu/cpu0/thermal_throttle",
        b"sys/devices/system/cpu/cpu11/thermal_throttle",
    ]


def test_lists_are_sorted_and_relative() -> None:
    """No path is listed twice, and none leads out of the app's root."""
    for each in (paths.MASKED, paths.READ_ONLY):
        assert list(each) == sorted(set(each))
        assert not [path for path in each if path.startswith(b"/") or b".." in path]

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rkt.linux import cgroup, cgroup_limits, cgroupfs

if TYPE_CHECKING:
    from pathlib import Path

NAME = "rkt-6e3f2d8a"


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(0, 1), (2, 1), (1024, 100), (262144, 10000), (1 << 30, 10000), (2048, 174), (512, 59)],
)
def test_weight(shares: int, weight: int) -> None:
    """Shares of version 1 become weights of version 2 such that both defaults and both ends correspond."""
    assert cgroup_limits.weight_of_shares(shares) == weight


def test_weight_grows() -> None:
    """More shares are never less weight."""
    weights = [cgroup_limits.weight_of_shares(shares) for shares in range(2, 262145, 97)]
    assert weights == sorted(weights)


@pytest.mark.parametrize(
    ("version", "file", "text", "limit_bytes"),
    [
        (1, "memory.limit_in_bytes", "9223372036854771712\n", 0),
        (1, "memory.limit_in_bytes", "67108864\n", 67108864),
        (2, "memory.max", "max\n", 0),
        (2, "memory.max", "67108864\n", 67108864),
    ],
)
def test_the_memory_limit_of_a_group(
    tmp_path: Path, version: int, file: str, text: str, limit_bytes: int
) -> None:
    """A group without a limit has none with either version, though version 1 has a number for it."""
    (tmp_path / file).write_text(text)
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    hierarchy = cgroupfs.Hierarchy(version, ["memory"] if version == 1 else [], str(tmp_path), "/", "/")
    assert (
        cgroup_limits.memory_limit(cgroup.Group(NAME, [(hierarchy, "/", str(tmp_path))], [])) == limit_bytes
    )

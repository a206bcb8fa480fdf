# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.linux import cgroup_devices
from tests.lib.bpf import run_device_program

BLOCK, CHARACTER = 1, 2
MKNOD, READ, WRITE = 1, 2, 4
DEFAULT = cgroup_devices.assemble(cgroup_devices.DEFAULT_DEVICES)


@pytest.mark.parametrize(("major", "minor"), [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0)])
def test_allowed(major: int, minor: int) -> None:
    """The devices that every app has may be used in every way."""
    for access in range(1, 8):
        assert run_device_program(DEFAULT, CHARACTER, access, major, minor) == 1


@pytest.mark.parametrize(("major", "minor"), [(5, 1), (5, 2), (136, 0), (136, 4095), (10, 200)])
def test_terminals_and_tunnels(major: int, minor: int) -> None:
    """Terminals and tunnels may be used where they are, and not be made (runtime A5)."""
    assert run_device_program(DEFAULT, CHARACTER, READ | WRITE, major, minor) == 1
    for access in range(1, 8, 2):
        assert run_device_program(DEFAULT, CHARACTER, access, major, minor) == 0


@pytest.mark.parametrize(
    ("kind", "major", "minor"),
    [
        (BLOCK, 1, 3),  # ram disk, same numbers as null
        (BLOCK, 254, 0),
        (BLOCK, 7, 0),
        (CHARACTER, 1, 1),  # mem
        (CHARACTER, 1, 4),  # port
        (CHARACTER, 1, 11),  # kmsg
        (CHARACTER, 10, 237),  # loop-control
        (CHARACTER, 10, 232),  # kvm
        (CHARACTER, 4, 0),
        (CHARACTER, 137, 0),
        (CHARACTER, 0, 0),
    ],
)
def test_refused(kind: int, major: int, minor: int) -> None:
    """Invariant UN8: everything else is refused, in every way."""
    for access in range(1, 8):
        assert run_device_program(DEFAULT, kind, access, major, minor) == 0


def test_partial_access() -> None:
    """An access passes only when one rule allows all of it."""
    program = cgroup_devices.assemble([("b", 8, 1, "r"), ("b", 8, None, "w"), ("c", 9, 9, "rw")])
    assert run_device_program(program, BLOCK, READ, 8, 1) == 1
    assert run_device_program(program, BLOCK, WRITE, 8, 1) == 1
    assert run_device_program(program, BLOCK, READ | WRITE, 8, 1) == 0
    assert run_device_program(program, BLOCK, READ, 8, 2) == 0
    assert run_device_program(program, CHARACTER, READ | WRITE, 9, 9) == 1
    assert run_device_program(program, CHARACTER, READ | MKNOD, 9, 9) == 0


def test_no_rule() -> None:
    """Without rules nothing passes."""
    assert run_device_program(cgroup_devices.assemble([]), CHARACTER, READ, 1, 3) == 0

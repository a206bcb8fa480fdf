# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import pytest

from rkt.linux import capabilities, libc


def test_numbers() -> None:
    """The names stand at the kernel's numbers."""
    for name, number in (
        ("CHOWN", 0),
        ("SETPCAP", 8),
        ("SYS_ADMIN", 21),
        ("MKNOD", 27),
        ("CHECKPOINT_RESTORE", 40),
    ):
        assert capabilities.mask([name]) == 1 << number
    assert len(capabilities.NAMES) == len(set(capabilities.NAMES)) == 41


def test_mask_and_names() -> None:
    """Names may be short, long and in any case, and come back in the kernel's order."""
    bits = capabilities.mask(["cap_kill", "CHOWN", "Cap_Sys_Chroot"])
    assert capabilities.names(bits) == ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_CHROOT"]
    assert capabilities.names(1 << 63) == ["CAP_63"]
    assert capabilities.names(0) == []


@pytest.mark.parametrize("name", ["", "CAP_", "CAP_WINGS", "CAP_CAP_KILL"])
def test_unknown_name(name: str) -> None:
    """An unknown capability is refused."""
    with pytest.raises(ValueError, match="unknown capability"):
        capabilities.mask([name])


def test_own_sets() -> None:
    """The system call and /proc agree, and the kernel's last capability bounds the full mask."""
    status = capabilities.read_status()
    assert libc.capget() == (status["CapEff"], status["CapPrm"], status["CapInh"])
    assert capabilities.full_mask().bit_length() == capabilities.last_capability() + 1
    assert capabilities.missing(capabilities.full_mask()) == capabilities.full_mask() & ~status["CapPrm"]
    assert capabilities.read_status(os.getpid()) == status

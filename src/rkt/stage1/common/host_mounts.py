# SPDX-License-Identifier: Apache-2.0
"""Where the host's mounts are, as stage0 has passed it on (docs/stage1-contract.md)."""

from __future__ import annotations

import os

from rkt.stage0 import contract
from rkt.values import is_number


def host_mounts() -> int:
    """The descriptor of the host's mount namespace, -1 without one."""
    return _descriptor(contract.ENV_HOST_MOUNTS)


def host_root() -> int:
    """The descriptor of stage0's root directory there, -1 without one."""
    return _descriptor(contract.ENV_HOST_ROOT)


def _descriptor(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if is_number(text) else -1

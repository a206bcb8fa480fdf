# SPDX-License-Identifier: Apache-2.0
"""Where the host's mounts are, as stage0 has passed it on (docs/stage1-contract.md)."""

from __future__ import annotations

import os

from rkt.stage0 import contract


def host_mounts() -> int:
    """The descriptor of the host's mount namespace, -1 without one."""
    text = os.environ.get(contract.ENV_HOST_MOUNTS, "")
    return int(text) if text.isdecimal() else -1

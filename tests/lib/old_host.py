# SPDX-License-Identifier: Apache-2.0
"""A host with cgroups of version 1 alone, made of one that has both."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.linux import cgroupfs

if TYPE_CHECKING:
    from tests.lib.rkt import Rkt


def hide_version_2(rkt: Rkt) -> None:
    """From now on the hierarchy of version 2 does not exist to an engine; skips where there are not both."""
    host = cgroupfs.detect()
    if host.unified is None or not any(each.offers("freezer") for each in host):
        pytest.skip("the host has no cgroup hierarchies of both versions")
    path = f"{rkt.base}/old-rkt"
    inside = f'umount {host.unified.mount_point} && exec {rkt.binary} "$@"'
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(f"#!/bin/sh\nexec unshare --mount /bin/sh -c '{inside}' sh \"$@\"\n")
    os.chmod(path, 0o755)
    rkt.binary = path

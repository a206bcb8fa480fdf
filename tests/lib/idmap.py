# SPDX-License-Identifier: Apache-2.0
"""Whether the host has idmapped mounts where the tests need them."""

from __future__ import annotations

import os
import tempfile

import pytest

from rkt.linux import mount
from rkt.linux.userns import IdRange, UserNamespace


def can_map(path: str) -> bool:
    """Whether a mount of that directory can be shown with other ids."""
    if os.geteuid() != 0:
        return False
    try:
        with UserNamespace.create(IdRange(3_000_000, 65536)) as users:
            os.close(mount.clone(path, recursive=False, idmap_fd=users.idmap_fd))
    except OSError:
        return False
    return True


def has_overlay_over_idmapped_mounts() -> bool:
    """Whether the kernel is 5.19 or later."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (5, 19)


#: For tests whose data directory or volumes are below the directory for temporary files.
needs_idmapped_mounts = pytest.mark.skipif(
    not (has_overlay_over_idmapped_mounts() and can_map(tempfile.gettempdir())),
    reason="the kernel or the file system of temporary files has no idmapped mounts with overlays",
)

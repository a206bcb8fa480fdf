# SPDX-License-Identifier: Apache-2.0
"""Unpacks images into directories of the test, through real descriptors."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.tarsplit import rebuild
from rkt.image.unpack import UnpackResult, unpack_aci
from rkt.image.verify import Difference, verify_layer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rkt.image.limits import Limits


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor for the time of a ``with``."""
    fd = os.open(path, flags, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def stream(data: bytes) -> Iterator[int]:
    """A descriptor from which the data can be read."""
    fd = os.memfd_create("image")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


@dataclass
class Unpacked:
    """An image on disk."""

    tree: Path
    split: Path
    result: UnpackResult

    def rebuild(self) -> bytes:
        """The tar again."""
        out = self.tree.parent / "rebuilt"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with opened(self.split) as split_fd, opened(self.tree) as tree_fd, opened(out, flags) as out_fd:
            rebuild(split_fd, tree_fd, out_fd)
        return out.read_bytes()

    def verify(self) -> list[Difference]:
        """Differences to what was unpacked."""
        with opened(self.split) as split_fd, opened(self.tree) as tree_fd:
            return verify_layer(split_fd, tree_fd)

    def found(self) -> set[tuple[str, str]]:
        """Differences as (path below ``rootfs``, what)."""
        return {(d.path.decode().removeprefix("rootfs/"), d.what) for d in self.verify()}


def unpack(base: Path, data: bytes, limits: Limits = DEFAULT_LIMITS) -> Unpacked:
    """Unpack an image below a directory of the test; errors pass through."""
    tree = base / "tree"
    tree.mkdir()
    split = base / "split"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with stream(data) as stream_fd, opened(tree) as tree_fd, opened(split, flags) as split_fd:
        result = unpack_aci(stream_fd, tree_fd, split_fd, limits)
    return Unpacked(tree, split, result)

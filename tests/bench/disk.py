# SPDX-License-Identifier: Apache-2.0
"""What images are fetched to: ext4 with a journal, as hosts have it, in a file of the host's own file system.

Without a journal, as on the disks of small virtual machines, ext4 looks past every inode that was deleted in the last
minutes whenever it makes a file (``recently_deleted`` of fs/ext4/ialloc.c), so that each engine pays for what the one
before has removed: three seconds more after each image of 15 000 files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

from tests.lib.rkt import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

_FORMAT = ("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard")
#: For a small image: journal, registry, and the engines' own files.
_LEAST_MIB = 2048
#: Of an image as files and compressed, in the stores of all engines, in the registry, and as what they are made of.
_COPIES = 12


@contextlib.contextmanager
def journalled(mib: int) -> Iterator[str]:
    """A directory with room for what is done with an image of so many MiB; without loop devices, one of the host."""
    base = tempfile.mkdtemp(prefix="rkt-bench-disk-")
    try:
        if not os.path.exists("/dev/loop-control") or shutil.which(_FORMAT[0]) is None:
            yield base
            return
        image = f"{base}/image"
        with open(image, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, (_LEAST_MIB + _COPIES * mib) << 20)
        subprocess.run([*_FORMAT, image], check=True)
        os.mkdir(f"{base}/disk")
        subprocess.run(["mount", "-o", "loop", image, f"{base}/disk"], check=True)
        try:
            yield f"{base}/disk"
        finally:
            subprocess.run(["umount", f"{base}/disk"], check=True)
    finally:
        remove_tree(base)

# SPDX-License-Identifier: Apache-2.0
"""The files of the checkout, for tests of style."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
#: Directories that hold what was built, not what was written.
_BUILT = {
    ".git",
    ".venv",
    "build",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
}


@functools.cache
def tracked_files() -> tuple[str, ...]:
    """Paths relative to the root: what git knows, or everything that is not built where there is no repository."""
    if shutil.which("git") and os.path.exists(os.path.join(ROOT, ".git")):
        listing = subprocess.run(
            ["git", "-c", f"safe.directory={ROOT}", "-C", ROOT, "ls-files", "-z"],
            check=True,
            capture_output=True,
        )
        paths = os.fsdecode(listing.stdout).split("\0")
        return tuple(sorted(path for path in paths if path and os.path.exists(os.path.join(ROOT, path))))
    found = []
    for directory, names, files in os.walk(ROOT):
        names[:] = [name for name in names if name not in _BUILT]
        found += [os.path.relpath(os.path.join(directory, name), ROOT) for name in files]
    return tuple(sorted(path for path in found if path != "bin/rkt"))


def read_text(path: str) -> str:
    """Content of a file, by its path relative to the root."""
    with open(os.path.join(ROOT, path), encoding="utf-8") as stream:
        return stream.read()


def is_text(path: str) -> bool:
    """Whether a file has no zero byte near its start."""
    with open(os.path.join(ROOT, path), "rb") as stream:
        return b"\0" not in stream.read(8192)

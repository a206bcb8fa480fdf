# SPDX-License-Identifier: Apache-2.0
"""What is being built: the version, and the moment that is written into everything that is made of it.

A commit that bears the tag ``vVERSION`` and an unpacked source archive are a release. Any other commit has a version
below that of the release it leads to, so that the release is an upgrade from it.
"""

from __future__ import annotations

import os
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
#: Only source archives have it; its time is that of the commit they were made of.
_OF_ARCHIVE = os.path.join(ROOT, "PKG-INFO")


def engine_version() -> str:
    """``__version__`` of the package."""
    with open(os.path.join(ROOT, "src", "rkt", "__init__.py"), encoding="utf-8") as stream:
        return next(line.split('"')[1] for line in stream if line.startswith("__version__"))


def git(*words: str) -> str:
    """Output of a git command in the checkout, without the line end; empty where there is none, or it fails."""
    if not os.path.exists(os.path.join(ROOT, ".git")):
        return ""
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", ROOT, *words]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def source_date_epoch() -> int:
    """Seconds since the epoch: ``SOURCE_DATE_EPOCH``, else the time of the commit, else of the source archive."""
    text = os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct")
    if text:
        return int(text)
    path = _OF_ARCHIVE if os.path.exists(_OF_ARCHIVE) else os.path.join(ROOT, "pyproject.toml")
    return int(os.stat(path).st_mtime)


def is_clean() -> bool:
    """Whether the checkout has no change and no file that git does not know."""
    return git("status", "--porcelain") == ""


def is_release() -> bool:
    """Whether this is the commit with the tag of its version, unchanged, or a source archive."""
    if not git("rev-parse", "HEAD"):
        return os.path.exists(_OF_ARCHIVE)
    return f"v{engine_version()}" in git("tag", "--points-at", "HEAD").split() and is_clean()


def debian_version(revision: str = "1") -> str:
    """Version of the Debian package."""
    version = engine_version()
    commit = git("rev-parse", "--short=10", "HEAD")
    if not is_release():
        made = time.strftime("%Y%m%d%H%M%S", time.gmtime(source_date_epoch()))
        version += f"~git{made}.{commit}" if commit else f"~{made}"
        if commit and not is_clean():
            version += "+changed"
    return f"{version}-{revision}"

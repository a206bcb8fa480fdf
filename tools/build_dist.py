# SPDX-License-Identifier: Apache-2.0
"""Builds the source archive and the wheel: of the last commit, or of the source archive that this tree was unpacked from.

What git does not know, and what was changed since, does not get in.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from tools import source
from tools.source import ROOT


def export(directory: str) -> str:
    """The sources of the last commit below a directory; without a repository the tree itself."""
    if not source.git("rev-parse", "HEAD"):
        return ROOT
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", ROOT, "archive", "--format=tar", "HEAD"]
    archive = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    unpack = ["tar", "-C", directory, "-xf", "-"]
    subprocess.run(unpack, input=archive, check=True)
    return directory


def build(output: str, epoch: int) -> None:
    """Write both; the build back-end takes times from the source's date, and its own modes and order."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            [sys.executable, "-I", "-m", "hatchling", "build", "--directory", os.path.abspath(output)],
            cwd=export(scratch),
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8"},
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    for name in sorted(os.listdir(output)):
        print(os.path.join(output, name))


def main() -> None:
    """Build both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", required=True, help="directory for the source archive and the wheel")
    options = parser.parse_args()
    os.umask(0o022)
    os.makedirs(options.output, exist_ok=True)
    build(options.output, source.source_date_epoch())


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Writes into ``requirements/*.txt`` the digests of every file that an index has for the versions pinned there.

For all platforms, not only this one: what is installed on any machine is what was looked at. Run it after a version was
changed; it needs ``uv`` on the PATH and an index. What pip then installs has to have one of these digests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from packaging.utils import canonicalize_name

from tools.copy_libraries import requirement_lines
from tools.source import ROOT

DIRECTORY = os.path.join(ROOT, "requirements")
_COMPILE = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version=3.11", "--no-deps"]
_FORM = ["--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url", "-"]


def digests(requirements: list[str]) -> dict[str, list[str]]:
    """Canonical name of each library to the ``--hash`` options of its files, sorted."""
    text = "\n".join(requirements)
    done = subprocess.run(
        [*_COMPILE, *_FORM], input=text, stdout=subprocess.PIPE, text=True, check=True, cwd=os.sep
    )
    found: dict[str, list[str]] = {}
    for line in done.stdout.replace("\\\n", " ").splitlines():
        name, hashes = line.partition("==")[0], re.findall(r"--hash=sha256:[0-9a-f]{64}", line)
        found[canonicalize_name(name)] = sorted(hashes)
    return found


def main() -> None:
    """Rewrite each file; comments, order and versions stay."""
    for entry in sorted(os.listdir(DIRECTORY)):
        path = os.path.join(DIRECTORY, entry)
        lines = requirement_lines(path, with_comments=True)
        hashed = digests([line for line in lines if not line.startswith(("#", "-r"))])
        with open(f"{path}.new", "w", encoding="utf-8") as stream:
            for line in lines:
                name = canonicalize_name(re.split(r"[=\[; ]", line, maxsplit=1)[0])
                options = [] if line.startswith(("#", "-r")) else hashed[name]
                stream.write(" \\\n    ".join([line, *options]) + "\n")
        os.rename(f"{path}.new", path)


if __name__ == "__main__":
    main()

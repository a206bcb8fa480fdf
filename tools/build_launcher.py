# SPDX-License-Identifier: Apache-2.0
"""Writes the launcher ``rkt`` from ``rkt.in``, for a checkout and for an installation."""

from __future__ import annotations

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from tools import module_file

#: Longest ``#!`` line that every supported kernel reads whole, in bytes (BINPRM_BUF_SIZE was 128 before Linux 5.1).
MAX_SHEBANG_BYTES = 127


def head_of_script(interpreter: str, options: str) -> str:
    """The ``#!`` line; where the kernel would cut it, two lines that are both shell and Python."""
    line = f"#!{interpreter} {options}\n"
    if len(os.fsencode(line)) <= MAX_SHEBANG_BYTES and not any(c.isspace() for c in interpreter):
        return line
    if (
        "'" in interpreter
        or '"' in interpreter
        or "\\" in interpreter
        or "$" in interpreter
        or "`" in interpreter
    ):
        raise SystemExit(f"the interpreter's path cannot be quoted: {interpreter!r}")
    return f"#!/bin/sh\n'''exec' \"{interpreter}\" {options} \"$0\" \"$@\"\n' '''\n"


def real_interpreter() -> str:
    """The interpreter below any virtual environment: without ``site`` an environment only costs time."""
    base = getattr(sys, "_base_executable", "") or sys.executable
    return os.path.realpath(base)


def write_executable(path: str, text: str) -> None:
    """Write beside and rename, so that a running rkt never sees half a launcher."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(temporary, 0o755)
    os.rename(temporary, path)


def main() -> None:
    """Fill in the template."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", required=True)
    parser.add_argument("--package-path", required=True)
    parser.add_argument("--library-path", required=True)
    parser.add_argument("--stage1-images-path", required=True)
    parser.add_argument("--man-path", required=True)
    parser.add_argument("--python", default=real_interpreter(), help="interpreter named in the launcher")
    parser.add_argument("--compiled", action="store_true", help="the package has a file of compiled modules")
    options = parser.parse_args()
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "rkt.in"), encoding="utf-8") as stream:
        text = stream.read()
    for name in ("package_path", "library_path", "stage1_images_path", "man_path"):
        text = text.replace(f"@{name.upper()}@", repr(getattr(options, name)))
    text = text.replace("@IMPORTER@", module_file.LAUNCHER if options.compiled else "")
    write_executable(options.output, head_of_script(options.python, "-IS") + text)


if __name__ == "__main__":
    main()

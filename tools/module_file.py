# SPDX-License-Identifier: Apache-2.0
"""All modules of the engine, compiled, in one file: a start looks at no directory (ADR 9).

::

    4 bytes   magic number of the interpreter's byte code; another interpreter imports from the sources beside it
    4, 4      sizes in bytes of the next two parts, little-endian
    …         marshalled code of module_importer.py
    …         marshalled {module: (start, size, is package, path of the source)}; starts count from the end of this part,
              paths from the directory of the file
    …         marshalled code of each module
"""

from __future__ import annotations

import argparse
import importlib.util
import marshal
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import CodeType

FILE_NAME = "modules"
#: What a launcher reads at once; importer and index must fit.
HEAD_BYTES = 1 << 16
_IMPORTER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "module_importer.py")
#: Lines of a launcher that has ``sys.path[0]``.
LAUNCHER = """\
import marshal

try:
    with open(f"{sys.path[0]}/modules", "rb", 0) as file:
        head = file.read(1 << 16)
except OSError as e:
    sys.stderr.write(f"cannot read {sys.path[0]}/modules: {e.strerror}\\n")
    sys.exit(254)
if head[:4] == sys.modules["_frozen_importlib_external"].MAGIC_NUMBER:
    exec(marshal.loads(head[12:]), importer := {})
    importer["install"](file.name, head)
"""


def module_name(path: str) -> tuple[str, bool]:
    """Name of the module in a file given relative to ``sys.path``, and whether it is a package."""
    parts = path.removesuffix(".py").split("/")
    if parts[-1] == "__init__":
        return ".".join(parts[:-1]), True
    return ".".join(parts), False


def build(sources: Iterable[tuple[str, bytes]], to_code: Callable[[bytes, str], CodeType]) -> bytes:
    """The bytes of a module file.

    Args:
        sources: for each module its path relative to the directory of the file, and its source.
        to_code: compiles a source; also gets the path.
    """
    index = {}
    codes = []
    start = 0
    for path, source in sources:
        name, is_package = module_name(path)
        code = marshal.dumps(to_code(source, path))
        index[name] = (start, len(code), is_package, path)
        start += len(code)
        codes.append(code)
    with open(_IMPORTER, "rb") as stream:
        importer = marshal.dumps(
            compile(stream.read(), "module_importer.py", "exec", dont_inherit=True, optimize=2)
        )
    places = marshal.dumps(index)
    head = importlib.util.MAGIC_NUMBER + b"".join(
        len(part).to_bytes(4, "little") for part in (importer, places)
    )
    if len(head) + len(importer) + len(places) > HEAD_BYTES:
        raise SystemExit(f"the index of {len(index)} modules is larger than {HEAD_BYTES} bytes")
    return b"".join((head, importer, places, *codes))


def main() -> None:
    """Write the module file of an installed package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--package", required=True, help="directory with the package rkt, where the file goes"
    )
    options = parser.parse_args()
    sources = []
    for directory, _, files in os.walk(os.path.join(options.package, "rkt")):
        for name in files:
            if name.endswith(".py"):
                path = os.path.join(directory, name)
                with open(path, "rb") as stream:
                    sources.append((os.path.relpath(path, options.package), stream.read()))
    data = build(sorted(sources), lambda source, path: compile(source, path, "exec", dont_inherit=True))
    with open(os.path.join(options.package, FILE_NAME), "wb") as stream:
        stream.write(data)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""First part of a module file (``module_file.py``): imports modules from the rest of that file."""

from __future__ import annotations

import _imp
import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    Index = dict[str, tuple[int, int, bool, str]]
else:
    # ``importlib.machinery`` would have to be imported first.
    ModuleSpec = type(sys.__spec__)


class ModuleFile:
    """A finder and loader over one open file: one pread(2) for each module instead of five system calls."""

    def __init__(self, path: str, index: Index, start: int) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._directory = path.rpartition("/")[0]
        self._index = index
        self._start = start

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder``."""
        entry = self._index.get(name)
        if entry is None:
            return None
        origin = f"{self._directory}/{entry[3]}"
        spec = ModuleSpec(name, self, origin=origin, is_package=entry[2])  # type: ignore[arg-type] # no subclass of theirs
        spec.has_location = True
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(origin.rpartition("/")[0])
        return spec

    def create_module(self, _spec: ModuleSpec) -> None:
        """See ``importlib.abc.Loader``: an ordinary module will do."""

    def exec_module(self, module: ModuleType) -> None:
        """See ``importlib.abc.Loader``."""
        start, size, _, _ = self._index[module.__name__]
        code = marshal.loads(os.pread(self._fd, size, self._start + start))  # noqa: S302 - a file of our own
        # For tracebacks: where the file ended up was not known when it was written.
        _imp._fix_co_filename(code, module.__file__)  # type: ignore[attr-defined]  # noqa: SLF001 - as importlib does
        exec(code, module.__dict__)  # noqa: S102 - that is what importing is


def install(path: str, head: bytes) -> None:
    """Import from the module file at ``path``, which starts with ``head``, before all else."""
    index_start = 12 + int.from_bytes(head[4:8], "little")
    start = index_start + int.from_bytes(head[8:12], "little")
    index = marshal.loads(head[index_start:start])  # noqa: S302 - a file of our own
    sys.meta_path.insert(0, ModuleFile(path, index, start))

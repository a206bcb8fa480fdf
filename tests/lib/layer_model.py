# SPDX-License-Identifier: Apache-2.0
"""A simple model of layers: what somebody has who unpacks one after the other into a directory."""

from __future__ import annotations

import os
import stat

from tests.lib import aci
from tests.lib.layers import opaque, whiteout

#: Path -> content of a file, or mode of a directory; the root is the empty path.
Tree = dict[str, "str | int"]
_NAMES = "abc"
PATHS = [
    *_NAMES,
    *(f"{x}/{y}" for x in _NAMES for y in _NAMES),
    *(f"a/{x}/{y}" for x in _NAMES for y in _NAMES),
]
FILE, DIRECTORY, WHITEOUT, OPAQUE = "file", "directory", "whiteout", "opaque"
Entry = tuple[str, str, int]


def above(path: str) -> list[str]:
    """Directories on the way to a path, without the root."""
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def settle(drawn: list[Entry], lower: Tree) -> list[Entry]:
    """A layer that is accepted: nothing twice, nothing below a file, an entry for directories that replace something."""
    entries: list[Entry] = []
    kinds: dict[str, str] = {}
    hidden = {path for kind, path, _ in drawn if kind == WHITEOUT}
    for kind, path, mode in drawn:
        # What holds an entry is a directory, be it of a whiteout.
        holders = [*above(path), path] if kind == OPAQUE else above(path)
        if any(kinds.get(holder) == FILE for holder in holders):
            continue
        if kind in {FILE, DIRECTORY} and path in kinds:
            continue
        for holder in holders:
            if holder not in kinds:
                kinds[holder] = DIRECTORY
                replaced = any(isinstance(lower.get(each), str) for each in (*above(holder), holder))
                if replaced and not hidden.intersection((*above(holder), holder)):
                    entries.append((DIRECTORY, holder, 0o755))
        if kind in {FILE, DIRECTORY}:
            kinds[path] = kind
        entries.append((kind, path, mode))
    return entries


def tar_of(entries: list[Entry], content: str) -> bytes:
    """The layer as a tar."""
    members = []
    for kind, path, mode in entries:
        if kind == FILE:
            members.append(aci.Entry(path, content=content.encode()))
        elif kind == DIRECTORY:
            members.append(aci.directory(path, mode))
        else:
            members.append(whiteout(path) if kind == WHITEOUT else opaque(path))
    return aci.tar_bytes(members)


def apply(tree: Tree, entries: list[Entry], content: str) -> Tree:
    """What somebody has who unpacks the layer over the tree: first all that it hides goes, then its own comes."""
    hidden = {path for kind, path, _ in entries if kind == WHITEOUT}
    closed = {path for kind, path, _ in entries if kind == OPAQUE}
    new = {
        path: value
        for path, value in tree.items()
        if not hidden.intersection((path, *above(path))) and not closed.intersection(above(path))
    }
    for kind, path, mode in entries:
        for holder in [*above(path), path] if kind == OPAQUE else above(path):
            if not isinstance(new.get(holder), int):
                _drop(new, holder)
                new[holder] = 0o755
        if kind == DIRECTORY:
            if isinstance(new.get(path), str):
                _drop(new, path)
            new[path] = mode
        elif kind == FILE:
            _drop(new, path)
            new[path] = content
    return new


def _drop(tree: Tree, path: str) -> None:
    for each in [each for each in tree if each == path or path in above(each)]:
        del tree[each]


def read(top: str) -> Tree:
    """The same of a directory."""
    found: Tree = {}
    for directory, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                found[os.path.relpath(path, top)] = stat.S_IMODE(status.st_mode)
            else:
                with open(path, encoding="ascii") as file:
                    found[os.path.relpath(path, top)] = file.read()
    return found

# SPDX-License-Identifier: Apache-2.0
"""Rendering against the rules of spec cli §5.10 as they are written down, applied path by path."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from rkt.image import render
from rkt.image.copytree import copy_layers, list_tree
from tests.lib.store import image_id

if TYPE_CHECKING:
    from pathlib import Path as FilePath

    from rkt.image.walk import Path

#: Path -> content of a file, or ``None`` for a directory; the parents of each are directories.
Tree = dict["Path", "bytes | None"]
_NAMES = (b"a", b"b", b"c")
PATHS = [(), *((x,) for x in _NAMES), *((x, y) for x in _NAMES for y in _NAMES)]
PATHS += [(x, y, z) for x in _NAMES for y in _NAMES for z in _NAMES]


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """A few files and directories."""
    tree: Tree = {(): None}
    for path in draw(st.lists(st.sampled_from(PATHS[1:]), max_size=8)):
        if any(
            tree.get(path[:end], b"" if path[:end] in tree else None) is not None for end in range(len(path))
        ):
            continue  # something else than a directory is in the way
        for end in range(len(path)):
            tree[path[:end]] = None
        if path not in tree:
            tree[path] = draw(st.sampled_from([b"x", None]))
    return tree


LISTS = st.none() | st.frozensets(st.sampled_from(PATHS[1:]), min_size=1, max_size=12)
LAYERS = st.lists(st.tuples(trees(), LISTS, st.lists(LISTS, max_size=2)), min_size=1, max_size=4)


def allowed(
    path: Path, own: frozenset[Path] | None, above: list[frozenset[Path] | None], *, directory: bool
) -> bool:
    """Rules 1 and 2 for one entry of one layer."""
    for whitelist in above:
        if whitelist is None or path in whitelist:
            continue
        if not directory or (path and not any(listed[: len(path)] == path for listed in whitelist)):
            return False
    return directory or own is None or path in own


def model(
    layers: list[tuple[Tree, frozenset[Path] | None, list[frozenset[Path] | None]]],
) -> dict[Path, tuple[int, bool]]:
    """Path -> (layer it comes from, whether it is a directory)."""
    given_by = [
        {path: tree[path] is None for path in tree if allowed(path, own, above, directory=tree[path] is None)}
        for tree, own, above in layers
    ]
    result: dict[Path, tuple[int, bool]] = {}
    for path in PATHS:
        for index, entries in enumerate(given_by):
            hidden = any(
                given_by[upper].get(path[:end]) is False
                for upper in range(index)
                for end in range(len(path) + 1)
            )
            if path in entries and not hidden:
                result[path] = (index, entries[path])
                break
    return result


@given(LAYERS)
def test_the_rules(layers: list[tuple[Tree, frozenset[Path] | None, list[frozenset[Path] | None]]]) -> None:
    """Each path comes from the layer that the rules name, or from none."""
    parts = []
    for index, (_, own, above) in enumerate(layers):
        files, directories = own, None
        for whitelist in above:
            if whitelist is not None:
                files = whitelist if files is None else files & whitelist
                listed = render._with_parents(whitelist)
                directories = listed if directories is None else directories & listed
        parts.append(render.Part(key=image_id(str(index)).key, files=files, directories=directories))
    listings = [[(path, tree[path] is None) for path in sorted(tree)] for tree, _, _ in layers]
    found = {}
    for index, selection in enumerate(render.select(parts, listings)):
        assert selection.owned <= selection.directories
        found.update(dict.fromkeys(selection.files, (index, False)))
        found.update(dict.fromkeys(selection.owned, (index, True)))
    assert found == model(layers)


def test_copies_are_what_was_selected(tmp_path: FilePath) -> None:
    """On disk: contents, kinds, and modes of directories are the winners'."""
    bottom, top, target = tmp_path / "bottom", tmp_path / "top", tmp_path / "target"
    for root in (bottom, top, target):
        (root / "d").mkdir(parents=True) if root is not target else root.mkdir()
        if root is not target:
            (root / "d" / root.name).write_text(root.name)
            (root / "d" / "both").write_text(root.name)
    (bottom / "gone").mkdir()
    (bottom / "gone" / "below").touch()
    (top / "gone").symlink_to("/nowhere")
    os.link(bottom / "d" / "bottom", bottom / "d" / "twin")
    (top / "d").chmod(0o711)
    os.utime(top / "d", (7, 7))
    for link in (False, True):
        output = target / str(link)
        output.mkdir()
        fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (top, bottom, output)]
        try:
            parts = [render.Part(key=image_id(name).key) for name in ("top", "bottom")]
            copy_layers(fds[:2], render.select(parts, map(list_tree, fds[:2])), fds[2], link=link)
        finally:
            for fd in fds:
                os.close(fd)
        assert sorted(os.listdir(output / "d")) == ["both", "bottom", "top", "twin"]
        assert (output / "d" / "both").read_text() == "top"
        assert os.readlink(output / "gone") == "/nowhere"
        assert os.stat(output / "d").st_mode & 0o7777 == 0o711
        assert os.stat(output / "d").st_mtime == 7
        assert os.path.samefile(output / "d" / "bottom", output / "d" / "twin")
        assert os.path.samefile(output / "d" / "bottom", bottom / "d" / "bottom") == link

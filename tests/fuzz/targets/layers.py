# SPDX-License-Identifier: Apache-2.0
"""Layers of OCI images, unpacked for real: one of any bytes, and several of any members over each other."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from rkt.errors import ImageError
from rkt.image import render
from rkt.image.copytree import copy_layers, list_tree
from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.marks import find_whiteouts
from rkt.image.render import Hiding, Part
from rkt.image.tarformat import (
    BLOCK_DEVICE,
    CHAR_DEVICE,
    DIRECTORY,
    END,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Member,
    _pax_record,
    padding,
)
from rkt.image.tarformat import render as render_member
from rkt.values import ImageKey
from tests.fuzz.target import Target
from tests.fuzz.targets.archives import FIELDS, NAMES, fix_checksums
from tests.lib.layers import Unpacked, unpack
from tests.lib.unpacking import opened

_LIMITS = DEFAULT_LIMITS.replace(
    tar_bytes=1 << 18, ratio_free_bytes=1 << 18, time_seconds=20, entries=60, header_bytes=1 << 16
)
_BLACK_HOLE = os.makedev(0, 0)
_KEY = ImageKey.parse(f"sha256-{'0' * 64}")

# --- one layer ------------------------------------------------------------------------------------------------------


def _check_layer(layer: Unpacked, tar: bytes) -> None:
    """Nothing is outside of the tree, nothing in it steers a mount, and the same tar comes out of it (UN2, UN5, UN6)."""
    base = layer.tree.parent
    assert sorted(os.listdir(base)) == ["split", "tree"], "something outside"
    assert sorted(os.listdir(layer.tree)) == ["marks", "rootfs"], "something beside the layer"
    hidden = set()
    for directory, names, files in os.walk(os.fsencode(layer.root)):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            if stat.S_ISCHR(status.st_mode):
                assert status.st_rdev == _BLACK_HOLE, "a device"
                hidden.add(os.path.relpath(directory, os.fsencode(layer.root)))
            assert not stat.S_ISBLK(status.st_mode), "a device"
            assert not name.startswith(b".wh."), "a whiteout that is a file"
            if not stat.S_ISLNK(status.st_mode):
                marked = {key for key in os.listxattr(path) if "overlay" in key}
                assert marked <= {"trusted.overlay.opaque", "trusted.overlay.origin"}, (
                    "an attribute of overlayfs"
                )
    holders = {b"/".join(path) or b"." for path in layer.marks.holders}
    assert hidden == holders, "whiteouts are elsewhere"
    assert layer.rebuild() == tar, "another tar comes out"
    os.unlink(base / "rebuilt")
    assert layer.verify() == [], "the tree differs from its tar"


def read_layer(data: bytes) -> None:
    """A layer is refused, or becomes a tree from which the same tar is made again, and nothing else."""
    tar = fix_checksums(data)
    with tempfile.TemporaryDirectory(prefix="rkt-fuzz-") as base:
        layer = unpack(Path(base) / "layer", tar, _LIMITS)
        if os.geteuid() == 0:
            _check_layer(layer, tar)


# --- several of them ------------------------------------------------------------------------------------------------

#: Path -> what is there: a file's content, a link's text, or a word for what has none; the root is not in it.
_Tree = dict[tuple[bytes, ...], bytes]
_DIRECTORY, _PIPE, _DEVICE = b"directory", b"pipe", b"device"
_LETTERS = {
    b"f": REGULAR,
    b"d": DIRECTORY,
    b"l": HARD_LINK,
    b"s": SYMLINK,
    b"c": CHAR_DEVICE,
    b"b": BLOCK_DEVICE,
    b"p": FIFO,
}


def _members(layer: bytes) -> list[tuple[Member, bytes]]:
    """The members that lines such as ``f PATH``, ``l PATH TARGET`` name, with their content."""
    found = []
    for number, line in enumerate(layer.split(b"\n")):
        letter, _, rest = line.partition(b" ")
        path, _, link = rest.partition(b" ")
        if letter not in _LETTERS or b"\0" in rest:
            continue
        # Files differ by where they come from; a whiteout has no content.
        content = b"" if letter != b"f" or b"/.wh." in b"/" + path else b"%d %s" % (number, layer[:20])
        found.append((Member(path, _LETTERS[letter], mode=0o755, size=len(content), link=link), content))
    return found


def _tar(layer: list[tuple[Member, bytes]]) -> bytes:
    return b"".join(
        render_member(member) + content + bytes(padding(len(content))) for member, content in layer
    ) + END  # fmt: skip


def _names(path: bytes) -> tuple[bytes, ...]:
    return tuple(name for name in path.split(b"/") if name not in {b"", b"."})


def _drop(tree: _Tree, path: tuple[bytes, ...], *, itself: bool = True) -> None:
    for each in [each for each in tree if each[: len(path)] == path and (itself or each != path)]:
        del tree[each]


def _above(path: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
    return [path[:end] for end in range(1, len(path))]


def _apply(tree: _Tree, layer: list[tuple[Member, bytes]]) -> None:
    """What somebody has who first deletes what the layer hides, and then unpacks it by the names alone."""
    own: _Tree = {}
    for member, content in layer:
        path = _names(member.path)
        for each in _above(path):
            own.setdefault(each, _DIRECTORY)
        if not path or path[-1].startswith(b".wh."):
            continue
        if member.kind == HARD_LINK:
            target = _names(member.link)
            # What is linked to a device that is not made is not made either.
            if target in own:
                own[path] = own[target]
        elif member.kind in {CHAR_DEVICE, BLOCK_DEVICE}:
            own[path] = _DEVICE
        else:
            own[path] = {REGULAR: content, SYMLINK: b"-> " + member.link, DIRECTORY: _DIRECTORY, FIFO: _PIPE}[
                member.kind
            ]
    for member, _ in layer:
        path = _names(member.path)
        if path and path[-1] == b".wh..wh..opq":
            _drop(tree, path[:-1], itself=False)
        elif path and path[-1].startswith(b".wh."):
            _drop(tree, (*path[:-1], path[-1][4:]))
    for path, value in own.items():
        if value != _DIRECTORY or tree.get(path) != _DIRECTORY:
            _drop(tree, path)
        tree[path] = value
    for path in [path for path, value in tree.items() if value == _DEVICE]:
        del tree[path]


def _seen(top: bytes) -> _Tree:
    found: _Tree = {}
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISDIR(mode):
                value = _DIRECTORY
            elif stat.S_ISLNK(mode):
                value = b"-> " + os.readlink(path)
            elif stat.S_ISFIFO(mode):
                value = _PIPE
            else:
                value = Path(os.fsdecode(path)).read_bytes()
            found[_names(os.path.relpath(path, top))] = value
    return found


def _merged(layers: list[Unpacked], target: Path) -> _Tree:
    """The layers, the topmost last, laid over each other as the store does it."""
    target.mkdir()
    topmost_first = list(reversed(layers))
    fds = [os.open(layer.root, os.O_RDONLY | os.O_DIRECTORY) for layer in topmost_first]
    try:
        hidings = [
            Hiding(whiteouts=find_whiteouts(fd, layer.marks), opaque=layer.marks.opaque)
            for fd, layer in zip(fds, topmost_first, strict=True)
        ]
        parts = [Part(key=_KEY)] * len(layers)
        selections = render.select(parts, (list_tree(fd) for fd in fds), hidings)
        with opened(target) as target_fd:
            copy_layers(fds, selections, target_fd)
    finally:
        for fd in fds:
            os.close(fd)
    return _seen(os.fsencode(target))


def read_layers(data: bytes) -> None:
    """Layers over each other show what somebody has who deletes what is hidden and unpacks one after the other (UN5, UN17)."""
    layers = [_members(layer) for layer in data.split(b"\n--\n")[:4]]
    expected: _Tree = {}
    with tempfile.TemporaryDirectory(prefix="rkt-fuzz-") as base:
        unpacked = [
            unpack(Path(base) / str(number), _tar(layer), _LIMITS) for number, layer in enumerate(layers)
        ]
        for layer in layers:
            _apply(expected, layer)
        assert _merged(unpacked, Path(base) / "merged") == expected, "another tree"


TARGETS = (
    Target(
        name="layer",
        read=read_layer,
        refuses=(ImageError,),
        pieces=(*FIELDS, *NAMES, b"3", b"4", *(_pax_record(b"SCHILY.xattr." + name, b"y") for name in (b"user.overlay.opaque", b"trusted.overlay.opaque", b"user.x"))),
        max_bytes=16 << 10,
    ),
    Target(
        name="layers",
        read=read_layers,
        refuses=(ImageError,),
        pieces=(b"\n", b"\n--\n", b"f a", b"d a", b"d a/b", b"l x a", b"s a b", b"c a", b"b a", b"p a", b"/", b"./", b"../", b"a/.wh..wh..opq", b"f .wh.a", b"a/b/c", b"\xff"),
        max_bytes=600,
    ),
)  # fmt: skip

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import pytest

from rkt.errors import ImageError
from rkt.image import render
from rkt.schema.appc import parse_image_manifest
from tests.lib.aci import image_manifest
from tests.lib.store import image_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.image.render import Part
    from rkt.image.walk import Path
    from rkt.schema.appc import Dependency, ImageManifest
    from rkt.values import ImageKey

Graph = dict[str, tuple[list[str], list[str]]]


def flatten(graph: Graph, top: str) -> list[Part]:
    """Flatten images given as name -> (dependencies, white list); the names are one component."""
    manifests = {}
    for name, (dependencies, whitelist) in graph.items():
        more: dict[str, Any] = (
            {"dependencies": [{"imageName": other} for other in dependencies]} if dependencies else {}
        )
        if whitelist:
            more["pathWhitelist"] = whitelist
        manifests[image_id(name).key] = parse_image_manifest(
            json.dumps(image_manifest(name, **more)).encode()
        )

    def manifest_of(key: ImageKey) -> ImageManifest:
        return manifests[key]

    def find(dependency: Dependency) -> ImageKey:
        return image_id(dependency.image_name).key

    return render.flatten(image_id(top).key, manifest_of, find)


def names(graph: Graph, top: str) -> str:
    """Names of the parts in their order."""
    by_key = {image_id(name).key: name for name in graph}
    return " ".join(by_key[part.key] for part in flatten(graph, top))


def plain(**graph: str) -> Graph:
    """A graph without white lists; name -> dependencies separated by spaces."""
    return {name: (text.split(), []) for name, text in graph.items()}


def paths(*texts: str) -> frozenset[Path]:
    """Paths below the root."""
    return frozenset(tuple(part.encode() for part in text.split("/") if part) for text in texts)


def test_order() -> None:
    """Depth first, the dependency declared last on top."""
    graph = plain(a="b c d", b="", c="b1 e", d="d1", b1="", d1="", e="")
    assert names(graph, "a") == "a d d1 c e b1 b"


def test_a_diamond_comes_once() -> None:
    """Without white lists a second occurrence could add nothing."""
    assert names(plain(a="b c", b="x", c="x", x="y", y=""), "a") == "a c x y b"


def test_cycles() -> None:
    """An image may not depend on itself, however far around (CVE-2016-8579)."""
    for graph in (plain(a="a"), plain(a="b", b="a"), plain(a="b c", b="", c="d", d="c")):
        with pytest.raises(ImageError, match="depends on itself"):
            flatten(graph, "a")


def test_bounds() -> None:
    """The chain and the number of layers are bounded; a lattice of 2^32 ways is walked in no time."""
    chain: Graph = {f"n{i}": ([f"n{i + 1}"], []) for i in range(32)} | {"n32": ([], [])}
    assert len(flatten(chain, "n0")) == 33
    longer: Graph = {f"n{i}": ([f"n{i + 1}"], []) for i in range(33)} | {"n33": ([], [])}
    with pytest.raises(ImageError, match="more than 32 dependencies deep"):
        flatten(longer, "n0")
    wide: Graph = {"a": ([f"n{i}" for i in range(127)], []), **{f"n{i}": ([], []) for i in range(128)}}
    assert len(flatten(wide, "a")) == 128
    wide["a"] = ([f"n{i}" for i in range(128)], [])
    with pytest.raises(ImageError, match="more than 128 layers"):
        flatten(wide, "a")
    lattice: Graph = {"l0": (["x1", "y1"], [])}
    for i in range(1, 32):
        below = [f"x{i + 1}", f"y{i + 1}"] if i < 31 else []
        lattice |= {f"x{i}": (below, []), f"y{i}": (below, [])}
    assert len(flatten(lattice, "l0")) == 63


def test_lists_of_all_ancestors_apply() -> None:
    """What an image may contribute is in its own list and in that of each ancestor; siblings have no say."""
    graph: Graph = {
        "top": (["mid", "side"], ["/a", "/b/c", "/d"]),
        "mid": (["low"], ["/a", "/b/c", "/e"]),
        "side": ([], ["/d"]),
        "low": ([], []),
    }
    top, side, mid, low = flatten(graph, "top")
    assert top.files == paths("a", "b/c", "d")
    assert top.directories is None
    assert side.files == paths("d")
    assert mid.files == paths("a", "b/c")
    assert mid.directories == paths("", "a", "b", "b/c", "d")
    assert low.files == paths("a", "b/c")
    assert low.directories == paths("", "a", "b", "b/c")


def test_the_same_image_under_two_lists() -> None:
    """An image is filtered by its ancestors there; where these differ it comes twice."""
    graph: Graph = {"a": (["b", "c"], []), "b": (["x"], []), "c": (["x"], ["/f"]), "x": ([], [])}
    assert names(graph, "a") == "a c x b x"
    assert [part.files for part in flatten(graph, "a")] == [None, paths("f"), paths("f"), None, None]


def select(*layers: list[str]) -> list[list[str]]:
    """What is taken of unfiltered layers; directories end by a slash, and are in brackets where another owns them."""
    parts = [render.Part(key=image_id(str(index)).key) for index in range(len(layers))]
    listings = [
        [((), True)] + [(next(iter(paths(entry))), entry.endswith("/")) for entry in layer]
        for layer in layers
    ]
    result = []
    for layer, selection in zip(layers, render.select(parts, listings), strict=True):
        taken = []
        for entry in layer:
            path = next(iter(paths(entry)))
            if path in selection.files or path in selection.owned:
                taken.append(entry)
            elif path in selection.directories:
                taken.append(f"[{entry}]")
        result.append(taken)
    return result


def test_the_topmost_wins() -> None:
    """A path is taken from the first layer that has it, directories are merged."""
    assert select(["d/", "d/a"], ["d/", "d/a", "d/b"]) == [["d/", "d/a"], ["[d/]", "d/b"]]


def test_a_file_hides_a_directory_below() -> None:
    """Where an upper layer has something else, nothing below that path comes from lower ones."""
    assert select(["d"], ["d/", "d/a"], ["d/", "d/b"]) == [["d"], [], []]


def test_a_hidden_file_hides_too() -> None:
    """As in an overlay: a directory over a file over a directory does not see the lowest one."""
    assert select(["d/"], ["d"], ["d/", "d/b"]) == [["d/"], [], []]


def test_trees_have_names_of_their_own() -> None:
    """Other parts, or another order, are another tree."""
    parts = flatten(plain(a="b c", b="", c=""), "a")
    identity = render.tree_id(parts)
    assert identity.startswith("deps-sha512-")
    assert len({identity, render.tree_id(parts[:2]), render.tree_id([parts[0], parts[2], parts[1]])}) == 3

# SPDX-License-Identifier: Apache-2.0
"""What an image with dependencies is made of: which layers, in which order, and what each contributes (spec cli §5.10).

Nothing here touches a disk. ``flatten`` turns manifests into an ordered list of parts; ``select`` turns the parts and the
names in their layers into what is copied from where.

The rules, the topmost part first:

1. For each path the first part that provides it wins.
2. A part with a white list provides, besides directories, only what the list names.
3. The list of an image describes the tree with its dependencies laid under it, so it filters these too, directories
   included. Every ancestor's list applies. Directories on the way to a listed path are kept.
4. Where a part provides something else than a directory, nothing that lower parts have below that path is used.
5. What the whiteouts and opaque directories of a part hide is not used of lower parts, whatever lists say.

Without white lists this is what an overlay file system shows, and a part that comes again adds nothing.
"""

from __future__ import annotations

import os
from itertools import repeat

from rkt.errors import ImageError
from rkt.schema.record import Record
from rkt.values import ImageKey, TreeID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rkt.image.walk import Path
    from rkt.schema.appc import Dependency, ImageManifest

#: Longest chain of dependencies, and most layers of one root file system (invariant UN19).
MAX_DEPTH = 32
MAX_PARTS = 128


class Part(Record):
    """One layer of a root file system, as far as white lists leave it.

    Attributes:
        key: of the image.
        layer: of the layer, where that is not named as its image.
        files: entries other than directories that it may contribute; ``None`` for all.
        directories: directories that it may contribute; ``None`` for all.
    """

    key: ImageKey
    files: frozenset[Path] | None = None
    directories: frozenset[Path] | None = None
    layer: ImageKey | None = None

    @property
    def layer_key(self) -> ImageKey:
        """Name of the layer's directory."""
        return self.layer or self.key


class Hiding(Record):
    """What a layer of an OCI image hides of lower layers besides what it has itself.

    Attributes:
        whiteouts: paths at which there is to be nothing, all below included.
        opaque: directories of which nothing that lower layers have in them is to be seen.
    """

    whiteouts: frozenset[Path] = frozenset()
    opaque: frozenset[Path] = frozenset()


class Selection(Record):
    """What is taken from one layer.

    Attributes:
        files: entries other than directories.
        directories: directories to look into; the root is the empty path.
        owned: those of them whose mode, owner and time are the result's.
    """

    files: frozenset[Path]
    directories: frozenset[Path]
    owned: frozenset[Path]


def flatten(
    top: ImageKey,
    manifest_of: Callable[[ImageKey], ImageManifest],
    find: Callable[[Dependency], ImageKey],
) -> list[Part]:
    """The parts of an image, the topmost first: itself, then each dependency with its own, the last declared first.

    Args:
        top: the image.
        manifest_of: manifest of an image that ``find`` returned.
        find: the image that a dependency stands for; raises when there is none.
    Raises:
        ImageError: a cycle, a chain that is too long, or too many layers.
    """
    parts: list[Part] = []
    seen: set[tuple[ImageKey, frozenset[Path] | None, frozenset[Path] | None]] = set()

    def visit(
        key: ImageKey,
        chain: tuple[ImageKey, ...],
        files: frozenset[Path] | None,
        directories: frozenset[Path] | None,
    ) -> None:
        manifest = manifest_of(key)
        if key in chain:
            raise ImageError(f"image {manifest.name} depends on itself ({key.medium})")
        if len(chain) > MAX_DEPTH:
            raise ImageError(f"image {manifest.name} is more than {MAX_DEPTH} dependencies deep")
        own = _whitelist(manifest)
        below, below_directories = files, directories
        if own is not None:
            below = own if files is None else files & own
            listed = _with_parents(own)
            below_directories = listed if directories is None else directories & listed
        if (key, below, directories) in seen:
            return  # it and all below it came before, under the same lists
        seen.add((key, below, directories))
        if len(parts) == MAX_PARTS:
            raise ImageError(f"image {top.medium} needs more than {MAX_PARTS} layers")
        parts.append(Part(key=key, files=below, directories=directories))
        for dependency in reversed(manifest.dependencies):
            visit(find(dependency), (*chain, key), below, below_directories)

    visit(top, (), None, None)
    return parts


def is_filtered(parts: Iterable[Part]) -> bool:
    """Whether white lists leave anything out, so that an overlay of the layers would show too much."""
    return any(part.files is not None for part in parts)


def tree_id(parts: Iterable[Part]) -> TreeID:
    """The name of the rendered tree.

    The keys are enough: each stands for a manifest, hence for its white list and for how many of the following keys are
    its dependencies.
    """
    from hashlib import sha512

    digest = sha512(",".join(part_keys(parts)).encode()).hexdigest()
    return TreeID.parse(f"deps-sha512-{digest[:64]}")


def part_keys(parts: Iterable[Part]) -> list[ImageKey]:
    """Keys of the images, each before the keys of its layers that are named otherwise."""
    keys: list[ImageKey] = []
    image: ImageKey | None = None
    for part in parts:
        if part.layer is None or part.key != image:
            keys.append(part.key)
        image = part.key
        if part.layer_key != part.key:
            keys.append(part.layer_key)
    return keys


def select(
    parts: Sequence[Part],
    listings: Iterable[Iterable[tuple[Path, bool]]],
    hidings: Iterable[Hiding] = repeat(Hiding()),
) -> list[Selection]:
    """What to take from each layer.

    Args:
        parts: as ``flatten`` returns them.
        listings: of each part's layer, (path, whether it is a directory), a directory before what is in it; the root is
            the empty path and comes first.
        hidings: of each part's layer, whose whiteouts are in the listing too.
    """
    provided: set[Path] = set()
    # Paths at which a part above has something else than a directory.
    covered: set[Path] = set()
    # Directories of which lower parts provide nothing but themselves.
    closed: set[Path] = set()
    selections = []
    for part, listing, hiding in zip(parts, listings, hidings, strict=False):
        files: set[Path] = set()
        directories: set[Path] = set()
        owned: set[Path] = set()
        covers: set[Path] = set()
        for path, is_directory in listing:
            if path in covered or (path and (path[:-1] in closed or path[:-1] not in directories)):
                continue
            if path in hiding.whiteouts:
                covers.add(path)
                continue
            allowed = part.directories if is_directory else part.files
            if allowed is not None and path not in allowed:
                continue
            if is_directory:
                directories.add(path)
                if path not in provided:
                    owned.add(path)
            else:
                covers.add(path)
                if path not in provided:
                    files.add(path)
            provided.add(path)
        covered |= covers
        closed |= hiding.opaque
        selections.append(
            Selection(files=frozenset(files), directories=frozenset(directories), owned=frozenset(owned))
        )
    return selections


def _whitelist(manifest: ImageManifest) -> frozenset[Path] | None:
    if not manifest.path_whitelist:
        return None
    return frozenset(
        tuple(os.fsencode(component) for component in path.split("/") if component not in {"", "."})
        for path in manifest.path_whitelist
    )


def _with_parents(paths: frozenset[Path]) -> frozenset[Path]:
    return frozenset({(), *(path[:end] for path in paths for end in range(1, len(path) + 1))})

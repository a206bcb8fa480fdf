# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from rkt.errors import DamagedRecord, ImageError
from rkt.image.compression import LAYER_KINDS
from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.marks import HOLDER_ATTRIBUTE, OPAQUE_ATTRIBUTE, Marks, parse_marks
from tests.lib import aci
from tests.lib.layers import compress, opaque, sha256, unpack, whiteout

if TYPE_CHECKING:
    from pathlib import Path

ROOT = os.geteuid() == 0


def is_whiteout(path: Path) -> bool:
    """Whether there is what overlayfs takes for "nothing"."""
    status = os.lstat(path)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_digests_of_both_sides(tmp_path: Path, kind: str) -> None:
    """A layer has the digest of the blob and of its tar, which can be rebuilt byte for byte, whatever the compression."""
    tar = aci.tar_bytes([aci.directory("bin/"), aci.Entry("bin/app", content=b"x" * 3000, mode=0o755)])
    blob = compress(tar, kind)
    layer = unpack(tmp_path, blob)
    result = layer.result
    assert (result.diff_id, result.blob_sha256, result.compression) == (sha256(tar), sha256(blob), kind)
    assert (result.blob_bytes, result.size_bytes, result.tree_size_bytes) == (len(blob), len(tar), 3000)
    assert (layer.root / "bin/app").read_bytes() == b"x" * 3000
    assert layer.rebuild() == tar
    assert layer.verify() == []
    assert layer.marks == Marks(
        size_bytes=len(tar),
        tree_size_bytes=3000,
        implied=frozenset({()}),
        opaque=frozenset(),
        holders=frozenset(),
    )


@pytest.mark.parametrize("entry", ["./", ".", "/", "", "././"])
def test_an_entry_of_the_root(tmp_path: Path, entry: str) -> None:
    """The root of a layer may have an entry, in any spelling, and looks as that says."""
    layer = unpack(tmp_path, aci.tar_bytes([aci.directory(entry, mode=0o711, mtime=7)]))
    assert stat.S_IMODE(os.stat(layer.root).st_mode) == 0o711
    assert os.stat(layer.root).st_mtime == 7
    assert layer.marks.implied == frozenset()
    assert layer.verify() == []


@pytest.mark.parametrize("prefix", ["", "./", "/"])
def test_spellings_of_names(tmp_path: Path, prefix: str) -> None:
    """Names and targets of hard links may begin with ./ or /, and are below the root all the same."""
    layer = unpack(
        tmp_path,
        aci.tar_bytes(
            [
                aci.directory(f"{prefix}etc/"),
                aci.Entry(f"{prefix}etc/passwd", content=b"root"),
                aci.hard_link(f"{prefix}etc/twin", f"{prefix}etc/passwd"),
            ]
        ),
    )
    assert os.path.samefile(layer.root / "etc/passwd", layer.root / "etc/twin")
    assert layer.verify() == []


def test_a_layer_of_nothing(tmp_path: Path) -> None:
    """An empty tar is a layer, compressed or not."""
    for kind in LAYER_KINDS:
        layer = unpack(tmp_path / kind, compress(aci.tar_bytes([]), kind))
        assert os.listdir(layer.root) == []
        assert layer.verify() == []


def test_the_last_entry_of_a_directory_counts(tmp_path: Path) -> None:
    """A directory may have several entries; the attributes of all but the last are gone."""
    attribute = {b"SCHILY.xattr.user.a": b"1"}
    layer = unpack(
        tmp_path,
        aci.tar_bytes(
            [
                aci.directory("d", mode=0o700, records=attribute),
                aci.Entry("d/f"),
                aci.directory("d/", mode=0o755, mtime=5),
            ]
        ),
    )
    assert stat.S_IMODE(os.stat(layer.root / "d").st_mode) == 0o755
    assert os.listxattr(layer.root / "d") == []
    assert layer.verify() == []


def test_whiteouts(tmp_path: Path) -> None:
    """What a layer hides becomes what overlayfs understands; none of the reserved names is in the tree."""
    layer = unpack(
        tmp_path,
        aci.tar_bytes(
            [
                aci.directory("d"),
                whiteout("d/gone"),
                opaque("d/new"),
                aci.directory("d/new"),
                aci.Entry("d/new/f"),
                whiteout("deep/er/gone"),
            ]
        ),
    )
    assert is_whiteout(layer.root / "d/gone")
    assert is_whiteout(layer.root / "deep/er/gone")
    assert os.listdir(layer.root / "d/new") == ["f"]
    assert layer.marks.opaque == {(b"d", b"new")}
    assert layer.marks.holders == {(b"d",), (b"deep", b"er")}
    assert layer.marks.implied == {(), (b"deep",), (b"deep", b"er")}
    assert not any(name.startswith(".wh.") for _, _, names in os.walk(layer.root) for name in names)
    assert layer.verify() == []


@pytest.mark.skipif(not ROOT, reason="only root may set what overlayfs obeys")
def test_attributes_that_overlayfs_obeys(tmp_path: Path) -> None:
    """Opaque directories, and those with whiteouts, are marked; others are not."""
    layer = unpack(tmp_path, aci.tar_bytes([opaque("o"), whiteout("h/x"), aci.directory("d"), opaque()]))
    assert os.getxattr(layer.root / "o", OPAQUE_ATTRIBUTE) == b"y"
    assert os.getxattr(layer.root, OPAQUE_ATTRIBUTE) == b"y"
    assert os.getxattr(layer.root / "h", HOLDER_ATTRIBUTE) == b""
    assert os.listxattr(layer.root / "d") == []


@pytest.mark.parametrize("first", [True, False], ids=["whiteout-first", "whiteout-last"])
def test_whiteouts_hide_nothing_of_their_own_layer(tmp_path: Path, *, first: bool) -> None:
    """Wherever a whiteout stands, what its own layer has stays: a file as it is, a directory opaque."""
    own = [aci.Entry("f", content=b"new"), aci.directory("d", mode=0o711), aci.Entry("d/new")]
    hidden = [whiteout("f"), whiteout("d"), opaque()]
    layer = unpack(tmp_path, aci.tar_bytes([*hidden, *own] if first else [*own, *hidden]))
    assert (layer.root / "f").read_bytes() == b"new"
    assert os.listdir(layer.root / "d") == ["new"]
    assert layer.marks.opaque == {(), (b"d",)}
    assert layer.verify() == []


def test_a_replaced_directory_owes_nothing_to_lower_layers(tmp_path: Path) -> None:
    """A directory that is implied and hidden below is new: mode and owner of a lower one of that name do not count."""
    layer = unpack(tmp_path, aci.tar_bytes([whiteout("d"), aci.Entry("d/f")]))
    assert layer.marks.implied == {()}
    assert layer.marks.opaque == {(b"d",)}
    assert layer.verify() == []


def test_device_nodes_hide_what_is_below(tmp_path: Path) -> None:
    """A device node is not made, and what a lower layer has there is not seen either."""
    layer = unpack(
        tmp_path,
        aci.tar_bytes([aci.directory("dev"), aci.device("dev/null"), aci.hard_link("dev/twin", "dev/null")]),
    )
    assert is_whiteout(layer.root / "dev/null")
    assert is_whiteout(layer.root / "dev/twin")
    assert layer.result.skipped_devices == 2
    assert layer.verify() == []


def test_bounds_of_whiteouts(tmp_path: Path) -> None:
    """Whiteouts are remembered until the end, so their number has a bound."""
    limits = DEFAULT_LIMITS.replace(directory_memory_bytes=20_000)
    with pytest.raises(ImageError, match="too many directories, device nodes or whiteouts"):
        unpack(tmp_path, aci.tar_bytes([whiteout(f"f{n}") for n in range(60)]), limits)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda root: (root / "d/f").write_bytes(b"other"), ("d/f", "content")),
        (lambda root: (root / "d/gone").unlink(), ("d/gone", "missing")),
        (lambda root: ((root / "d/gone").unlink(), (root / "d/gone").touch()), ("d/gone", "type")),
        (lambda root: os.mknod(root / "d/more", stat.S_IFCHR), ("d/more", "extra")),
        (lambda root: os.chmod(root / "d", 0o700), ("d", "mode")),
        (lambda root: os.chmod(root / "implied", 0o700), ("implied", "mode")),
        (lambda root: os.removexattr(root / "o", OPAQUE_ATTRIBUTE), ("o", "attributes")),
        (lambda root: os.setxattr(root / "d", OPAQUE_ATTRIBUTE, b"y"), ("d", "attributes")),
        (lambda root: os.removexattr(root / "d", HOLDER_ATTRIBUTE), ("d", "attributes")),
        (lambda root: (root.parent / "marks").write_bytes(b""), ("marks", "unreadable")),
        (lambda root: (root.parent / "marks").unlink(), ("marks", "unreadable")),
    ],
)
@pytest.mark.skipif(not ROOT, reason="only root may set what overlayfs obeys")
def test_changes_are_found(tmp_path: Path, change: object, difference: tuple[str, str]) -> None:
    """What is not as it was unpacked is named: files, whiteouts, and what overlayfs is told."""
    layer = unpack(
        tmp_path,
        aci.tar_bytes(
            [
                aci.directory("d"),
                aci.Entry("d/f", content=b"lorem"),
                whiteout("d/gone"),
                opaque("o"),
                aci.Entry("implied/f"),
            ]
        ),
    )
    assert callable(change)
    change(layer.root)
    assert difference in layer.found()


def test_a_split_of_another_layer(tmp_path: Path) -> None:
    """A split file whose headers were changed does not have the diff ID any more."""
    layer = unpack(tmp_path, aci.tar_bytes([aci.Entry("f", content=b"x", mtime=5)]))
    other = unpack(tmp_path / "other", aci.tar_bytes([aci.Entry("f", content=b"x", mtime=6)]))
    os.utime(layer.root / "f", (6, 6))
    os.replace(other.split, layer.split)
    layer.result = other.result
    assert layer.verify() == []
    layer.split.write_bytes(layer.split.read_bytes()[:-6])
    with pytest.raises(DamagedRecord):
        layer.verify()


MARKS = Marks(
    size_bytes=1024,
    tree_size_bytes=7,
    implied=frozenset({(), (b"a\nb",), (b"d", b"\xff")}),
    opaque=frozenset({(b"d",)}),
    holders=frozenset({()}),
)


def test_marks_are_read_as_written() -> None:
    """Names with line feeds and of no encoding come back."""
    assert parse_marks(MARKS.dump(), "marks") == MARKS


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"rkt layer 2" + MARKS.dump()[11:],
        MARKS.dump()[:-1],
        MARKS.dump() + b"\0",
        MARKS.dump().replace(b"Od", b"Oe"),
        MARKS.dump().replace(b"1024", b"+024"),
        MARKS.replace(opaque=frozenset({(b"..", b"x")})).dump(),
        MARKS.replace(opaque=frozenset({(b"", b"x")})).dump(),
    ],
)
def test_marks_that_are_bad(data: bytes) -> None:
    """What was not written so is refused, and so are paths that climb."""
    with pytest.raises(DamagedRecord):
        parse_marks(data, "marks")

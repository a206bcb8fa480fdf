# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from rkt.errors import DamagedRecord, ImageError
from rkt.image import tarsplit
from tests.lib import aci
from tests.lib.unpacking import opened, unpack

if TYPE_CHECKING:
    from pathlib import Path

ODD: list[aci.Entry | bytes] = [
    aci.header(b"rootfs/pad", size=5) + b"hello" + b"\xaa" * 507,  # padding that is not zero
    aci.pax({b"comment": b"kept verbatim"}, b"g"),
    aci.Entry("rootfs/long/" + "n" * 150, content=b"1" * 1000),
    aci.Entry("rootfs/gnu", before=aci.gnu_long(b"rootfs/" + b"g" * 120), content=b"2"),
    aci.hard_link("rootfs/h", "rootfs/pad"),
    aci.device("rootfs/null"),
    aci.Entry("rootfs/empty"),
    aci.Entry("rootfs/big", content=os.urandom(3_000_000)),
]


def test_odd_archives_are_rebuilt_to_the_byte(tmp_path: Path) -> None:
    """Headers in any spelling, padding that is not zero and zeros behind the end come back as they were."""
    tar = aci.tar_bytes([aci.manifest_entry(), aci.directory("rootfs"), *ODD], end=bytes(20 * 512 + 37))
    image = unpack(tmp_path, aci.compress(tar, "gzip"))
    assert image.rebuild() == tar
    assert image.verify() == []


def test_split_files_are_small(tmp_path: Path) -> None:
    """Headers of a thousand files take a small part of their size."""
    tar = aci.aci_tar(*(aci.Entry(f"rootfs/d{i % 9}/file{i}", content=b"%d" % i) for i in range(1000)))
    image = unpack(tmp_path, tar)
    assert image.split.stat().st_size < len(tar) / 10


def test_head_and_records(tmp_path: Path) -> None:
    """The file begins with its version and lists segments, files and the digest of the whole."""
    tar = aci.aci_tar(aci.Entry("rootfs/f", content=b"x"))
    image = unpack(tmp_path, tar)
    assert image.split.read_bytes().startswith(b"rkt tar-split 1\n")
    with opened(image.split) as fd:
        records = list(tarsplit.records(fd))
    files = [(path, size, digest) for kind, path, size, digest in records if kind == tarsplit.FILE]
    manifest = aci.manifest_entry().content
    assert files == [
        (b"manifest", len(manifest), hashlib.sha256(manifest).digest()),
        (b"rootfs/f", 1, hashlib.sha256(b"x").digest()),
    ]
    assert records[-1] == (tarsplit.END, b"", len(tar), hashlib.sha512(tar).digest())
    raw = sum(len(data) for kind, data, _, _ in records if kind == tarsplit.RAW)
    assert raw == len(tar) - len(manifest) - 1


@pytest.mark.parametrize("change", ["flip", "grow", "shrink", "remove", "link", "pipe"])
def test_a_changed_file_is_named_and_stops_the_rebuild(tmp_path: Path, change: str) -> None:
    """Rebuilding from a tree that has changed fails with the name of the file."""
    image = unpack(tmp_path, aci.aci_tar(aci.Entry("rootfs/etc/f", content=b"x" * 100)))
    victim = image.tree / "rootfs/etc/f"
    if change == "flip":
        victim.write_bytes(b"x" * 99 + b"y")
    elif change == "grow":
        victim.write_bytes(b"x" * 101)
    elif change == "shrink":
        victim.write_bytes(b"x" * 99)
    else:
        victim.unlink()
        if change == "link":
            victim.symlink_to("/etc/passwd")
        elif change == "pipe":
            os.mkfifo(victim)
    with pytest.raises(ImageError, match="rootfs/etc/f"):
        image.rebuild()


def test_a_linked_directory_is_not_followed(tmp_path: Path) -> None:
    """A directory that became a symbolic link is not read through."""
    image = unpack(tmp_path, aci.aci_tar(aci.Entry("rootfs/etc/f", content=b"x")))
    os.rename(image.tree / "rootfs/etc", tmp_path / "moved")
    (image.tree / "rootfs/etc").symlink_to(tmp_path / "moved")
    with pytest.raises(ImageError, match="rootfs/etc/f"):
        image.rebuild()


def test_damaged_split_files_are_refused(tmp_path: Path) -> None:
    """Another version, a cut or more bytes are errors that say so; a flipped bit never gives a wrong tar."""
    tar = aci.aci_tar(*(aci.Entry(f"rootfs/{i}", content=os.urandom(9)) for i in range(50)))
    image = unpack(tmp_path, tar)
    whole = image.split.read_bytes()
    cut = (b"", whole[:10], whole[:16], whole[:-1], whole[: len(whole) // 2])
    for data in (whole.replace(b"split 1", b"split 2"), *cut, whole + b"x"):
        image.split.write_bytes(data)
        with pytest.raises(DamagedRecord):
            image.rebuild()
    for position in range(16, len(whole), 17):
        flipped = bytearray(whole)
        flipped[position] ^= 16
        image.split.write_bytes(flipped)
        try:
            rebuilt = image.rebuild()
        except (DamagedRecord, ImageError):
            continue
        # Deflate has several spellings of the same bytes.
        assert rebuilt == tar


def test_paths_of_records_do_not_climb(tmp_path: Path) -> None:
    """A split file that names something outside the layer is damaged."""
    image = unpack(tmp_path, aci.aci_tar())
    for path in (b"../x", b"/etc/passwd", b"rootfs/./x", b"a\0b", b""):
        with opened(image.split, os.O_WRONLY | os.O_TRUNC) as fd:
            writer = tarsplit.SplitWriter(fd)
            writer.file(path, 0, hashlib.sha256().digest())
            writer.finish(0, hashlib.sha512().digest())
        with pytest.raises(DamagedRecord, match="path"):
            image.rebuild()


def test_memory_of_a_rebuild_is_bounded(tmp_path: Path) -> None:
    """Zeros behind the end of the archive do not pile up in memory while the tar is rebuilt."""
    import tracemalloc

    tar = aci.tar_bytes([aci.manifest_entry(), aci.directory("rootfs")], end=bytes(40 << 20))
    image = unpack(tmp_path, tar)
    out = os.open(os.devnull, os.O_WRONLY)
    try:
        with opened(image.split) as split_fd, opened(image.tree) as tree_fd:
            tracemalloc.start()
            tarsplit.rebuild(split_fd, tree_fd, out)
            peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        os.close(out)
    assert peak < 10 << 20

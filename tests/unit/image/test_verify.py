# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.errors import DamagedRecord
from tests.lib import aci
from tests.lib.unpacking import Unpacked, unpack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENTRIES = (
    aci.directory("rootfs/bin", mtime=10),
    aci.Entry("rootfs/bin/app", content=b"program" * 1000, mode=0o4755, mtime=20),
    aci.hard_link("rootfs/bin/same", "rootfs/bin/app"),
    aci.symlink("rootfs/bin/sh", "app", mtime=30),
    aci.fifo("rootfs/pipe", mtime=40),
    aci.Entry("rootfs/etc/deep/conf", content=b"a=1\n", records={b"SCHILY.xattr.user.k": b"v"}, mtime=50),
    aci.device("rootfs/null"),
)


@pytest.fixture
def image(tmp_path: Path) -> Unpacked:
    """An image with one of everything."""
    return unpack(tmp_path, aci.aci_tar(*ENTRIES))


def test_an_untouched_layer_has_no_differences(image: Unpacked) -> None:
    """What was just unpacked verifies."""
    assert image.verify() == []


def _keep_time(path: Path, action: Callable[[Path], object]) -> None:
    before = os.stat(path, follow_symlinks=False)
    action(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns), follow_symlinks=False)


def test_one_changed_byte_names_the_file(image: Unpacked) -> None:
    """One byte changed, size and time as before: the file is named."""
    path = image.tree / "rootfs/bin/app"
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    _keep_time(path, lambda p: p.write_bytes(data))
    os.chmod(path, 0o4755)
    first, second = map(str, image.verify())
    assert first.startswith("rootfs/bin/app: content")
    assert second.startswith("rootfs/bin/same: content"), "another name of the same file"


def test_the_manifest_counts(image: Unpacked) -> None:
    """A changed manifest is a difference too."""
    _keep_time(image.tree / "manifest", lambda p: p.write_bytes(b"{}"))
    assert [(d.path, d.what) for d in image.verify()] == [(b"manifest", "content")]


CHANGES: dict[str, tuple[Callable[[Path], object], set[tuple[str, str]]]] = {
    "mode": (lambda r: os.chmod(r / "bin/app", 0o755), {("bin/app", "mode")}),
    "time": (lambda r: os.utime(r / "bin/app", (1, 1)), {("bin/app", "time")}),
    "directory mode": (lambda r: os.chmod(r / "bin", 0o700), {("bin", "mode")}),
    "attribute": (
        lambda r: os.setxattr(r / "etc/deep/conf", "user.k", b"w"),
        {("etc/deep/conf", "attributes")},
    ),
    "new attribute": (lambda r: os.setxattr(r / "bin/app", "user.x", b""), {("bin/app", "attributes")}),
    "lost attribute": (
        lambda r: os.removexattr(r / "etc/deep/conf", "user.k"),
        {("etc/deep/conf", "attributes")},
    ),
    "overlay attribute": (
        lambda r: os.setxattr(r / "bin", "user.overlay.opaque", b"y"),
        {("bin", "attributes")},
    ),
    "extra file": (lambda r: (r / "etc/deep/new").touch(), {("etc/deep/new", "extra")}),
    "extra directory": (lambda r: (r / "etc/newdir/below").mkdir(parents=True), {("etc/newdir", "extra")}),
    "what was skipped": (lambda r: (r / "null").touch(), {("null", "extra")}),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_changes_are_named(
    image: Unpacked, change: Callable[[Path], object], expected: set[tuple[str, str]]
) -> None:
    """Each kind of change is reported under its name; the time of a directory it was made in may differ too."""
    change(image.tree / "rootfs")
    assert (
        image.found() - {("rootfs", "time"), ("bin", "time"), ("etc", "time"), ("etc/deep", "time")}
        == expected
    )


def test_replaced_entries(image: Unpacked) -> None:
    """Missing entries, other types, other link targets and split hard links are each reported."""
    root = image.tree / "rootfs"
    (root / "pipe").unlink()
    (root / "bin/sh").unlink()
    (root / "bin/sh").symlink_to("/bin/evil")
    content = (root / "bin/same").read_bytes()
    (root / "bin/same").unlink()
    (root / "bin/same").write_bytes(content)
    (root / "etc/deep/conf").unlink()
    (root / "etc/deep/conf").mkdir()
    found = image.found()
    assert {("pipe", "missing"), ("bin/sh", "link"), ("bin/same", "link"), ("etc/deep/conf", "type")} <= found


def test_a_directory_replaced_by_a_link_is_not_followed(image: Unpacked, tmp_path: Path) -> None:
    """What is below a directory that became a link counts as missing."""
    os.rename(image.tree / "rootfs/bin", tmp_path / "elsewhere")
    (image.tree / "rootfs/bin").symlink_to(tmp_path / "elsewhere")
    assert {("bin", "type"), ("bin/app", "missing"), ("bin/sh", "missing")} <= image.found()


@pytest.mark.root
def test_owner_and_capabilities(image: Unpacked) -> None:
    """Another owner and a file capability that the image does not have are reported."""
    path = image.tree / "rootfs/bin/app"
    os.chown(path, 1, 0)
    os.chmod(path, 0o4755)
    os.setxattr(path, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    assert image.found() == {("bin/app", "owner"), ("bin/app", "attributes")}


def test_names_are_printed_safely(tmp_path: Path) -> None:
    """A name with control characters is escaped in the report."""
    image = unpack(tmp_path, aci.aci_tar(aci.Entry("rootfs/\x1b[2J", content=b"x")))
    (image.tree / "rootfs/\x1b[2J").write_bytes(b"y")
    assert all(str(d).isprintable() for d in image.verify())
    assert any("\\x1b" in str(d) for d in image.verify())


def test_a_split_file_of_another_image(image: Unpacked, tmp_path: Path) -> None:
    """The split file of another image reports differences; a damaged one is an error."""
    (tmp_path / "b").mkdir()
    other = unpack(tmp_path / "b", aci.aci_tar(aci.Entry("rootfs/other")))
    mixed = Unpacked(image.tree, other.split, other.result)
    assert ("other", "missing") in mixed.found()
    other.split.write_bytes(other.split.read_bytes()[:-3])
    with pytest.raises(DamagedRecord):
        mixed.verify()

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING

import pytest

from rkt.errors import ImageError, StoreError
from rkt.image.aci import peek_manifest, scan_aci
from rkt.image.compression import KINDS
from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.unpack import is_kept_xattr
from tests.lib import aci
from tests.lib.unpacking import stream, unpack

if TYPE_CHECKING:
    from pathlib import Path

ROOT = os.geteuid() == 0
MINE = (os.getuid(), os.getgid())


@pytest.mark.parametrize("kind", KINDS)
def test_identities_and_sizes(tmp_path: Path, kind: str) -> None:
    """The result has the digests of both sides, the sizes and the manifest, whatever the compression."""
    tar = aci.aci_tar(
        aci.directory("rootfs/bin"), aci.Entry("rootfs/bin/app", content=b"x" * 3000, mode=0o755)
    )
    blob = aci.compress(tar, kind)
    result = unpack(tmp_path, blob).result
    manifest = aci.manifest_entry().content
    assert result.image_id == aci.image_id(tar)
    assert result.blob_sha256 == hashlib.sha256(blob).hexdigest()
    assert (result.blob_bytes, result.size_bytes) == (len(blob), len(tar))
    assert result.tree_size_bytes == 3000 + len(manifest)
    assert (result.entries, result.manifest, result.compression) == (4, manifest, kind)


def test_members_become_what_their_headers_say(tmp_path: Path) -> None:
    """Modes with setuid bits, times, links, pipes and, for root, owners are those of the archive."""
    tree = (
        unpack(
            tmp_path,
            aci.aci_tar(
                aci.directory("rootfs/d", mode=0o1750, mtime=111, uid=5, gid=6),
                aci.Entry("rootfs/d/f", content=b"hello", mode=0o6755, uid=1000, gid=1001, mtime=222),
                aci.hard_link("rootfs/d/g", "rootfs/d/f"),
                aci.symlink("rootfs/d/s", "/etc/../passwd", mtime=333),
                aci.fifo("rootfs/d/p", mode=0o620, mtime=444),
                aci.Entry("rootfs/empty", mode=0),
            ),
        ).tree
        / "rootfs"
    )
    directory, file = os.lstat(tree / "d"), os.lstat(tree / "d/f")
    assert (stat.S_IMODE(directory.st_mode), directory.st_mtime) == (0o1750, 111)
    assert (stat.S_IMODE(file.st_mode), file.st_mtime, file.st_nlink) == (0o6755, 222, 2)
    assert (tree / "d/g").read_bytes() == b"hello"
    assert os.readlink(tree / "d/s") == "/etc/../passwd"
    assert os.lstat(tree / "d/s").st_mtime == 333
    pipe = os.lstat(tree / "d/p")
    assert stat.S_ISFIFO(pipe.st_mode)
    assert (stat.S_IMODE(pipe.st_mode), pipe.st_mtime) == (0o620, 444)
    assert stat.S_IMODE(os.lstat(tree / "empty").st_mode) == 0
    assert (directory.st_uid, directory.st_gid) == ((5, 6) if ROOT else MINE)
    assert (file.st_uid, file.st_gid) == ((1000, 1001) if ROOT else MINE)


@pytest.mark.root
def test_largest_owner(tmp_path: Path) -> None:
    """The largest uid and gid that mean anything to the kernel are kept."""
    entry = aci.Entry("rootfs/f", records={b"uid": b"4294967294", b"gid": b"4294967294"})
    status = os.lstat(unpack(tmp_path, aci.aci_tar(entry)).tree / "rootfs/f")
    assert (status.st_uid, status.st_gid) == (2**32 - 2, 2**32 - 2)


def test_directories_in_any_order(tmp_path: Path) -> None:
    """A directory may follow what is in it, be read-only, or have no entry of its own."""
    tree = unpack(
        tmp_path,
        aci.tar_bytes(
            [
                aci.Entry("./rootfs/a/b/f", content=b"1"),
                aci.directory("./rootfs/a/", mode=0o555, mtime=77),
                aci.directory("rootfs/ro", mode=0o500),
                aci.Entry("rootfs/ro/f", content=b"2"),
                aci.directory("./", mode=0o777, mtime=5),
                aci.manifest_entry(),
            ]
        ),
    ).tree
    assert (tree / "rootfs/a/b/f").read_bytes() == b"1"
    assert stat.S_IMODE(os.lstat(tree / "rootfs/a").st_mode) == 0o555
    assert os.lstat(tree / "rootfs/a").st_mtime == 77
    implied = os.lstat(tree / "rootfs/a/b")
    assert (stat.S_IMODE(implied.st_mode), implied.st_mtime) == (0o755, 0)
    # The layer directory is the store's; an entry for the archive's root does not open it to others.
    assert stat.S_IMODE(os.lstat(tree).st_mode) != 0o777
    os.chmod(tree / "rootfs/a", 0o700)


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    """Unpacking under any umask gives the modes of the archive."""
    before = os.umask(0o777)
    try:
        (tmp_path / "x").mkdir()
        os.chmod(tmp_path / "x", 0o700)
        os.umask(0o077)
        tree = unpack(tmp_path / "x", aci.aci_tar(aci.Entry("rootfs/i/f", mode=0o666))).tree
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.lstat(tree / "rootfs/i/f").st_mode) == 0o666
    assert stat.S_IMODE(os.lstat(tree / "rootfs/i").st_mode) == 0o755


def test_names_of_any_bytes(tmp_path: Path) -> None:
    """Names are bytes: not UTF-8, with a line feed, 255 long; a path may be longer than a header."""
    names = [b"\xff\xfe", b"a\nb", b"n" * 255, b"/".join([b"p" * 100] * 20)]
    tree = unpack(tmp_path, aci.aci_tar(*(aci.Entry(b"rootfs/" + n, content=n) for n in names))).tree
    for name in names:
        with open(os.fsencode(tree) + b"/rootfs/" + name, "rb") as file:
            assert file.read() == name


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (b"security.capability", True),
        (b"user.mime_type", True),
        (b"user.overlay.opaque", False),
        (b"user.fuseoverlayfs.overlay.opaque", False),
        (b"user.overlay", False),
        (b"user.", False),
        (b"trusted.overlay.redirect", False),
        (b"trusted.x", False),
        (b"security.selinux", False),
        (b"security.ima", False),
        (b"system.posix_acl_access", False),
        (b"user.overlayish", True),
    ],
)
def test_attribute_allow_list(name: bytes, kept: bool) -> None:
    """File capabilities and user attributes are kept, nothing that steers overlayfs or a security module."""
    assert is_kept_xattr(name) is kept


def test_attributes_are_set(tmp_path: Path) -> None:
    """Attributes on the allow-list arrive on files and directories; the others are counted."""
    records = {
        b"SCHILY.xattr.user.a": b"1",
        b"SCHILY.xattr.user.overlay.opaque": b"y",
        b"SCHILY.xattr.trusted.x": b"z",
    }
    image = unpack(
        tmp_path,
        aci.aci_tar(
            aci.directory("rootfs/d", records=records),
            aci.Entry("rootfs/f", mode=0o400, records=records),
            aci.symlink("rootfs/s", "f", records=records),
        ),
    )
    for name in ("d", "f"):
        assert os.listxattr(image.tree / "rootfs" / name) == ["user.a"]
    assert image.result.dropped_xattrs == 2 + 2 + 3


@pytest.mark.root
def test_file_capabilities_survive(tmp_path: Path) -> None:
    """A file capability is set after the owner, which would clear it."""
    value = bytes.fromhex("0100000200040000000000000000000000000000")
    entry = aci.Entry("rootfs/ping", mode=0o755, uid=3, records={b"SCHILY.xattr.security.capability": value})
    tree = unpack(tmp_path, aci.aci_tar(entry)).tree
    assert os.getxattr(tree / "rootfs/ping", "security.capability") == value


def test_devices_are_counted_not_made(tmp_path: Path) -> None:
    """Device nodes, and hard links to them, are left out and counted; the tar can still be rebuilt."""
    tar = aci.aci_tar(
        aci.device("rootfs/dev/sda", b"4", mode=0o666),
        aci.device("rootfs/dev/null"),
        aci.hard_link("rootfs/dev/zero", "rootfs/dev/null"),
    )
    image = unpack(tmp_path, tar)
    assert image.result.skipped_devices == 3
    assert os.listdir(image.tree / "rootfs/dev") == []
    assert image.rebuild() == tar


def test_manifest_is_found_anywhere(tmp_path: Path) -> None:
    """The manifest may come last; peeking finds it, and reads no further than needed when it comes first."""
    manifest = aci.manifest_entry()
    last = aci.tar_bytes([aci.directory("rootfs"), aci.Entry("rootfs/f", content=b"y" * 1000), manifest])
    assert unpack(tmp_path, last).result.manifest == manifest.content
    with stream(aci.compress(last, "gzip")) as fd:
        assert peek_manifest(fd) == manifest.content
    with stream(aci.tar_bytes([manifest, b"broken behind it"])) as fd:
        assert peek_manifest(fd) == manifest.content
    with (
        stream(aci.tar_bytes([aci.directory("rootfs")])) as fd,
        pytest.raises(ImageError, match="no image manifest"),
    ):
        peek_manifest(fd)


def test_scanning_agrees_with_unpacking() -> None:
    """Scanning gives the same identity and manifest without writing anything."""
    tar = aci.aci_tar(aci.Entry("rootfs/f", content=b"z"), aci.hard_link("rootfs/g", "rootfs/f"))
    with stream(aci.compress(tar, "xz")) as fd:
        assert scan_aci(fd) == (aci.image_id(tar), aci.manifest_entry().content, len(tar))


def test_no_space(tmp_path: Path) -> None:
    """A file larger than what is free is refused before anything of it is written."""
    head = aci.Entry("rootfs/f").before + aci.header(b"rootfs/f", size=aci.base256(1 << 60, 12))
    limits = DEFAULT_LIMITS.replace(tar_bytes=1 << 62)
    with pytest.raises(StoreError, match="No space left"):
        unpack(tmp_path, aci.aci_tar(head), limits)
    assert not (tmp_path / "tree/rootfs/f").exists()

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import os
import socket
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest

from rkt.errors import ImageError
from rkt.image.compression import KINDS
from rkt.image.create import Created, Options, create_aci
from tests.lib import aci
from tests.lib.unpacking import opened, stream, unpack

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = aci.manifest_entry().content


def create(path: Path, options: Options, *, rootfs: Path | None = None, tar: bytes | None = None) -> Created:
    """Create an image file."""
    with opened(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as out_fd:
        if rootfs is not None:
            with opened(rootfs) as rootfs_fd:
                return create_aci(out_fd, MANIFEST, options, rootfs_fd=rootfs_fd)
        assert tar is not None
        with stream(tar) as tar_fd:
            return create_aci(out_fd, MANIFEST, options, tar_fd=tar_fd)


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A tree with one of everything."""
    root = tmp_path / "rootfs"
    (root / "bin").mkdir(parents=True)
    (root / "bin/app").write_bytes(b"program")
    os.chmod(root / "bin/app", 0o4755)
    os.link(root / "bin/app", root / "bin/same")
    (root / "bin/sh").symlink_to("app")
    os.mkfifo(root / "pipe", 0o600)
    (root / "é").mkdir()
    (root / "é" / ("n" * 200)).write_bytes(b"")
    (root / "data").write_bytes(os.urandom(3_000_000))
    os.setxattr(root / "data", "user.k", b"v")
    os.utime(root / "data", (1_600_000_000, 1_600_000_000))
    return root


def names(path: Path) -> list[str]:
    """Members in order, as Python's tarfile sees them."""
    with tarfile.open(path) as archive:
        return archive.getnames()


def test_members_are_sorted_and_complete(tmp_path: Path, rootfs: Path) -> None:
    """The manifest comes first, then the tree in byte order, which other tar readers understand."""
    created = create(tmp_path / "a.aci", Options(), rootfs=rootfs)
    assert names(tmp_path / "a.aci") == [
        "manifest",
        "rootfs",
        "rootfs/bin",
        "rootfs/bin/app",
        "rootfs/bin/same",
        "rootfs/bin/sh",
        "rootfs/data",
        "rootfs/pipe",
        "rootfs/é",
        "rootfs/é/" + "n" * 200,
    ]
    assert created.image_id == aci.image_id((tmp_path / "a.aci").read_bytes())
    assert created.notices == []


def test_the_tree_comes_back(tmp_path: Path, rootfs: Path) -> None:
    """Unpacking the image gives the tree: content, modes, links, attributes."""
    create(tmp_path / "a.aci", Options(timestamp_seconds=None), rootfs=rootfs)
    tree = unpack(tmp_path, (tmp_path / "a.aci").read_bytes()).tree / "rootfs"
    assert (tree / "data").read_bytes() == (rootfs / "data").read_bytes()
    assert os.getxattr(tree / "data", "user.k") == b"v"
    assert (tree / "data").stat().st_mtime == 1_600_000_000
    assert stat.S_IMODE((tree / "bin/app").stat().st_mode) == 0o4755
    assert (tree / "bin/app").stat().st_ino == (tree / "bin/same").stat().st_ino
    assert os.readlink(tree / "bin/sh") == "app"
    assert stat.S_ISFIFO((tree / "pipe").stat().st_mode)


@pytest.mark.parametrize("kind", KINDS)
def test_same_input_same_bytes(tmp_path: Path, rootfs: Path, kind: str) -> None:
    """A copy of the tree made in another order at another time gives the same image, in each compression."""
    options = Options(compression=kind)
    create(tmp_path / "a.aci", options, rootfs=rootfs)
    copy = tmp_path / "copy"
    for source in sorted(rootfs.rglob("*"), reverse=True):
        target = copy / source.relative_to(rootfs)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(os.readlink(source))
        elif source.is_dir():
            target.mkdir(exist_ok=True)
        elif source.is_fifo():
            os.mkfifo(target, 0o600)
        elif source.name == "app":
            os.link(copy / "bin/same", target)
        else:
            target.write_bytes(source.read_bytes())
            os.chmod(target, stat.S_IMODE(source.stat().st_mode))
    os.setxattr(copy / "data", "user.k", b"v")
    create(tmp_path / "b.aci", options, rootfs=copy)
    assert (tmp_path / "a.aci").read_bytes() == (tmp_path / "b.aci").read_bytes()


def test_times_are_clamped(tmp_path: Path, rootfs: Path) -> None:
    """Times later than the given one become it, earlier ones stay."""
    create(tmp_path / "a.aci", Options(timestamp_seconds=1_650_000_000), rootfs=rootfs)
    with tarfile.open(tmp_path / "a.aci") as archive:
        times = {m.name: m.mtime for m in archive}
    assert times["rootfs/data"] == 1_600_000_000
    assert times["rootfs/bin"] == times["manifest"] == 1_650_000_000


def test_owner_root(tmp_path: Path, rootfs: Path) -> None:
    """On request everything is root's; no names of users are written."""
    if os.geteuid() == 0:
        os.chown(rootfs / "data", 12, 34)
    create(tmp_path / "a.aci", Options(), rootfs=rootfs)
    create(tmp_path / "b.aci", Options(root_owner=True), rootfs=rootfs)
    with tarfile.open(tmp_path / "a.aci") as archive:
        status = os.stat(rootfs / "data")
        member = archive.getmember("rootfs/data")
        assert (member.uid, member.gid, member.uname, member.gname) == (status.st_uid, status.st_gid, "", "")
    with tarfile.open(tmp_path / "b.aci") as archive:
        assert {(m.uid, m.gid) for m in archive} == {(0, 0)}


def test_sockets_are_left_out(tmp_path: Path, rootfs: Path) -> None:
    """A socket cannot be in an image; that is said."""
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(rootfs)  # the path of a socket is short
        try:
            server.bind("sock")
        finally:
            os.chdir(here)
    created = create(tmp_path / "a.aci", Options(), rootfs=rootfs)
    assert "rootfs/sock" not in names(tmp_path / "a.aci")
    assert created.notices == ["rootfs/sock is a socket: left out"]


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("dot", ["./", ""])
def test_from_a_tar(tmp_path: Path, style: int, dot: str) -> None:
    """The members of a tar move below rootfs, whatever its format and spelling; devices are left out."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=style) as archive:
        if dot:
            archive.addfile(_info(".", tarfile.DIRTYPE, mode=0o700))
        archive.addfile(_info(dot + "etc", tarfile.DIRTYPE))
        archive.addfile(_info(dot + "etc/f", size=3), io.BytesIO(b"abc"))
        archive.addfile(_info(dot + "etc/g", tarfile.LNKTYPE, linkname=dot + "etc/f"))
        archive.addfile(_info(dot + "etc/s", tarfile.SYMTYPE, linkname="/etc/f"))
        archive.addfile(_info(dot + "null", tarfile.CHRTYPE))
    created = create(tmp_path / "a.aci", Options(), tar=buffer.getvalue())
    unpacked = unpack(tmp_path, (tmp_path / "a.aci").read_bytes())
    tree = unpacked.tree / "rootfs"
    assert (tree / "etc/g").read_bytes() == b"abc"
    assert os.readlink(tree / "etc/s") == "/etc/f"
    assert stat.S_IMODE(tree.stat().st_mode) == (0o700 if dot else 0o755)
    assert created.notices == [f"{dot}null is a device node: left out"]
    assert unpacked.result.image_id == created.image_id


def _info(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, 0o755
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [aci.Entry("../x")],
        [aci.Entry("/x")],
        [aci.symlink(".", "/")],
        [aci.Entry("a"), aci.Entry("a")],
        [aci.symlink("l", "/"), aci.Entry("l/x")],
        [aci.hard_link("h", "nothing")],
        [aci.Entry("a"), aci.directory("./")],
    ],
    ids=["empty", "climbing", "absolute", "root link", "twice", "through a link", "dangling", "root late"],
)
def test_tars_that_cannot_be_an_image(tmp_path: Path, entries: list[aci.Entry]) -> None:
    """A tar that would make an image which nobody may unpack is refused when it is made."""
    with pytest.raises(ImageError):
        create(tmp_path / "a.aci", Options(), tar=aci.tar_bytes(entries))


def test_a_file_that_grows_while_it_is_read(
    tmp_path: Path, rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose size is not what it was when it was opened is an error, not a broken archive."""
    from rkt.image import create as module

    monkeypatch.setattr(module, "_content", lambda fd: iter([os.read(fd, 1 << 22), b"more"]))
    with pytest.raises(ImageError, match="changed while it was read"):
        create(tmp_path / "a.aci", Options(), rootfs=rootfs)

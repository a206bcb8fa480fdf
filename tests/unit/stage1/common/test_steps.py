# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from rkt.stage1.common import steps

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An app's root with the links of spec runtime §6.4, beside a directory that must never be reached."""
    (tmp_path / "outside").mkdir()
    top = tmp_path / "root"
    for name in ("dir1", "dir2"):
        (top / name).mkdir(parents=True)
    for name, target in {
        "link_rel_dir2": "../dir2",
        "link_abs_dir2": "/dir2",
        "link_abs_dotdot_dir2": "/../dir1/../../dir2",
        "link_abs_notexists": "/notexists",
        "link_abs_root": "/",
        "link_outside": "../../outside",
        "link_host": str(tmp_path / "outside"),
        "link_loop": "link_loop",
    }.items():
        os.symlink(target, top / "dir1" / name)
    return top


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/dir1/link_abs_dir2/foo", "dir2/foo"),
        ("/dir1/link_rel_dir2/bar", "dir2/bar"),
        ("/dir1/../dir1/.//link_rel_dir2/foo", "dir2/foo"),
        ("/dir1/../../../foo", "foo"),
        ("../../../../foo", "foo"),
        ("/dir1/link_abs_dotdot_dir2/foo", "dir2/foo"),
        ("/dir1/../../../newdir/foo", "newdir/foo"),
        ("/dir1/link_rel_dir2/newdir/foo", "dir2/newdir/foo"),
        ("/dir1/link_abs_notexists/newdir1/newdir2/foo", "notexists/newdir1/newdir2/foo"),
        ("/dir1/link_abs_root/newdir1/newdir2/foo", "newdir1/newdir2/foo"),
        ("/dir1/link_outside/foo", "outside/foo"),
        ("/a/b/c", "a/b/c"),
    ],
)
def test_a_target_is_resolved_and_made_inside_the_root(root: Path, target: str, expected: str) -> None:
    """Links, dangling ones too, and ``..`` lead nowhere but inside the root (spec runtime §6.4 V24 to V28)."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    fd = steps.open_target(root_fd, target.encode(), want_directory=False)
    try:
        assert os.path.samestat(os.fstat(fd), os.lstat(root / expected))
    finally:
        os.close(fd)
        os.close(root_fd)
    assert os.listdir(root.parent / "outside") == []


def test_a_link_to_a_host_path_leads_to_its_namesake_inside(root: Path) -> None:
    """An absolute link is read from the app's root, so the host's directory of that name stays empty."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    os.close(steps.open_target(root_fd, b"/dir1/link_host/foo", want_directory=True))
    os.close(root_fd)
    assert os.listdir(root.parent / "outside") == []
    assert (root / str(root.parent / "outside").lstrip("/") / "foo").is_dir()


@pytest.mark.parametrize(
    ("target", "number"),
    [
        ("/", errno.EPERM),
        ("/dir1/..", errno.EPERM),
        ("/dir1/link_abs_root", errno.EPERM),
        ("/dir1/link_loop/x", errno.ELOOP),
    ],
)
def test_the_root_itself_and_endless_links_are_refused(root: Path, target: str, number: int) -> None:
    """Nothing may cover the root, and a loop ends."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is compared
        steps.open_target(root_fd, target.encode(), want_directory=True)
    os.close(root_fd)
    assert caught.value.errno == number


def test_missing_directories_are_made_with_mode_0755(root: Path) -> None:
    """Parents of a target are 0755 whatever the umask of the caller (spec runtime §3.10)."""
    old = os.umask(0)
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        os.close(steps.open_target(root_fd, b"/a/b/c", want_directory=True))
    finally:
        os.umask(old)
        os.close(root_fd)
    assert [os.stat(root / path).st_mode & 0o7777 for path in ("a", "a/b", "a/b/c")] == [0o755] * 3


def test_a_link_in_place_of_a_kernel_directory_is_replaced(root: Path) -> None:
    """``/proc`` as a link becomes a directory of its own, and where the link led nothing changes (invariant RN6)."""
    os.symlink(root.parent / "outside", root / "proc")
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    steps.MakeDirectory(b"proc").apply(root_fd)
    os.close(root_fd)
    assert (root / "proc").is_dir()
    assert not (root / "proc").is_symlink()
    assert os.listdir(root.parent / "outside") == []


def test_a_link_that_the_image_wants_is_kept(root: Path) -> None:
    """``/tmp`` or ``/etc`` as a link of the image stays what it is."""
    os.symlink("dir2", root / "tmp")
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    steps.MakeDirectory(b"tmp", keep=True).apply(root_fd)
    os.close(root_fd)
    assert os.readlink(root / "tmp") == "dir2"

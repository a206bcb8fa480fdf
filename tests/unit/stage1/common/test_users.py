# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.errors import Stage1Error
from rkt.stage1.common import users

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with account files like those of rkt's test image."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(
        "root:x:0:0::/:/bin/sh\nuser1:x:1000:100::/:/bin/sh\n77:x:5:5::/:/bin/sh\n"
    )
    (tmp_path / "etc/group").write_text("root:x:0:\ngroup1:x:100:\nbroken\nhuge:x:99999999999:\n")
    (tmp_path / "file").write_text("")
    return tmp_path


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    """The root, open."""
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("user", "uid"), [("0", 0), ("root", 0), ("user1", 1000), ("200", 200), ("4294967294", 4294967294)]
)
def test_users_by_name_and_number(root_fd: int, user: str, uid: int) -> None:
    """Names come from the image's passwd, ``root`` works without it, numbers are themselves."""
    assert users.resolve_user(root_fd, user) == uid


def test_digits_are_an_id_and_never_a_name(root_fd: int) -> None:
    """A passwd entry called 77 does not change what user 77 means (CVE-2016-3697)."""
    assert users.resolve_user(root_fd, "77") == 77


def test_the_owner_of_a_file(root_fd: int, root: Path) -> None:
    """A path means the owner of that file in the image."""
    assert users.resolve_user(root_fd, "/file") == os.stat(root / "file").st_uid
    assert users.resolve_group(root_fd, "/file") == os.stat(root / "file").st_gid


@pytest.mark.parametrize(
    "user", ["user2", "4294967295", "4294967296", "99999999999999999999", "-1", "/nofile", "user1\n"]
)
def test_unknown_users_are_refused(root_fd: int, user: str) -> None:
    """An unknown name, an id that the kernel would wrap, or a missing path is an error, never root."""
    with pytest.raises(Stage1Error):
        users.resolve_user(root_fd, user)


@pytest.mark.parametrize(
    ("user", "gid"), [("user1", 100), ("1000", 100), ("5", 5), ("4000", 0), ("root", 0), ("0", 0)]
)
def test_a_user_of_docker_without_a_group(root_fd: int, user: str, gid: int) -> None:
    """Who is named alone has the group that passwd says, by name or number, and root's when it does not know him."""
    annotations = {"appc.io/docker/repository": "x", "appc.io/docker/user": user}
    assert users.resolve_both(root_fd, user, user, annotations=annotations)[1] == gid


def test_a_user_of_docker_with_a_group(root_fd: int) -> None:
    """A group that was given counts, the image's own or that of a flag."""
    annotations = {"appc.io/docker/repository": "x", "appc.io/docker/user": "user1"}
    assert users.resolve_both(root_fd, "user1", "7", annotations=annotations) == (1000, 7)
    assert users.resolve_both(root_fd, "200", "group1", annotations=annotations) == (200, 100)


def test_messages_are_those_that_rkts_users_know(root_fd: int) -> None:
    """``"user2" user not found`` (spec runtime §6.3 P19)."""
    with pytest.raises(Stage1Error, match='"user2" user not found'):
        users.resolve_user(root_fd, "user2")
    with pytest.raises(Stage1Error, match='"group2" group not found'):
        users.resolve_group(root_fd, "group2")
    with pytest.raises(Stage1Error, match="no such file or directory"):
        users.resolve_user(root_fd, "/etc/nofile")


def test_ids_in_account_files_that_do_not_fit_are_no_ids(root_fd: int) -> None:
    """A group with a number over 32 bits is not found rather than wrapped (class of CVE-2024-40635)."""
    with pytest.raises(Stage1Error):
        users.resolve_group(root_fd, "huge")


def test_a_link_of_the_image_stays_inside(root_fd: int, root: Path) -> None:
    """``/etc/passwd`` as a link to a host path is looked up inside the root and not found."""
    os.unlink(root / "etc/passwd")
    os.symlink("/etc/passwd-of-the-host", root / "etc/passwd")
    with pytest.raises(Stage1Error):
        users.resolve_user(root_fd, "user1")


def test_a_pipe_in_place_of_the_account_file_does_not_block(root_fd: int, root: Path) -> None:
    """A FIFO is refused at once (CVE-2024-9676)."""
    os.unlink(root / "etc/passwd")
    os.mkfifo(root / "etc/passwd")
    with pytest.raises(Stage1Error, match="not a regular file"):
        users.resolve_user(root_fd, "user1")


def test_a_giant_account_file_is_refused(root_fd: int, root: Path) -> None:
    """More than 1 MiB is not read."""
    os.truncate(root / "etc/passwd", users.MAX_ACCOUNT_FILE_BYTES + 1)
    with pytest.raises(Stage1Error, match="larger than"):
        users.resolve_user(root_fd, "user1")

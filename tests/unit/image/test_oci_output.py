# SPDX-License-Identifier: Apache-2.0
"""Image layouts that take the place of another."""

from __future__ import annotations

import errno
import os

import pytest

from rkt.errors import ImageError, UsageError
from rkt.image import oci_output, output
from rkt.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """A layout, in the place of what is there."""
    with oci_output.DirectorySink(str(path), overwrite=True) as sink:
        sink.put("oci-layout", content)
        sink.commit()


def fail(number: int) -> None:
    """What a file system says."""
    raise OSError(number, os.strerror(number))


def test_a_layout_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the new layout does not get its name, the old one is as it was, and nothing lies beside it."""
    path = tmp_path / "layout"
    write(path, b"old")
    monkeypatch.setattr(libc, "renameat2", lambda *_: fail(errno.EIO))
    with pytest.raises(ImageError, match="cannot write"):
        write(path, b"new")
    assert (path / "oci-layout").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["layout"]


def test_an_old_layout_that_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new layout has its name before the old one is removed; what is left of that is named."""
    path = tmp_path / "layout"
    write(path, b"old")
    monkeypatch.setattr(output, "remove_tree", lambda _: fail(errno.EIO))
    with pytest.raises(
        ImageError, match=r"layout is written, but .*/\.layout\.\S+, which it replaces"
    ) as caught:
        write(path, b"new")
    assert (path / "oci-layout").read_bytes() == b"new"
    (left,) = [name for name in os.listdir(tmp_path) if name != "layout"]
    assert caught.value.hint == f"rm -r {tmp_path}/{left}"


def test_a_file_system_that_cannot_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without flags for rename the layout is replaced all the same."""
    path = tmp_path / "layout"
    write(path, b"old")
    monkeypatch.setattr(libc, "renameat2", lambda *_: fail(errno.EINVAL))
    write(path, b"new")
    assert (path / "oci-layout").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["layout"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_meanwhile_stays(tmp_path: Path, *, overwrite: bool) -> None:
    """A directory that somebody else makes under the name meanwhile is not removed unless it is a layout that may be replaced."""
    path = tmp_path / "layout"
    with oci_output.DirectorySink(str(path), overwrite=overwrite) as sink:
        sink.put("oci-layout", b"new")
        path.mkdir()
        (path / "mine").touch()
        with pytest.raises(UsageError, match="output exists"):
            sink.commit()
    assert os.listdir(path) == ["mine"]
    assert os.listdir(tmp_path) == ["layout"]

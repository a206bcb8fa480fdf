# SPDX-License-Identifier: Apache-2.0
"""Directories that take the place of others."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from rkt.errors import ImageError, UsageError
from rkt.image import export
from rkt.image.output import NewDirectory
from rkt.linux import libc

if TYPE_CHECKING:
    from pathlib import Path


def extract(path: Path, *, overwrite: bool = True, fails: bool = False) -> None:
    """What ``image extract`` and ``image render`` do with files of the store."""

    def fill(target_fd: int) -> None:
        os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=target_fd))
        if fails:
            raise ImageError("a file cannot be copied")

    store = cast("Any", SimpleNamespace(data_dir=f"{path.parent}/data"))
    export._write_output(store, str(path), fill, manifest=None, overwrite=overwrite)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """What is there before."""
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").touch()
    return path


def test_a_failure_leaves_what_was_there(old: Path) -> None:
    """An image that cannot be written out to its end costs nobody the files that it was to replace."""
    with pytest.raises(ImageError, match="cannot be copied"):
        extract(old, fails=True)
    assert os.listdir(old) == ["old"]
    assert os.listdir(old.parent) == ["out"]


@pytest.mark.parametrize("kind", ["directory", "file", "link"])
def test_whatever_has_the_name_is_replaced(old: Path, kind: str) -> None:
    """A directory, a file, and a link, of which the target stays, give way to the new directory."""
    path = old
    if kind != "directory":
        path = old.parent / "other"
        path.touch() if kind == "file" else path.symlink_to(old)
    extract(path)
    assert os.listdir(path) == ["new"]
    assert not path.is_symlink()
    assert os.listdir(old) == (["new"] if kind == "directory" else ["old"])
    assert set(os.listdir(old.parent)) == {"out", path.name}


def test_the_working_directory_can_be_replaced(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dot names a directory too, and what is in it is not lost before the new one is there."""
    monkeypatch.chdir(old)
    with NewDirectory(".", 0o700) as new:
        new.commit(replaces=True, exists="")
    assert os.listdir(old.parent) == ["out"]
    assert os.listdir(old) == []


def test_nothing_is_replaced_unasked(old: Path) -> None:
    """Without the flag an output that exists, or that somebody makes meanwhile, stays."""
    with pytest.raises(UsageError, match="try --overwrite"):
        extract(old, overwrite=False)
    with NewDirectory(str(old), 0o700) as new, pytest.raises(UsageError, match="is there"):
        new.commit(replaces=False, exists="it is there")
    assert os.listdir(old) == ["old"]
    assert os.listdir(old.parent) == ["out"]


def test_without_an_exchange_the_old_one_comes_back(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that cannot exchange names, a failure between the two renames is taken back."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "no flags")

    rename = os.rename
    calls: list[str] = []

    def fail_once(source: str, target: str) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "a failing disk", source)
        rename(source, target)

    monkeypatch.setattr(libc, "renameat2", refuse)
    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises(ImageError, match="cannot write"):
        extract(old)
    assert os.listdir(old) == ["old"]
    assert os.listdir(old.parent) == ["out"]

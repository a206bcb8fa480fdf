# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.errors import DamagedRecord
from rkt.image.render import Part
from rkt.store import trees
from rkt.store.cas import Store
from tests.lib.store import listing, put_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rkt.values import TreeID


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(str(tmp_path / "data"))


def build(store: Store, monkeypatch: pytest.MonkeyPatch) -> TreeID:
    """The tree of two images of which one contributes nothing."""
    # The split files of these images are no splits.
    monkeypatch.setattr(trees, "_check_layer", lambda *_: None)
    one, two = (put_image(store.data_dir, seed=seed) for seed in ("one", "two"))
    empty: frozenset[tuple[bytes, ...]] = frozenset()
    return trees.ensure_tree(store, [Part(key=one.key), Part(key=two.key, files=empty, directories=empty)])


def test_rendered_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same parts are the same tree, which is kept; nothing of the making stays behind."""
    identity = build(store, monkeypatch)
    path = store.layer_path(identity)
    before = os.stat(path)
    assert build(store, monkeypatch) == identity
    assert os.stat(path) == before
    assert listing(path) == {"manifest", "record", "rootfs", "rootfs/hello"}
    assert os.listdir(f"{store.data_dir}/cas/tmp") == []
    assert before.st_mode & 0o7777 == 0o700


CHANGES: dict[str, Callable[[str], None]] = {
    "content": lambda path: _write(f"{path}/rootfs/hello", b"olleh"),
    "manifest": lambda path: _write(f"{path}/manifest", b"{}"),
    "mode": lambda path: os.chmod(f"{path}/rootfs/hello", 0o4755),
    "root": lambda path: os.chmod(f"{path}/rootfs", 0o777),
    "missing": lambda path: os.unlink(f"{path}/rootfs/hello"),
    "extra": lambda path: os.mkdir(f"{path}/rootfs/extra"),
    "name": lambda path: os.rename(f"{path}/rootfs/hello", f"{path}/rootfs/hallo"),
    "kind": lambda path: _become_link(f"{path}/rootfs/hello"),
    "record": lambda path: os.unlink(f"{path}/record"),
}


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def _become_link(path: str) -> None:
    os.unlink(path)
    os.symlink("hello", path)


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_noticed(store: Store, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """Whatever is changed in a tree, it is damaged for each of its images, and for no other."""
    identity = build(store, monkeypatch)
    keys = store.keys()
    other = put_image(store.data_dir, seed="other").key
    for key in keys:
        assert trees.damaged_trees(store, key) == []
    CHANGES[change](store.layer_path(identity))
    for key in keys:
        assert trees.damaged_trees(store, key) == [identity]
    if change != "record":
        assert trees.damaged_trees(store, other) == []


def test_a_failed_build_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree stands under its name when it is whole, or not at all."""

    def fail(*_: object, **__: object) -> None:
        raise DamagedRecord("refused")

    monkeypatch.setattr(trees, "merge", fail)
    with pytest.raises(DamagedRecord):
        build(store, monkeypatch)
    assert os.listdir(f"{store.data_dir}/cas/tree") == []
    assert os.listdir(f"{store.data_dir}/cas/tmp") == []

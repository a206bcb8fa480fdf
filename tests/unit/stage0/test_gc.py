# SPDX-License-Identifier: Apache-2.0
"""What others see of a pod while it is marked, and what a collection says that comes second."""

from __future__ import annotations

import os
import shutil

import pytest

from rkt.config.settings import Installation, Settings
from rkt.pod import lifecycle
from rkt.pod.lifecycle import EXITED_GARBAGE, GARBAGE, PREPARE, PREPARED, RUN, Pod
from rkt.stage0 import gc
from rkt.values import PodUUID

UUID = PodUUID("aaaaaaaa-0000-4000-8000-000000000001")


@pytest.fixture
def settings(tmp_path: object) -> Settings:
    """Settings with a data directory of their own, and every place in it."""
    installation = Installation(package_path="", library_paths=[], stage1_images_path="")
    lifecycle.ensure_directories(f"{tmp_path}/data")
    return Settings(installation=installation, data_dir=f"{tmp_path}/data", command="gc")


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(state that somebody else sees, place where the pod goes) of every move, just before it."""
    seen: list[tuple[str, str]] = []
    move = Pod.move

    def watched(self: Pod, place: str, *, sync: bool) -> None:
        with lifecycle.open_pod(self.pods_dir, self.uuid) or pytest.fail("the pod is gone") as other:
            seen.append((other.state, place))
        move(self, place, sync=sync)

    monkeypatch.setattr(Pod, "move", watched)
    return seen


def put(settings: Settings, place: str) -> None:
    """A pod directory without files."""
    os.mkdir(f"{settings.pods_dir}/{place}/{UUID}")


def test_a_pod_that_is_marked_does_not_seem_to_run(
    settings: Settings, moves: list[tuple[str, str]], capfd: pytest.CaptureFixture[str]
) -> None:
    """An exited pod is exited until it is exited garbage: never running because gc holds its lock."""
    put(settings, RUN)
    gc.collect(settings, grace_seconds=0, expire_seconds=0, mark_only=True)
    assert moves == [("exited", EXITED_GARBAGE)]
    assert capfd.readouterr().err == f'gc: moving pod "{UUID}" to garbage\n'


@pytest.mark.skipif(os.geteuid() != 0, reason="unmounts what may be in the pod")
@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (RUN, ("exited", EXITED_GARBAGE)),
        (PREPARE, ("aborted prepare", GARBAGE)),
        (PREPARED, ("prepared", GARBAGE)),
    ],
)
def test_a_pod_that_is_removed_does_not_seem_to_run(
    settings: Settings, moves: list[tuple[str, str]], place: str, expected: tuple[str, str]
) -> None:
    """Likewise for rm, wherever the pod stood."""
    put(settings, place)
    with lifecycle.find(settings.pods_dir, UUID) as pod:
        gc.remove(settings, pod)
    assert moves[0] == expected
    assert lifecycle.open_pod(settings.pods_dir, UUID) is None


@pytest.mark.parametrize("place", [RUN, PREPARE, PREPARED, EXITED_GARBAGE, GARBAGE])
def test_another_collection_was_faster(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    place: str,
) -> None:
    """A pod that somebody else has removed since it was seen is no failure, and nothing is said of it."""
    put(settings, place)
    share, lock = Pod.share, Pod.lock

    def too_late(self: Pod) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def late_share(self: Pod) -> bool:
        too_late(self)
        return share(self)

    def late_lock(self: Pod, *, blocking: bool) -> None:
        too_late(self)
        lock(self, blocking=blocking)

    monkeypatch.setattr(Pod, "share", late_share)
    monkeypatch.setattr(Pod, "lock", late_lock)
    gc.collect(settings, grace_seconds=0, expire_seconds=0, mark_only=False)
    assert capfd.readouterr().err == ""

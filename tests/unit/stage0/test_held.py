# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os

import pytest

from rkt.errors import NotFound, PodError
from rkt.linux.locks import lock_directory
from rkt.pod import lifecycle
from rkt.pod.lifecycle import EXITED_GARBAGE, GARBAGE, PREPARED, RUN, Pod
from rkt.stage0.held import hold
from rkt.values import PodUUID

UUID = PodUUID("aaaaaaaa-0000-4000-8000-000000000001")


@pytest.fixture
def pods_dir(tmp_path: object) -> str:
    """A data directory's ``pods`` with every place in it."""
    lifecycle.ensure_directories(f"{tmp_path}/data")
    return f"{tmp_path}/data/pods"


def put(pods_dir: str, place: str) -> Pod:
    """An opened pod in a place."""
    os.mkdir(f"{pods_dir}/{place}/{UUID}")
    pod = lifecycle.open_pod(pods_dir, UUID)
    assert pod is not None
    return pod


@pytest.mark.parametrize("place", [PREPARED, RUN, EXITED_GARBAGE])
def test_a_held_pod_is_neither_started_nor_deleted(pods_dir: str, place: str) -> None:
    """Nobody gets the exclusive lock until the pod is closed, and others see the same state as before."""
    with put(pods_dir, place) as pod:
        before = pod.state
        assert hold(pod)
        with pytest.raises(BlockingIOError):
            lock_directory(pod.path, exclusive=True, blocking=False)
        with lifecycle.open_pod(pods_dir, UUID) or pytest.fail("the pod is gone") as other:
            assert other.state == before
    lock_directory(pod.path, exclusive=True, blocking=False).close()


def test_a_running_pod_is_not_held(pods_dir: str) -> None:
    """Also one that was started since it was opened."""
    with put(pods_dir, RUN) as pod, lock_directory(pod.path, exclusive=True):
        assert pod.state == "exited"
        assert not hold(pod)
        assert pod.state == "running"


def test_a_pod_that_was_marked_is_held_where_it_stands(pods_dir: str) -> None:
    """What gc does to a pod meanwhile is no reason to refuse it."""
    with put(pods_dir, RUN) as pod:
        os.rename(pod.path, f"{pods_dir}/{EXITED_GARBAGE}/{UUID}")
        assert hold(pod)
        assert pod.place == EXITED_GARBAGE


@pytest.mark.parametrize("place", [EXITED_GARBAGE, GARBAGE])
def test_a_pod_that_is_being_deleted_is_refused(pods_dir: str, place: str) -> None:
    """By that name, and not as one that is in use or does not run."""
    with put(pods_dir, RUN) as pod:
        os.rename(pod.path, f"{pods_dir}/{place}/{UUID}")
        with (
            lock_directory(f"{pods_dir}/{place}/{UUID}", exclusive=True),
            pytest.raises(PodError, match="is being deleted"),
        ):
            hold(pod)


def test_a_removed_pod_is_refused(pods_dir: str) -> None:
    """A pod that is gone was removed."""
    with put(pods_dir, RUN) as pod:
        os.rmdir(pod.path)
        with pytest.raises(NotFound, match="was removed"):
            hold(pod)

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import fcntl
import os
import random
import threading

import pytest

from rkt.errors import Ambiguous, NotFound, PodError, RktError, UsageError
from rkt.linux.locks import lock_directory
from rkt.pod import lifecycle, listing, names
from rkt.pod.lifecycle import EMBRYO, EXITED_GARBAGE, GARBAGE, PLACES, PREPARE, PREPARED, RUN
from rkt.values import PodUUID

A = PodUUID("aaaaaaaa-0000-4000-8000-000000000001")
B = PodUUID("aaaaaaab-0000-4000-8000-000000000002")


@pytest.fixture
def pods_dir(tmp_path: object) -> str:
    """A data directory's ``pods`` with every place in it."""
    lifecycle.ensure_directories(f"{tmp_path}/data")
    return f"{tmp_path}/data/pods"


def put(pods_dir: str, place: str, uuid: str) -> str:
    """A pod directory in a place."""
    path = f"{pods_dir}/{place}/{uuid}"
    os.mkdir(path)
    return path


def test_a_new_pod_is_locked_before_it_is_visible(tmp_path: object) -> None:
    """Create makes the data directory if need be, and leaves one locked directory in prepare."""
    with lifecycle.create(f"{tmp_path}/data") as pod:
        assert os.listdir(f"{pod.pods_dir}/{PREPARE}") == [pod.uuid]
        assert os.listdir(f"{pod.pods_dir}/{EMBRYO}") == []
        assert pod.state == "preparing"
        with pytest.raises(BlockingIOError):
            lock_directory(pod.path, exclusive=False, blocking=False)


def test_modes_do_not_depend_on_the_umask(tmp_path: object) -> None:
    """With umask 000 and 077 the state directories and the pod have the same modes (HH8)."""
    before = os.umask(0)
    try:
        for mask in (0o000, 0o077):
            os.umask(mask)
            with lifecycle.create(f"{tmp_path}/data-{mask}") as pod:
                for path in (pod.pods_dir, f"{pod.pods_dir}/{RUN}", pod.path):
                    assert os.stat(path).st_mode & 0o7777 == 0o2750
                pod.write("file", b"x")
                assert os.stat("file", dir_fd=pod.fd).st_mode & 0o7777 == 0o640
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("place", "unlocked", "locked"),
    [
        (EMBRYO, "embryo", "embryo"),
        (PREPARE, "aborted prepare", "preparing"),
        (PREPARED, "prepared", "prepared"),
        (RUN, "exited", "running"),
        (EXITED_GARBAGE, "exited garbage", "exited deleting"),
        (GARBAGE, "garbage", "deleting"),
    ],
)
def test_state_is_a_place_and_a_lock(pods_dir: str, place: str, unlocked: str, locked: str) -> None:
    """Each place has one state string without the lock and one with it, and looking does not keep the lock."""
    path = put(pods_dir, place, A)
    for _ in range(2):
        pod = lifecycle.open_pod(pods_dir, A)
        assert pod is not None
        with pod:
            assert pod.state == unlocked
            lock_directory(path, exclusive=True, blocking=False).close()
    with lock_directory(path, exclusive=True):
        pod = lifecycle.open_pod(pods_dir, A)
        assert pod is not None
        with pod:
            assert pod.state == locked


def test_a_reader_does_not_count_as_owner(pods_dir: str) -> None:
    """A pod that somebody only reads, with a shared lock, is exited, not running."""
    path = put(pods_dir, RUN, A)
    with lock_directory(path, exclusive=False):
        pod = lifecycle.open_pod(pods_dir, A)
        assert pod is not None
        with pod:
            assert pod.state == "exited"


def test_moves_are_noticed(pods_dir: str) -> None:
    """A pod that somebody else moved cannot be moved or locked again, and refresh finds it."""
    put(pods_dir, RUN, A)
    pod = lifecycle.open_pod(pods_dir, A)
    assert pod is not None
    with pod:
        os.rename(f"{pods_dir}/{RUN}/{A}", f"{pods_dir}/{EXITED_GARBAGE}/{A}")
        with pytest.raises(PodError, match="moved or removed"):
            pod.move(EXITED_GARBAGE, sync=True)
        with pytest.raises(PodError, match="moved or removed"):
            pod.lock(blocking=False)
        lock_directory(f"{pods_dir}/{EXITED_GARBAGE}/{A}", exclusive=True, blocking=False).close()
        assert pod.refresh()
        assert pod.state == "exited garbage"
        os.rmdir(pod.path)
        assert not pod.refresh()


def test_what_a_removed_pod_lacks(pods_dir: str) -> None:
    """A file that is not there is missing only in a pod that is; one that is gone, or going, was removed."""
    put(pods_dir, RUN, A)
    pod = lifecycle.open_pod(pods_dir, A)
    assert pod is not None
    with pod:
        assert str(pod.lacks("has no manifest")) == f'pod "{A}" has no manifest'
        os.rename(pod.path, f"{pods_dir}/{GARBAGE}/{A}")
        assert "was removed" in str(pod.lacks("has no manifest"))
        os.rmdir(pod.path)
        assert "was removed" in str(pod.lacks("has no manifest"))


def test_a_pod_is_found_in_a_later_place(pods_dir: str) -> None:
    """While one process renames a pod back and forth through its life, a reader never misses it."""
    put(pods_dir, PREPARE, A)
    stop = threading.Event()

    def move() -> None:
        while not stop.is_set():
            for old, new in ((PREPARE, PREPARED), (PREPARED, RUN), (RUN, EXITED_GARBAGE)):
                os.rename(f"{pods_dir}/{old}/{A}", f"{pods_dir}/{new}/{A}")
            stop.wait(0.002)
            os.rename(f"{pods_dir}/{EXITED_GARBAGE}/{A}", f"{pods_dir}/{PREPARE}/{A}")
            stop.wait(0.002)

    mover = threading.Thread(target=move)
    mover.start()
    missed = 0
    try:
        for _ in range(300):
            pod = lifecycle.open_pod(pods_dir, A)
            if pod is None:
                missed += 1  # only the test's own step back can cause this
            else:
                pod.close()
    finally:
        stop.set()
        mover.join()
    assert missed < 30


def test_gc_may_sweep_an_embryo_at_any_moment(tmp_path: object) -> None:
    """While another thread takes every unlocked embryo away, create still succeeds each time."""
    data = f"{tmp_path}/data"
    lifecycle.ensure_directories(data)
    stop = threading.Event()
    dice = random.Random(1)

    def sweep() -> None:
        directory = f"{data}/pods/{EMBRYO}"
        while not stop.is_set():
            for name in os.listdir(directory):
                try:
                    with lock_directory(f"{directory}/{name}", exclusive=True, blocking=False):
                        os.rmdir(f"{directory}/{name}")
                except OSError:
                    continue
            # At any moment, not at every one: a sweep that never pauses takes each of 64 attempts on a busy machine.
            stop.wait(dice.random() / 1000)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for _ in range(100):
            with lifecycle.create(data) as pod:
                assert os.path.isdir(pod.path)
                fcntl.flock(pod.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        stop.set()
        sweeper.join()


def test_resolve(pods_dir: str) -> None:
    """A prefix names the one pod it fits, in any case, in places that can be named, and with rkt's words otherwise."""
    put(pods_dir, RUN, A)
    put(pods_dir, PREPARED, B)
    assert lifecycle.resolve(pods_dir, A) == A
    assert lifecycle.resolve(pods_dir, "AAAAAAAB") == B
    with pytest.raises(Ambiguous, match="ambiguous uuid, 2 matches"):
        lifecycle.resolve(pods_dir, "aaaaaaa")
    with pytest.raises(NotFound, match='no matches found for "b"'):
        lifecycle.resolve(pods_dir, "b")
    with pytest.raises(UsageError, match="UUID cannot be empty"):
        lifecycle.resolve(pods_dir, "")
    os.rename(f"{pods_dir}/{RUN}/{A}", f"{pods_dir}/{GARBAGE}/{A}")
    assert lifecycle.resolve(pods_dir, "aaaaaaa") == B


@pytest.mark.parametrize("text", ["../run", "..", "/", "a/b", ".", "*", "\0", "%"])
def test_names_of_pods_are_no_paths(pods_dir: str, text: str) -> None:
    """Nothing typed as a pod leads out of the directories (HH3)."""
    put(pods_dir, RUN, A)
    with pytest.raises(NotFound):
        lifecycle.resolve(pods_dir, text)


def test_strangers_in_the_directories_are_left_alone(pods_dir: str) -> None:
    """Only names that are UUIDs are pods."""
    for name in ("lost+found", ".hidden", A.upper(), f"{A}x", f"{A[:-1]}g", "-" * 36):
        os.mkdir(f"{pods_dir}/{RUN}/{name}")
    put(pods_dir, RUN, A)
    assert lifecycle.uuids_in(pods_dir, RUN) == [A]
    assert all(PodUUID.is_uuid(uuid) for uuid in lifecycle.all_uuids(pods_dir, PLACES))


def test_a_link_in_place_of_a_pod_is_not_followed(pods_dir: str, tmp_path: object) -> None:
    """A symbolic link named like a pod is no pod."""
    os.mkdir(f"{tmp_path}/elsewhere")
    os.symlink(f"{tmp_path}/elsewhere", f"{pods_dir}/{RUN}/{A}")
    with pytest.raises(OSError, match="Not a directory"):
        lifecycle.open_pod(pods_dir, A)


def test_files_are_read_through_renames(pods_dir: str) -> None:
    """An open pod reads its files wherever it has been moved to; absent ones are None."""
    path = put(pods_dir, RUN, A)
    pod = lifecycle.open_pod(pods_dir, A)
    assert pod is not None
    with pod:
        pod.write("name", b"web\n")
        os.rename(path, f"{pods_dir}/{EXITED_GARBAGE}/{A}")
        assert pod.read_text("name") == "web"
        assert pod.read("none") is None
        assert pod.read("name/none") is None
        assert pod.has("name")
        assert not pod.has("none")


def test_claiming_names(tmp_path: object) -> None:
    """A name belongs to a live pod; once that pod is over another one takes it, and releasing keeps the new owner's."""
    data = f"{tmp_path}/data"
    with lifecycle.create(data) as first, lifecycle.create(data) as second:
        names.claim(first, "web")
        assert lifecycle.resolve(first.pods_dir, "web") == first.uuid
        with pytest.raises(PodError, match='pod name "web" is in use by pod'):
            names.claim(second, "web")
        assert second.read("name") is None
        first.move(RUN, sync=False)
        first.unlock()
        names.claim(second, "web")
        assert lifecycle.resolve(first.pods_dir, "web") == second.uuid
        names.release(first)
        assert lifecycle.resolve(first.pods_dir, "web") == second.uuid
        names.release(second)
        assert os.listdir(f"{first.pods_dir}/names") == []


def test_prepared_pods_keep_their_names(tmp_path: object) -> None:
    """A prepared pod is not locked, yet its name is taken."""
    data = f"{tmp_path}/data"
    with lifecycle.create(data) as first, lifecycle.create(data) as second:
        names.claim(first, "web")
        first.move(PREPARED, sync=False)
        first.unlock()
        with pytest.raises(PodError, match="in use"):
            names.claim(second, "web")


def test_sweep_of_names(tmp_path: object) -> None:
    """Names of pods that are gone, and half made ones, are removed; names of pods in any place stay."""
    with lifecycle.create(f"{tmp_path}/data") as pod:
        names.claim(pod, "kept")
        directory = f"{pod.pods_dir}/names"
        os.symlink(B, f"{directory}/gone")
        os.symlink(pod.uuid, f"{directory}/.{pod.uuid}")
        os.symlink("../../etc", f"{directory}/odd")
        names.sweep(pod.pods_dir)
        assert os.listdir(directory) == ["kept"]


@pytest.mark.parametrize("name", ["", "Web", "a b", "a/b", ".", "..", "-a", "a-", "a" * 64, str(A), "a\n"])
def test_bad_names(name: str) -> None:
    """A pod name is an AC Name that is no UUID."""
    with pytest.raises(RktError, match="invalid pod name"):
        names.parse(name)


def test_half_made_state_directories_are_completed(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process killed anywhere while it makes the state directories leaves no data directory that lacks one for good."""
    real = os.mkdir
    for count in range(12):
        data = f"{tmp_path}/data-{count}"
        left = [count]

        def mkdir(path: str, mode: int = 0o777, *, dir_fd: int | None = None, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            real(path, mode, dir_fd=dir_fd)

        with monkeypatch.context() as patch:
            patch.setattr(os, "mkdir", mkdir)
            try:
                lifecycle.create(data).close()
            except KeyboardInterrupt:
                pass
        with lifecycle.create(data) as pod:
            assert set(os.listdir(pod.pods_dir)) == {*PLACES, "names"}


def test_a_damaged_pod_hides_no_other(pods_dir: str) -> None:
    """A pod whose copy of an image manifest is not one is told of, and the others are listed."""
    for uuid in (A, B):
        path = put(pods_dir, PREPARED, uuid)
        os.makedirs(f"{path}/appsinfo/x")
        for name, text in (("pod", '{"apps": [{"name": "x"}]}'), ("appsinfo/x/manifest", "{}")):
            with open(f"{path}/{name}", "w", encoding="utf-8") as file:
                file.write(text if uuid == A or "/" not in name else '{"name": "example.com/x"}')
    for read in (listing.glances, listing.details):
        errors: list[str] = []
        assert len(read(pods_dir, errors)) == 1
        assert errors == [f"unable to read pod \"{A}\": a manifest is not of the expected form ('name')"]

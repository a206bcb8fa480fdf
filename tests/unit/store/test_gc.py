# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from rkt.store import gc, staging
from rkt.store.cas import Store
from rkt.store.layout import setup_data_dir
from rkt.store.locks import prepare_lock
from rkt.store.staging import Staging
from tests.lib.store import image_id, listing, put_image, refer

HOUR_NS = 3600 * 10**9


@pytest.fixture
def data(tmp_path: object) -> str:
    """A data directory with nothing in it."""
    path = f"{tmp_path}/data"
    setup_data_dir(path)
    return path


def age(data: str, key: str, hours: int) -> None:
    """Pretend that an image was last used so many hours ago."""
    then = time.time_ns() - hours * HOUR_NS
    os.utime(f"{data}/cas/used/{key}", ns=(then, then))


def test_sweep_takes_what_a_killed_writer_left_in_trust(data: str) -> None:
    """C10: a file that was never given its name goes once nobody can be writing it; records and newer ones stay."""
    os.makedirs(f"{data}/trust/newest")
    old, new = (f"{data}/trust/newest/.x.1.0badcafe", f"{data}/trust/.policy.1.0badcafe")
    kept = [new, f"{data}/trust/policy", f"{data}/trust/newest/x"]
    for path in (old, *kept):
        with open(path, "wb"):
            pass
    for path in (old, *kept[1:]):
        os.utime(path, (1, 1))
    assert gc.sweep(data) == []
    assert [os.path.exists(path) for path in (old, *kept)] == [False, True, True, True]


def stage(data: str, name: str) -> str:
    """Make a staging directory with something in it."""
    path = f"{data}/cas/tmp/{name}"
    os.makedirs(f"{path}/layer/deep")
    return path


def test_sweep_takes_the_dead_and_leaves_the_living(data: str) -> None:
    """Directories of another boot, of a pid that is gone or was given to another, go; ours and foreign names stay."""
    boot = staging._boot_id()
    child = subprocess.Popen([sys.executable, "-ISc", ""])
    dead = [
        stage(data, f"{'0' * 32}-{os.getpid()}-1-aa"),
        stage(data, f"{boot}-{os.getpid()}-1-aa"),
        stage(data, f"{boot}-{child.pid}-123-aa"),
    ]
    child.wait()
    kept = [stage(data, "notes"), stage(data, f"{boot}-x-1-aa"), stage(data, "a-b-c-d")]
    with Staging(data) as alive:
        kept.append(alive.path)
        assert staging.sweep(data) == []
        assert {path for path in dead + kept if os.path.exists(path)} == set(kept)
    assert not os.path.exists(alive.path)


def test_a_zombie_counts_as_dead(data: str) -> None:
    """An owner that has ended but was not yet reaped keeps nothing alive."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from rkt.store.staging import Staging\n"
        "s = Staging(sys.argv[1]); print(s.path, flush=True)"
    )
    source = os.path.dirname(os.path.dirname(os.path.dirname(staging.__file__)))
    child = subprocess.Popen([sys.executable, "-ISc", code, data, source], stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        path = child.stdout.readline().strip()
        assert os.path.isdir(path)
        deadline = time.monotonic() + 10
        while os.path.exists(path) and time.monotonic() < deadline:
            assert staging.sweep(data) == []
        assert not os.path.exists(path)


def test_sweep_follows_no_link(data: str, tmp_path: object) -> None:
    """A symbolic link in a dead directory is removed, what it points to is not."""
    precious = f"{tmp_path}/precious"
    os.makedirs(precious)
    with open(f"{precious}/file", "w", encoding="ascii"):
        pass
    path = stage(data, f"{'0' * 32}-1-1-aa")
    os.symlink(precious, f"{path}/link")
    assert gc.sweep(data) == []
    assert not os.path.exists(path)
    assert os.path.exists(f"{precious}/file")


def test_sweep_of_nothing(tmp_path: object) -> None:
    """A data directory that does not exist has nothing to sweep."""
    assert gc.sweep(f"{tmp_path}/none") == []
    assert not os.path.exists(f"{tmp_path}/none")


def test_parts_without_a_record_are_swept(data: str) -> None:
    """What a commit killed before its record left, and a removal killed after it, is collected."""
    empty = listing(data)
    record = put_image(data)
    os.unlink(f"{data}/cas/record/{record.key}")
    with open(f"{data}/cas/record/.tmp.1", "wb"):
        pass
    assert gc.sweep(data) == []
    assert listing(data) - empty == {"locks/prepareLock"}


def test_sweep_leaves_a_commit_in_flight_alone(data: str) -> None:
    """While somebody holds the prepare lock, nothing under a key is touched."""
    record = put_image(data)
    os.unlink(f"{data}/cas/record/{record.key}")
    with prepare_lock(data):
        assert gc.sweep(data) == []
        assert os.path.exists(f"{data}/cas/layer/{record.key}")


@pytest.mark.parametrize("state", ["embryo", "prepare", "prepared", "run", "exited-garbage"])
def test_layers_that_pods_refer_to_stay(data: str, state: str) -> None:
    """The layer of a removed image stays as long as a pod in any state but garbage refers to it."""
    record = put_image(data)
    refer(data, state, "pod", record.key)
    assert not gc.remove_image(Store(data), record.key)
    assert gc.sweep(data) == []
    assert gc.collect(Store(data), unused_since_ns=time.time_ns()).layers == []
    assert os.path.exists(f"{data}/cas/layer/{record.key}/rootfs/hello")
    os.makedirs(f"{data}/pods/garbage", exist_ok=True)
    os.rename(f"{data}/pods/{state}/pod", f"{data}/pods/garbage/pod")
    assert gc.collect(Store(data), unused_since_ns=time.time_ns()).layers == [record.key]
    assert not os.path.exists(f"{data}/cas/layer/{record.key}")


def test_removal_of_an_unused_image_takes_its_layer(data: str) -> None:
    """Without a pod that refers to it, nothing of the image is left."""
    record = put_image(data)
    assert gc.remove_image(Store(data), record.key)
    assert not any(record.key in path for path in listing(data))


def test_removal_while_a_pod_is_being_made_leaves_the_layer(data: str) -> None:
    """Somebody who holds the prepare lock may be about to refer to the layer."""
    record = put_image(data)
    with prepare_lock(data):
        assert not gc.remove_image(Store(data), record.key)
        assert os.path.exists(f"{data}/cas/layer/{record.key}")
    assert not Store(data).contains(record.key)


def test_collection_by_last_use(data: str) -> None:
    """Images not used within the grace period go, unless a live pod or the installation needs them."""
    fresh = put_image(data, seed="fresh", version="1").key
    old = put_image(data, seed="old", version="2").key
    running = put_image(data, seed="running", version="3").key
    prepared = put_image(data, seed="prepared", version="4").key
    exited = put_image(data, seed="exited", version="5").key
    stage1 = put_image(data, seed="stage1", version="6").key
    for key in (old, running, prepared, exited, stage1):
        age(data, key, 48)
    age(data, fresh, 1)
    refer(data, "run", "r", running)
    refer(data, "prepared", "p", prepared)
    refer(data, "exited-garbage", "e", exited)
    outcome = gc.collect(Store(data), unused_since_ns=time.time_ns() - 24 * HOUR_NS, protected={stage1})
    assert set(outcome.images) == {old, exited}
    assert outcome.problems == []
    assert set(Store(data).keys()) == {fresh, running, prepared, stage1}
    assert not os.path.exists(f"{data}/cas/layer/{old}")
    assert os.path.exists(f"{data}/cas/layer/{exited}")


def test_a_damaged_record_stops_no_collection(data: str) -> None:
    """Other images are collected; layers without a record stay, since the damaged record might need them."""
    bad = put_image(data, seed="bad", version="1").key
    old = put_image(data, seed="old", version="2").key
    orphan = put_image(data, seed="orphan", version="3").key
    age(data, old, 48)
    os.unlink(f"{data}/cas/record/{orphan}")
    with open(f"{data}/cas/record/{bad}", "wb") as file:
        file.write(b"x")
    outcome = gc.collect(Store(data), unused_since_ns=time.time_ns() - HOUR_NS)
    assert outcome.images == [old]
    assert outcome.layers == []
    assert any(bad in problem for problem in outcome.problems)
    assert os.path.exists(f"{data}/cas/layer/{orphan}")
    gc.remove_image(Store(data), bad)
    assert gc.collect(Store(data), unused_since_ns=0).layers == [orphan]


def test_the_name_index_is_rebuilt(data: str) -> None:
    """A lost name index comes back with the next collection."""
    record = put_image(data)
    os.unlink(f"{data}/cas/name/example.com%2Fapp/{record.key}")
    gc.collect(Store(data), unused_since_ns=0)
    assert Store(data).resolve("example.com/app") == record.key


def test_half_written_references_keep_nothing(data: str) -> None:
    """A pod whose reference is empty or garbage can never start, and stops no collection."""
    record = put_image(data)
    refer(data, "prepare", "a", "")
    refer(data, "prepare", "b", "../../x")
    refer(data, "prepare", "c", image_id("one"))
    assert not gc.remove_image(Store(data), record.key)

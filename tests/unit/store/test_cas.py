# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import stat

import pytest

from rkt.errors import Ambiguous, DamagedRecord, NotFound, RktError, StoreError
from rkt.store.cas import Store
from rkt.store.record import RemoteRow
from rkt.values import AppcReference, ImageKey
from tests.lib.store import INSECURE, SIGNED, image_id, listing, put_image


@pytest.fixture
def data(tmp_path: object) -> str:
    """A data directory that does not exist yet."""
    return f"{tmp_path}/data"


def find(data: str, text: str) -> ImageKey | None:
    """What a fresh look at the store finds by name."""
    return Store(data).find_by_name(AppcReference.parse(text))


def test_a_committed_image_is_complete(data: str) -> None:
    """After put, record, manifest, layer, split and last use are there, and staging is empty."""
    record = put_image(data)
    store = Store(data)
    assert store.get(record.key) == record
    assert b'"name":"example.com/app"' in store.manifest_bytes(record.key)
    assert os.listdir(store.layer_path(record.key)) != []
    assert os.path.exists(store.split_path(record.key))
    assert store.last_used_ns(record.key) > 0
    assert os.listdir(f"{data}/cas/tmp") == []


def test_an_empty_store_finds_nothing(data: str) -> None:
    """A data directory that does not exist is an empty store."""
    store = Store(data)
    assert list(store.records()) == []
    assert find(data, "example.com/app") is None
    with pytest.raises(NotFound):
        store.get(image_id("one").key)
    with pytest.raises(NotFound):
        store.resolve("sha512-abcd")


def test_ids_resolve_by_prefix(data: str) -> None:
    """A prefix of two digits or more, a key and a full ID name an image; others fail with rkt's words."""
    a = put_image(data, seed="sha512-ab11").key
    b = put_image(data, seed="sha512-ab22", version="2.0").key
    store = Store(data)
    assert store.resolve("sha512-ab1") == a
    assert store.resolve(a) == a
    assert store.resolve(image_id("sha512-ab22")) == b
    assert store.resolve(b + "ff") == b
    with pytest.raises(NotFound, match="no image IDs found"):
        store.resolve("sha512-12341234")
    with pytest.raises(NotFound, match="no image IDs found"):
        store.resolve("sha512-" + "AB" * 32)
    with pytest.raises(NotFound, match="no image IDs found"):
        store.resolve("sha512-not_existed")
    with pytest.raises(NotFound, match="image ID too short"):
        store.resolve("sha512-a")
    with pytest.raises(Ambiguous, match='ambiguous image ID: "sha512-ab"'):
        store.resolve("sha512-ab")


def test_hostile_ids_reach_no_path(data: str) -> None:
    """A hash that is no hash never becomes part of a path."""
    put_image(data)
    store = Store(data)
    for text in (
        "sha512-../../../etc/passwd",
        "sha512-" + "../" * 21 + "x",
        "sha512-" + "/" * 64,
        "sha512-" + "\0" * 64,
    ):
        with pytest.raises(NotFound):
            store.resolve(text)


@pytest.mark.parametrize(
    "text", ["oci:layout:v1", "docker-archive:x.tar", "https://example.com/x.aci", "./x.aci"]
)
def test_places_are_not_names(data: str, text: str) -> None:
    """Where an image might be fetched from is said to be no name of one in the store."""
    with pytest.raises(NotFound, match="says where an image comes from") as refused:
        Store(data).resolve(text)
    assert "rkt image list" in refused.value.hint


def test_names_resolve_by_labels(data: str) -> None:
    """All labels asked for must be present and equal; labels that were not asked for do not matter."""
    one = put_image(data, seed="1", version="1.0").key
    two = put_image(data, seed="2", version="2.0", labels={"channel": "alpha"}).key
    other = put_image(data, "example.com/apple", seed="3").key
    assert find(data, "example.com/app:1.0") == one
    assert find(data, "example.com/app,channel=alpha") == two
    assert find(data, "example.com/apple") == other
    assert find(data, "example.com/app:3.0") is None
    assert find(data, "example.com/app,unknown=label") is None
    assert find(data, "example.com") is None


def test_without_version_the_latest_flag_wins_then_the_newest(data: str) -> None:
    """Latest beats newest when no version is asked for, and plays no part when one is."""
    put_image(data, seed="1", version="1.0", import_time_ns=1)
    newest = put_image(data, seed="2", version="2.0", import_time_ns=3).key
    assert find(data, "example.com/app") == newest
    latest = put_image(data, seed="3", version="3.0", import_time_ns=2, latest=True).key
    assert find(data, "example.com/app") == latest
    rebuilt = put_image(data, seed="4", version="3.0", import_time_ns=9).key
    assert find(data, "example.com/app:3.0") == rebuilt
    assert find(data, "example.com/app") == latest


def test_long_names_are_indexed(data: str) -> None:
    """A name whose quoted form is longer than a file name may be is found all the same."""
    long = "a/" * 120 + "a"
    longer = "a/" * 120 + "b"
    key = put_image(data, long, seed="1").key
    assert find(data, long) == key
    assert find(data, longer) is None


def test_reimport_keeps_the_better_verdict(data: str) -> None:
    """An insecure import never replaces a signature's verdict; a signature replaces insecure; latest stays."""
    first = put_image(data, verdict=INSECURE, latest=True)
    assert first.verdict == INSECURE
    second = put_image(data, verdict=SIGNED, import_time_ns=5)
    assert (second.verdict, second.latest, second.import_time_ns) == (SIGNED, True, 5)
    third = put_image(data, verdict=INSECURE)
    assert third.verdict == SIGNED
    assert Store(data).get(third.key).verdict == SIGNED
    newer = SIGNED.replace(fingerprint="cd" * 20)
    assert put_image(data, verdict=newer).verdict == newer


def test_reimport_keeps_the_layer_in_place(data: str) -> None:
    """The directory that a running pod may have as its root is not replaced."""
    record = put_image(data)
    path = Store(data).layer_path(record.key)
    before = os.stat(path).st_ino
    put_image(data)
    assert os.stat(path).st_ino == before


def test_removal_leaves_nothing(data: str) -> None:
    """After remove, only the empty directories of the store are left."""
    record = put_image(data)
    with pytest.raises(NotFound):
        Store(data).remove(image_id("other").key, needed=())
    assert not os.path.exists(f"{data}/cas/record/{image_id('other').key}")
    store = Store(data)
    store.put_remote_row(RemoteRow(url="https://example.com/a.aci", key=record.key, download_time=1))
    store.remove(record.key, needed=())
    left = {path for path in listing(data) if not os.path.isdir(f"{data}/{path}")}
    assert left <= {"locks/prepareLock", f"cas/imagelocks/{image_id('other').key}"}
    assert find(data, "example.com/app") is None
    with pytest.raises(NotFound):
        Store(data).remove(record.key, needed=())


def test_removal_of_an_image_in_use_keeps_its_layer(data: str) -> None:
    """The image is no longer found, the layer and its split stay for the pod."""
    record = put_image(data)
    store = Store(data)
    path = store.layer_path(record.key)
    store.remove(record.key, needed=None)
    assert list(Store(data).records()) == []
    assert os.path.exists(f"{path}/rootfs/hello")
    assert os.path.exists(store.split_path(record.key))


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"format":"rkt.image","version":1,"checksum":"sha256:00","body":{}}',
        b"[" * 100000,
    ],
)
def test_a_damaged_record_is_named_and_contained(data: str, damage: bytes) -> None:
    """The other images are listed, the damaged one is named with the way out, and can be removed."""
    good = put_image(data, seed="1")
    bad = put_image(data, seed="2", version="2.0")
    path = f"{data}/cas/record/{bad.key}"
    with open(path, "wb") as file:
        file.write(damage)
    store = Store(data)
    damaged: list[RktError] = []
    assert [record.key for record in store.records(damaged)] == [good.key]
    assert len(damaged) == 1
    assert path in damaged[0].message
    assert "rkt image rm" in damaged[0].hint
    assert find(data, "example.com/app") == good.key
    assert find(data, "example.com/app:2.0") is None
    with pytest.raises(DamagedRecord):
        store.get(store.resolve(bad.key))
    store.remove(bad.key, needed=())
    assert Store(data).keys() == [good.key]
    assert not any(bad.key in path for path in listing(f"{data}/cas"))


def test_one_flipped_bit_is_noticed(data: str) -> None:
    """Any changed byte of a record makes it damaged."""
    record = put_image(data)
    path = f"{data}/cas/record/{record.key}"
    with open(path, "rb") as file:
        original = file.read()
    for position in range(0, len(original) - 1, 7):
        with open(path, "wb") as file:
            file.write(original[:position] + bytes([original[position] ^ 1]) + original[position + 1 :])
        with pytest.raises(DamagedRecord):
            Store(data).get(record.key)


def test_a_changed_manifest_is_noticed(data: str) -> None:
    """The manifest's bytes are held against the record each time."""
    record = put_image(data)
    with open(f"{data}/cas/manifest/{record.key}", "ab") as file:
        file.write(b" ")
    with pytest.raises(DamagedRecord, match="is not what was imported"):
        Store(data).manifest_bytes(record.key)


@pytest.mark.root
def test_a_strangers_record_is_refused(data: str) -> None:
    """A record that does not belong to root or the caller is not believed, whatever it says."""
    record = put_image(data)
    os.chown(f"{data}/cas/record/{record.key}", 12345, -1)
    with pytest.raises(DamagedRecord, match="belongs to user 12345"):
        Store(data).get(record.key)


def test_an_open_layer_directory_is_refused(data: str) -> None:
    """Layers that others could reach or change are not used as a root."""
    record = put_image(data)
    os.chmod(f"{data}/cas/layer", 0o755)
    with pytest.raises(StoreError, match="is open to others"):
        Store(data).layer_path(record.key)


def test_modes_do_not_depend_on_the_umask(data: str) -> None:
    """Directories and files get their modes from the plan, not from the caller (invariant HH8)."""
    before = os.umask(0o777)
    try:
        record = put_image(data)
    finally:
        os.umask(before)
    before = os.umask(0)
    try:
        other = put_image(data, seed="2", version="2.0")
    finally:
        os.umask(before)

    def mode(path: str) -> int:
        return stat.S_IMODE(os.stat(f"{data}/{path}").st_mode)

    assert mode("") == 0o2750
    assert mode("cas/layer") == mode("cas/tmp") == mode("cas/split") == 0o700
    for key in (record.key, other.key):
        assert mode(f"cas/record/{key}") == mode(f"cas/manifest/{key}") == 0o640
    assert mode("cas/name/example.com%2Fapp") == 0o2750


def test_remote_rows(data: str) -> None:
    """A row is found by exactly its URL, and goes with its image."""
    record = put_image(data)
    store = Store(data)
    row = RemoteRow(url="https://example.com/a.aci", key=record.key, download_time=7, etag='"x"')
    store.put_remote_row(row)
    assert store.remote_row("https://example.com/a.aci") == row
    assert store.remote_row("https://example.com/a.aci?x") is None
    store.remove(record.key, needed=())
    assert store.remote_row("https://example.com/a.aci") is None

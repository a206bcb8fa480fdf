# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from rkt.errors import DamagedRecord, RktError, StoreError
from rkt.image.marks import Marks, parse_marks
from rkt.schema.envelope import open_sealed, seal
from rkt.store.record import ImageRecord, OciFacts, RemoteRow, parse_image_record, parse_remote_row
from rkt.store.trees import TreeRecord, parse_tree_record
from rkt.trust.verdict import KIND_OPENPGP, Verdict
from rkt.values import ACIdentifier, ImageID, ImageKey

if TYPE_CHECKING:
    from collections.abc import Callable

#: Written by the first release; never to be changed, only joined by later versions.
SAMPLES = os.path.join(os.path.dirname(__file__), "..", "..", "data", "formats", "1", "store")
IMAGE_ID = ImageID.parse("sha512-" + "0123456789abcdef" * 8)
RECORD = ImageRecord(
    key=IMAGE_ID.key,
    image_id=IMAGE_ID,
    name=ACIdentifier.parse("example.com/app"),
    labels={"version": "1.0", "os": "linux", "arch": "amd64"},
    import_time_ns=1700000000123456789,
    origin="https://example.com/app.aci",
    size_bytes=10240,
    tree_size_bytes=5,
    latest=True,
    layers=[IMAGE_ID.key],
    manifest_digest="sha256:" + "ab" * 32,
    verdict=Verdict(
        kind=KIND_OPENPGP,
        name="example.com/app",
        rule="prefix example.com/app",
        checked_at=1700000000,
        fingerprint="ab" * 20,
        identities=["Älice <alice@example.com>"],
        signed_at=1699999999,
    ),
)
OCI_ID = ImageID.parse("sha256-" + "0123456789abcdef" * 4)
OCI_RECORD = RECORD.replace(
    key=OCI_ID.key,
    image_id=OCI_ID,
    origin="docker://registry.example/app:1.0",
    layers=[OCI_ID.key, ImageKey.parse("sha256-" + "fe" * 32)],
    oci=OciFacts(
        media_type="application/vnd.oci.image.manifest.v1+json",
        config_digest="sha256:" + "cd" * 32,
        index_digest="sha256:" + "ef" * 32,
        platform="linux/arm64/v8",
    ),
)
ROW = RemoteRow(
    url="https://example.com/app.aci?v=1",
    key=IMAGE_ID.key,
    download_time=1700000000,
    signature_url="https://example.com/app.aci.asc?v=1",
    etag='"x"',
    max_age=86400,
)
TREE = TreeRecord(parts=[IMAGE_ID.key, ImageKey.parse("sha512-" + "fe" * 32)], digest="sha256:" + "cd" * 32)


def sample(name: str) -> bytes:
    """Bytes of a stored sample."""
    with open(os.path.join(SAMPLES, name), "rb") as file:
        return file.read()


def test_image_records_of_version_1_are_read() -> None:
    """The sample of the first release means what it meant."""
    assert parse_image_record(sample("image-record"), IMAGE_ID.key, "sample") == RECORD


def test_image_records_of_oci_images_are_read() -> None:
    """The first sample means what it meant; one without what only such images have is damaged."""
    assert parse_image_record(sample("oci-record"), OCI_ID.key, "sample") == OCI_RECORD
    with pytest.raises(DamagedRecord, match="member 'oci'"):
        parse_image_record(OCI_RECORD.replace(oci=None).seal(), OCI_ID.key, "sample")


def test_marks_of_version_1_are_read() -> None:
    """The first sample means what it meant, and is what is written."""
    marks = parse_marks(sample("layer-marks"), "sample")
    assert marks == Marks(
        size_bytes=7680,
        tree_size_bytes=25,
        implied=frozenset({(b"opt",), (b"opt", b"new"), (b"usr",), (b"usr", b"bin"), (b"dev",)}),
        opaque=frozenset({(b"opt", b"new")}),
        holders=frozenset({(b"etc",), (b"dev",)}),
    )
    assert marks.dump() == sample("layer-marks")


def test_remote_rows_of_version_1_are_read() -> None:
    """The sample of the first release means what it meant."""
    assert parse_remote_row(sample("remote-row"), "sample") == ROW


def test_tree_records_of_version_1_are_read() -> None:
    """The first sample means what it meant; a changed, an incomplete and a newer one are told apart."""
    assert parse_tree_record(sample("tree-record"), "sample") == TREE
    for data in (b"", sample("tree-record").replace(b"cd", b"dc", 1), seal("rkt.tree", 1, {"parts": []})):
        with pytest.raises(DamagedRecord):
            parse_tree_record(data, "sample")
    with pytest.raises(StoreError, match="version 2"):
        parse_tree_record(seal("rkt.tree", 2, {}), "sample")


def test_what_is_written_is_version_1() -> None:
    """As long as the version is 1, the bytes written are those of the samples."""
    assert RECORD.seal() == sample("image-record")
    assert OCI_RECORD.seal() == sample("oci-record")
    assert ROW.seal() == sample("remote-row")
    assert TREE.seal() == sample("tree-record")


@pytest.mark.parametrize("value", [{}, {"a": [1, None, True, "ä\u2028\x7f"]}, {"n": {"n": {"n": -1}}}])
def test_envelopes_round_trip(value: dict[str, Any]) -> None:
    """What was sealed is what is opened."""
    data = seal("rkt.test", 7, value)
    assert open_sealed(data, "rkt.test", "x") == (7, value)
    assert data.count(b"\n") == 1


def test_only_whole_envelopes_open() -> None:
    """Every prefix, every other format and every addition is damage, and the path is named."""
    data = seal("rkt.test", 1, {"a": "b"})
    broken = [data[:i] for i in range(len(data) - 1)]
    broken += [b"x" + data, data + b"x", data + data, seal("rkt.other", 1, {"a": "b"}), b"null", b"[]"]
    broken += [
        data.replace(b'"version":1', b'"version":"1"'),
        data.replace(b'"version":1', b'"version":true'),
    ]
    broken += [data.replace(b'{"a":"b"}', b'{"a":"c"}'), data.replace(b'{"a":"b"}', b'{"a":"b","a":"b"}')]
    for content in broken:
        with pytest.raises(DamagedRecord, match="/the/path"):
            open_sealed(content, "rkt.test", "/the/path")


def change(**members: object) -> Callable[[dict[str, Any]], None]:
    """A change of a record's body."""
    return lambda body: body.update(members)


@pytest.mark.parametrize(
    "alter",
    [
        change(id="sha512-" + "1" * 128),
        change(id="sha512-../../x"),
        change(name="../x"),
        change(name=None),
        change(labels=[]),
        change(labels={"a": 1}),
        change(importTime="1"),
        change(importTime=True),
        change(size=1.5),
        change(latest=0),
        change(layers=["../../etc"]),
        change(layers=[1]),
        change(layers="sha512-"),
        change(verdict=None),
        change(verdict={}),
        change(verdict={"kind": "trusted", "name": "a", "rule": "b", "checkedAt": 1}),
        lambda body: body.pop("origin"),
    ],
)
def test_wrong_members_are_damage(alter: Callable[[dict[str, Any]], None]) -> None:
    """A record with a right checksum but a wrong member is refused all the same (invariant HH3)."""
    _, body = open_sealed(RECORD.seal(), "rkt.image", "x")
    alter(body)
    with pytest.raises(DamagedRecord):
        parse_image_record(seal("rkt.image", 1, body), IMAGE_ID.key, "x")


def test_newer_versions_are_named_not_guessed() -> None:
    """A record of a later rkt is refused with its version, and is not called damaged."""
    _, body = open_sealed(RECORD.seal(), "rkt.image", "x")
    with pytest.raises(StoreError, match="version 2") as caught:
        parse_image_record(seal("rkt.image", 2, body), IMAGE_ID.key, "x")
    assert not isinstance(caught.value, DamagedRecord)
    with pytest.raises(RktError, match="version 2"):
        parse_remote_row(seal("rkt.remote", 2, {}), "x")

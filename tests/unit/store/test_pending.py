# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from rkt.errors import StoreError
from rkt.linux import libc
from rkt.linux.files import sync_directory
from rkt.store import member, pending
from rkt.store.layout import setup_data_dir, setup_member_dir
from rkt.store.pending import DEFAULT_SPOOL_LIMITS, Home, Pending, home_owner, matching, new_home_name
from rkt.store.record import ImageRecord
from rkt.store.staging import Staging
from rkt.trust.policy import insecure_verdict
from rkt.values import ACIdentifier, ImageID

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = "0123456789abcdef"


@pytest.mark.parametrize(
    ("name", "uid"),
    [
        (f"0-{RANDOM}", 0),
        (f"4321-{RANDOM}", 4321),
        (f"4294967294-{RANDOM}", 4294967294),
        (f"04321-{RANDOM}", None),
        (f"-{RANDOM}", None),
        (f"+1-{RANDOM}", None),
        (f"\N{SUPERSCRIPT TWO}-{RANDOM}", None),
        (f"{'9' * 400}-{RANDOM}", None),
        (f"4321-{RANDOM[:-1]}", None),
        (f"4321-{RANDOM.upper()}", None),
        ("4321", None),
        ("..", None),
        ("", None),
    ],
)
def test_names_of_homes(name: str, uid: int | None) -> None:
    """A home is named by a plain decimal user id and 16 hex digits, and nothing else is one."""
    assert home_owner(name) == uid


def test_a_new_name_is_a_name() -> None:
    """What is made is what is recognised, and never the same twice."""
    assert home_owner(new_home_name(1000)) == 1000
    assert new_home_name(1000) != new_home_name(1000)


def claim(seed: str, version: str) -> Pending:
    """An image that somebody claims to have."""
    image_id = ImageID.parse(f"sha512-{seed * 64}")
    return Pending(
        home=Home(name=f"1-{RANDOM}", uid=1),
        key=image_id.key,
        image_id=image_id,
        name=ACIdentifier.parse("example.com/app", what="name"),
        labels={"version": version, "os": "linux"},
        size_bytes=1,
        fetched_ns=0,
    )


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("sha512-ab", ["1"]),
        ("sha512-" + "ab" * 64, ["1"]),
        ("sha512-" + "ab" * 33, ["1"]),
        ("sha512-a", []),
        ("sha512-", []),
        ("sha512-ff", []),
        ("example.com/app", ["1", "2"]),
        ("example.com/app:2", ["2"]),
        ("example.com/app,os=linux", ["1", "2"]),
        ("example.com/app,arch=z80", []),
        ("example.com/ap", []),
        ("../x", []),
        ("", []),
    ],
)
def test_matching(text: str, versions: list[str]) -> None:
    """Hashes by their beginning, names whole and with their labels; any other text stands for nothing."""
    found = matching([claim("ab", "1"), claim("cd", "2")], text)
    assert [p.labels["version"] for p in found] == versions


def test_the_share_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of unfinished downloads count; who has no room left is told."""
    setup_data_dir(f"{tmp_path}/data")
    home = tmp_path / "home"
    home.mkdir(mode=0o750)
    setup_member_dir(os.fspath(home))
    limits = DEFAULT_SPOOL_LIMITS.replace(user_bytes=1 << 20)
    monkeypatch.setattr(member, "DEFAULT_SPOOL_LIMITS", limits)
    store = member.MemberStore(os.fspath(home), f"{tmp_path}/data")
    assert store.room_bytes() == 1 << 20
    (home / "cas/partial").mkdir()
    (home / "cas/partial/x").write_bytes(b"x" * (1 << 19))
    assert store.room_bytes() <= 1 << 19
    (home / "cas/partial/y").write_bytes(b"x" * (1 << 19))
    with pytest.raises(StoreError, match="of together 1048576 bytes"):
        store.room_bytes()


def test_what_a_member_has_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C11: image, signature and manifest are on the disk, under their names, before the record says that they are there."""
    setup_data_dir(f"{tmp_path}/data")
    home = tmp_path / "home"
    home.mkdir(mode=0o750)
    setup_member_dir(os.fspath(home))
    store = member.MemberStore(os.fspath(home), f"{tmp_path}/data")
    manifest = b"{}"
    image_id = ImageID.parse(f"sha512-{'ab' * 64}")
    record = ImageRecord(
        key=image_id.key,
        image_id=image_id,
        name=ACIdentifier.parse("example.com/app"),
        labels={},
        import_time_ns=1,
        origin="",
        size_bytes=1,
        tree_size_bytes=0,
        verdict=insecure_verdict("example.com/app"),
        layers=[],
        manifest_digest=f"sha256:{hashlib.sha256(manifest).hexdigest()}",
    )
    said: list[str] = []
    syncfs, rename = libc.syncfs, os.rename

    def tell_sync(fd: int) -> None:
        said.append("disk")
        syncfs(fd)

    def tell_rename(old: str, new: str) -> None:
        said.append(new.rsplit("/", 2)[1])
        rename(old, new)

    def tell_directory(path: str) -> None:
        said.append(f"sync {os.path.basename(path)}")
        sync_directory(path)

    monkeypatch.setattr(libc, "syncfs", tell_sync)
    monkeypatch.setattr(os, "rename", tell_rename)
    monkeypatch.setattr(member, "sync_directory", tell_directory)
    with Staging(os.fspath(home)) as staging:
        os.close(staging.create("blob"))
        store.keep(staging, f"{staging.path}/blob", manifest, b"signature", record)
    assert said == ["disk", "blob", "blob", "manifest", "sync blob", "sync manifest", "record"]
    assert store.get(image_id.key) == record


def test_no_spool_is_an_empty_one(tmp_path: Path) -> None:
    """A store that no member ever used has no homes, and asking costs nothing."""
    with pending.Spool(os.fspath(tmp_path)) as spool:
        assert (spool.homes, spool.pending(), spool.removals()) == ([], [], {})

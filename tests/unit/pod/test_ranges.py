# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.config.settings import Installation, Settings
from rkt.errors import ConfigError, HostError, PodError
from rkt.pod import lifecycle, ranges
from rkt.stage0 import users

if TYPE_CHECKING:
    from pathlib import Path

INSTALLATION = Installation(package_path="/", library_paths=[], stage1_images_path="/")
POOL = [(3_000_000, 65536 * 2)]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Directories of its own, without any configuration."""
    return Settings(
        installation=INSTALLATION,
        data_dir=f"{tmp_path}/data",
        system_config_dir=f"{tmp_path}/system",
        local_config_dir=f"{tmp_path}/local",
    )


def make(settings: Settings) -> lifecycle.Pod:
    """A pod that is being prepared."""
    return lifecycle.create(settings.data_dir)


def leases(settings: Settings) -> dict[str, str]:
    """First id -> pod."""
    directory = f"{settings.data_dir}/ranges"
    return {name: os.readlink(f"{directory}/{name}") for name in os.listdir(directory)}


def test_each_pod_gets_another_range(settings: Settings) -> None:
    """The lowest that is free; without one an error says how many there are."""
    with make(settings) as one, make(settings) as two, make(settings) as three:
        assert str(ranges.lease(one, settings.data_dir, POOL)) == "3000000:65536"
        assert str(ranges.lease(two, settings.data_dir, POOL)) == "3065536:65536"
        with pytest.raises(PodError, match="no range of 65536 ids is left"):
            ranges.lease(three, settings.data_dir, POOL)
        assert not three.has("private-users-prepared")
        assert str(ranges.read(one)) == "3000000:65536"
        assert ranges.read(three) is None


@pytest.mark.parametrize("name", ["²", "٣٠٠٠٠٠٠", "3000000x"])
def test_what_looks_like_a_lease(settings: Settings, name: str) -> None:
    """A name that is no number of ours neither blocks a range nor breaks anything."""
    with make(settings) as one:
        os.makedirs(f"{settings.data_dir}/ranges")
        os.symlink("somebody", f"{settings.data_dir}/ranges/{name}")
        assert str(ranges.lease(one, settings.data_dir, POOL)) == "3000000:65536"
        ranges.confirm(one, settings.data_dir)


def test_a_range_without_a_pod_is_free(settings: Settings) -> None:
    """Links of pods that are gone, and what is no lease, stand in nobody's way when ranges run out, and are swept."""
    with make(settings) as one, make(settings) as two, make(settings) as three:
        for pod in (one, two):
            ranges.lease(pod, settings.data_dir, POOL)
        os.unlink(f"{one.path}/private-users-prepared")
        os.rmdir(one.path)
        assert str(ranges.lease(three, settings.data_dir, POOL)) == "3000000:65536"
        os.unlink(f"{two.path}/private-users-prepared")
        os.rmdir(two.path)
        os.symlink("../../etc", f"{settings.data_dir}/ranges/9")
        ranges.sweep(settings.data_dir, settings.pods_dir)
        assert leases(settings) == {"3000000": three.uuid}


def test_only_the_pod_that_has_a_range_gives_it_back(settings: Settings) -> None:
    """A release in the name of another pod, or by a damaged record, changes nothing."""
    with make(settings) as one, make(settings) as two:
        ids = ranges.lease(one, settings.data_dir, POOL)
        ranges.release(settings.data_dir, two.uuid, str(ids))
        ranges.release(settings.data_dir, one.uuid, "../../x:1")
        assert leases(settings) == {"3000000": one.uuid}
        ranges.release(settings.data_dir, one.uuid, str(ids))
        assert leases(settings) == {}


@pytest.mark.parametrize(
    ("start", "free"),
    [
        (2_934_464, "3000000"),
        (2_934_465, "3065536"),
        (3_000_001, ""),
        (3_065_535, ""),
        (3_065_537, "3000000"),
        (3_131_071, "3000000"),
        (3_131_072, "3000000"),
    ],
)
def test_a_range_that_reaches_into_another_is_not_free(settings: Settings, start: int, free: str) -> None:
    """Leases of an earlier configuration block what they overlap with, wherever they begin."""
    with make(settings) as one, make(settings) as two:
        ranges.lease(one, settings.data_dir, [(start, 65536)])
        if free:
            assert str(ranges.lease(two, settings.data_dir, POOL)) == f"{free}:65536"
        else:
            with pytest.raises(PodError, match="no range of 65536 ids is left"):
                ranges.lease(two, settings.data_dir, POOL)


def test_the_pool_of_the_hosts_administrator(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines of the user ``rkt`` that subuid and subgid have in common count; others' and damaged ones do not."""
    files = (f"{tmp_path}/subuid", f"{tmp_path}/subgid")
    monkeypatch.setattr(ranges, "_SUBORDINATE_FILES", files)
    assert ranges.configured_pool(settings) == ranges.DEFAULT_POOL
    for path in files:
        with open(path, "w", encoding="ascii") as stream:
            stream.write("alice:100000:65536\nrkt:5000000:131072\nrkt:x:1\nrkt:900000:65536\nrkt\n")
    assert ranges.configured_pool(settings) == [(900_000, 65536), (5_000_000, 131072)]
    with open(files[1], "w", encoding="ascii") as stream:
        stream.write("rkt:900000:65536\n")
    with pytest.raises(HostError, match="give different ids to the user rkt"):
        ranges.configured_pool(settings)
    for path in files:
        with open(path, "w", encoding="ascii") as stream:
            stream.write("rkt:900000:65535\n")
    with pytest.raises(ConfigError, match="no 65536 ids in a row"):
        ranges.configured_pool(settings)


def test_the_default_pool_is_nobody_elses() -> None:
    """Above ids of users, subordinate users, systemd's containers and directory services, below systemd's foreign ids."""
    ((first, length),) = ranges.DEFAULT_POOL
    assert first > max(600_100_000 + 65535, 0x6FFFFFFF, 2_000_200_000)
    assert first + length <= 0x7FFE0000
    assert first % 65536 == length % 65536 == 0
    assert length // 65536 >= 2000


def test_a_kernel_without_user_namespaces_is_said_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words are rkt's, before there is a pod."""
    monkeypatch.setattr(users, "_UID_MAP", "/proc/self/no_such_file")
    with pytest.raises(
        HostError,
        match="--private-users is not supported, kernel compiled without user namespace support",
    ):
        users.find_ranges(settings)

# SPDX-License-Identifier: Apache-2.0
"""What a start reads of the policy: as true as the files, and much cheaper."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from rkt.config.settings import Installation, Settings
from rkt.errors import ConfigError
from rkt.trust import compiled
from rkt.trust.compiled import read_policy, todays_policy
from rkt.trust.rules import Policy

if TYPE_CHECKING:
    from pathlib import Path

RULE = 'version = 1\ndefault = "refuse"\n[[rule]]\nprefix = "registry.example/team"\nall = [ { kind = "cosign", key = "%s" } ]\n'
NAME = "registry.example/team/app"


class Site:
    """Configuration and data directories, whose files are old enough to be remembered."""

    def __init__(self, base: Path) -> None:
        self.directory = f"{base}/local/trust.d"
        self.key = f"{base}/key.pub"
        self.path = f"{self.directory}/team.toml"
        os.makedirs(self.directory)
        os.mkdir(f"{base}/data")
        self.settings = Settings(
            installation=Installation(package_path="", library_paths=[], stage1_images_path=""),
            data_dir=f"{base}/data",
            system_config_dir=f"{base}/system",
            local_config_dir=f"{base}/local",
        )
        self.record = f"{base}/data/trust/policy"
        self.write(self.key, "key\n")
        self.write(self.path, RULE % self.key)

    def write(self, path: str, text: str) -> None:
        """Write a file beside and rename it into place."""
        with open(f"{path}~", "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(f"{path}~", 0o644)
        os.rename(f"{path}~", path)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A policy of one rule, at a time when its files have long been there."""
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**10)
    return Site(tmp_path)


def remember(site: Site, monkeypatch: pytest.MonkeyPatch) -> Policy:
    """Read the files, then let nobody do so again."""
    policy = read_policy(site.settings)
    monkeypatch.setattr(compiled, "read_policy", _must_not)
    return policy


def _must_not(_: Settings) -> Policy:
    raise AssertionError("the files were read again")


def test_what_is_remembered_is_what_the_files_say(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start gets from the record, digests of keys included, what reading the files gave, and reads none of them."""
    policy = remember(site, monkeypatch)
    (requirement,) = policy.rules[0].requirements
    assert requirement.digest == f"sha256:{hashlib.sha256(b'key' + bytes([10])).hexdigest()}"
    assert todays_policy(site.settings, NAME) == policy
    assert os.stat(site.record).st_mode & 0o777 == 0o640
    assert todays_policy(site.settings, "registry.example/teams").rules == []


def test_rules_come_back_whole_and_in_order(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several rules of one prefix, each with its word, its requirements in order and every member of them."""
    site.write(
        site.path,
        f"""version = 1
default = "keystore"
[[rule]]
prefix = "registry.example/team"
any = [
  {{ kind = "keyless", issuer = "https://i.example", identity = "é [x] {{y}}", root = "{site.key}" }},
  {{ kind = "openpgp", keys = "keystore", lookaside = "https://sigs.example" }},
]
rollback = "refuse"
[[rule]]
prefix = "registry.example/other"
all = [ {{ kind = "unsigned" }} ]
[[rule]]
prefix = "registry.example/team"
all = [ {{ kind = "slsa", builder = "b", key = "/nonexistent" }} ]
""",
    )
    policy = remember(site, monkeypatch)
    kept = todays_policy(site.settings, NAME)
    assert kept.rules == [policy.rules[0], policy.rules[2]]
    assert kept.replace(rules=[]) == policy.replace(rules=[])
    assert todays_policy(site.settings, "registry.example/other").rules == [policy.rules[1]]


def test_a_name_that_would_break_the_record_only_costs_time(site: Site) -> None:
    """A file whose name has a tab is read each time."""
    os.rename(site.path, f"{site.directory}/a\tb.toml")
    policy = read_policy(site.settings)
    assert not os.path.exists(site.record)
    assert todays_policy(site.settings, NAME) == policy


def test_without_files_nothing_is_kept(site: Site) -> None:
    """A host without a policy pays nothing and has no record."""
    os.unlink(site.path)
    assert todays_policy(site.settings, NAME) == Policy()
    assert not os.path.exists(site.record)


@pytest.mark.parametrize(
    "change", ["rule", "touched", "key", "key gone", "new file", "gone", "mode", "directory", "in place"]
)
def test_a_change_is_seen_by_the_next_start(site: Site, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """A tightened rule, another key, a key that is gone, one more file: the record no longer counts (SG12)."""
    remember(site, monkeypatch)
    settings = site.settings
    if change == "rule":
        site.write(site.path, (RULE % site.key).replace("team", "temp"))
    elif change == "touched":
        os.utime(site.path, ns=(1, 1))
    elif change == "key":
        site.write(site.key, "kez\n")
    elif change == "key gone":
        os.unlink(site.key)
    elif change == "new file":
        site.write(f"{site.directory}/other.toml", "version = 1\n")
    elif change == "gone":
        os.rename(site.path, f"{site.directory}/other.toml")
    elif change == "mode":
        os.chmod(site.path, 0o640)
    elif change == "in place":
        with open(site.key, "r+", encoding="ascii") as stream:
            stream.write("kez")
    else:
        settings = settings.replace(system_config_dir=f"{settings.system_config_dir}2")
    with pytest.raises(AssertionError, match="read again"):
        todays_policy(settings, NAME)


def test_a_key_that_comes_back_is_seen(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing key is remembered as missing, with the reason, and only as long as it is."""
    os.unlink(site.key)
    policy = remember(site, monkeypatch)
    assert "No such file" in policy.rules[0].requirements[0].problem
    assert todays_policy(site.settings, NAME) == policy
    site.write(site.key, "key\n")
    with pytest.raises(AssertionError, match="read again"):
        todays_policy(site.settings, NAME)


@pytest.mark.parametrize(
    ("how", "text"), [("empty", "is empty"), ("mode", "can be changed by others"), ("link", "symbolic links")]
)
def test_a_key_file_that_cannot_be_used_meets_nothing(site: Site, how: str, text: str) -> None:
    """An empty key file, one that others can write, or a link: the requirement says why it is never met (SG6)."""
    if how == "empty":
        site.write(site.key, "\n")
    elif how == "mode":
        os.chmod(site.key, 0o666)
    else:
        os.rename(site.key, f"{site.key}2")
        os.symlink(f"{site.key}2", site.key)
    (requirement,) = read_policy(site.settings).rules[0].requirements
    assert text in requirement.problem
    assert requirement.digest == ""


@pytest.mark.parametrize("how", ["garbage", "checksum", "mode", "owner", "link", "version", "absent"])
def test_a_record_that_is_not_ours_is_no_policy(
    site: Site, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A damaged record, one of another version, owner or mode, or a link in its place is not believed (HH2)."""
    remember(site, monkeypatch)
    with open(site.record, "rb") as stream:
        data = stream.read()
    if how == "garbage":
        data = b"{}"
    elif how == "checksum":
        data = data.replace(b'"refuse"', b'"keystore"')
    elif how == "version":
        monkeypatch.setattr("rkt.__version__", "0.0.1")
    elif how == "mode":
        os.chmod(site.record, 0o660)
    elif how == "owner":
        if os.geteuid() != 0:
            pytest.skip("giving a file away needs root")
        os.chown(site.record, 65534, 65534)
    else:
        os.rename(site.record, f"{site.record}2")
        if how == "link":
            os.symlink(f"{site.record}2", site.record)
    if how in {"garbage", "checksum"}:
        with open(site.record, "wb") as binary:
            binary.write(data)
    with pytest.raises(AssertionError, match="read again"):
        todays_policy(site.settings, NAME)


def test_a_policy_that_just_changed_is_not_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two changes within one tick of the file system's clock cannot be told apart, so both are read."""
    monkeypatch.undo()
    site.write(site.path, RULE % site.key)
    read_policy(site.settings)
    assert not os.path.exists(site.record)


def test_a_data_directory_that_cannot_be_written_only_costs_time(site: Site) -> None:
    """Without a place for the record the policy is what its files say."""
    settings = site.settings.replace(data_dir="/proc/nonexistent")
    assert todays_policy(settings, NAME).rules == todays_policy(site.settings, NAME).rules


def test_a_policy_that_is_not_understood_leaves_no_record(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error is found anew by each start, even where a good record is left from before (SG14)."""
    read_policy(site.settings)
    site.write(site.path, "version = 1\nunknown = 1\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match="unknown"):
            todays_policy(site.settings, NAME)


def test_a_start_imports_little_with_a_policy(site: Site) -> None:
    """With the record in place, neither a TOML parser nor a hash library is imported."""
    policy = read_policy(site.settings)
    source = os.path.dirname(os.path.dirname(os.path.dirname(compiled.__file__)))
    code = (
        f"import sys; sys.path.insert(0, {source!r})\n"
        "from rkt.trust.compiled import todays_policy\n"
        "from rkt.config.settings import Settings, Installation\n"
        "s = Settings(installation=Installation(package_path='', library_paths=[], stage1_images_path=''),\n"
        f"    data_dir={site.settings.data_dir!r}, local_config_dir={site.settings.local_config_dir!r},\n"
        f"    system_config_dir={site.settings.system_config_dir!r})\n"
        "print(todays_policy(s, 'registry.example/team/app').rules[0].prefix)\n"
        "slow = 're json enum dataclasses typing tomllib hashlib datetime string subprocess tempfile'\n"
        "print([m for m in slow.split() if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-ISc", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [policy.rules[0].prefix, "[]"]

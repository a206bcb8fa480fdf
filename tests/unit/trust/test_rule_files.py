# SPDX-License-Identifier: Apache-2.0
"""Rules that ``rkt trust`` writes are read as they were meant, once, and go again."""

from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rkt.config.settings import Installation, Settings
from rkt.errors import NotFound, RktError, UsageError
from rkt.trust.keystore import Keystore
from rkt.trust.rule_files import remove_rules, summary, typed_prefix, write_rule
from rkt.trust.rules import (
    COSIGN,
    KEYLESS,
    KEYSTORE,
    OPENPGP,
    SLSA,
    UNSIGNED,
    Requirement,
    load_policy,
    rule_name,
)

if TYPE_CHECKING:
    from pathlib import Path

WEAK = "-----BEGIN PUBLIC KEY-----\nMEkw\n-----END PUBLIC KEY-----\n"
UNSIGNED_RULE = '[[rule]]\nprefix = "{}"\nall = [{{ kind = "unsigned" }}]\n'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Private configuration directories."""
    return Settings(
        installation=Installation(package_path="", library_paths=[], stage1_images_path=""),
        system_config_dir=str(tmp_path / "system"),
        local_config_dir=str(tmp_path / "local"),
    )


def pem(seed: bytes = b"a") -> str:
    """A public key."""
    public = Ed25519PrivateKey.from_private_bytes(seed * 32).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def key(tmp_path: Path, name: str = "team.pub", seed: bytes = b"a") -> str:
    """A file with a public key."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(pem(seed))
    return str(path)


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("alpine", "docker.io/library/alpine"),
        ("docker://alpine", "docker.io/library/alpine"),
        ("library/alpine", "docker.io/library/alpine"),
        ("bitnami/redis", "docker.io/bitnami/redis"),
        ("docker.io", "docker.io"),
        ("docker.io/library", "docker.io/library"),
        ("docker.io/library/", "docker.io/library"),
        ("index.docker.io/library/alpine", "docker.io/library/alpine"),
        ("registry-1.docker.io/library", "docker.io/library"),
        ("Registry.example/team", "registry.example/team"),
        ("registry.example:5000", "registry.example:5000"),
        ("registry.example:5000/team/app", "registry.example:5000/team/app"),
        ("localhost:5000/a", "localhost:5000/a"),
        ("registry:5000/a", "registry:5000/a"),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a"),
        ("example.com/app", "example.com/app"),
    ],
)
def test_prefixes_as_people_type_them(typed: str, written: str) -> None:
    """A prefix is that of REGISTRY/REPOSITORY, with what Docker lets people leave out."""
    assert typed_prefix(typed) == written
    assert rule_name(typed_prefix(typed)) == rule_name(written)


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("alpine:3", "--prefix=alpine"),
        ("registry.example/team:1", "--prefix=registry.example/team"),
        ("registry.example:5000/team/app:1", "--prefix=registry.example:5000/team/app"),
        ("registry.example/app@sha256:00", "--prefix=registry.example/app"),
        ("docker://alpine:3@sha256:00", "--prefix=alpine"),
        ("registry.example/team/*", "names below are included: registry.example/team"),
        ("https://registry.example/team", "--prefix=registry.example/team"),
        ("registry.example/../x", ""),
        ("registry.example:99999999/x", ""),
        ("", ""),
    ],
)
def test_what_is_no_prefix(typed: str, hint: str) -> None:
    """A tag, a digest, a URL or nonsense is refused, with what was meant."""
    with pytest.raises(UsageError) as refused:
        typed_prefix(typed)
    assert hint in refused.value.hint


def test_a_rule_is_read_as_it_was_written(tmp_path: Path, settings: Settings) -> None:
    """Every kind of requirement, with quotes and other letters in it, comes back; files are copied beside, mode 0644."""
    root = tmp_path / "trusted_root.json"
    root.write_text('{"certificateAuthorities": []}')
    signer = {"identity": 'https://ci/"x"\\y/ü@refs', "issuer": "https://issuer", "root": str(root)}
    asked = [
        Requirement(kind=COSIGN, key=key(tmp_path)),
        Requirement(kind=OPENPGP, keys=KEYSTORE, lookaside="https://sigs.example/x"),
        Requirement(kind=KEYLESS, **signer),
        Requirement(kind=SLSA, builder="https://builder", key=key(tmp_path, "b/team.pub", b"b")),
    ]
    mask = os.umask(0o077)
    try:
        written = write_rule("registry.example/team", asked, settings, match_all=False, rollback="refuse")
    finally:
        os.umask(mask)
    (rule,) = load_policy(settings).rules
    keys = f"{settings.local_config_dir}/trust.d/keys"
    assert (rule.prefix, rule.match_all, rule.rollback) == ("registry.example/team", False, "refuse")
    assert rule.requirements[0].key == f"{keys}/team.pub"
    assert rule.requirements[1] == asked[1]
    assert rule.requirements[2] == asked[2].replace(root=f"{keys}/trusted_root.json")
    other = rule.requirements[3].key
    assert other.startswith(f"{keys}/team-")
    assert other.endswith(".pub")
    with open(other, encoding="ascii") as stream:
        assert stream.read() == pem(b"b")
    for path in (rule.path, other):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
        assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o755
    assert (written.is_new, written.default) == (True, KEYSTORE)
    assert summary(rule).startswith("cosign team.pub or openpgp keystore or keyless https://ci/")


def test_twice_is_once_and_another_is_refused(tmp_path: Path, settings: Settings) -> None:
    """The same rule again changes nothing; another one for the prefix is refused with what to type, and changes nothing."""
    asked = [Requirement(kind=COSIGN, key=key(tmp_path))]
    path = write_rule("docker.io/library", asked, settings, match_all=True).rule.path
    before = os.stat(path)
    again = write_rule("docker.io/library", asked, settings, match_all=False)
    assert not again.is_new
    assert os.stat(path).st_ino == before.st_ino
    for requirements, rollback in (
        ([Requirement(kind=UNSIGNED)], "warn"),
        ([Requirement(kind=COSIGN, key=key(tmp_path, "b/team.pub", b"b"))], "warn"),
        (asked, "refuse"),
    ):
        with pytest.raises(UsageError, match=r"docker.io/library has another rule already") as refused:
            write_rule("docker.io/library", requirements, settings, match_all=True, rollback=rollback)
        assert "rkt trust rm --prefix=docker.io/library" in refused.value.hint
    assert os.listdir(f"{settings.local_config_dir}/trust.d/keys") == ["team.pub"]
    assert len(load_policy(settings).rules) == 1


def test_the_default_stays(tmp_path: Path, settings: Settings) -> None:
    """Only the first file has a default; when its rule goes it stays as long as others need it, and is used again."""
    asked = [Requirement(kind=COSIGN, key=key(tmp_path))]
    first = write_rule("a.example/x", asked, settings, match_all=True)
    second = write_rule("a.example/x/y", asked, settings, match_all=True)
    assert (first.default, second.default) == (KEYSTORE, "")
    removed = remove_rules("a.example/x", settings)
    assert (removed.kept, removed.paths) == (first.rule.path, [])
    assert [rule.prefix for rule in load_policy(settings).rules] == ["a.example/x/y"]
    assert write_rule("a.example/x", asked, settings, match_all=True).rule.path == first.rule.path
    assert load_policy(settings).default == KEYSTORE
    remove_rules("a.example/x", settings)
    gone = remove_rules("a.example/x/y", settings)
    assert gone.kept == ""
    assert first.rule.path in gone.paths
    assert f"{settings.local_config_dir}/trust.d/keys/team.pub" in gone.paths
    assert load_policy(settings).rules == []
    with pytest.raises(NotFound, match=r"there is no rule for a.example/x"):
        remove_rules("a.example/x", settings)


def test_what_others_wrote_is_left_alone(tmp_path: Path, settings: Settings) -> None:
    """A vendor's rule is not removed but told, a file with several rules is edited by hand, a broken policy stops both."""
    vendor = f"{settings.system_config_dir}/trust.d"
    os.makedirs(vendor)
    with open(f"{vendor}/vendor.toml", "w", encoding="ascii") as stream:
        stream.write(f'version = 1\ndefault = "refuse"\n{UNSIGNED_RULE.format("v.example")}')
    asked = [Requirement(kind=COSIGN, key=key(tmp_path))]
    with pytest.raises(UsageError, match="is the vendor's"):
        remove_rules("v.example", settings)
    written = write_rule("v.example", asked, settings, match_all=True)
    assert written.others == [f"{vendor}/vendor.toml"]
    assert written.default == ""
    with open(written.rule.path, "a", encoding="ascii") as stream:
        stream.write(UNSIGNED_RULE.format("w.example"))
    with pytest.raises(UsageError, match="has other rules too"):
        remove_rules("w.example", settings)
    with open(written.rule.path, "a", encoding="ascii") as stream:
        stream.write("oops = 1\n")
    with pytest.raises(RktError, match="oops"):
        write_rule("x.example", asked, settings, match_all=True)
    with pytest.raises(RktError, match="oops"):
        remove_rules("w.example", settings)


def test_files_that_cannot_be_keys(tmp_path: Path, settings: Settings) -> None:
    """A private key, something else, and nothing are refused before anything is written."""
    private = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519"], check=True, capture_output=True, text=True
    ).stdout
    path = tmp_path / "bad"
    for content, reason in (
        (private, "holds a private key"),
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----", "is not one PEM block"),
        ("", "is not one PEM block"),
        (pem() + pem(b"b"), "holds more than one key"),
        (WEAK, "holds no public key"),
    ):
        path.write_text(content)
        with pytest.raises(UsageError, match=reason):
            write_rule("a.example", [Requirement(kind=COSIGN, key=str(path))], settings, match_all=True)
    with pytest.raises(UsageError, match="No such file"):
        write_rule("a.example", [Requirement(kind=COSIGN, key="/no/such")], settings, match_all=True)
    root = Requirement(kind=KEYLESS, identity="i", issuer="u", root=str(path))
    with pytest.raises(UsageError, match=r"is no trusted_root.json"):
        write_rule("a.example", [root], settings, match_all=True)
    assert not os.path.exists(f"{settings.local_config_dir}/trust.d")


def test_the_next_writer_takes_what_a_killed_one_left(settings: Settings) -> None:
    """A key or rule that was never finished is removed when the next one is written (C10)."""
    local = settings.local_config_dir
    left = [
        f"{local}/trust.d/.team.toml.1f.0123abcd",
        f"{local}/trust.d/keys/.team.pub.1f.0123abcd",
        f"{local}/trustedkeys/prefix.d/example.com/.{'a' * 40}.1f.0123abcd",
    ]
    for path in left:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb"):
            pass
        os.utime(path, (1, 1))
    write_rule("example.com/a", [Requirement(kind=UNSIGNED)], settings, match_all=True)
    Keystore(settings).mask("b" * 40, "example.org")
    assert not any(map(os.path.exists, left))

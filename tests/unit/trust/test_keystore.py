# SPDX-License-Identifier: Apache-2.0
"""Which keys count for which names, and what is written."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from rkt.config.settings import Installation, Settings
from rkt.errors import ConfigError, HostError, InvalidManifest
from rkt.trust.keys import parse_keys
from rkt.trust.keystore import Keystore
from tests.lib.keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

A, C, E, N, S = (letter * 40 for letter in "acedf")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Private configuration directories."""
    return Settings(
        installation=Installation(package_path="", library_paths=[], stage1_images_path=""),
        system_config_dir=str(tmp_path / "system"),
        local_config_dir=str(tmp_path / "local"),
    )


def put(settings: Settings, layer: str, place: str, fingerprint: str, content: str = "key") -> str:
    """A file of the key store; only its name and its being empty matter for listings."""
    base = settings.system_config_dir if layer == "system" else settings.local_config_dir
    directory = os.path.join(base, "trustedkeys", place)
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, fingerprint)
    with open(path, "w", encoding="ascii") as stream:
        stream.write(content)
    return path


def counting(settings: Settings, name: str) -> set[str]:
    """Fingerprints that count for a name."""
    return set(Keystore(settings).listing(name).keys)


@pytest.mark.parametrize(
    ("place", "name", "counts"),
    [
        ("registry.example:5000", "registry.example:5000/team/app", True),
        ("registry.example:5000/team", "registry.example:5000/team/app", True),
        ("registry.example:5000/team", "registry.example:5000/teams/app", False),
        ("registry.example/team", "registry.example:5000/team/app", False),
        ("registry.example:5000/team", "registry.example/team/app", False),
        ("registry.example:5000/team", "registry.example:500/team/app", False),
        ("docker.io/library", "registry-1.docker.io/library/busybox", True),
        ("index.docker.io", "registry-1.docker.io/library/busybox", True),
        ("registry-1.docker.io/library", "docker.io/library/busybox", True),
        ("docker.io/library", "registry.example/library/busybox", False),
        ("[fe80::1]:5000/team", "[fe80::1]:5000/team/app", True),
        ("[fe80::1]", "[fe80::1]/team/app", True),
        ("[fe80::1]/team", "[fe80::1]:5000/team/app", False),
        ("[fe80::1]/team", "[fe80::2]/team/app", False),
    ],
)
def test_key_for_a_registry_counts_for_its_images(
    settings: Settings, place: str, name: str, *, counts: bool
) -> None:
    """The port belongs to the registry, which may be an address, Docker Hub has one name, and all else is compared by component (SG2)."""
    put(settings, "local", f"prefix.d/{place}", A)
    assert counting(settings, name) == ({A} if counts else set())


def test_keys_for_docker_hub_are_written_to_one_place(settings: Settings) -> None:
    """A mask that is made by one of its names hides a key that was trusted by another."""
    store = Keystore(settings)
    put(settings, "local", "prefix.d/docker.io/library", A)
    path = store.mask(A, "registry-1.docker.io/library")
    assert path == f"{settings.local_config_dir}/trustedkeys/prefix.d/docker.io/library/{A}"
    assert counting(settings, "index.docker.io/library/busybox") == set()


@pytest.mark.parametrize("name", ["[::1/x", "[x]/y", "[1]/x", "[::1]5000/x", "[../::1]/x", "[]/x"])
def test_name_with_something_else_than_an_address_is_refused(settings: Settings, name: str) -> None:
    """What stands in brackets is an IPv6 address, and the error says that it is none (HH3)."""
    with pytest.raises(InvalidManifest, match="is no address"):
        counting(settings, name)


@pytest.mark.parametrize(
    "name",
    [
        "[::1]:/x",
        "[::1]:x/y",
        "r.example:/x",
        "r.example:x/y",
        "r.example:123456/x",
        "r.example:1:2",
        "x/y:1",
        ":1/x",
    ],
)
def test_name_with_something_else_than_a_port_is_refused(settings: Settings, name: str) -> None:
    """A colon in a name is followed by a port, and only behind the registry (HH3)."""
    with pytest.raises(InvalidManifest):
        counting(settings, name)


@pytest.mark.parametrize("layer", ["system", "local"])
@pytest.mark.parametrize(
    ("name", "signer", "accepted"),
    [
        ("coreos.com/etcd", C, True),
        ("coreos.com/fleet", C, True),
        ("coreos.com/flannel", C, True),
        ("example.com/app", E, True),
        ("acme.com/services/web/nginx", N, True),
        ("acme.com/services/web/auth", S, True),
        ("acme.com/etcd", A, False),
        ("acme.com/web/nginx", A, False),
        ("acme.com/services/web", N, False),
    ],
)
def test_acceptance_vectors(
    settings: Settings, layer: str, name: str, signer: str, *, accepted: bool
) -> None:
    """The vectors of rkt's own key store, with prefix keys in either layer."""
    put(settings, layer, "prefix.d/example.com/app", E)
    put(settings, layer, "prefix.d/acme.com/services", S)
    put(settings, layer, "prefix.d/acme.com/services/web/nginx", N)
    put(settings, "local", "root.d", C)
    put(settings, "system", "root.d", A)
    put(settings, "local", "root.d", A, "")
    assert (signer in counting(settings, name)) is accepted


@pytest.mark.parametrize(
    "name", ["example.com/apple", "example.com/ap", "example.com", "example.comm/app", "xexample.com/app"]
)
def test_prefixes_are_compared_by_component(settings: Settings, name: str) -> None:
    """A key for example.com/app counts neither for siblings that start alike nor for parents (SG2)."""
    put(settings, "local", "prefix.d/example.com/app", E)
    assert counting(settings, "example.com/app") == {E}
    assert counting(settings, "example.com/app/deep/er") == {E}
    assert counting(settings, name) == set()


def test_empty_prefix_file_hides_a_root_key_below_that_prefix_only(settings: Settings) -> None:
    """Masks work by fingerprint on what was loaded before."""
    put(settings, "system", "root.d", C)
    mask = put(settings, "local", "prefix.d/example.com", C, "")
    assert counting(settings, "example.com/app") == set()
    assert Keystore(settings).listing("example.com/app").masks == {C: mask}
    assert counting(settings, "other.com/app") == {C}


def test_empty_root_file_does_not_hide_a_prefix_key(settings: Settings) -> None:
    """A prefix key is loaded after the roots."""
    put(settings, "local", "root.d", E, "")
    put(settings, "system", "prefix.d/example.com", E)
    assert counting(settings, "example.com/app") == {E}


def test_longer_prefix_brings_a_masked_key_back(settings: Settings) -> None:
    """Within a layer the longest prefix has the last word."""
    put(settings, "local", "prefix.d/example.com", E, "")
    put(settings, "local", "prefix.d/example.com/app", E)
    assert counting(settings, "example.com/app") == {E}
    assert counting(settings, "example.com/web") == set()


def test_rules_are_named(settings: Settings) -> None:
    """Each key carries the rule by which it counts, the last one loaded."""
    put(settings, "system", "root.d", C)
    put(settings, "local", "prefix.d/example.com", E)
    listing = Keystore(settings).listing("example.com/app")
    assert {f: k.rule for f, k in listing.keys.items()} == {C: "root", E: "prefix example.com"}


@pytest.mark.parametrize(
    "name", ["a.com/../b", "a.com/./b", "a.com//b", "a.com/..../b", "../etc", "", "A.com", "a.com/"]
)
def test_names_that_are_no_path_are_refused(settings: Settings, name: str) -> None:
    """A name can never lead out of prefix.d (HH3)."""
    with pytest.raises(InvalidManifest):
        Keystore(settings).listing(name)


@pytest.mark.parametrize("name", ["README", "A" * 40, "a" * 39, "a" * 41, "g" * 40])
def test_file_that_is_not_named_by_a_fingerprint_is_an_error(settings: Settings, name: str) -> None:
    """Nothing in a directory of keys is passed over in silence; the path is named (SG6)."""
    path = put(settings, "local", "root.d", name)
    with pytest.raises(ConfigError, match=path):
        Keystore(settings).listing("example.com/app")


def test_remains_of_an_interrupted_write_are_ignored(settings: Settings) -> None:
    """A temporary file beside the keys neither counts nor disturbs (C10)."""
    put(settings, "local", "root.d", f".{C}.1a2b.0011")
    put(settings, "local", "root.d", "b" * 64)
    assert counting(settings, "example.com") == {"b" * 64}


def test_symbolic_links_and_files_others_can_write_are_refused(settings: Settings) -> None:
    """A key that somebody else could swap is an error, not a key."""
    path = put(settings, "local", "prefix.d/example.com", E)
    os.chmod(path, 0o666)
    with pytest.raises(ConfigError, match="everybody can write"):
        Keystore(settings).listing("example.com")
    os.rename(path, path + "x")
    os.symlink(E + "x", path)
    with pytest.raises(ConfigError, match="regular file"):
        Keystore(settings).listing("example.com")
    os.unlink(path)
    os.unlink(path + "x")
    os.chmod(os.path.dirname(path), 0o777)
    with pytest.raises(ConfigError, match="everybody can write"):
        Keystore(settings).listing("example.com")


def test_file_in_the_place_of_a_directory_holds_no_keys(settings: Settings) -> None:
    """A name whose component is the file of another key finds nothing there."""
    put(settings, "local", "prefix.d/example.com", E)
    assert counting(settings, f"example.com/{E}") == {E}


@pytest.fixture(scope="module")
def ring() -> Iterator[KeyRing]:
    """A key ring for the module."""
    with KeyRing() as made:
        yield made


@pytest.mark.parametrize(
    ("prefix", "place"),
    [(None, "root.d"), ("example.com", "prefix.d/example.com"), ("a.com/b/c", "prefix.d/a.com/b/c")],
)
def test_stored_key_counts_and_has_the_documented_modes(
    settings: Settings, ring: KeyRing, prefix: str | None, place: str
) -> None:
    """Directories are 0755, the file 0644 whatever the umask; it is armoured and read back."""
    made = ring.make(f"store-{place.replace('/', '-')}@example.com")
    (key,) = parse_keys(ring.export(made), what="file")
    old = os.umask(0o077)
    try:
        path = Keystore(settings).store(key, prefix)
    finally:
        os.umask(old)
    base = os.path.join(settings.local_config_dir, "trustedkeys")
    assert path == os.path.join(base, place, made.fingerprint)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
    assert {stat.S_IMODE(os.stat(d).st_mode) for d, _, _ in os.walk(settings.local_config_dir)} == {0o755}
    assert os.listdir(os.path.dirname(path)) == [made.fingerprint]
    (loaded,) = Keystore(settings).load(prefix or "any.name/at/all")
    assert loaded.key == key
    assert not os.path.exists(settings.system_config_dir)


def test_trusting_again_lifts_a_local_mask(settings: Settings, ring: KeyRing) -> None:
    """The empty file is replaced by the key."""
    made = ring.make("masked@example.com")
    (key,) = parse_keys(ring.export(made), what="file")
    put(settings, "local", "prefix.d/example.com", made.fingerprint, "")
    Keystore(settings).store(key, "example.com")
    assert counting(settings, "example.com/app") == {made.fingerprint}


def test_file_with_the_name_of_another_key_is_an_error(settings: Settings, ring: KeyRing) -> None:
    """``fingerprint mismatch`` with file and key."""
    made = ring.make("mismatch@example.com")
    path = put(settings, "local", "root.d", E, ring.export(made).decode())
    with pytest.raises(ConfigError, match=f'fingerprint mismatch: "{path}":"{made.fingerprint}"'):
        Keystore(settings).load("example.com")


def test_only_the_first_key_of_a_file_counts(settings: Settings, ring: KeyRing) -> None:
    """A second key in a file of the store is no trusted key."""
    one, two = ring.make("one@example.com"), ring.make("two@example.com")
    put(settings, "local", "root.d", one.fingerprint, ring.export(one, two).decode())
    (loaded,) = Keystore(settings).load("example.com")
    assert loaded.key.fingerprint == one.fingerprint
    assert two.fingerprint not in {key.fingerprint for key in parse_keys(loaded.key.binary, what="part")}


def test_unreadable_key_file_is_an_error_with_its_path(settings: Settings) -> None:
    """Garbage in the key store never means fewer keys (SG6)."""
    path = put(settings, "local", "root.d", E, "garbage")
    with pytest.raises(ConfigError, match=path):
        Keystore(settings).load("example.com")


def test_store_that_cannot_be_written_says_so(settings: Settings, ring: KeyRing) -> None:
    """The error names the directory."""
    (key,) = parse_keys(ring.export(ring.make("nowhere@example.com")), what="file")
    with open(settings.local_config_dir, "w", encoding="ascii"):
        pass
    with pytest.raises(HostError, match="trustedkeys"):
        Keystore(settings).store(key, None)

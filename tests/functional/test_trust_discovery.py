# SPDX-License-Identifier: Apache-2.0
"""``rkt trust`` with servers, automatic key discovery, ``trust list`` and ``trust rm`` (spec cli §6.4, §6.6, §10.5)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.lib.aci import write_aci
from tests.lib.keys import KeyRing
from tests.lib.server import Authority
from tests.lib.site import Site, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.keys import Key
    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root

SKIP = "--skip-fingerprint-review"


@pytest.fixture(scope="module")
def ring() -> Iterator[KeyRing]:
    """A key ring for the module."""
    with KeyRing() as made:
        yield made


@pytest.fixture(scope="module")
def alice(ring: KeyRing) -> Key:
    """A good key."""
    return ring.make("Alice <alice@example.com>")


@pytest.fixture(scope="module")
def bob(ring: KeyRing) -> Key:
    """Another good key."""
    return ring.make("Bob <bob@example.com>")


@pytest.fixture
def site(rkt: Rkt, authority: Authority) -> Iterator[Site]:
    """A host whose root is configured, and whose page leads to an image and a file of keys."""
    with Site(authority) as running:
        running.configure(rkt)
        content = f"{running.host} {running.url('/images/app.{ext}')}"
        key = f"{running.host} {running.url('/keys.asc')}"
        html = f'<meta name="ac-discovery" content="{content}"><meta name="ac-discovery-pubkeys" content="{key}">'
        running.server.put("/app?ac-discovery=1", html.encode())
        yield running


def stored(rkt: Rkt) -> list[str]:
    """Files of the local key store."""
    base = os.path.join(rkt.local, "trustedkeys")
    return sorted(os.path.relpath(os.path.join(d, f), base) for d, _, files in os.walk(base) for f in files)


def vendor_key(rkt: Rkt, ring: KeyRing, key: Key, where: str) -> str:
    """Put a key into the system's key store."""
    path = os.path.join(rkt.system, "trustedkeys", where, key.fingerprint)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(ring.export(key))
    os.chmod(path, 0o644)
    return path


def key_file(rkt: Rkt, ring: KeyRing, *keys: Key) -> str:
    """A file of public keys."""
    path = f"{rkt.base}/{keys[0].fingerprint}.asc"
    with open(path, "wb") as file:
        file.write(ring.export(*keys))
    return path


def test_keys_are_discovered(rkt: Rkt, site: Site, ring: KeyRing, alice: Key, bob: Key) -> None:
    """Without PUBKEY the pages of the prefix say where the keys are; all of them are shown and trusted."""
    site.server.put("/keys.asc", ring.export(alice, bob))
    result = rkt.run("trust", f"--prefix={site.name()}", SKIP, check=0)
    assert f'key: "{site.url("/keys.asc")}"' in result.stderr
    assert result.stdout.count("gpg key fingerprint is: ") == 2
    assert stored(rkt) == sorted(f"prefix.d/{site.name()}/{key.fingerprint}" for key in (alice, bob))
    assert site.server.paths() == ["/app?ac-discovery=1", "/keys.asc"]


def test_no_keys_found(rkt: Rkt, site: Site) -> None:
    """A prefix whose pages speak of no keys is an error."""
    result = rkt.run("trust", f"--prefix={site.host}", SKIP, check=254)
    assert f"meta discovery on {site.host} resulted in no keys" in result.stderr
    assert stored(rkt) == []


def test_a_key_by_url_gets_no_credentials(rkt: Rkt, site: Site, ring: KeyRing, alice: Key) -> None:
    """A key file is downloaded, and nobody is told the credentials of its host."""
    write_config(
        rkt,
        "auth.d/a.json",
        {
            "rktKind": "auth",
            "domains": [site.host],
            "type": "basic",
            "credentials": {"user": "u", "password": "p"},
        },
    )
    url = site.server.put("/alice.asc", ring.export(alice)).replace(":443", "")
    rkt.run("trust", "--root", SKIP, url, check=0)
    assert stored(rkt) == [f"root.d/{alice.fingerprint}"]
    assert not any("Authorization" in request.headers for request in site.server.requests)


def test_http_needs_leave(rkt: Rkt, authority: Authority, ring: KeyRing, alice: Key) -> None:
    """Keys by http only with --insecure-allow-http, which holds for discovery too."""
    with Site(authority, https=False) as site:
        url = site.url("/alice.asc")
        site.server.put("/alice.asc", ring.export(alice))
        site.discoverable("/app", f"{site.host} {url}", kind="ac-discovery-pubkeys")
        result = rkt.run("trust", "--root", SKIP, url, check=254)
        assert "--insecure-allow-http required for http URLs" in result.stderr
        rkt.run("trust", f"--prefix={site.name()}", SKIP, check=254)
        assert site.server.requests == []
        rkt.run("trust", f"--prefix={site.name()}", SKIP, "--insecure-allow-http", check=0)
        # By http nothing is accepted unasked.
        result = rkt.run(
            "--trust-keys-from-https", "trust", "--root", "--insecure-allow-http", url, check=254
        )
        assert "lack of tty" in result.stderr


def test_keys_from_https_are_accepted_one_by_one(
    rkt: Rkt, site: Site, ring: KeyRing, alice: Key, bob: Key
) -> None:
    """A key by https is accepted unasked, a local one in the same call is not."""
    url = site.url("/alice.asc")
    site.server.put("/alice.asc", ring.export(alice))
    result = rkt.run("--trust-keys-from-https", "trust", "--root", url, key_file(rkt, ring, bob), check=254)
    assert "without fingerprint review" in result.stderr
    assert "lack of tty" in result.stderr
    assert stored(rkt) == [f"root.d/{alice.fingerprint}"]


def test_fetching_a_name_discovers_its_keys(rkt: Rkt, site: Site, ring: KeyRing, alice: Key) -> None:
    """With --trust-keys-from-https one fetch finds key and image; without, nobody can be asked; later, no key is asked for."""
    name = site.name()
    site.server.put("/keys.asc", ring.export(alice))
    site.image(rkt, signer=(ring, alice))
    refused = rkt.run("fetch", name, check=254)
    assert "lack of tty" in refused.stderr
    assert "openpgp: signature made by unknown entity" in refused.stderr
    assert stored(rkt) == []
    fetched = rkt.run("--trust-keys-from-https", "fetch", name, check=0)
    assert "signature verified:" in fetched.stderr
    assert "fingerprint" not in fetched.stdout
    assert stored(rkt) == [f"prefix.d/{name}/{alice.fingerprint}"]
    site.server.requests.clear()
    again = rkt.run("--trust-keys-from-https", "fetch", name, check=0)
    assert f'keys already exist for prefix "{name}", not fetching again' in again.stderr
    assert "/keys.asc" not in site.server.paths()


def test_keys_that_no_rule_asks_for_are_not_offered(rkt: Rkt, site: Site, ring: KeyRing, alice: Key) -> None:
    """Where a rule names its own keys, those of the pages are of no use; where the policy refuses, nobody is asked for anything."""
    site.server.put("/keys.asc", ring.export(alice))
    os.makedirs(f"{rkt.local}/trust.d")
    path = f"{rkt.local}/trust.d/rule.toml"
    keys = key_file(rkt, ring, alice)
    text = f'version = 1\ndefault = "refuse"\n[[rule]]\nprefix = "{site.name()}"\nall = [ {{ kind = "openpgp", keys = "{keys}" }} ]\n'
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    os.chmod(path, 0o644)
    refused = rkt.run("fetch", f"{site.host}/other", check=254).stderr
    assert f"{path} refuses the rest" in refused
    assert site.server.requests == []
    rkt.run("--trust-keys-from-https", "fetch", site.name(), check=254)
    assert not any(request.path == "/keys.asc" for request in site.server.requests)
    assert stored(rkt) == []


def test_unchecked_servers_give_no_keys(rkt: Rkt, site: Site, ring: KeyRing, alice: Key) -> None:
    """With insecure tls no key is looked for, and with pubkey too none is accepted unasked."""
    site.server.put("/keys.asc", ring.export(alice))
    site.image(rkt, signer=(ring, alice))
    for options in ("tls", "tls,pubkey"):
        result = rkt.run(
            f"--insecure-options={options}", "--trust-keys-from-https", "fetch", site.name(), check=254
        )
        assert "openpgp: signature made by unknown entity" in result.stderr
        assert ("/keys.asc" in site.server.paths()) == (options != "tls")
    assert "signing keys may be downloaded from an insecure connection" in result.stderr
    assert stored(rkt) == []


def test_t1_to_t7(rkt: Rkt, ring: KeyRing, alice: Key, bob: Key) -> None:
    """Which key counts for which of two images, step by step."""
    paths = {}
    for name in ("a.example.com/one", "b.example.com/two"):
        path = paths[name] = f"{rkt.base}/{name[0]}.aci"
        write_aci(path, ["/bin/app"], name=name, files={"bin/app": (b"#!", 0o755)})

    def attempt(name: str) -> str:
        result = rkt.run("fetch", paths[name])
        return "" if result.status == 0 else result.stderr

    one, two = paths
    assert "error opening signature file" in attempt(one)
    for path in paths.values():
        with open(path, "rb") as source, open(f"{path}.asc", "wb") as file:
            file.write(ring.sign(alice, source.read()))
    unknown = "openpgp: signature made by unknown entity"
    assert unknown in attempt(one)
    rkt.run("trust", "--prefix=c.example.com/three", SKIP, key_file(rkt, ring, alice), check=0)
    assert unknown in attempt(one)
    rkt.run("trust", f"--prefix={one}", SKIP, key_file(rkt, ring, bob), check=0)
    assert unknown in attempt(one)
    rkt.run("trust", f"--prefix={one}", SKIP, key_file(rkt, ring, alice), check=0)
    assert attempt(one) == ""
    assert unknown in attempt(two)
    rkt.run("trust", "--prefix=d.example.com", SKIP, key_file(rkt, ring, alice), check=0)
    assert attempt(one) == ""
    assert unknown in attempt(two)
    rkt.run("trust", "--root", SKIP, key_file(rkt, ring, alice), check=0)
    assert attempt(one) == attempt(two) == ""


def test_list_and_rm(rkt: Rkt, ring: KeyRing, alice: Key, bob: Key) -> None:
    """Keys are listed with scope, owner and state; local files are removed, the vendor's are masked."""
    rkt.run("trust", "--prefix=example.com/app", SKIP, key_file(rkt, ring, alice), check=0)
    vendor = vendor_key(rkt, ring, bob, "root.d")
    rows = json.loads(rkt.run("trust", "list", "--format=json", check=0).stdout)
    assert [(row["prefix"], row["fingerprint"], row["state"], row["local"]) for row in rows] == [
        ("", bob.fingerprint, "trusted", False),
        ("example.com/app", alice.fingerprint, "trusted", True),
    ]
    assert rows[1]["identities"] == ["Alice <alice@example.com>"]
    table = rkt.run("trust", "list", check=0).lines
    assert [line.split("\t")[0] for line in table] == ["PREFIX", "(every name)", "example.com/app"]
    assert rkt.run("trust", "rm", "--root", alice.fingerprint, check=254).stderr.count("hint: ") == 1
    rkt.run("trust", "rm", alice.fingerprint[:10], check=0)
    assert stored(rkt) == []
    result = rkt.run("trust", "rm", bob.fingerprint.upper(), check=0)
    assert "masked the vendor's key" in result.stderr
    assert os.path.exists(vendor)
    assert stored(rkt) == [f"root.d/{bob.fingerprint}"]
    assert os.path.getsize(f"{rkt.local}/trustedkeys/root.d/{bob.fingerprint}") == 0
    rows = json.loads(rkt.run("trust", "list", "--format=json", check=0).stdout)
    assert [row["state"] for row in rows] == ["masked", "mask"]


def test_a_mask_takes_effect(rkt: Rkt, ring: KeyRing, alice: Key) -> None:
    """A root key that is masked for a prefix stops counting there, and only there; images it vouched for are refused."""
    path = f"{rkt.base}/x.aci"
    for name in ("example.com/db", "example.com/web"):
        write_aci(path, ["/bin/app"], name=name, files={"bin/app": (b"#!", 0o755)})
        with open(path, "rb") as source, open(f"{path}.asc", "wb") as file:
            file.write(ring.sign(alice, source.read()))
        rkt.run("trust", "--root", SKIP, key_file(rkt, ring, alice), check=0)
        rkt.run("fetch", path, check=0)
    rkt.run("trust", "rm", "--mask", "--prefix=example.com/db", alice.fingerprint, check=0)
    listed = rkt.run("trust", "list", "--name=example.com/db", "--no-legend", check=0)
    assert "not for this name" in listed.stdout
    refused = rkt.run("prepare", "example.com/db", check=254)
    assert "masked by" in refused.stderr
    rkt.run("prepare", "example.com/web", check=0)
    rkt.run("trust", "--prefix=example.com/db", SKIP, key_file(rkt, ring, alice), check=0)
    rkt.run("prepare", "example.com/db", check=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "must provide at least one fingerprint"),
        (["abc"], "is not a fingerprint"),
        (["0123456789"], "no key of the key store"),
        (["--mask", "FPR"], "--mask needs --prefix or --root"),
        (["--root", "--prefix=a", "FPR"], "mutually exclusive"),
        (["--prefix=a/../b", "FPR"], "invalid --prefix"),
        (["--prefix=other.com", "FPR"], 'is not trusted for prefix "other.com"'),
    ],
)
def test_misuse_of_rm(rkt: Rkt, ring: KeyRing, alice: Key, words: list[str], message: str) -> None:
    """Each wrong call says what is wrong and changes nothing."""
    rkt.run("trust", "--prefix=example.com", SKIP, key_file(rkt, ring, alice), check=0)
    before = stored(rkt)
    words = [alice.fingerprint if word == "FPR" else word for word in words]
    assert message in rkt.run("trust", "rm", *words, check=254).stderr
    assert stored(rkt) == before

# SPDX-License-Identifier: Apache-2.0
"""Signatures and trust (invariants SG1 to SG9, SG12, SG16, HH4, HH5, C10)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from rkt.config.settings import Installation, Settings
from rkt.errors import HostError, SignatureMismatch
from rkt.trust import policy
from rkt.trust.keys import parse_keys
from rkt.trust.keystore import Keystore
from tests.lib.aci import write_aci
from tests.lib.keys import LONG_AGO, Key, KeyRing
from tests.lib.sources import INSTALLATION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lib.rkt import Rkt

UNKNOWN = "openpgp: signature made by unknown entity"


@pytest.fixture(scope="module")
def ring() -> Iterator[KeyRing]:
    """A key ring for the module."""
    with KeyRing() as made:
        yield made


@pytest.fixture(scope="module")
def alice(ring: KeyRing) -> Key:
    """A good key."""
    return ring.make("Alice <alice@example.com>")


def make_image(
    rkt: Rkt, ring: KeyRing, key: Key | None, name: str = "example.com/app", when: str = ""
) -> str:
    """An image and its signature."""
    path = os.path.join(rkt.base, "app.aci")
    write_aci(path, name=name, files={"data": b"x" * 10_000})
    if key is not None:
        with open(path, "rb") as image, open(f"{path}.asc", "wb") as signature:
            signature.write(ring.sign(key, image.read(), when=when))
    return path


def plant(rkt: Rkt, place: str, name: str, content: bytes) -> str:
    """A file of the local key store, made by hand."""
    directory = os.path.join(rkt.local, "trustedkeys", place)
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, name)
    with open(path, "wb") as stream:
        stream.write(content)
    return path


def refused(rkt: Rkt, image: str, message: str, **rest: dict[str, str]) -> None:
    """Fetching ends with status 254 and the message, and nothing of the image is in the store."""
    result = rkt.run("fetch", image, check=254, **rest)  # type: ignore[arg-type]
    assert message in result.stderr, str(result)
    assert rkt.run("image", "list", "--no-legend", check=0).stdout == ""


@pytest.mark.root
def test_unsigned_image_is_refused_whatever_else_is_switched_off(rkt: Rkt, ring: KeyRing) -> None:
    """Only the option for images lets an unsigned image in, and the image remains marked (SG1, SG16)."""
    image = make_image(rkt, ring, None)
    refused(rkt, image, "error opening signature file")
    result = rkt.run("--insecure-options=tls,http,pubkey,ondisk,all-run", "fetch", image, check=254)
    assert "error opening signature file" in result.stderr
    fetched = rkt.run("--insecure-options=image", "fetch", image, check=0).stdout.strip()
    for words in (("prepare", fetched), ("run", fetched), ("prepare", "example.com/app")):
        result = rkt.run(*words, check=254)
        assert "never verified" in result.stderr, str(result)
        assert not rkt.pods()


@pytest.mark.root
@pytest.mark.parametrize(
    "place", ["prefix.d/example.com/ap", "prefix.d/example.com/app/x", "prefix.d/example.com/appl"]
)
def test_key_of_a_name_that_looks_alike_does_not_count(
    rkt: Rkt, ring: KeyRing, alice: Key, place: str
) -> None:
    """Prefixes are compared by component (SG2)."""
    plant(rkt, place, alice.fingerprint, ring.export(alice))
    refused(rkt, make_image(rkt, ring, alice), UNKNOWN)


@pytest.mark.root
@pytest.mark.parametrize("name", ["example.org/../example.com/app", "example.com/./app", "../../root.d"])
def test_image_cannot_name_its_way_to_other_keys(rkt: Rkt, ring: KeyRing, alice: Key, name: str) -> None:
    """A name is no path (SG3, HH3)."""
    plant(rkt, "prefix.d/example.com", alice.fingerprint, ring.export(alice))
    refused(rkt, make_image(rkt, ring, alice, name), "")


@pytest.mark.root
def test_expired_and_revoked_keys_in_the_store_do_not_count(rkt: Rkt, ring: KeyRing) -> None:
    """Keys that got into the key store before they expired, or by hand, are refused when they are used (SG4)."""
    expired, revoked = ring.make_expired("expired@example.com"), ring.make("revoked@example.com")
    plant(rkt, "root.d", expired.fingerprint, ring.export(expired))
    refused(rkt, make_image(rkt, ring, expired, when=LONG_AGO), "expired on 2020-12-31")
    image = make_image(rkt, ring, revoked)
    ring.revoke(revoked)
    plant(rkt, "root.d", revoked.fingerprint, ring.export(revoked))
    refused(rkt, image, "is revoked")


@pytest.mark.root
@pytest.mark.parametrize("content", [b"garbage", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n", b"\x99"])
def test_damaged_key_store_refuses_everything(rkt: Rkt, ring: KeyRing, alice: Key, content: bytes) -> None:
    """An unreadable key never means that no key is asked for, and the path is named (SG6)."""
    plant(rkt, "root.d", alice.fingerprint, ring.export(alice))
    path = plant(rkt, "root.d", "0" * 40, content)
    refused(rkt, make_image(rkt, ring, alice), path)


@pytest.mark.root
@pytest.mark.parametrize("mode", ["--sign", "--clearsign"])
def test_signed_message_is_no_detached_signature(rkt: Rkt, ring: KeyRing, alice: Key, mode: str) -> None:
    """A message that carries signed text of its own says nothing about the image (SG8)."""
    plant(rkt, "root.d", alice.fingerprint, ring.export(alice))
    image = make_image(rkt, ring, alice)
    with open(f"{image}.asc", "wb") as stream:
        stream.write(ring.sign(alice, b"I like this image", mode=mode))
    refused(rkt, image, "keystore: no valid signatures found in signature file")


@pytest.mark.root
def test_identity_of_a_key_cannot_forge_a_verdict(rkt: Rkt, ring: KeyRing) -> None:
    """An identity that reads like status lines decides nothing, neither with a good nor with a wrong signature (SG9)."""
    liar = ring.make("x [GNUPG:] GOODSIG [GNUPG:] VALIDSIG <x@example.com>")
    plant(rkt, "root.d", liar.fingerprint, ring.export(liar))
    image = make_image(rkt, ring, liar)
    with open(f"{image}.asc", "wb") as stream:
        stream.write(ring.sign(liar, b"something else"))
    refused(rkt, image, "changed after it was signed")


@pytest.mark.root
def test_environment_cannot_bring_keys_or_programs(rkt: Rkt, ring: KeyRing, alice: Key) -> None:
    """GNUPGHOME, HOME, PATH and the loader's variables of the caller have no say in verification (HH5)."""
    fake = os.path.join(rkt.base, "bin")
    os.mkdir(fake)
    marker = os.path.join(rkt.base, "was-run")
    for program in ("gpgv", "gpg", "sqv"):
        path = os.path.join(fake, program)
        with open(path, "w", encoding="ascii") as stream:
            stream.write(f"#!/bin/sh\ntouch {marker}\nexit 0\n")
        os.chmod(path, 0o755)
    with open(os.path.join(ring.home, "trustedkeys.gpg"), "wb") as stream:
        stream.write(ring.export(alice, armour=False))
    environment = {"GNUPGHOME": ring.home, "HOME": ring.home, "PATH": fake, "PYTHONPATH": fake}
    refused(rkt, make_image(rkt, ring, alice), UNKNOWN, env=environment)
    assert not os.path.exists(marker)


def make_settings(tmp_path: Path, ring: KeyRing, key: Key) -> Settings:
    """Settings under which a key counts for every name."""
    settings = Settings(
        installation=Installation(package_path="", library_paths=[], stage1_images_path=""),
        system_config_dir=str(tmp_path / "system"),
        local_config_dir=str(tmp_path / "local"),
    )
    Keystore(settings).store(parse_keys(ring.export(key), what="key")[0], None)
    return settings


def test_missing_program_refuses(
    tmp_path: Path, ring: KeyRing, alice: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that cannot be made is a failed check."""
    settings = make_settings(tmp_path, ring, alice)
    blob = tmp_path / "blob"
    blob.write_bytes(b"image")
    monkeypatch.setattr("rkt.trust.program._DIRECTORIES", (str(tmp_path),))
    with pytest.raises(HostError, match="gpgv is not installed"):
        policy.judge("example.com/app", str(blob), ring.sign(alice, b"image"), settings)


#: Prints the status file and the network namespace of the first child of a process that runs gpgv.
OBSERVER = """
import os, sys
parent = sys.argv[1]
print('ready', flush=True)
while True:
    with open(f'/proc/{parent}/task/{parent}/children') as stream:
        pids = stream.read().split()
    for pid in pids:
        try:
            with open(f'/proc/{pid}/status') as stream:
                text = stream.read()
            if text.startswith('Name:\\tgpgv\\n'):
                sys.exit(text + 'net:\\t' + os.readlink(f'/proc/{pid}/ns/net'))
        except (FileNotFoundError, ProcessLookupError):
            pass
"""


def own_filters() -> int:
    """How many system call filters this process has."""
    with open("/proc/self/status", encoding="ascii") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith("Seccomp_filters:"))


@pytest.mark.root
def test_signatures_are_read_without_rights(tmp_path: Path, ring: KeyRing, alice: Key) -> None:
    """What reads a foreign signature has an unused uid, no capability, group or network, and a filter of system calls.

    /proc does not show Landlock: tests/unit/trust/test_program.py tries what it refuses.
    """
    settings = make_settings(tmp_path, ring, alice).replace(installation=INSTALLATION)
    blob = tmp_path / "blob"
    with blob.open("wb") as stream:
        stream.truncate(256 * 1024 * 1024)
    signature = ring.sign(alice, b"something else")

    words = [sys.executable, "-IS", "-c", OBSERVER, str(os.getpid())]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as observer:
        try:
            assert observer.stdout is not None
            assert observer.stderr is not None
            observer.stdout.readline()
            with pytest.raises(SignatureMismatch):
                policy.judge("example.com/app", str(blob), signature, settings)
            observer.wait(10)
        finally:
            observer.kill()
        seen = observer.stderr.read()
    fields = dict(line.split(":\t", 1) for line in seen.splitlines() if ":\t" in line)
    assert all(int(uid) >= 0x726B0000 for uid in fields["Uid"].split())
    assert all(int(gid) >= 0x726B0000 for gid in fields["Gid"].split())
    assert not fields["Groups"].strip()
    assert int(fields["CapPrm"], 16) == int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    # One more than this process may have, in a container say.
    assert int(fields["Seccomp_filters"]) == own_filters() + 1
    assert fields["net"] != os.readlink("/proc/self/ns/net")


def test_killed_trust_leaves_the_old_or_the_new_key(rkt: Rkt, ring: KeyRing, alice: Key) -> None:
    """SIGKILL at any moment of ``rkt trust``: what is named by a fingerprint is the whole key, and all still works (C10)."""
    source = os.path.join(rkt.base, "pubkey.asc")
    with open(source, "wb") as stream:
        stream.write(ring.export(alice))
    words = ("trust", "--prefix=example.com", "--skip-fingerprint-review", source)
    started = time.monotonic()
    rkt.run(*words, check=0)
    duration = time.monotonic() - started
    path = os.path.join(rkt.local, "trustedkeys", "prefix.d", "example.com", alice.fingerprint)
    with open(path, "rb") as stream:
        whole = stream.read()
    rounds = 25
    for i in range(rounds):
        # Alternately over an empty file, which masks the key, and over nothing.
        os.unlink(path)
        if i % 2:
            with open(path, "wb"):
                pass
        with rkt.popen(*words) as process:
            time.sleep(duration * (0.4 + i / rounds))
            process.send_signal(signal.SIGKILL)
            process.wait(20)
        content = None
        if os.path.exists(path):
            with open(path, "rb") as stream:
                content = stream.read()
        assert content in ({b"", whole} if i % 2 else {None, whole})
        rkt.run(*words, check=0)
        with open(path, "rb") as stream:
            assert stream.read() == whole

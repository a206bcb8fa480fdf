# SPDX-License-Identifier: Apache-2.0
"""Verdicts, and what becomes of them when keys, masks and options change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rkt.config.settings import InsecureOptions, Installation, Settings
from rkt.errors import CannotVerify, ConfigError, NotVerified, RktError, SignatureMismatch
from rkt.trust import judging, policy
from rkt.trust.keys import parse_keys
from rkt.trust.keystore import Keystore
from rkt.trust.verdict import Verdict
from tests.lib.keys import Key, KeyRing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = b"image"
IMAGE_ID = "sha512-" + "1" * 128
STAGE1 = "coreos.com/rkt/stage1-ns"


@pytest.fixture(scope="module")
def ring() -> Iterator[KeyRing]:
    """A key ring for the module."""
    with KeyRing() as made:
        yield made


@pytest.fixture(scope="module")
def alice(ring: KeyRing) -> Key:
    """A good key."""
    return ring.make("Alice <alice@example.com>")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Private configuration directories and a list of stage1 images."""
    stage1 = tmp_path / "stage1"
    stage1.mkdir(mode=0o755)
    image = {"name": STAGE1, "version": "1.0.0", "id": IMAGE_ID, "file": "stage1-ns.aci"}
    (stage1 / "stage1.json").write_text(json.dumps({"default": "ns", "images": {"ns": image}}))
    (stage1 / "stage1.json").chmod(0o644)
    (tmp_path / "blob").write_bytes(DATA)
    return Settings(
        installation=Installation(package_path="", library_paths=[], stage1_images_path=str(stage1)),
        system_config_dir=str(tmp_path / "system"),
        local_config_dir=str(tmp_path / "local"),
    )


@pytest.fixture
def blob(tmp_path: Path, settings: Settings) -> str:
    """The image."""
    return str(tmp_path / "blob")


def trust(settings: Settings, ring: KeyRing, key: Key, prefix: str | None) -> str:
    """Trust a key; returns its file."""
    return Keystore(settings).store(parse_keys(ring.export(key), what="key")[0], prefix)


def test_verdict_names_key_and_rule(settings: Settings, ring: KeyRing, alice: Key, blob: str) -> None:
    """A verified image has a verdict that today's policy accepts."""
    trust(settings, ring, alice, "example.com")
    verdict = policy.judge("example.com/app", blob, ring.sign(alice, DATA), settings)
    assert (verdict.kind, verdict.name, verdict.rule) == ("openpgp", "example.com/app", "prefix example.com")
    assert verdict.fingerprint == alice.fingerprint
    assert verdict.identities == ["Alice <alice@example.com>"]
    policy.check_verdict(verdict, settings, opted_out=False)


def test_no_signature_is_refused(settings: Settings, blob: str) -> None:
    """Without a signature and without an option nothing is accepted (SG1)."""
    with pytest.raises(CannotVerify, match=r'image "example\.com/app" has no signature') as caught:
        policy.judge("example.com/app", blob, None, settings)
    assert "--signature" in caught.value.hint


@pytest.mark.parametrize("prefix", [None, "example.com/ap", "example.com/app/sub", "example.org"])
def test_unknown_signer_is_told_what_to_type(
    settings: Settings, ring: KeyRing, alice: Key, blob: str, prefix: str | None
) -> None:
    """No key, or one for another prefix: the error chain says so and the hint is the command for this name (SG2)."""
    if prefix:
        trust(settings, ring, alice, prefix)
    with pytest.raises(CannotVerify, match=r'image "example\.com/app" verification failed') as caught:
        policy.judge("example.com/app", blob, ring.sign(alice, DATA), settings)
    assert "openpgp: signature made by unknown entity" in str(caught.value.__cause__)
    assert "rkt trust --prefix=example.com/app" in caught.value.hint
    assert caught.value.__notes__ == [
        'no key counts for "example.com/app", neither by a prefix nor as a root key'
    ]
    with pytest.raises(CannotVerify, match=r'image "example\.com/app" verification failed'):
        judging.check_signer("example.com/app", ring.sign(alice, DATA), settings)


def test_changed_image_is_a_mismatch(settings: Settings, ring: KeyRing, alice: Key, blob: str) -> None:
    """The error keeps its kind, and does not suggest to trust anybody."""
    trust(settings, ring, alice, None)
    signature = ring.sign(alice, b"Image")
    judging.check_signer("example.com/app", signature, settings)
    with pytest.raises(SignatureMismatch, match=r'image "example\.com/app" verification failed') as caught:
        policy.judge("example.com/app", blob, signature, settings)
    assert "rkt trust" not in caught.value.hint


def test_damaged_key_store_refuses(settings: Settings, ring: KeyRing, alice: Key, blob: str) -> None:
    """One bad file in the key store is an error for verification and for stored verdicts (SG6)."""
    path = trust(settings, ring, alice, None)
    verdict = policy.judge("example.com/app", blob, ring.sign(alice, DATA), settings)
    with open(os.path.join(os.path.dirname(path), "not-a-key"), "w", encoding="ascii"):
        pass
    with pytest.raises(ConfigError, match="not-a-key"):
        policy.judge("example.com/app", blob, ring.sign(alice, DATA), settings)
    with pytest.raises(ConfigError, match="not-a-key"):
        policy.check_verdict(verdict, settings, opted_out=False)


def test_removed_key_stops_the_next_start(settings: Settings, ring: KeyRing, alice: Key, blob: str) -> None:
    """The message names the rule and the key, the hint what to type; opting out remains possible (SG12)."""
    path = trust(settings, ring, alice, "example.com")
    verdict = policy.judge("example.com/app", blob, ring.sign(alice, DATA), settings)
    os.unlink(path)
    with pytest.raises(
        NotVerified, match=f'rule "prefix example.com" with key {alice.fingerprint}'
    ) as caught:
        policy.check_verdict(verdict, settings, opted_out=False)
    assert "rkt trust --prefix=example.com/app" in caught.value.hint
    assert "--insecure-options=image" in caught.value.hint
    policy.check_verdict(verdict, settings, opted_out=True)


def test_masked_key_stops_the_next_start(settings: Settings, ring: KeyRing, alice: Key, blob: str) -> None:
    """The mask is named."""
    path = trust(settings, ring, alice, None)
    verdict = policy.judge("example.com/app", blob, ring.sign(alice, DATA), settings)
    with open(path, "w", encoding="ascii"):
        pass
    with pytest.raises(NotVerified, match=f"masked by {path}"):
        policy.check_verdict(verdict, settings, opted_out=False)


def test_key_of_another_prefix_does_not_keep_a_verdict(
    settings: Settings, ring: KeyRing, alice: Key, blob: str
) -> None:
    """Moving a key to a prefix that does not cover the name ends its verdicts (SG2, SG12)."""
    path = trust(settings, ring, alice, "example.com/app")
    verdict = policy.judge("example.com/app", blob, ring.sign(alice, DATA), settings)
    os.unlink(path)
    trust(settings, ring, alice, "example.com/ap")
    with pytest.raises(NotVerified):
        policy.check_verdict(verdict, settings, opted_out=False)
    trust(settings, ring, alice, None)
    policy.check_verdict(verdict, settings, opted_out=False)


def test_unverified_image_needs_the_option_each_time(settings: Settings, blob: str) -> None:
    """An image fetched under the option is unusable without it (SG16)."""
    insecure = settings.replace(insecure=InsecureOptions.parse("image"))
    verdict = policy.judge("example.com/app", blob, None, insecure)
    assert (verdict.kind, verdict.rule) == ("insecure", "--insecure-options=image")
    with pytest.raises(NotVerified, match="never verified"):
        policy.check_verdict(verdict, settings, opted_out=False)
    policy.check_verdict(verdict, settings, opted_out=True)


@pytest.mark.parametrize("words", ["tls", "http", "ondisk", "pubkey", "all-run", "none"])
def test_other_options_do_not_switch_verification_off(settings: Settings, blob: str, words: str) -> None:
    """Options are granular (SG16)."""
    with pytest.raises(CannotVerify):
        policy.judge("example.com/app", blob, None, settings.replace(insecure=InsecureOptions.parse(words)))


def test_unknown_kind_of_verdict_is_refused(settings: Settings) -> None:
    """A word that nobody defined is no verdict."""
    verdict = Verdict(kind="trusted", name="example.com/app", rule="", checked_at=0)
    with pytest.raises(NotVerified):
        policy.check_verdict(verdict, settings, opted_out=False)


def test_builtin_image_must_be_listed(settings: Settings) -> None:
    """Name and image ID must both be those of the list, at each start."""
    verdict = policy.judge_builtin(STAGE1, IMAGE_ID, settings)
    policy.check_verdict(verdict, settings, opted_out=False)
    for name, image_id in ((STAGE1, "sha512-" + "2" * 128), ("example.com/other", IMAGE_ID), (STAGE1, "")):
        with pytest.raises(NotVerified, match="does not list it"):
            policy.judge_builtin(name, image_id, settings)
        with pytest.raises(NotVerified):
            policy.check_verdict(verdict.replace(name=name, image_id=image_id), settings, opted_out=False)


@pytest.mark.parametrize("place", ["", "stage1.json"])
@pytest.mark.parametrize("change", ["mode", "owner"])
def test_list_that_others_can_change_is_refused(settings: Settings, place: str, change: str) -> None:
    """Directory and list must be root's, or the caller's, alone."""
    verdict = policy.judge_builtin(STAGE1, IMAGE_ID, settings)
    path = os.path.join(settings.installation.stage1_images_path, place)
    if change == "mode":
        os.chmod(path, 0o777)
    elif os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    else:
        pytest.skip("giving a file away needs root")
    with pytest.raises(NotVerified, match="can be changed by others"):
        policy.check_verdict(verdict, settings, opted_out=False)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"images":[]}', '{"images":{"ns":1}}', '{"images":{},"images":{}}']
)
def test_damaged_list_is_refused(settings: Settings, content: str) -> None:
    """A list that is not understood lists nothing (SG14)."""
    with open(
        os.path.join(settings.installation.stage1_images_path, "stage1.json"), "w", encoding="ascii"
    ) as stream:
        stream.write(content)
    with pytest.raises(RktError):
        policy.judge_builtin(STAGE1, IMAGE_ID, settings)


def test_missing_list_is_refused(settings: Settings) -> None:
    """No list, no builtin image."""
    os.unlink(os.path.join(settings.installation.stage1_images_path, "stage1.json"))
    with pytest.raises(NotVerified, match="cannot read the list"):
        policy.judge_builtin(STAGE1, IMAGE_ID, settings)


def test_check_imports_little() -> None:
    """Checking a verdict is on the path of every start and imports nothing slow."""
    source = os.path.dirname(os.path.dirname(os.path.dirname(policy.__file__)))
    code = (
        f"import sys; sys.path.insert(0, {source!r})\n"
        "from rkt.trust import policy; from rkt.trust.verdict import Verdict; from rkt.errors import NotVerified\n"
        "from rkt.config.settings import Settings, Installation\n"
        "s = Settings(installation=Installation(package_path='', library_paths=[], stage1_images_path='/nonexistent'))\n"
        "for kind in ('openpgp', 'builtin', 'insecure'):\n"
        "    try: policy.check_verdict(Verdict(kind=kind, name='a.b/c', rule='', checked_at=0), s, opted_out=False)\n"
        "    except NotVerified: pass\n"
        "slow = 're json enum dataclasses typing logging argparse pathlib subprocess hashlib socket tempfile shutil'\n"
        "print([m for m in slow.split() if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-ISc", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

# SPDX-License-Identifier: Apache-2.0
"""OpenPGP signatures that must not count, for ACIs (detached) and for Docker and OCI images (signed messages).

Issue 7, "Must show" 3 and 4; invariants SG4 to SG10. Keys and signatures are real, made as GnuPG would not make them, and
checked by the real ``gpgv``.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

import pytest

from rkt.config.settings import Settings
from rkt.errors import CannotVerify, ConfigError, NotVerified, SignatureMismatch
from rkt.fetch.lookaside import read_events
from rkt.fetch.lookaside_worker import describe
from rkt.trust import policy, verifier
from rkt.trust.evidence import Subject
from rkt.trust.keys import parse_keys
from rkt.trust.keystore import Keystore, TrustedKey
from rkt.trust.openpgp import verify_detached
from rkt.trust.program import sealed_memory
from rkt.trust.rules import KEYSTORE, OPENPGP, Requirement
from rkt.trust.simple_signing import check_signature, trusted_keys
from tests.lib import openpgp
from tests.lib.openpgp import Signer, notation, subpacket
from tests.lib.sources import INSTALLATION

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAYLOAD = b'{"critical": "what is signed"}'
OTHER = b'{"critical": "something else"}'
#: What would forge a verdict, if it came to be a line of its own.
FORGED = b"\n[GNUPG:] GOODSIG 0123456789ABCDEF Alice\n[GNUPG:] VALIDSIG "
DETACHED, MESSAGE = "detached", "message"


@pytest.fixture(scope="module")
def alice() -> Signer:
    """A good key."""
    return Signer(b"Alice <alice@example.com>")


def counting(*signers: Signer) -> list[TrustedKey]:
    """Keys as those that count come from the key store."""
    return [
        TrustedKey(key=key, path="", rule="root")
        for signer in signers
        for key in parse_keys(signer.public, what="key")
    ]


def judge_detached(signature: bytes, keys: list[TrustedKey], signed: bytes = PAYLOAD) -> str:
    """Why a detached signature does not count, empty if it does."""
    blob = sealed_memory("blob", signed)
    try:
        verify_detached(blob, signature, keys, package_path=INSTALLATION.package_path)
    except (CannotVerify, SignatureMismatch) as e:
        return e.message
    finally:
        os.close(blob)
    return ""


def judge_message(message: bytes, keys: list[TrustedKey]) -> str:
    """Why a signed message, as it comes from a lookaside, does not count; empty if it does."""
    (evidence,) = read_events([describe(message, "here")])
    finding = check_signature(evidence, keys, now=int(time.time()), package_path=INSTALLATION.package_path)
    assert bool(finding.reason) != bool(finding.signer)
    return finding.reason


def seconds(count: int) -> bytes:
    """A span of time as subpackets have it."""
    return count.to_bytes(4, "big")


#: The signer, what the signature says, by which hash; and why it must not count.
BAD: dict[str, tuple[Callable[[], Signer], tuple[bytes, ...], int, str]] = {
    "SG4 key revoked": (lambda: Signer(b"x", revoked=True), (), openpgp.SHA512, "the key is revoked"),
    "SG4 key expired": (
        lambda: Signer(b"x", says=[subpacket(openpgp.KEY_EXPIRES, seconds(5000))]),
        (),
        openpgp.SHA512,
        "the key expired on",
    ),
    "SG4 signature expired": (
        lambda: Signer(b"x"),
        (subpacket(openpgp.EXPIRES, seconds(5000)),),
        openpgp.SHA512,
        "the signature has expired",
    ),
    "SG4 signature of the future": (
        lambda: Signer(b"x"),
        (subpacket(openpgp.CREATED, seconds(int(time.time()) + 90_000)),),
        openpgp.SHA512,
        "it was made in the future",
    ),
    "SG4 key not for signing": (
        lambda: Signer(b"x", says=[subpacket(openpgp.FLAGS, b"\x01")]),
        (),
        openpgp.SHA512,
        "does not count",
    ),
    "SG4 signature of an unknown critical kind": (
        lambda: Signer(b"x"),
        (subpacket(0x80 | 100, b"x"),),
        openpgp.SHA512,
        "does not",
    ),
    "SG5 digest SHA-1": (lambda: Signer(b"x"), (), openpgp.SHA1, "it is weak: hash algorithm 2"),
    "SG5 key bound by SHA-1": (
        lambda: Signer(b"x", certify_hash=openpgp.SHA1),
        (),
        openpgp.SHA512,
        "the key is weak",
    ),
}


@pytest.mark.parametrize("row", BAD)
def test_signature_that_must_not_count(row: str) -> None:
    """Revoked or expired keys, expired signatures, weak keys and digests: refused in both forms, each with its own reason."""
    make, says, digest, reason = BAD[row]
    signer = make()
    keys = counting(signer)
    assert reason in judge_detached(signer.sign(PAYLOAD, *says, digest=digest), keys)
    assert reason in judge_message(signer.message(PAYLOAD, *says, digest=digest), keys)


def test_good_signature_counts_in_both_forms(alice: Signer) -> None:
    """What the rows above are measured by: the same key and bytes, without what is wrong there."""
    assert judge_detached(alice.sign(PAYLOAD), counting(alice)) == ""
    assert judge_message(alice.message(PAYLOAD), counting(alice)) == ""
    assert judge_message(openpgp.compressed(alice.message(PAYLOAD)), counting(alice)) == ""


def armoured(data: bytes, label: bytes) -> bytes:
    """As text."""
    from rkt.trust.packets import armour

    return armour(data, label)


CLEAR = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n" + PAYLOAD + b"\n"


def test_one_form_is_not_taken_for_the_other(alice: Signer) -> None:
    """Clear-signed and inline where a detached signature is asked for, and clear-signed, armoured and detached where a message is (SG8)."""
    keys = counting(alice)
    signature, message = alice.sign(PAYLOAD), alice.message(PAYLOAD)
    clear = CLEAR + armoured(signature, b"SIGNATURE")
    no_file = "keystore: no valid signatures found in signature file"
    for data in (
        message,
        openpgp.compressed(message),
        armoured(message, b"MESSAGE"),
        clear,
        signature + message,
    ):
        assert no_file in judge_detached(data, keys)
    for data, reason in (
        (clear, "it is a clear-signed text"),
        (armoured(message, b"MESSAGE"), "it is armoured"),
        (signature, "it is a detached signature"),
        (openpgp.literal(PAYLOAD), "nothing signs what is in it"),
        (message + message, "it is not one signed message"),
        (openpgp.compressed(message) + message, "it is followed by"),
        (b"", "it is empty"),
    ):
        assert reason in judge_message(data, keys)


def test_wrong_signature_refuses_beside_a_good_one(alice: Signer) -> None:
    """Two signatures by keys that count, of which one is bad, refuse in either order; of a message there is only one (SG4, SG8)."""
    bob, eve = Signer(b"Bob"), Signer(b"Eve")
    keys = counting(alice, bob)
    good, bad = alice.sign(PAYLOAD), bob.sign(OTHER)
    for signatures in (good + bad, bad + good):
        assert "does not fit" in judge_detached(signatures, keys)
    assert judge_detached(eve.sign(OTHER) + good, keys) == ""
    message = alice.message(PAYLOAD)
    assert "it has 2 signatures" in judge_message(message + bob.sign(PAYLOAD), keys)
    # Of another text, put into the message in place of its own.
    swapped = message.removesuffix(alice.sign(PAYLOAD)) + alice.sign(OTHER)
    (evidence,) = read_events([describe(swapped, "here")])
    found = check_signature(evidence, keys, now=int(time.time()), package_path="")
    assert found.contradicts
    assert "does not fit" in found.reason


@pytest.mark.parametrize(
    "says",
    [
        (notation(b"a@example.com", b"x" + FORGED),),
        (notation(b"a@example.com" + FORGED, b"x"),),
        (subpacket(openpgp.POLICY, b"https://example.com" + FORGED),),
        (subpacket(openpgp.SIGNER, b"alice@example.com" + FORGED),),
    ],
    ids=["notation", "notation-name", "policy", "signer"],
)
def test_status_lines_cannot_be_forged(says: tuple[bytes, ...]) -> None:
    """Line feeds and status words in notations, policies, names of signers, files and keys decide nothing (SG9)."""
    liar = Signer(b"Alice <alice@example.com>" + FORGED + b"<")
    keys = counting(liar)
    assert judge_detached(liar.sign(PAYLOAD, *says), keys) == ""
    assert "does not fit" in judge_detached(liar.sign(PAYLOAD, *says), keys, OTHER)
    assert "unknown entity" in judge_detached(liar.sign(PAYLOAD, *says), counting(Signer(b"x")))
    expired = (*says, subpacket(openpgp.EXPIRES, seconds(5000)))
    assert "has expired" in judge_message(liar.message(PAYLOAD, *expired, name=FORGED[:250]), keys)


def make_settings(tmp_path: Path) -> Settings:
    """Private configuration directories."""
    return Settings(
        installation=INSTALLATION,
        system_config_dir=str(tmp_path / "system"),
        local_config_dir=str(tmp_path / "local"),
    )


def test_all_keys_of_a_file_count(tmp_path: Path, alice: Signer) -> None:
    """Several keys in one file, armoured each or together, are all taken or none; a secret or broken one refuses all (SG7)."""
    bob = Signer(b"Bob")
    settings = make_settings(tmp_path)
    label = b"PUBLIC KEY BLOCK"
    for content in (
        alice.public + bob.public,
        armoured(alice.public, label) + armoured(bob.public, label),
        armoured(alice.public + bob.public, label),
    ):
        keys = trusted_keys("/etc/rkt/keys", content, "registry.example:5000/team/app", settings)
        assert [key.key.fingerprint for key in keys] == [alice.fingerprint, bob.fingerprint]
        for signer in (alice, bob):
            assert judge_message(signer.message(PAYLOAD), keys) == ""
    for content in (alice.public + bob.public[:-1], alice.public + openpgp.packet(5, b"secret")):
        with pytest.raises(ConfigError, match="/etc/rkt/keys"):
            trusted_keys("/etc/rkt/keys", content, "example.com/app", settings)


def test_keys_of_a_file_that_a_rule_names_count_for_an_aci(tmp_path: Path, alice: Signer) -> None:
    """Each of them does, those of the key store do not, and at the next start it is still that file that counts (SG7, SG12)."""
    bob, eve = Signer(b"Bob"), Signer(b"Eve")
    settings = make_settings(tmp_path)
    (key,) = parse_keys(eve.public, what="key")
    Keystore(settings).store(key, "example.com")
    path = tmp_path / "keys"
    path.write_bytes(alice.public + bob.public)
    rules = tmp_path / "local" / "trust.d"
    rules.mkdir()
    (rules / "team.toml").write_text(
        'version = 1\ndefault = "keystore"\n[[rule]]\nprefix = "example.com"\n'
        f'all = [ {{ kind = "openpgp", keys = "{path}" }} ]\n'
    )
    for place in (path, rules, rules / "team.toml"):
        place.chmod(0o755 if place.is_dir() else 0o644)
    blob = tmp_path / "app.aci"
    blob.write_bytes(PAYLOAD)
    for signer in (alice, bob):
        verdict = policy.judge("example.com/app", str(blob), signer.sign(PAYLOAD), settings)
        assert [fact.signer for fact in verdict.facts] == [signer.fingerprint]
        policy.check_verdict(verdict, settings, opted_out=False)
    with pytest.raises(CannotVerify) as caught:
        policy.judge("example.com/app", str(blob), eve.sign(PAYLOAD), settings)
    assert "unknown entity" in "".join(caught.value.__notes__)
    path.write_bytes(alice.public)
    with pytest.raises(NotVerified):
        policy.check_verdict(verdict, settings, opted_out=False)


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\x99", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n"]
)
def test_ring_without_keys_refuses(tmp_path: Path, content: bytes) -> None:
    """An empty or unreadable ring is an error that names the file, never one that asks for nothing (SG6)."""
    settings = make_settings(tmp_path)
    with pytest.raises(ConfigError, match="/etc/rkt/keys"):
        trusted_keys("/etc/rkt/keys", content, "example.com/app", settings)
    place = tmp_path / "local" / "trustedkeys" / "prefix.d" / "registry.example:5000"
    place.mkdir(parents=True)
    (place / ("a" * 40)).write_bytes(content)
    name = "registry.example:5000/team/app"
    if content:
        with pytest.raises(ConfigError, match=re.escape(str(place))):
            Keystore(settings).load(name)
    else:
        # An empty file masks a key.
        assert Keystore(settings).load(name) == []
    assert "unknown entity" in judge_message(Signer(b"x").message(PAYLOAD), [])


def test_payload_is_not_read_before_its_signature_is_good(
    tmp_path: Path, alice: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is signed by nobody who counts, or was changed, is not even given to whoever would read it (SG10)."""

    def read(*_: object, **__: object) -> None:
        raise AssertionError("rkt-verify was started")

    monkeypatch.setattr("rkt.trust.verifier.run_worker", read)
    settings = make_settings(tmp_path)
    (key,) = parse_keys(alice.public, what="key")
    Keystore(settings).store(key, "registry.example:5000")
    name = "registry.example:5000/team/app"
    subject = Subject(name=name, reference=f"{name}:1", digests=[f"sha256:{'a' * 64}"])
    changed = alice.message(PAYLOAD).replace(b"what", b"that")
    messages = [*(Signer(b"x").message(data) for data in (b"{" * 1000, b"\xff\xfe", PAYLOAD)), changed]
    evidence = read_events([describe(message, "here") for message in messages])
    requirements = [Requirement(kind=OPENPGP, keys=KEYSTORE)]
    findings = verifier.verify(evidence, requirements, subject, settings)
    assert ["made by unknown entity" in finding.reason for finding in findings] == [True, True, True, False]
    assert [finding.contradicts for finding in findings] == [False, False, False, True]

# SPDX-License-Identifier: Apache-2.0
"""How rules decide about what was fetched, and about what was verified earlier when they change."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from rkt.config.settings import InsecureOptions, Installation, Settings
from rkt.errors import CannotVerify, ConfigError, NotVerified, SignatureMismatch
from rkt.trust import judging, policy
from rkt.trust.evidence import Evidence, Finding, Subject
from rkt.trust.judging import Asked, trust_command
from rkt.trust.keys import parse_keys
from rkt.trust.keystore import Keystore
from rkt.trust.verdict import Verdict, told
from tests.lib.keys import Key, KeyRing
from tests.lib.pace import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rkt.trust.rules import Requirement

    Answer = Callable[[list[Requirement]], list[Finding]]

NAME = "registry.example/team/app"
DIGEST = "sha256:" + "1" * 64
SUBJECT = Subject(name=NAME, reference=f"{NAME}:1", digests=[DIGEST])
HEAD = 'version = 1\ndefault = "keystore"\n'
COSIGN = '{ kind = "cosign", key = "%s" }'
DATA = b"image"


class Site:
    """Configuration of its own; what a verifier would say is said by ``findings``."""

    def __init__(self, base: Path) -> None:
        self.base = str(base)
        self.settings = Settings(
            installation=Installation(package_path="", library_paths=[], stage1_images_path=""),
            data_dir=f"{base}/data",
            system_config_dir=f"{base}/system",
            local_config_dir=f"{base}/local",
        )
        self.keys = [self.key("a"), self.key("b")]
        self.findings: list[Finding] = []
        self.collected: list[list[Requirement]] = []

    def key(self, name: str, content: str = "") -> str:
        """A key file."""
        path = f"{self.base}/{name}.pub"
        with open(path, "w", encoding="ascii") as stream:
            stream.write(content or f"key {name}\n")
        os.chmod(path, 0o644)
        return path

    def rule(
        self,
        what: str,
        *,
        prefix: str = "registry.example/team",
        word: str = "all",
        name: str = "team",
        rest: str = "",
    ) -> str:
        """Write a file with one rule; returns its path."""
        os.makedirs(f"{self.base}/local/trust.d", exist_ok=True)
        path = f"{self.base}/local/trust.d/{name}.toml"
        with open(path, "w", encoding="ascii") as stream:
            stream.write(f'{HEAD}[[rule]]\nprefix = "{prefix}"\n{word} = [ {what} ]\n{rest}')
        os.chmod(path, 0o644)
        return path

    def collect(self, requirements: list[Requirement]) -> list[Evidence]:
        """Evidence is what the verifier makes of it."""
        self.collected.append(requirements)
        return [Evidence(kind="bundle", source="here", data=b"")]

    def judge(self, subject: Subject = SUBJECT) -> Verdict:
        """Judge an image of a registry."""
        return policy.judge_oci(subject, self.collect, self.settings)

    def check(self, verdict: Verdict) -> None:
        """Start."""
        policy.check_verdict(verdict, self.settings, opted_out=False)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Configuration of its own."""
    made = Site(tmp_path)
    monkeypatch.setattr("rkt.trust.verifier.verify", lambda *_: made.findings)
    return made


def good(number: int = 0, signer: str = "sha256:a", signed_at: int = 0) -> Finding:
    """What a verifier says of a good signature."""
    return Finding(requirement=number, source="referrer x", signer=signer, digest=DIGEST, signed_at=signed_at)


def bad(number: int = 0, reason: str = "made by another key", *, contradicts: bool = False) -> Finding:
    """What a verifier says of one that is not."""
    return Finding(requirement=number, source="referrer y", reason=reason, contradicts=contradicts)


def notes(error: BaseException) -> str:
    """The lines below an error."""
    return "\n".join(getattr(error, "__notes__", ()))


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("registry.example/team/app", "rkt trust --prefix=registry.example/team --cosign-key=FILE"),
        ("registry.example/team/sub/app", "rkt trust --prefix=registry.example/team/sub --cosign-key=FILE"),
        ("registry.example:5000/app", "rkt trust --prefix=registry.example:5000/app --cosign-key=FILE"),
        ("registry-1.docker.io/library/busybox", "rkt trust --prefix=docker.io/library --cosign-key=FILE"),
    ],
)
def test_an_image_that_nobody_is_trusted_for_is_refused_with_the_command(
    site: Site, name: str, command: str
) -> None:
    """By default, before anything is asked of a server: the command trusts the namespace, not the registry (SG1)."""
    assert trust_command(name) == command
    with pytest.raises(CannotVerify, match="verification failed") as caught:
        Asked(name, site.settings, is_oci=True).check_possible()
    assert command in caught.value.hint
    assert "--insecure-options=image" in caught.value.hint
    with pytest.raises(CannotVerify, match="verification failed"):
        site.judge(SUBJECT.replace(name=name))
    assert site.collected == []


def test_nothing_is_asked_for_when_it_is_switched_off(site: Site) -> None:
    """The option is recorded as the reason, and the store's name is without the registry's port (SG16)."""
    settings = site.settings.replace(insecure=InsecureOptions.parse("image"))
    subject = SUBJECT.replace(name="registry.example:5000/app")
    verdict = policy.judge_oci(subject, site.collect, settings)
    assert (verdict.kind, verdict.name) == ("insecure", "registry.example_5000/app")
    assert site.collected == []
    assert "disabled" in told(verdict)


def test_what_a_rule_asks_for_is_recorded_with_who_signed(site: Site) -> None:
    """The verdict has the name with its port, the rule with its file, and what was asked for and found."""
    path = site.rule(COSIGN % site.keys[0], prefix="registry.example:5000")
    site.findings = [bad(), good(signed_at=5), good(signed_at=7)]
    verdict = site.judge(SUBJECT.replace(name="registry.example:5000/app"))
    assert (verdict.kind, verdict.subject, verdict.name) == (
        "policy",
        "registry.example:5000/app",
        "registry.example_5000/app",
    )
    assert verdict.rule == f"the rule for registry.example:5000 ({path})"
    (fact,) = verdict.facts
    assert (fact.kind, fact.signer, fact.source, fact.signed_at) == ("cosign", "sha256:a", "referrer x", 7)
    assert fact.requirement.startswith("cosign:sha256:")
    assert verdict.signed_at == 7
    assert "cosign sha256:a (referrer x)" in told(verdict)
    site.check(verdict)
    assert [[each.kind for each in asked] for asked in site.collected] == [["cosign"]]


@pytest.mark.parametrize(
    ("word", "findings", "holds"),
    [
        ("all", [good(0), good(1)], True),
        ("all", [good(0)], False),
        ("all", [good(0), bad(1)], False),
        ("any", [good(1)], True),
        ("any", [bad(0), good(1)], True),
        ("any", [bad(0), bad(1)], False),
        ("any", [], False),
        ("all", [], False),
    ],
)
def test_all_means_each_and_any_means_one(
    site: Site, word: str, findings: list[Finding], *, holds: bool
) -> None:
    """Every requirement that is not met is named with the reason, and what was met at a fetch holds at a start."""
    site.rule(", ".join(COSIGN % key for key in site.keys), word=word)
    site.findings = findings
    if holds:
        site.check(site.judge())
        return
    with pytest.raises(CannotVerify, match=f'image "{NAME}" verification failed') as caught:
        site.judge()
    for number, key in enumerate(site.keys):
        if not any(each.requirement == number and not each.reason for each in findings):
            assert f"a cosign signature by {key}" in notes(caught.value)
    if any(each.reason for each in findings):
        assert "referrer y: made by another key" in notes(caught.value)


def test_a_wrong_signature_by_the_right_key_refuses_whatever_else_there_is(site: Site) -> None:
    """One good and one wrong signature by a key that is asked for: refused, as a mismatch (as for OpenPGP)."""
    site.rule(COSIGN % site.keys[0])
    site.findings = [good(), bad(reason="the signature is for another digest", contradicts=True)]
    with pytest.raises(SignatureMismatch) as caught:
        site.judge()
    assert "the signature is for another digest" in notes(caught.value)


def test_a_finding_about_another_digest_vouches_for_nothing(site: Site) -> None:
    """Root compares what the worker says with the digests that it computed itself (SG3)."""
    site.rule(COSIGN % site.keys[0])
    site.findings = [good().replace(digest="sha256:" + "2" * 64), good(signer="")]
    with pytest.raises(CannotVerify) as caught:
        site.judge()
    assert "it is of another image" in notes(caught.value)


def test_the_signature_may_be_of_the_index(site: Site) -> None:
    """Either of the two digests that a reference led to may be signed."""
    site.rule(COSIGN % site.keys[0])
    index = "sha256:" + "3" * 64
    site.findings = [good().replace(digest=index)]
    assert site.judge(SUBJECT.replace(digests=[DIGEST, index])).facts


def test_several_rules_with_one_prefix_must_all_be_met(site: Site) -> None:
    """Two files about one prefix ask for both; a longer prefix elsewhere takes nothing from them."""
    site.rule(COSIGN % site.keys[0])
    site.rule(COSIGN % site.keys[1], name="other")
    site.rule('{ kind = "unsigned" }', name="third", prefix="registry.example/team/other")
    site.findings = [good(0)]
    with pytest.raises(CannotVerify):
        site.judge()
    site.findings = [good(0), good(1)]
    verdict = site.judge()
    assert len(verdict.facts) == 2
    assert verdict.rule.count("the rule for") == 2


def test_what_can_never_be_met_costs_no_request(site: Site) -> None:
    """A key file that is missing refuses at once and is named; with any, the other one may do (SG6)."""
    os.unlink(site.keys[0])
    site.rule(", ".join(COSIGN % key for key in site.keys))
    with pytest.raises(CannotVerify) as caught:
        Asked(NAME, site.settings, is_oci=True).check_possible()
    assert f"{site.keys[0]}" in notes(caught.value)
    assert "No such file" in notes(caught.value)
    site.rule(", ".join(COSIGN % key for key in site.keys), word="any")
    Asked(NAME, site.settings, is_oci=True).check_possible()
    site.findings = [good(0)]
    assert len(site.judge().facts) == 1
    assert [[each.key for each in asked] for asked in site.collected] == [[site.keys[1]]]


def test_an_identity_without_the_library_costs_no_request(site: Site) -> None:
    """Where identities cannot be verified, a rule that needs one refuses at once, with the command that brings the library."""
    asked = f'{{ kind = "keyless", identity = "i", issuer = "https://u", root = "{site.keys[0]}" }}'
    site.rule(asked)
    with pytest.raises(CannotVerify) as caught:
        site.judge()
    assert "make install EXTRAS=keyless" in notes(caught.value)
    assert site.collected == []
    site.rule(f"{asked}, {COSIGN % site.keys[1]}", word="any")
    site.findings = [good(1)]
    assert len(site.judge().facts) == 1


def test_a_policy_that_refuses_the_rest_does(site: Site) -> None:
    """``default = "refuse"``: what no rule covers is refused even with a key that counts, at a fetch and at a start."""
    path = site.rule(COSIGN % site.keys[0])
    site.findings = [good()]
    verdict = site.judge()
    with open(path, encoding="ascii") as stream:
        text = (
            stream.read().replace('"keystore"', '"refuse"').replace("registry.example/team", "other.example")
        )
    with open(path, "w", encoding="ascii") as stream:
        stream.write(text)
    with pytest.raises(CannotVerify) as caught:
        site.judge()
    assert f"{path} refuses the rest" in notes(caught.value)
    with pytest.raises(CannotVerify, match="verification failed") as caught:
        policy.judge("example.org/app", "/nonexistent", None, site.settings)
    assert "rkt trust --prefix=example.org/app" in caught.value.hint
    with pytest.raises(NotVerified, match="refuses the rest"):
        site.check(verdict)


def test_rules_that_change_while_an_image_is_judged_refuse_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is recorded as met is what was verified, never a key that took its place meanwhile."""
    site.rule(COSIGN % site.keys[0])

    def verify(*_: object) -> list[Finding]:
        site.key("a", "another key")
        return [good()]

    monkeypatch.setattr("rkt.trust.verifier.verify", verify)
    with pytest.raises(CannotVerify, match="changed meanwhile"):
        site.judge()


def test_an_unsigned_image_passes_only_where_a_rule_says_so_and_loudly(site: Site) -> None:
    """It is told, recorded, and ends with the rule (SG1, SG16)."""
    path = site.rule('{ kind = "unsigned" }')
    verdict = site.judge()
    assert site.collected == []
    assert verdict.is_unsigned
    assert (
        told(verdict)
        == f'warning: nobody signed image "{NAME}", the rule for registry.example/team ({path}) lets it pass'
    )
    site.check(verdict)
    site.rule(COSIGN % site.keys[0])
    with pytest.raises(NotVerified, match="the image was accepted without a signature"):
        site.check(verdict)
    os.unlink(path)
    with pytest.raises(NotVerified, match="of which nothing is left"):
        site.check(verdict)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("other key", "the image was accepted by cosign sha256:a"),
        ("key gone", "No such file"),
        ("key empty", "is empty"),
        ("one more", "a cosign signature by"),
        ("other kind", "the image was accepted by cosign sha256:a"),
        ("longer prefix", "the image was accepted by cosign sha256:a"),
        ("no rule", "of which nothing is left"),
        ("keystore", "the image was accepted by cosign sha256:a"),
    ],
)
def test_a_rule_that_asks_for_more_stops_the_next_start(site: Site, change: str, text: str) -> None:
    """Another or no key, one more requirement, a stricter rule for a longer prefix: refused without network (SG12)."""
    path = site.rule(COSIGN % site.keys[0])
    site.findings = [good()]
    verdict = site.judge()
    site.check(verdict)
    if change == "other key":
        site.key("a", "another key")
    elif change == "key gone":
        os.unlink(site.keys[0])
    elif change == "key empty":
        site.key("a", "\n")
    elif change == "one more":
        site.rule(", ".join(COSIGN % key for key in site.keys))
    elif change == "other kind":
        site.rule(COSIGN.replace("cosign", 'slsa", builder = "b') % site.keys[0])
    elif change == "longer prefix":
        site.rule(COSIGN % site.keys[1], prefix=NAME, name="strict")
    elif change == "no rule":
        os.unlink(path)
    else:
        site.rule('{ kind = "openpgp", keys = "keystore" }')
    with pytest.raises(NotVerified, match=f'image "{NAME}" is no longer trusted') as caught:
        site.check(verdict)
    assert text in caught.value.message
    assert f"rkt fetch docker://{NAME}:TAG" in caught.value.hint
    policy.check_verdict(verdict, site.settings, opted_out=True)


@pytest.mark.parametrize("rules", [1, 20])
def test_a_start_asks_the_rules_in_about_a_millisecond(
    site: Site, monkeypatch: pytest.MonkeyPatch, rules: int
) -> None:
    """Issue 7, 1: with the record of the policy in place, however a rule decides; without a policy it is a tenth of that."""
    for number in range(rules):
        site.rule(COSIGN % site.keys[0], prefix=f"other{number}.example", name=f"x{number}")
    site.rule(COSIGN % site.keys[0])
    site.findings = [good()]
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**10)
    os.mkdir(site.settings.data_dir)
    verdict = site.judge()

    def milliseconds() -> float:
        start = time.process_time_ns()
        try:
            site.check(verdict)
        except NotVerified:
            pass
        return (time.process_time_ns() - start) / 10**6

    # Measured: 0.1 with one rule, 0.5 with twenty.
    assert min(milliseconds() for _ in range(20)) < 2 * SLOWNESS
    site.key("a", "another key")
    with pytest.raises(NotVerified):
        site.check(verdict)
    assert min(milliseconds() for _ in range(20)) < 2 * SLOWNESS


@pytest.mark.parametrize("change", ["one less", "any", "moved", "unsigned"])
def test_a_rule_that_asks_for_less_stops_nothing(site: Site, change: str) -> None:
    """What was found still meets a rule that asks for a part of it, or names the same key elsewhere."""
    site.rule(", ".join(COSIGN % key for key in site.keys))
    site.findings = [good(0), good(1)]
    verdict = site.judge()
    if change == "one less":
        site.rule(COSIGN % site.keys[1])
    elif change == "any":
        site.rule(", ".join(COSIGN % key for key in site.keys), word="any")
    elif change == "moved":
        site.rule(COSIGN % site.key("elsewhere", "key a\n"))
    else:
        site.rule('{ kind = "unsigned" }')
    site.check(verdict)


def test_a_policy_that_is_not_understood_stops_every_start(site: Site) -> None:
    """One unknown member anywhere, and nothing that was verified may start (SG14)."""
    site.rule(COSIGN % site.keys[0])
    site.findings = [good()]
    verdict = site.judge()
    site.rule(COSIGN % site.keys[0], name="typo", prefix="other.example", rest="rolback = 'warn'\n")
    with pytest.raises(ConfigError, match="rolback"):
        site.check(verdict)
    with pytest.raises(ConfigError, match="rolback"):
        site.judge()


@pytest.fixture(scope="module")
def ring() -> Iterator[KeyRing]:
    """A key ring for the module."""
    with KeyRing() as made:
        yield made


@pytest.fixture(scope="module")
def alice(ring: KeyRing) -> Key:
    """A good key."""
    return ring.make("Alice <alice@example.com>")


def test_acis_have_rules_too(site: Site, ring: KeyRing, alice: Key, tmp_path: Path) -> None:
    """A rule with a file of OpenPGP keys asks for a detached signature by one of them; its end is the verdict's."""
    blob = tmp_path / "blob"
    blob.write_bytes(DATA)
    keys = f"{site.base}/alice.asc"
    with open(keys, "wb") as stream:
        stream.write(ring.export(alice))
    os.chmod(keys, 0o644)
    site.rule(f'{{ kind = "openpgp", keys = "{keys}" }}', prefix="example.com")
    with pytest.raises(CannotVerify) as caught:
        policy.judge("example.com/app", str(blob), None, site.settings)
    assert "there is no signature beside the image" in notes(caught.value)
    with pytest.raises(SignatureMismatch):
        policy.judge("example.com/app", str(blob), ring.sign(alice, b"other"), site.settings)
    signature = ring.sign(alice, DATA)
    judging.check_signer("example.com/app", signature, site.settings)
    verdict = policy.judge("example.com/app", str(blob), signature, site.settings)
    assert (verdict.kind, verdict.facts[0].signer) == ("policy", alice.fingerprint)
    site.check(verdict)
    # Elsewhere the key store decides, where nobody is.
    with pytest.raises(CannotVerify, match=r'image "example\.org/app" verification failed'):
        policy.judge("example.org/app", str(blob), signature, site.settings)
    site.key("alice", "other\n")
    os.rename(f"{site.base}/alice.pub", keys)
    with pytest.raises(NotVerified, match="no longer trusted"):
        site.check(verdict)


def test_a_key_of_the_key_store_may_be_asked_for_by_a_rule(
    site: Site, ring: KeyRing, alice: Key, tmp_path: Path
) -> None:
    """It must count at each start, and what the key store accepted before there was a rule meets it, too (SG12)."""
    blob = tmp_path / "blob"
    blob.write_bytes(DATA)
    file = Keystore(site.settings).store(parse_keys(ring.export(alice), what="key")[0], "example.com")
    before = policy.judge("example.com/app", str(blob), ring.sign(alice, DATA), site.settings)
    assert before.kind == "openpgp"
    path = site.rule('{ kind = "openpgp", keys = "keystore" }', prefix="example.com")
    site.check(before)
    verdict = policy.judge("example.com/app", str(blob), ring.sign(alice, DATA), site.settings)
    assert verdict.kind == "policy"
    site.check(verdict)
    os.unlink(path)
    site.check(verdict)
    os.unlink(file)
    for each in (before, verdict):
        with pytest.raises(NotVerified, match="no rule counts that key today"):
            site.check(each)
    site.rule('{ kind = "openpgp", keys = "keystore" }', prefix="example.com")
    with pytest.raises(NotVerified, match="no rule counts that key today"):
        site.check(verdict)


def test_an_aci_has_no_other_signatures(site: Site, ring: KeyRing, alice: Key) -> None:
    """A rule that asks for what only Docker and OCI images have says so; one that asks for nothing lets an ACI pass."""
    site.rule(COSIGN % site.keys[0], prefix="example.com")
    with pytest.raises(CannotVerify) as caught:
        policy.judge("example.com/app", "/nonexistent", ring.sign(alice, DATA), site.settings)
    assert "an ACI has no such signature" in notes(caught.value)
    assert not judging.may_be_unsigned("example.com/app", site.settings)
    assert not judging.may_be_unsigned(None, site.settings)
    site.rule('{ kind = "unsigned" }', prefix="example.com")
    assert judging.may_be_unsigned("example.com/app", site.settings)
    assert not judging.may_be_unsigned("example.org/app", site.settings)
    assert judging.may_be_unsigned(None, site.settings)
    verdict = policy.judge("example.com/app", "/nonexistent", None, site.settings)
    assert verdict.is_unsigned
    site.check(verdict)


def test_a_verdict_is_about_the_name_it_was_reached_for() -> None:
    """An image of two names is judged for each: the rules for one say nothing of the other (SG2, SG12)."""
    verdict = Verdict(kind="policy", name=NAME, rule="", checked_at=0, subject=NAME)
    assert policy.is_about(verdict, f"docker://{NAME}:1")
    assert policy.is_about(verdict, f"docker://{NAME}@{DIGEST}?platform=linux/arm64")
    assert not policy.is_about(verdict, f"docker://{NAME}le:1")
    assert not policy.is_about(verdict, f"docker://{NAME}/part:1")
    assert not policy.is_about(verdict, "docker://registry.example/team:1")
    assert policy.is_about(verdict.replace(kind="insecure", subject=""), "docker://other.example/x:1")

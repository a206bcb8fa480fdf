# SPDX-License-Identifier: Apache-2.0
"""The JSON form of verdicts."""

from __future__ import annotations

import os
from typing import Any

import pytest

from rkt.errors import DamagedRecord
from rkt.schema.envelope import open_sealed, seal
from rkt.trust.verdict import Fact, Verdict

SAMPLE = os.path.join(os.path.dirname(__file__), "..", "..", "data", "formats", "1", "trust", "verdict")
FULL = Verdict(
    kind="openpgp",
    name="example.com/app",
    rule="prefix example.com",
    checked_at=2,
    fingerprint="a" * 40,
    identities=["A <a@example.com>"],
    signed_at=1,
)
POLICY = Verdict(
    kind="policy",
    name="registry.example_5000/team/app",
    rule="rule for registry.example:5000/team in /etc/rkt/trust.d/team.toml",
    checked_at=4,
    signed_at=3,
    subject="registry.example:5000/team/app",
    facts=[
        Fact(
            requirement="cosign:sha256:1",
            kind="cosign",
            signer="sha256:2",
            source="tag sha256-3.sig",
            signed_at=3,
        ),
        Fact(requirement="unsigned", kind="unsigned"),
    ],
)


@pytest.mark.parametrize(
    "verdict",
    [FULL, POLICY, Verdict(kind="insecure", name="a", rule="--insecure-options=image", checked_at=3)],
)
def test_round_trip(verdict: Verdict) -> None:
    """What is written is what is read."""
    assert Verdict.from_json(verdict.to_json(), what="record") == verdict


def test_members_are_spelled_as_the_format_says() -> None:
    """Names of members are those of docs/on-disk-format.md; defaults are left out."""
    assert set(FULL.to_json()) == {
        "kind",
        "name",
        "rule",
        "checkedAt",
        "fingerprint",
        "identities",
        "signedAt",
    }
    builtin = Verdict(kind="builtin", name="a", rule="", checked_at=0, image_id="sha512-1")
    assert set(builtin.to_json()) == {"kind", "name", "rule", "checkedAt", "imageID"}
    assert set(POLICY.to_json()) == {"kind", "name", "rule", "checkedAt", "signedAt", "subject", "facts"}
    assert set(POLICY.to_json()["facts"][1]) == {"requirement", "kind", "signer", "source", "signedAt"}


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "trusted"},
        {"kind": None},
        {"checkedAt": "2"},
        {"checkedAt": True},
        {"identities": [1]},
        {"identities": "x"},
        {"unknown": "x"},
        {"name": None},
    ],
)
def test_anything_unexpected_is_damage(change: dict[str, Any]) -> None:
    """A verdict that is not understood in full is none (SG14)."""
    with pytest.raises(DamagedRecord):
        Verdict.from_json({**FULL.to_json(), **change}, what="record")


def test_the_form_on_disk() -> None:
    """A verdict by policy of version 1 is read as it was meant, and written again as it was."""
    with open(SAMPLE, "rb") as stream:
        sample = stream.read()
    version, body = open_sealed(sample, "rkt.verdict", "sample")
    verdict = Verdict.from_json(body, what="sample")
    assert [(fact.kind, fact.signer) for fact in verdict.facts] == [
        ("cosign", "sha256:" + "2" * 64),
        ("keyless", "me@example.com (https://issuer.example)"),
    ]
    assert verdict.subject == "registry.example:5000/team/app"
    assert seal("rkt.verdict", version, verdict.to_json()) == sample


FACT = POLICY.facts[0].to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "openpgp"},
        {"facts": []},
        {"facts": {}},
        {"facts": ["cosign"]},
        {"facts": [{**FACT, "unknown": ""}]},
        {"facts": [{**FACT, "signedAt": True}]},
        {"facts": [{**FACT, "signer": None}]},
        {"facts": [{"requirement": "unsigned", "kind": "unsigned"}]},
        {"subject": ""},
        {"subject": 1},
    ],
)
def test_a_verdict_by_policy_is_understood_in_full(change: dict[str, Any]) -> None:
    """Facts that are not whole are none, and only a verdict by policy has any (SG14)."""
    with pytest.raises(DamagedRecord):
        Verdict.from_json({**POLICY.to_json(), **change}, what="record")


def test_what_nobody_vouches_for_is_told_apart() -> None:
    """A verdict with one signer is a signed one, whatever else a rule let pass."""
    assert not POLICY.is_unsigned
    assert POLICY.replace(facts=POLICY.facts[1:]).is_unsigned
    assert not FULL.is_unsigned


@pytest.mark.parametrize("member", ["kind", "name", "rule", "checkedAt"])
def test_missing_member_is_damage(member: str) -> None:
    """Required members are required."""
    value = FULL.to_json()
    del value[member]
    with pytest.raises(DamagedRecord):
        Verdict.from_json(value, what="record")


def test_other_json_is_damage() -> None:
    """A verdict is an object."""
    values: tuple[Any, ...] = (None, [], "good", True)
    for value in values:
        with pytest.raises(DamagedRecord):
            Verdict.from_json(value, what="record")

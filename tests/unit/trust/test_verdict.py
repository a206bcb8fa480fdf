# SPDX-License-Identifier: Apache-2.0
"""The JSON form of verdicts."""

from __future__ import annotations

from typing import Any

import pytest

from rkt.errors import DamagedRecord
from rkt.trust.verdict import Verdict

FULL = Verdict(
    kind="openpgp",
    name="example.com/app",
    rule="prefix example.com",
    checked_at=2,
    fingerprint="a" * 40,
    identities=["A <a@example.com>"],
    signed_at=1,
)


@pytest.mark.parametrize(
    "verdict", [FULL, Verdict(kind="insecure", name="a", rule="--insecure-options=image", checked_at=3)]
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

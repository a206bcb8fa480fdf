# SPDX-License-Identifier: Apache-2.0
"""What a signed payload must say to be about an image (containers-signature(5); invariants SG3, SG14)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rkt.trust.evidence import SIMPLE_SIGNING, Evidence, Finding, Subject
from rkt.trust.verify_simple_signing import verify

DIGEST = f"sha256:{'a' * 64}"
INDEX = f"sha256:{'b' * 64}"
OTHER = f"sha256:{'c' * 64}"
NAME = "registry.example:5000/team/app:1.0"


def payload(**changes: Any) -> dict[str, Any]:
    """One that is right, with other members of ``critical``."""
    critical = {
        "type": "atomic container signature",
        "image": {"docker-manifest-digest": DIGEST},
        "identity": {"docker-reference": NAME},
        **changes,
    }
    return {"critical": critical, "optional": {"creator": "somebody 1.0", "timestamp": 1_483_228_800}}


def look(data: bytes | dict[str, Any], reference: str = NAME) -> Finding:
    """What is found in a payload, for an image that was chosen from an index."""
    if isinstance(data, dict):
        data = json.dumps(data).encode()
    evidence = Evidence(kind=SIMPLE_SIGNING, source="here", data=data)
    subject = Subject(name=reference.partition("@")[0], reference=reference, digests=[DIGEST, INDEX])
    return verify({}, {}, evidence, subject, 0)


@pytest.mark.parametrize("digest", [DIGEST, INDEX])
def test_payload_about_the_image_vouches(digest: str) -> None:
    """It names the manifest, or the index that this was chosen from, and the name that was asked for."""
    found = look(payload(image={"docker-manifest-digest": digest}))
    assert found == Finding(requirement=0, source="here", digest=digest)


def test_optional_members_have_no_say() -> None:
    """What is not critical may be anything, and may be missing (containers-signature(5), "optional")."""
    for optional in ({}, {"expires": "never", "x": [1, {"y": None}]}):
        assert not look({**payload(), "optional": optional}).reason


def test_signature_for_another_digest_contradicts() -> None:
    """A signer who counts signed another image: no other signature counts either (SG3)."""
    found = look(payload(image={"docker-manifest-digest": OTHER}))
    assert found.contradicts
    assert not found.digest
    assert f"it is for another image: it signs {OTHER}" in found.reason


@pytest.mark.parametrize(
    ("signed", "asked", "reason"),
    [
        (NAME, NAME, ""),
        ("registry.example:5000/team/app:2.0", NAME, "another tag"),
        ("registry.example:5000/team/app", NAME, "no tag"),
        (f"registry.example:5000/team/app@{DIGEST}", NAME, "another tag"),
        ("registry.example:5000/team/apple:1.0", NAME, "another name"),
        ("registry.example/team/app:1.0", NAME, "another name"),
        ("REGISTRY.example:5000/team/app:1.0", NAME, ""),
        ("", NAME, "another name"),
        (NAME, f"registry.example:5000/team/app@{DIGEST}", ""),
        ("registry.example:5000/team/app", f"registry.example:5000/team/app@{DIGEST}", ""),
        ("registry.example:5000/team/ap", f"registry.example:5000/team/app@{DIGEST}", "another name"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", ""),
        ("library/busybox:1.36", "docker.io/library/busybox:1.36", ""),
        ("index.docker.io/library/busybox:1.36", "docker.io/library/busybox:1.36", ""),
        ("busybox:latest", "docker.io/library/busybox:1.36", "another tag"),
        ("localhost/library/busybox:1.36", "docker.io/library/busybox:1.36", "another name"),
        ("quay.io/whatever/it:is", "", ""),
    ],
)
def test_name_that_is_signed_must_be_the_one_asked_for(signed: str, asked: str, reason: str) -> None:
    """Exactly, tag included; the repository where a digest was asked for; anything where there is no registry (SG3)."""
    found = look(payload(identity={"docker-reference": signed}), asked)
    assert reason in found.reason
    assert bool(found.reason) == bool(reason)
    assert not found.contradicts


def without(*path: str) -> dict[str, Any]:
    """The payload without one member."""
    document = payload()
    place = document
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    return document


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "what is signed"),
        (b"[]", "what is signed is no object"),
        (b"{" * 1000, "what is signed"),
        (b"\xff", "what is signed"),
        (json.dumps(payload()).encode() + b"x", "what is signed"),
        (json.dumps(payload()).replace('"image"', '"type": "x", "image"').encode(), '"type" appears twice'),
        ({**payload(), "more": 1}, 'unknown member "more"'),
        (without("optional"), 'no member "optional"'),
        (without("critical"), 'no member "critical"'),
        (without("critical", "type"), 'critical has no member "type"'),
        (without("critical", "image", "docker-manifest-digest"), "critical.image has no member"),
        (without("critical", "identity", "docker-reference"), "critical.identity has no member"),
        (payload(expires=1), 'critical has the unknown member "expires"'),
        (payload(image={"docker-manifest-digest": DIGEST, "more": 1}), "critical.image has the unknown"),
        (payload(identity={"docker-reference": NAME, "more": 1}), "critical.identity has the unknown"),
        (payload(type="cosign container image signature"), "of another type"),
        (payload(type="Atomic Container Signature"), "of another type"),
        (payload(type=None), "of another type: critical.type is None"),
        (payload(image=[]), "critical.image is no object"),
        (payload(image={"docker-manifest-digest": DIGEST.upper()}), "invalid digest"),
        (payload(image={"docker-manifest-digest": [DIGEST]}), "invalid digest"),
        (payload(identity={"docker-reference": None}), "must be text"),
        ({**payload(), "optional": None}, "optional is no object"),
        ({**payload(), "optional": {"creator": 1}}, "optional.creator is 1"),
        ({**payload(), "optional": {"timestamp": "x"}}, "optional.timestamp"),
        ({**payload(), "optional": {"timestamp": True}}, "optional.timestamp"),
    ],
)
def test_payload_that_is_not_understood_in_full_is_refused(data: bytes | dict[str, Any], reason: str) -> None:
    """Unknown, missing, repeated and mistyped members make it say nothing, each for a reason of its own (SG14)."""
    found = look(data)
    assert reason in found.reason
    assert not found.digest
    assert not found.contradicts

# SPDX-License-Identifier: Apache-2.0
"""Signatures that others made, from their tests and by their programs (tests/data/cosign/README.md)."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

import pytest

from rkt.errors import SignatureMismatch
from rkt.trust import verify_cosign, verify_slsa
from rkt.trust.bundle import parse_bundle
from rkt.trust.evidence import BUNDLE, COSIGN_CLASSIC, Evidence, Subject
from rkt.trust.public_keys import load_public_key
from rkt.trust.verify_cosign import verify_statement
from tests.lib.rkt import ROOT

if TYPE_CHECKING:
    from typing import Any

    from rkt.trust.evidence import Finding


def load(name: str) -> Any:
    """A file of the data."""
    with open(os.path.join(ROOT, "tests/data/cosign", name), "rb") as file:
        return json.load(file)


def subject(digest: str, reference: str = "") -> Subject:
    """An image."""
    return Subject(name="", reference=reference, digests=[digest])


def changed(bundle: Any) -> bytes:
    """The bundle with one byte of the signed statement changed."""
    copy = json.loads(json.dumps(bundle))
    payload = bytearray(base64.b64decode(copy["dsseEnvelope"]["payload"]))
    payload[-2] ^= 1
    copy["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    return json.dumps(copy).encode()


def test_cosign_before_version_3() -> None:
    """Issue 7, 2: a payload that cosign signed vouches for its image, under its name, and for no other."""
    made = load("cosign-1.json")
    evidence = Evidence(
        kind=COSIGN_CLASSIC, source="", data=made["payload"].encode(), signature=made["signature"]
    )

    def verify(evidence: Evidence, digest: str = made["digest"], name: str = made["name"]) -> Finding:
        files = {"key": made["key"].encode()}
        return verify_cosign.verify({"key": "key"}, files, evidence, subject(digest, f"{name}:latest"), 0)

    assert (verify(evidence).reason, verify(evidence).digest) == ("", made["digest"])
    assert "not for this image" in verify(evidence, digest="sha256:" + "0" * 64).reason
    assert "is for another name" in verify(evidence, name="registry-testing.svc.lan/busy").reason
    other = evidence.replace(data=evidence.data.replace(b"null", b"{}"))
    assert "not of these bytes" in verify(other).reason


def test_conformance_suite() -> None:
    """The signature of a bundle of sigstore's own test suite is good, and its statement no signature of an image."""
    made = load("conformance.json")
    key = load_public_key(made["key"].encode())
    data = json.dumps(made["bundle"]).encode()
    statement = verify_statement(key, parse_bundle(data))
    assert statement.digests == [made["digest"]]
    assert key.hint == made["bundle"]["verificationMaterial"]["publicKey"]["hint"]
    files = {"key": made["key"].encode()}
    evidence = Evidence(kind=BUNDLE, source="", data=data)
    finding = verify_cosign.verify({"key": "key"}, files, evidence, subject(made["digest"]), 0)
    assert f'attestation of the type "{made["predicate_type"]}"' in finding.reason
    with pytest.raises(SignatureMismatch, match="but it is wrong"):
        verify_statement(key, parse_bundle(changed(made["bundle"])))


def test_sigstore_js() -> None:
    """Issue 7, 2: bundles of sigstore's JavaScript packages vouch as signature and as provenance, each only as what it is."""
    made = load("sigstore-js.json")
    files = {"key": made["pem"].encode()}
    about = subject(made["imageDigest"])
    signature, provenance = (
        Evidence(kind=BUNDLE, source="", data=json.dumps(made[name]).encode())
        for name in ("sign", "provenance")
    )
    assert verify_cosign.verify({"key": "key"}, files, signature, about, 0).digest == made["imageDigest"]
    assert "no signature" in verify_cosign.verify({"key": "key"}, files, provenance, about, 0).reason
    asked = {"kind": "slsa", "key": "key", "identity": "", "builder": made["builder"]}
    assert verify_slsa.verify(asked, files, provenance, about, 0).digest == made["imageDigest"]
    assert "no SLSA provenance" in verify_slsa.verify(asked, files, signature, about, 0).reason
    wrong = signature.replace(data=changed(made["sign"]))
    finding = verify_cosign.verify({"key": "key"}, files, wrong, about, 0)
    assert finding.contradicts

# SPDX-License-Identifier: Apache-2.0
"""Identities verified by the confined worker itself (invariants SG10, SG15)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from rkt.config.settings import Settings
from rkt.trust import verifier
from rkt.trust.evidence import BUNDLE, Evidence, Finding, Subject
from rkt.trust.rules import Requirement
from tests.lib import cosign
from tests.lib.keyless import IDENTITY, ISSUER, SIGNED_AT, Signer, Sigstore, dump
from tests.lib.rkt import ROOT
from tests.lib.sources import INSTALLATION

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root
pytest.importorskip("sigstore", reason="the Python library sigstore is not installed")

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
BUILDER = "https://ci.example/builder"
SIGSTORE = Sigstore()
SIGNER = Signer(SIGSTORE)


def _verify(
    requirements: list[Requirement], *bundles: bytes, digests: tuple[str, ...] = (DIGEST,)
) -> list[Finding]:
    pieces = [Evidence(kind=BUNDLE, source=f"piece {n}", data=data) for n, data in enumerate(bundles)]
    subject = Subject(name="registry.example/app", reference="", digests=list(digests))
    return verifier.verify(pieces, requirements, subject, Settings(installation=INSTALLATION))


def _root(directory: Path, data: bytes) -> str:
    path = directory / "trusted_root.json"
    path.write_bytes(data)
    path.chmod(0o644)
    return str(path)


def test_in_the_worker(tmp_path: Path) -> None:
    """Issue 7, 2 and 3; SG15: without files and network, identities and provenance are verified, and mistakes told apart."""
    root = _root(tmp_path, SIGSTORE.root())
    signature = Requirement(kind="keyless", identity=IDENTITY, issuer=ISSUER, root=root)
    requirements = [
        signature,
        signature.replace(identity="https://git.example/other"),
        Requirement(kind="slsa", builder=BUILDER, identity=IDENTITY, issuer=ISSUER, root=root),
        Requirement(kind="slsa", builder=f"{BUILDER}2", identity=IDENTITY, issuer=ISSUER, root=root),
    ]
    provenance = SIGNER.sign(DIGEST, kind=cosign.SLSA, predicate=cosign.provenance(BUILDER))
    findings = _verify(requirements, dump(SIGNER.sign(DIGEST)), dump(provenance), b"\xff")
    reasons = [finding.reason for finding in findings]
    assert reasons[0] == ""
    assert 'attestation of the type "https://slsa.dev/provenance/v1", no signature' in reasons[1]
    assert "is not UTF-8" in reasons[2] or "not JSON" in reasons[2]
    assert [reason for reason in reasons[3:5] if 'not "https://git.example/other"' not in reason] == []
    assert "no SLSA provenance" in reasons[6]
    assert reasons[7] == ""
    assert reasons[10] == f'the provenance names the builder "{BUILDER}", not "{BUILDER}2"'
    for good in (findings[0], findings[7]):
        assert (good.digest, good.signer) == (DIGEST, f"{IDENTITY} ({ISSUER})")
        assert good.signed_at == int(SIGNED_AT.timestamp())


def test_wrong_beside_good(tmp_path: Path) -> None:
    """A good signature does not count beside one by the same identity of another image."""
    root = _root(tmp_path, SIGSTORE.root())
    requirement = Requirement(kind="keyless", identity=IDENTITY, issuer=ISSUER, root=root)
    good, wrong = _verify([requirement], dump(SIGNER.sign(DIGEST)), dump(SIGNER.sign(OTHER)))
    assert good.reason == "is good, but piece 1, by the same signer, is wrong"
    assert wrong.contradicts


def test_other_producer_in_the_worker(tmp_path: Path) -> None:
    """Issue 7, 2: bundles that sigstore-js made are verified in the worker, by the log's promise and by a time stamp."""

    def read(name: str) -> bytes:
        with open(f"{ROOT}/tests/data/keyless/{name}", "rb") as stream:
            return stream.read()

    root = _root(tmp_path, read("root.json"))
    digest = "sha256:bafebd36189ad3688b7b3915ea55d461e0bfcfbdde11e54b0a123999fb6be50f"
    requirement = Requirement(kind="keyless", identity=IDENTITY, issuer=ISSUER, root=root)
    findings = _verify([requirement], read("stamped.json"), read("statement.json"), digests=(digest,))
    assert [(finding.reason, finding.digest) for finding in findings] == [("", digest)] * 2


def test_hostile(tmp_path: Path) -> None:
    """Deep, huge and malformed bundles are refused one by one, in bounded time, and harm no good one beside them."""
    root = _root(tmp_path, SIGSTORE.root())
    requirement = Requirement(kind="keyless", identity=IDENTITY, issuer=ISSUER, root=root)
    good = SIGNER.sign(DIGEST)
    material = good["verificationMaterial"]
    entry = material["tlogEntries"][0]

    def changed(**members: object) -> bytes:
        return dump({**good, "verificationMaterial": {**material, **members}})

    def entered(**members: object) -> bytes:
        return changed(tlogEntries=[{**entry, **members}])

    def proven(**members: object) -> bytes:
        return entered(inclusionProof={**entry["inclusionProof"], **members})

    megabyte = 1 << 20
    bundles = [
        dump({**good, "mediaType": "\u202e\U000e0001" * 200}),
        b"{",
        b'{"a":"\x01"}',
        b"[" * megabyte,
        b'{"mediaType":' * 1000,
        b"1" * megabyte,
        b'"' + b"x" * (megabyte - 2) + b'"',
        changed(certificate={"rawBytes": cosign.b64(b"0\x80" * 40_000)}),
        changed(certificate={"rawBytes": cosign.b64(b"\x30\x84\xff\xff\xff\xff" + bytes(1000))}),
        changed(tlogEntries=[entry] * 200),
        changed(
            timestampVerificationData={
                "rfc3161Timestamps": [{"signedTimestamp": cosign.b64(bytes(99))}] * 999
            }
        ),
        changed(
            timestampVerificationData={
                "rfc3161Timestamps": [{"signedTimestamp": cosign.b64(b"0\x80" * 99_999)}]
            }
        ),
        entered(integratedTime="9" * 5000),
        entered(integratedTime=str((1 << 64) - 1)),
        entered(logIndex="-1"),
        entered(canonicalizedBody=cosign.b64(b"[" * 300_000)),
        proven(treeSize="0"),
        proven(treeSize=str((1 << 64) - 1)),
        proven(hashes=[cosign.b64(bytes(32))] * 15_000),
        proven(checkpoint={"envelope": "\n" * 500_000}),
        proven(checkpoint={"envelope": "a\n" + "9" * 500_000 + "\nAA==\n\n\u2014 x AAAAAAAA\n"}),
        proven(checkpoint={"envelope": "\u2014 " * 100_000}),
        dump(good),
    ]
    findings = _verify([requirement], *bundles)
    assert [finding.reason == "" for finding in findings] == [False] * (len(bundles) - 1) + [True]
    assert not any(finding.contradicts for finding in findings)
    assert not any("cannot be verified: " in finding.reason for finding in findings), json.dumps(
        [finding.reason for finding in findings], indent=1
    )

# SPDX-License-Identifier: Apache-2.0
"""Signatures by a key and provenance: what vouches for an image, and each way not to, with its own reason."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rkt.config.settings import Settings
from rkt.errors import CannotVerify, ConfigError, RktError
from rkt.trust import verifier, verify_slsa
from rkt.trust.dsse import PROVENANCE_V02
from rkt.trust.evidence import BUNDLE, COSIGN_ATTESTATION, COSIGN_CLASSIC, Evidence, Finding, Subject
from rkt.trust.keyfiles import MAX_FILE_BYTES, read_key_file
from rkt.trust.payload import COSIGN_TYPE, check_name, parse_payload
from rkt.trust.public_keys import load_public_key
from rkt.trust.rules import Requirement
from rkt.trust.verify_worker import Verifying
from tests.lib import cosign, layouts
from tests.lib.cosign import Key, b64
from tests.lib.sources import INSTALLATION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
NAME = "registry.example:5000/team/app"
SUBJECT = Subject(name=NAME, reference=f"{NAME}:1.0", digests=[DIGEST, "sha256:" + "c" * 64])
BUILDER = "https://ci.example/builder"
KEY = Key()
STRANGER = Key()
RSA = Key(rsa.generate_private_key(65537, 2048))


def here(
    kind: str, request: dict[str, Any], fds: Mapping[str, int], *_: object, **__: object
) -> dict[str, Any]:
    """What ``rkt-verify`` would answer, in this process; stands in for ``run_worker``."""
    assert kind == "verify"
    return Verifying(json.loads(json.dumps(request))).run(dict(fds), lambda _: None)


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Finding]]:
    """Holds evidence against a key, or against a builder and a key."""
    monkeypatch.setattr(verifier, "run_worker", here)

    def verify(
        *evidence: Evidence, key: Key = KEY, builder: str = "", subject: Subject = SUBJECT
    ) -> list[Finding]:
        path = tmp_path / "key.pub"
        path.write_bytes(key.pem)
        path.chmod(0o644)
        requirement = Requirement(kind="slsa" if builder else "cosign", key=str(path), builder=builder)
        return verifier.verify(evidence, [requirement], subject, Settings(installation=INSTALLATION))

    return verify


def classic(
    data: bytes | None = None, *, key: Key = KEY, signature: bytes | str | None = None, certificate: str = ""
) -> Evidence:
    """A payload and a signature."""
    data = cosign.payload(DIGEST, NAME) if data is None else data
    signature = key.sign(data) if signature is None else signature
    return Evidence(
        kind=COSIGN_CLASSIC,
        source="tag sha256-aaaa.sig",
        data=data,
        signature=signature if isinstance(signature, str) else b64(signature),
        certificate=certificate,
    )


def bundle(data: bytes) -> Evidence:
    """A bundle."""
    return Evidence(kind=BUNDLE, source="referrer sha256:1111", data=data)


def message(key: Key, image_digest: str, *, algorithm: str = "SHA2_256", signature: bytes = b"") -> bytes:
    """A bundle around the signature of a manifest by its digest."""
    digest = bytes.fromhex(image_digest.removeprefix("sha256:"))
    if not signature:
        assert isinstance(key.private, ec.EllipticCurvePrivateKey)
        signature = key.private.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    signed = {"messageDigest": {"algorithm": algorithm, "digest": b64(digest)}, "signature": b64(signature)}
    return cosign.bundle_of(key, {"messageSignature": signed})


def signed(data: bytes, *, key: Key = KEY, kind: str = cosign.STATEMENT, **members: Any) -> Evidence:
    """A bundle around an envelope, changed."""
    return bundle(cosign.bundle_of(key, {"dsseEnvelope": cosign.envelope(key, data, kind)}, **members))


def provenance(builder: object, kind: str = cosign.SLSA, *digests: str) -> Evidence:
    """Provenance in a bundle."""
    predicate = cosign.provenance(str(builder), kind) if isinstance(builder, str) else builder
    return bundle(cosign.bundle(KEY, *(digests or (DIGEST,)), kind=kind, predicate=predicate))


KEYS = {
    "ECDSA P-256": lambda: KEY,
    "ECDSA P-384": lambda: Key(ec.generate_private_key(ec.SECP384R1())),
    "ECDSA P-521": lambda: Key(ec.generate_private_key(ec.SECP521R1())),
    "Ed25519": lambda: Key(ed25519.Ed25519PrivateKey.generate()),
    "RSA 2048": lambda: RSA,
}


@pytest.mark.parametrize("kind", KEYS)
def test_good_signatures(judge: Callable[..., list[Finding]], kind: str) -> None:
    """Both forms of cosign's signatures vouch for an image, with every kind of key, and name key and digest."""
    key = KEYS[kind]()
    assert load_public_key(key.pem).kind == kind
    for evidence in (classic(key=key), bundle(cosign.bundle(key, DIGEST))):
        (finding,) = judge(evidence, key=key)
        assert finding == Finding(
            requirement=0, source=evidence.source, signer=key.fingerprint, digest=DIGEST
        ), finding


def test_good_in_other_ways(judge: Callable[..., list[Finding]]) -> None:
    """So do a signed index, a signature of the manifest itself, several subjects, PSS, and the hash that fits a curve."""
    index = SUBJECT.digests[1]
    assert judge(bundle(cosign.bundle(KEY, index)))[0].digest == index
    assert judge(bundle(cosign.bundle(KEY, OTHER, DIGEST)))[0].digest == DIGEST
    assert judge(bundle(message(KEY, DIGEST)))[0].reason == ""
    data = cosign.payload(DIGEST, NAME)
    assert isinstance(RSA.private, rsa.RSAPrivateKey)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
    assert judge(classic(signature=RSA.private.sign(data, pss, hashes.SHA256())), key=RSA)[0].reason == ""
    long = Key(ec.generate_private_key(ec.SECP384R1()))
    assert judge(classic(signature=long.sign(data, hashes.SHA384())), key=long)[0].reason == ""
    older = "application/vnd.dev.sigstore.bundle+json;version=0.3"
    assert judge(signed(cosign.statement(DIGEST), mediaType=older))[0].reason == ""


def _cut(evidence: Evidence, old: bytes, new: bytes) -> Evidence:
    assert old in evidence.data
    return evidence.replace(data=evidence.data.replace(old, new, 1))


def _material(material: Any) -> Evidence:
    return signed(cosign.statement(DIGEST), verificationMaterial=material)


def _swapped() -> Evidence:
    """The payload of one bundle with the signature of another, both by the key."""
    first, second = (json.loads(cosign.bundle(KEY, digest)) for digest in (DIGEST, OTHER))
    first["dsseEnvelope"]["signatures"] = second["dsseEnvelope"]["signatures"]
    return bundle(json.dumps(first).encode())


def _envelope(**members: Any) -> Evidence:
    envelope = cosign.envelope(KEY, cosign.statement(DIGEST), **members)
    return bundle(cosign.bundle_of(KEY, {"dsseEnvelope": envelope}))


def _mangled_payload(**critical: Any) -> Evidence:
    document = json.loads(cosign.payload(DIGEST, NAME))
    document["critical"] |= critical
    return classic(json.dumps(document).encode())


GOOD = cosign.payload(DIGEST, NAME)
#: What is wrong -> the evidence, a part of the reason, and whether it is by the key and of something else.
REFUSED: dict[str, tuple[Evidence, str, bool]] = {
    "by another key": (classic(key=STRANGER), "not made by the key", False),
    "by another key, as a bundle": (
        bundle(cosign.bundle(STRANGER, DIGEST)),
        f"it says that it is by {STRANGER.fingerprint}",
        False,
    ),
    "by a key that is called something": (
        signed(
            cosign.statement(DIGEST),
            key=STRANGER,
            verificationMaterial={"publicKey": {"hint": "release key of the team"}},
        ),
        "not made by the key that is asked for, or not of these bytes",
        False,
    ),
    "another digest": (classic(cosign.payload(OTHER, NAME)), f'is for "{OTHER}", not for this image', True),
    "another digest, as a bundle": (
        bundle(cosign.bundle(KEY, OTHER)),
        f'is for "{OTHER}", not for this image',
        True,
    ),
    "another digest, as a signature of the manifest": (
        bundle(message(KEY, OTHER)),
        "not for this image",
        True,
    ),
    "another name": (
        classic(cosign.payload(DIGEST, "registry.example:5000/team/apple")),
        'it is for another name: it signs "registry.example:5000/team/apple", not',
        False,
    ),
    "another registry": (classic(cosign.payload(DIGEST, "team/app")), "is for another name", False),
    "another tag": (
        classic(cosign.payload(DIGEST, f"{NAME}:0.9")),
        f'it is for another tag: it signs "{NAME}:0.9", not "{NAME}:1.0"',
        False,
    ),
    "made with SHA-1": (
        classic(signature=KEY.sign(GOOD, hashes.SHA1())),
        "made with SHA-1, SHA-256 or better is asked for",
        False,
    ),
    "wrong signature and payload, as a bundle": (
        _swapped(),
        "says that it is by the key that is asked for",
        True,
    ),
    "wrong signature and payload": (
        classic(signature=KEY.sign(cosign.payload(OTHER, NAME))),
        "not made by the key that is asked for, or not of these bytes",
        False,
    ),
    "made with a certificate": (
        classic(key=STRANGER, certificate="-----BEGIN CERTIFICATE-----"),
        "named by a certificate, but a key is asked for",
        False,
    ),
    "made with a certificate, as a bundle": (
        _material({"certificate": {"rawBytes": b64(b"0")}}),
        "named by a certificate, but a key is asked for",
        False,
    ),
    "no signature": (classic(signature=""), "the signature is missing", False),
    "a signature that is not base64": (classic(signature="MEUC\n!"), "the signature is not base64", False),
    "a signature with something behind it": (
        classic(signature=KEY.sign(GOOD) + b"\0"),
        "not made by the key",
        False,
    ),
    "another type of payload": (
        classic(cosign.payload(DIGEST, NAME, "atomic container signature")),
        'critical.type is "atomic container signature", not "cosign container image signature"',
        False,
    ),
    "another type of payload, as a bundle": (
        signed(cosign.statement(DIGEST), kind="application/json"),
        'of the type "application/json", not "application/vnd.in-toto+json"',
        False,
    ),
    "an attestation": (
        bundle(cosign.bundle(KEY, DIGEST, kind="https://cyclonedx.org/bom")),
        'an attestation of the type "https://cyclonedx.org/bom", no signature',
        False,
    ),
    "no statement": (signed(b"{}"), "no in-toto statement", False),
    "a statement without a type": (signed(cosign.statement(DIGEST, kind="")), "no predicateType", False),
    "a statement about nothing": (signed(cosign.statement()), "must be about 1 to 1024 subjects", False),
    "a digest that is none": (signed(cosign.statement("sha256:ABC")), "no SHA-256 digest", False),
    "a member twice, in the payload": (
        classic(GOOD.replace(b'"critical"', b'"optional":{},"critical"', 1)),
        'member "optional" appears twice',
        False,
    ),
    "a member twice, in the statement": (
        signed(cosign.statement(DIGEST).replace(b'"predicate"', b'"subject":[],"predicate"', 1)),
        'member "subject" appears twice',
        False,
    ),
    "a member twice, in the bundle": (
        _cut(bundle(cosign.bundle(KEY, DIGEST)), b'"dsseEnvelope"', b'"mediaType":"","dsseEnvelope"'),
        'member "mediaType" appears twice',
        False,
    ),
    "something behind the payload": (classic(GOOD + b"{}"), "extra data", False),
    "something behind the bundle": (bundle(cosign.bundle(KEY, DIGEST) + b"x"), "extra data", False),
    "no JSON": (bundle(b"\x80garbage"), "the bundle is not JSON", False),
    "no JSON, in the payload": (classic(b"garbage"), "what is signed is not JSON", False),
    "no object": (bundle(b"[]"), "the bundle is not an object", False),
    "too large a bundle": (bundle(b" " * (1 << 20) + b"{}"), "the bundle is too large", False),
    "too deep a bundle": (bundle(b'{"a":' + b"[" * 65 + b"]" * 65 + b"}"), "nested deeper", False),
    "another media type": (
        signed(cosign.statement(DIGEST), mediaType="application/vnd.dev.sigstore.bundle.v0.9+json"),
        'media type "application/vnd.dev.sigstore.bundle.v0.9+json", version 0.3 is supported',
        False,
    ),
    "no media type": (signed(cosign.statement(DIGEST), mediaType=None), "media type none", False),
    "two contents": (
        bundle(
            cosign.bundle_of(
                KEY, {"dsseEnvelope": cosign.envelope(KEY, cosign.statement(DIGEST)), "messageSignature": {}}
            )
        ),
        "either a dsseEnvelope or a messageSignature",
        False,
    ),
    "nothing that says who": (_material({}), "by either a publicKey or a certificate", False),
    "no material": (_material(None), "no verificationMaterial", False),
    "a chain of certificates": (_material({"x509CertificateChain": {}}), "a chain of certificates", False),
    "a hint that is none": (_material({"publicKey": {"hint": 1}}), "not an object with a hint", False),
    "two signatures in an envelope": (
        _envelope(signatures=[{"sig": b64(KEY.sign(b"x"))}] * 2),
        "has 2 signatures, exactly one is expected",
        False,
    ),
    "no signatures in an envelope": (_envelope(signatures=[]), "has 0 signatures", False),
    "signatures that are no list": (_envelope(signatures={}), "no list of signatures", False),
    "a weak digest of the manifest": (
        bundle(message(KEY, DIGEST, algorithm="SHA1")),
        'of the algorithm "SHA1", not "SHA2_256"',
        False,
    ),
    "a wrong signature of the manifest": (
        bundle(message(KEY, DIGEST, signature=KEY.sign(b"x"))),
        "says that it is by the key that is asked for, but it is wrong",
        True,
    ),
    "more in critical than is known": (
        _mangled_payload(expires="tomorrow"),
        'critical has the unknown member "expires"',
        False,
    ),
    "no digest": (_mangled_payload(image={}), 'critical.image has no member "docker-manifest-digest"', False),
    "no name": (
        _mangled_payload(identity={"docker-reference": 7}),
        "docker-reference is 7, but must be text",
        False,
    ),
    "what could not be had": (
        Evidence(kind=BUNDLE, source="referrer x", data=b"", problem="has 9 bytes, at most 8 are read"),
        "has 9 bytes",
        False,
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(judge: Callable[..., list[Finding]], what: str) -> None:
    """What does not vouch for the image says why, each in its own words, and is told from what is wrong (SG3, SG5, SG15)."""
    evidence, reason, contradicts = REFUSED[what]
    (finding,) = judge(evidence)
    assert reason in finding.reason
    assert finding.contradicts is contradicts
    assert finding.digest == ""


def test_reasons_differ(judge: Callable[..., list[Finding]]) -> None:
    """Distinct failures have distinct reasons, but for those that nobody could tell apart."""
    reasons = [judge(evidence)[0].reason for evidence, _, _ in REFUSED.values()]
    assert len(set(reasons)) >= len(reasons) - 10


def test_a_wrong_one_beside_a_good_one(judge: Callable[..., list[Finding]]) -> None:
    """Of two signatures by the key one of which is wrong none counts; one by another key has no say."""
    good = classic()
    findings = judge(good, bundle(cosign.bundle(KEY, OTHER)))
    assert [finding.reason != "" for finding in findings] == [True, True]
    assert "by the same signer, is wrong" in findings[0].reason
    findings = judge(good, bundle(cosign.bundle(STRANGER, OTHER)), classic(key=STRANGER))
    assert [finding.reason == "" for finding in findings] == [True, False, False]


def _weak(public: Any) -> bytes:
    pem: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


#: SubjectPublicKeyInfo of a point on P-192, which libraries no longer make.
P192 = b"""-----BEGIN PUBLIC KEY-----
MEkwEwYHKoZIzj0CAQYIKoZIzj0DAQEDMgAEe9/YRtB8H0xawwN9B6HaZrKc6Izh
2HQN/8+gKUwHfwPdRN2P6hpPMgiXQa7Yp3Bi
-----END PUBLIC KEY-----
"""
WEAK: dict[str, tuple[Callable[[], bytes], str]] = {
    "RSA with 1024 bits": (
        lambda: _weak(rsa.generate_private_key(65537, 1024).public_key()),
        "1024 bits",
    ),
    "RSA with the exponent 3": (
        lambda: _weak(rsa.RSAPublicNumbers(3, (1 << 2047) + 1).public_key()),
        "the exponent 3",
    ),
    "P-192": (lambda: P192, "the curve secp192r1"),
    "a curve of Bitcoin": (
        lambda: _weak(ec.generate_private_key(ec.SECP256K1()).public_key()),
        "the curve secp256k1",
    ),
    "DSA": (
        lambda: _weak(
            dsa.DSAPublicNumbers(4, dsa.DSAParameterNumbers((1 << 1023) + 3, (1 << 159) + 5, 2)).public_key()
        ),
        "keys of the kind DSA do not count",
    ),
    "two keys": (lambda: KEY.pem + STRANGER.pem, "more than one key"),
    "a private key": (lambda: KEY.private_pem, "a private key, the public one is asked for"),
    "something in front": (lambda: b"x" + KEY.pem, "with nothing around it"),
    "something behind": (lambda: KEY.pem + b"x", "with nothing around it"),
    "a certificate": (
        lambda: KEY.pem.replace(b"PUBLIC KEY", b"CERTIFICATE"),
        "not one PEM block of a PUBLIC KEY",
    ),
    "garbage": (
        lambda: b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "no public key of a kind that is supported",
    ),
}


@pytest.mark.parametrize("what", WEAK)
def test_weak_keys(judge: Callable[..., list[Finding]], what: str) -> None:
    """Keys that are too weak, or of which a file does not hold exactly one, never count (SG5, SG7)."""
    make, reason = WEAK[what]
    pem = make()
    with pytest.raises(CannotVerify, match=reason):
        load_public_key(pem)
    weak = Key()
    weak.pem = pem
    (finding,) = judge(classic(), key=weak)
    assert finding.reason.endswith(reason) or reason in finding.reason
    assert "key.pub: " in finding.reason


@pytest.mark.parametrize("kind", [cosign.SLSA, cosign.SLSA_02])
def test_provenance(judge: Callable[..., list[Finding]], kind: str) -> None:
    """Provenance of either version vouches for the image when it names the builder to the letter."""
    (finding,) = judge(provenance(BUILDER, kind), builder=BUILDER)
    assert finding == Finding(requirement=0, source=finding.source, signer=KEY.fingerprint, digest=DIGEST)
    for builder in (f"{BUILDER}/", BUILDER.upper(), BUILDER[:-1], f"{BUILDER}@refs/heads/main"):
        (finding,) = judge(provenance(builder, kind), builder=BUILDER)
        assert finding.reason == f'the provenance names the builder "{builder}", not "{BUILDER}"'


def attestation(data: bytes | None = None, *, key: Key = KEY, image: str = DIGEST) -> Evidence:
    """Provenance as cosign tagged it before version 3."""
    made = cosign.statement(image, kind=cosign.SLSA_02, predicate=cosign.provenance(BUILDER, cosign.SLSA_02))
    signed_data = layouts.json_bytes(cosign.envelope(key, made)) if data is None else data
    return Evidence(kind=COSIGN_ATTESTATION, source="tag sha256-aaaa.att", data=signed_data)


def test_provenance_of_old(judge: Callable[..., list[Finding]]) -> None:
    """An envelope without a bundle counts by the key; never for an identity, and never as a signature of the image."""
    (finding,) = judge(attestation(), builder=BUILDER)
    assert (finding.reason, finding.digest) == ("", DIGEST)
    assert judge(attestation()) == []
    for evidence, reason, contradicts in (
        (attestation(key=STRANGER), "not made by the key", False),
        (attestation(image=OTHER), "not for this image", True),
        (attestation(b"{}"), "no payloadType", False),
        (attestation(b"[]"), "the DSSE envelope is not an object", False),
        (attestation(attestation().data + b"x"), "extra data", False),
    ):
        (finding,) = judge(evidence, builder=BUILDER)
        assert reason in finding.reason
        assert finding.contradicts is contradicts
    requirement = {"identity": "someone", "issuer": "https://x", "root": "r", "key": "", "builder": BUILDER}
    finding = verify_slsa.verify(requirement, {"r": b""}, attestation(), SUBJECT, 0)
    assert "counts by a key only" in finding.reason


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        pytest.param(bundle(cosign.bundle(KEY, DIGEST)), "no SLSA provenance", id="a signature"),
        pytest.param(
            provenance(BUILDER, "https://slsa.dev/provenance/v9"), "no SLSA provenance", id="another version"
        ),
        pytest.param(
            bundle(
                cosign.bundle(
                    KEY, DIGEST, kind=PROVENANCE_V02, predicate=cosign.provenance(BUILDER, cosign.SLSA)
                )
            ),
            "names no builder",
            id="the form of another version",
        ),
        pytest.param(provenance({"runDetails": {"builder": []}}), "names no builder", id="no builder"),
        pytest.param(provenance([]), "names no builder", id="a list"),
        pytest.param(provenance(BUILDER, cosign.SLSA, OTHER), "not for this image", id="another image"),
        pytest.param(bundle(message(KEY, DIGEST)), "has no statement", id="no statement"),
    ],
)
def test_provenance_refused(judge: Callable[..., list[Finding]], evidence: Evidence, reason: str) -> None:
    """What is no provenance of the image, or names no builder, does not vouch, whoever signed it (SG15)."""
    (finding,) = judge(evidence, builder=BUILDER)
    assert reason in finding.reason


def test_only_fitting_evidence(judge: Callable[..., list[Finding]]) -> None:
    """A payload beside a signature is no provenance; without evidence that fits no worker is started."""
    assert judge(classic(), builder=BUILDER) == []
    assert judge() == []


@pytest.mark.parametrize(
    ("top", "reason"),
    [
        ({}, ""),
        ({"optional": None}, ""),
        ({"optional": {"creator": "cosign", "timestamp": 1, "x": []}}, ""),
        ({"optional": []}, "optional is no object"),
        ({"optional": None, "more": 1}, 'unknown member "more"'),
    ],
)
def test_what_is_beside_critical(top: dict[str, Any], reason: str) -> None:
    """What is optional may be missing, and has no say; anything else makes a payload say nothing (SG14)."""
    data = json.dumps({"critical": json.loads(GOOD)["critical"], **top}).encode()
    if not reason:
        assert parse_payload(data, COSIGN_TYPE).digest == DIGEST
        return
    with pytest.raises(CannotVerify, match=reason):
        parse_payload(data, COSIGN_TYPE)


@pytest.mark.parametrize(
    ("signed_name", "wanted", "fits"),
    [
        ("r.example/a", "r.example/a:1", True),
        ("r.example/a:1", "r.example/a:1", True),
        ("r.example/a:1", f"r.example/a@{DIGEST}", True),
        (f"r.example/a@{DIGEST}", "r.example/a:1", True),
        ("r.example:5000/a", "r.example:5000/a:1", True),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:1", True),
        ("docker.io/busybox", "docker.io/library/busybox:1", True),
        ("anything/at:all", "", True),
        ("r.example/a:2", "r.example/a:1", False),
        ("r.example/ab", "r.example/a:1", False),
        ("r.example/a/b", "r.example/a:1", False),
        ("r.example:5001/a", "r.example:5000/a:1", False),
        ("docker.io/r.example/a", "r.example/a:1", False),
        ("", "r.example/a:1", False),
    ],
)
def test_names(signed_name: str, wanted: str, fits: bool) -> None:
    """A signature binds the name by component, and the tag where it has one; layouts have no name to compare (SG3)."""
    if fits:
        check_name(signed_name, wanted, needs_tag=False)
    else:
        with pytest.raises(CannotVerify):
            check_name(signed_name, wanted, needs_tag=False)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"findings": [{}]},
        {"findings": [7]},
        {"findings": [Finding(requirement=1, source="").as_dict()]},
        {"findings": [{**Finding(requirement=0, source="").as_dict(), "requirement": True}]},
    ],
)
def test_a_worker_that_lies(
    judge: Callable[..., list[Finding]], monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    """Findings that are not understood in full end the verification; one about another image vouches for nothing."""
    monkeypatch.setattr(verifier, "run_worker", lambda *_, **__: answer)
    with pytest.raises(RktError, match="rkt-verify reported"):
        judge(classic())
    good = Finding(requirement=0, source="s", signer="sha256:1", digest=DIGEST)
    for wrong in (good.replace(digest=OTHER), good.replace(signer=""), good.replace(digest="")):
        monkeypatch.setattr(
            verifier, "run_worker", lambda *_, wrong=wrong, **__: {"findings": [wrong.as_dict()]}
        )
        assert judge(classic())[0].reason == "the verifier names another image than this one"


def open_to_all(path: Path) -> None:
    """A file that everybody may write."""
    path.write_bytes(b"x")
    path.chmod(0o666)


def test_key_files(tmp_path: Path) -> None:
    """A key file that is empty, missing, too large, a link, a directory, or open to others refuses, and is named (SG6)."""
    path = tmp_path / "key.pub"
    refused: dict[str, Callable[[], object]] = {
        "cannot be read: No such file": lambda: None,
        "is empty": lambda: path.write_bytes(b"\n"),
        "cannot be read: larger": lambda: path.write_bytes(b"x" * (MAX_FILE_BYTES + 1)),
        "can be changed by others": lambda: open_to_all(path),
    }
    for reason, make in refused.items():
        make()
        with pytest.raises(ConfigError, match=reason) as caught:
            read_key_file(str(path))
        assert str(path) in str(caught.value)
    link = tmp_path / "link"
    link.symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    for other in (link, tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError, match=r"cannot be read|regular file"):
            read_key_file(str(other))
    path.write_bytes(KEY.pem)
    path.chmod(0o644)
    assert read_key_file(str(path)) == KEY.pem
    assert base64.b64decode(KEY.hint).hex() == KEY.fingerprint.removeprefix("sha256:")

# SPDX-License-Identifier: Apache-2.0
"""What decides who is trusted: OpenPGP, the trust policy, bundles and signed payloads."""

from __future__ import annotations

import base64
import json
from unittest import mock

from rkt.errors import CannotVerify, ConfigError, InvalidManifest, SignatureMismatch
from rkt.schema import jsontext
from rkt.trust import openpgp, packets, private_keys
from rkt.trust.bundle import parse_bundle
from rkt.trust.dsse import PROVENANCE_V02, PROVENANCE_V1, Envelope, parse_envelope, parse_statement
from rkt.trust.evidence import COSIGN_CLASSIC, Evidence, Subject
from rkt.trust.keys import KeyMaterial, PublicKey, parse_keys
from rkt.trust.keystore import TrustedKey
from rkt.trust.message import MAX_PAYLOAD_BYTES, open_message
from rkt.trust.packets import Malformed, parse_detached_signatures
from rkt.trust.payload import COSIGN_TYPE, parse_payload
from rkt.trust.private_keys import load_private_key
from rkt.trust.public_keys import load_public_key
from rkt.trust.rules import Policy, parse_policy, rule_name
from rkt.trust.verify_simple_signing import verify
from rkt.trust.verify_slsa import check_provenance
from tests.fuzz.target import Target
from tests.fuzz.targets.documents import JSON_PIECES

NOW = 1_790_000_000
FINGERPRINT = "a" * 40
_DIGEST = f"sha256:{'0' * 64}"
_KEY = TrustedKey(
    key=PublicKey(
        primary=KeyMaterial(
            fingerprint=FINGERPRINT, version=4, algorithm="ed25519", weakness="", created=1_700_000_000
        ),
        identities=["a"],
        subkeys=[],
        binary=b"",
    ),
    path="/key",
    rule="root",
)
#: Words of GnuPG that say a signature is not good (doc/DETAILS, "Signature status").
_NEVER = (
    b"BADSIG",
    b"ERRSIG",
    b"EXPSIG",
    b"EXPKEYSIG",
    b"REVKEYSIG",
    b"NO_PUBKEY",
    b"NODATA",
    b"FAILURE",
    b"KEYREVOKED",
    b"KEYEXPIRED",
)


def read_status(data: bytes) -> None:
    """Good is only what says GOODSIG and VALIDSIG once, by the key that was asked for, and nothing against it (SG4, SG9)."""
    found = openpgp.judge_status(data, 0, _KEY, NOW)
    lines = data.split(b"\n")
    words = [line.split(b" ")[1] for line in lines if line.startswith(b"[GNUPG:] ")]
    assert words.count(b"GOODSIG") == 1, "not called good, or twice"
    assert words.count(b"VALIDSIG") == 1, "not valid, or twice"
    assert not set(words) & set(_NEVER), "something was said against it"
    assert all(line.startswith(b"[GNUPG:] ") for line in lines if line), "other lines"
    assert found.fingerprint == found.signing_fingerprint == FINGERPRINT, "another key"
    assert found.signed_at <= NOW + 24 * 3600, "of tomorrow"
    for status in (1, 2, -9):
        try:
            openpgp.judge_status(data, status, _KEY, NOW)
        except openpgp._NotGood:
            continue
        raise AssertionError("good, though the program failed")


def read_signatures(data: bytes) -> None:
    """A detached signature is nothing but signatures; in armour they are the same (SG8)."""
    found = parse_detached_signatures(data)
    for signature in found:
        assert packets.parse_packets(signature.raw)[0].tag == packets.TAG_SIGNATURE, "another packet"
        assert signature.raw in data or packets.is_armoured(data), "bytes from nowhere"
        _ = signature.issuer, signature.is_claimed_by(FINGERPRINT)
    if not packets.is_armoured(data):
        wrapped = packets.armour(data, packets.LABEL_SIGNATURE)
        assert parse_detached_signatures(wrapped) == found, "in armour it is another"


def read_keys(data: bytes) -> None:
    """All keys of a file are judged, and are the same keys when they were stored (SG7)."""
    for key in parse_keys(data, what="file"):
        assert isinstance(key.problem(NOW), str), "no judgement"
        for material in (key.primary, *key.subkeys):
            assert len(material.fingerprint) in {40, 64}, "a fingerprint"
            assert key.material(material.fingerprint) is not None, "a key that is not found"
        assert parse_keys(key.to_armour(), what="file") == [key], "stored and read again"


def read_message(data: bytes) -> None:
    """One payload, once signed, of a bounded size."""
    found = open_message(data)
    assert len(found.payload) <= 2 * MAX_PAYLOAD_BYTES, "too large"
    assert [packet.tag for packet in packets.parse_packets(found.signature)] == [packets.TAG_SIGNATURE], (
        "no signature"
    )


def read_policy(data: bytes) -> None:
    """A policy is understood in full or refused, and each of its rules is found under its own name (SG2, SG14)."""
    default, rules = parse_policy(data, "/etc/rkt/trust.d/x.toml")
    assert default in {"", "keystore", "refuse"}, "a default"
    policy = Policy(default=default or "refuse", rules=rules, paths=["x"], default_path="x")
    for rule in rules:
        assert rule_name(rule.prefix) == rule.prefix, "the prefix is another"
        assert rule.requirements, "a rule that asks for nothing"
        assert rule in policy.rules_for(f"{rule.prefix}/app"), "it does not count below its prefix"
        assert rule not in policy.rules_for(f"{rule.prefix}x"), "it counts for another name"
        for requirement in rule.requirements:
            assert all(
                not path or path == "keystore" or (path.startswith("/") and ".." not in path.split("/"))
                for path in (requirement.keys, requirement.key, requirement.root)
            ), "a path that climbs"


def read_bundle(data: bytes) -> None:
    """A bundle is one signature by one signer of one thing, and what is said to be signed is what it has (SG15)."""
    bundle = parse_bundle(data)
    assert (bundle.envelope is None) != (bundle.message is None), "two things are signed, or none"
    members = json.loads(data)
    if bundle.message is not None:
        text = members["messageSignature"]["messageDigest"]["digest"]
        assert base64.b64encode(bundle.message.digest).decode() == text, "base64 with two meanings"
        return
    assert bundle.envelope is not None, "nothing is signed"
    text = members["dsseEnvelope"]["payload"]
    assert base64.b64encode(bundle.envelope.payload).decode() == text, "base64 with two meanings"
    prefix = f"DSSEv1 {len(bundle.envelope.payload_type.encode())} {bundle.envelope.payload_type} ".encode()
    assert bundle.envelope.signed_bytes.startswith(prefix), "another encoding"
    statement = parse_statement(bundle.envelope)
    assert all(len(digest) == 71 for digest in statement.digests), "a digest"


def read_payload(data: bytes) -> None:
    """A payload that was signed is for this image under this name, or it is not believed (SG3)."""
    subject = Subject(name="example.com/app", reference="example.com/app:1", digests=[_DIGEST])
    evidence = Evidence(kind=COSIGN_CLASSIC, source="", data=data)
    finding = verify({}, {}, evidence, subject, 0)
    if not finding.reason:
        critical = json.loads(data)["critical"]
        assert critical["image"]["docker-manifest-digest"] == _DIGEST, "another image"
        # A host is the same in capitals.
        host, slash, rest = critical["identity"]["docker-reference"].partition("/")
        assert f"{host.lower()}{slash}{rest}" == "example.com/app:1", "another name"
        assert finding.digest == _DIGEST, "another digest"
    payload = parse_payload(data, COSIGN_TYPE)
    critical = json.loads(data)["critical"]
    assert payload.digest == critical["image"]["docker-manifest-digest"], "another digest"


def read_attestation(data: bytes) -> None:
    """Provenance counts for the image and by the builder that it names, wherever else it has words; nothing else does (SG15)."""
    envelope = parse_envelope(jsontext.parse(data, what="the DSSE envelope"))
    again = Envelope(payload_type=envelope.payload_type, payload=envelope.payload, signature=b"other")
    assert again.signed_bytes == envelope.signed_bytes, "what is signed depends on the signature"
    statement = parse_statement(envelope)
    assert json.loads(envelope.payload)["predicateType"] == statement.predicate_type, "of another type"
    subject = Subject(name="example.com/app", reference="", digests=[_DIGEST])
    assert check_provenance(statement, _BUILDER, subject) == _DIGEST, "another image"
    assert _DIGEST in statement.digests, "another image"
    predicate = json.loads(envelope.payload)["predicate"]
    details = predicate["runDetails"] if statement.predicate_type == PROVENANCE_V1 else predicate
    assert statement.predicate_type in {PROVENANCE_V1, PROVENANCE_V02}, "no provenance"
    assert details["builder"]["id"] == _BUILDER, "another builder"


def read_public_key(data: bytes) -> None:
    """A key that counts is one of the strong kinds, and signatures by it are good or refused, never anything else (SG5)."""
    pem, _, signature = data.partition(b"\n--\n")
    key = load_public_key(pem)
    assert load_public_key(pem.strip()).fingerprint == key.fingerprint, "another key without space around it"
    assert key.kind.partition(" ")[0] in {"ECDSA", "Ed25519", "RSA"}, "of another kind"
    for verify_signature in (key.verify, key.verify_digest):
        try:
            verify_signature(signature, b"\0" * 32)
        except (SignatureMismatch, CannotVerify):
            continue
        raise AssertionError("a good signature from nowhere")


def read_private_key(data: bytes) -> None:
    """A key file is read with its password, within bounds of time and memory, or refused by one error."""
    if data.startswith(b"{"):
        data = private_keys._armour(data, "ENCRYPTED SIGSTORE PRIVATE KEY")
    # What is allowed costs seconds, as it should.
    with mock.patch.object(private_keys, "_MAX_SCRYPT_WORK", 1 << 14):
        key = load_private_key(data, b"password", "/key")
    assert load_public_key(key.public_pem).fingerprint == key.public.fingerprint, "halves of two keys"
    key.public.verify(key.sign(b"text"), b"text")


_BUILDER = "https://builder.example/1"
_PGP_PIECES = (
    b"-----BEGIN PGP SIGNATURE-----\n", b"-----END PGP SIGNATURE-----\n", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", b"-----BEGIN PGP MESSAGE-----", b"=",
    b"\n\n", b"\x88", b"\x89", b"\xc2", b"\x98", b"\x99", b"\xc6", b"\xb4", b"\xce", b"\xff\xff\xff\xff\xff", b"\xe0", b"\x04\x00\x16\x08", b"\x06", b"\x05\x02",
    b"\x16\x21\x04" + b"\xaa" * 20, b"\x09\x10" + b"\xaa" * 8, b"\xa3", b"\xac", b"\xcb", b"\x90", b"\x02\x1b\x03", b"\x09\x09\xff\xff\xff\xff\xff\xff\xff\xff",
)  # fmt: skip
TARGETS = (
    Target(
        name="gpgv-status",
        read=read_status,
        refuses=(openpgp._NotGood, SignatureMismatch),
        pieces=(b"[GNUPG:] ", b"GOODSIG ", b"VALIDSIG ", b"BADSIG ", b"EXPKEYSIG ", b"REVKEYSIG", b"NEWSIG", b"\n", b"\r", b" ", b"  ", FINGERPRINT.encode(), b"00",
                b"1_7", b"+1", b"9" * 4301, b"NOTATION_DATA "),
    ),
    Target(name="openpgp-signature", read=read_signatures, refuses=(Malformed,), pieces=_PGP_PIECES),
    Target(name="openpgp-keys", read=read_keys, refuses=(ConfigError,), pieces=_PGP_PIECES),
    Target(name="openpgp-message", read=read_message, refuses=(Malformed,), pieces=_PGP_PIECES),
    Target(
        name="trust-policy",
        read=read_policy,
        refuses=(ConfigError,),
        pieces=(b"[[rule]]\n", b"version = 1\n", b'default = "refuse"\n', b'prefix = "', b"all = [", b"any = [", b'{ kind = "openpgp", keys = "keystore" }',
                b'kind = "unsigned"', b'kind = "cosign"', b'key = "/k"', b'kind = "keyless"', b'rollback = "refuse"', b'"""', b"'''", b"\\u0000", b"\n", b"=", b"[", b"{",
                b".", b"a.b.", b"0x" + b"f" * 5000, b"1" * 4301, b"inf", b"nan", b"1979-05-27T07:32:00Z", b"[" * 600, b"..", b"docker.io/", b":5000", b"[::1]"),
        max_bytes=8192,
    ),
    Target(
        name="sigstore-bundle",
        read=read_bundle,
        refuses=(CannotVerify,),
        pieces=(*JSON_PIECES, b'"dsseEnvelope"', b'"messageSignature"', b'"verificationMaterial"', b'"publicKey"', b'"certificate"', b'"payload"', b'"sig"', b"A===", b"AB=="),
    ),
    Target(
        name="signed-payload",
        read=read_payload,
        refuses=(CannotVerify, InvalidManifest),
        pieces=(*JSON_PIECES, b'"critical"', b'"identity"', b'"docker-reference"', b'"optional"', _DIGEST.encode(), b"example.com/app:1", b"docker.io/"),
    ),
    Target(
        name="attestation",
        read=read_attestation,
        refuses=(CannotVerify, InvalidManifest, SignatureMismatch),
        pieces=(*JSON_PIECES, b'"payloadType":"application/vnd.in-toto+json"', b'"payload":"', b'"signatures":[{"sig":"YQ=="}]', b"A===", b"AB=="),
    ),
    Target(
        name="public-key",
        read=read_public_key,
        refuses=(CannotVerify,),
        pieces=(b"-----BEGIN PUBLIC KEY-----\n", b"-----END PUBLIC KEY-----", b"-----BEGIN CERTIFICATE-----", b"\n", b"\n--\n", b"=", b"MII", b"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE", b"MCowBQYDK2VwAyEA"),
    ),
    Target(
        name="private-key",
        read=read_private_key,
        refuses=(ConfigError,),
        pieces=(*JSON_PIECES, b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n", b"-----END ENCRYPTED SIGSTORE PRIVATE KEY-----", b"-----BEGIN PRIVATE KEY-----\n", b"\n", b"=", b'"kdf"', b'"params"'),
    ),
)  # fmt: skip

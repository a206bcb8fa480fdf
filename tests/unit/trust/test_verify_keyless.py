# SPDX-License-Identifier: Apache-2.0
"""Keyless identities (invariant SG15): what counts, and what does not, each with a reason of its own."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import subprocess
import sys
import sysconfig
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from rkt.config.settings import Installation
from rkt.trust import verify_keyless, verify_slsa
from rkt.trust.evidence import BUNDLE, COSIGN_CLASSIC, Evidence, Finding, Subject
from rkt.trust.extras import has_sigstore
from tests.lib import cosign
from tests.lib.keyless import IDENTITY, ISSUER, SERVER_AUTH, SIGNED_AT, Signer, Sigstore, dump
from tests.lib.rkt import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    Bundle = dict[str, Any]

pytest.importorskip("sigstore", reason="the Python library sigstore is not installed")

_DATA = f"{ROOT}/tests/data/keyless"
_ROOT_PATH = "/etc/rkt/trusted_root.json"
_DIGEST = "sha256:" + "a" * 64
_OTHER = "sha256:" + "b" * 64
_SIGSTORE = Sigstore()
_SIGNER = Signer(_SIGSTORE)
_BUNDLE = _SIGNER.sign(_DIGEST)
_OTHER_BUNDLE = _SIGNER.sign(_OTHER)
_YEAR = timedelta(days=365)
_WORKFLOW = "https://github.com/trailofbits/pypi-attestations/.github/workflows/release.yml@refs/tags/v0.0.19"
_WORKFLOW_ISSUER = "https://token.actions.githubusercontent.com"


def _subject(*digests: str) -> Subject:
    return Subject(name="registry.example/app", reference="", digests=list(digests))


def _verify(
    data: bytes,
    *digests: str,
    root: bytes = b"",
    identity: str = IDENTITY,
    issuer: str = ISSUER,
) -> Finding:
    requirement = {"kind": "keyless", "identity": identity, "issuer": issuer, "root": _ROOT_PATH}
    evidence = Evidence(kind=BUNDLE, source="referrer", data=data)
    subject = _subject(*(digests or (_DIGEST,)))
    return verify_keyless.verify(requirement, {_ROOT_PATH: root or _SIGSTORE.root()}, evidence, subject, 0)


def _copy(bundle: Bundle) -> Bundle:
    return json.loads(json.dumps(bundle))  # type: ignore[no-any-return]


def _entry(bundle: Bundle) -> dict[str, Any]:
    return bundle["verificationMaterial"]["tlogEntries"][0]  # type: ignore[no-any-return]


def _with(change: Callable[[Bundle], object], bundle: Bundle = _BUNDLE) -> Bundle:
    changed = _copy(bundle)
    change(changed)
    return changed


def _replace(text: str, old: bytes, new: bytes) -> str:
    data = base64.b64decode(text)
    assert old in data
    return cosign.b64(data.replace(old, new))


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _flip(text: str) -> str:
    data = bytearray(base64.b64decode(text))
    data[-1] ^= 1
    return cosign.b64(bytes(data))


def _fixture(name: str) -> bytes:
    with open(f"{_DATA}/{name}", "rb") as stream:
        return stream.read()


def _public_root() -> bytes:
    """The root of the public instance, as the library comes with it."""
    place = importlib.resources.files("sigstore._store")
    return (place / "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev" / "trusted_root.json").read_bytes()


def test_statement() -> None:
    """What cosign 3 writes vouches for the image, and says who signed and when."""
    finding = _verify(dump(_BUNDLE))
    assert finding.reason == ""
    assert finding.signer == f"{IDENTITY} ({ISSUER})"
    assert finding.digest == _DIGEST
    assert finding.signed_at == int(SIGNED_AT.timestamp())


def test_message() -> None:
    """A signature of the manifest itself vouches for the image too."""
    manifest = b'{"schemaVersion":2}'
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    finding = _verify(dump(_SIGNER.sign_message(manifest)), digest)
    assert (finding.reason, finding.digest) == ("", digest)


def test_mail_address() -> None:
    """An identity may be a mail address."""
    signer = Signer(_SIGSTORE, identities=("ada@team.example",))
    assert _verify(dump(signer.sign(_DIGEST)), identity="ada@team.example").reason == ""


def test_index_or_manifest() -> None:
    """A signature of either digest of the image counts, and it is told which."""
    assert _verify(dump(_BUNDLE), _OTHER, _DIGEST).digest == _DIGEST


@pytest.mark.parametrize("name", ["statement.json", "message.json", "stamped.json"])
def test_other_producer(name: str) -> None:
    """Bundles that sigstore-js made are verified: both kinds of content, time by promise and by time stamp."""
    digest = "sha256:bafebd36189ad3688b7b3915ea55d461e0bfcfbdde11e54b0a123999fb6be50f"
    finding = _verify(_fixture(name), digest, root=_fixture("root.json"))
    assert (finding.reason, finding.digest) == ("", digest)
    assert finding.signed_at > SIGNED_AT.timestamp()


def test_public_instance() -> None:
    """A provenance that a public builder signed is verified against the public root, and is no signature of an image."""
    digest = "sha256:9bb1add04b1b4e182be6b0b80931593f7a291eb49d69b4fd728a5d4cbcdc4bd3"
    builder, issuer = _WORKFLOW, _WORKFLOW_ISSUER
    finding = _verify(
        _fixture("provenance.json"), digest, root=_public_root(), identity=builder, issuer=issuer
    )
    assert (
        finding.reason
        == 'the statement is an attestation of the type "https://slsa.dev/provenance/v1", no signature'
    )
    requirement = {"identity": builder, "issuer": issuer, "root": _ROOT_PATH}
    evidence = Evidence(kind=BUNDLE, source="", data=_fixture("provenance.json"))
    signed = verify_keyless.verify_signer(requirement, {_ROOT_PATH: _public_root()}, evidence)
    assert verify_keyless.read_statement(signed).digests == [digest]
    assert signed.signed_at == 1733354026


@pytest.mark.parametrize(
    ("builder", "reason"),
    [
        (_WORKFLOW, ""),
        (f"{_WORKFLOW}2", f'the provenance names the builder "{_WORKFLOW}", not "{_WORKFLOW}2"'),
    ],
)
def test_public_builder(builder: str, reason: str) -> None:
    """Provenance by the identity of a public workflow meets a rule for its builder, and for no other."""
    digest = "sha256:9bb1add04b1b4e182be6b0b80931593f7a291eb49d69b4fd728a5d4cbcdc4bd3"
    asked = {"kind": "slsa", "builder": builder, "identity": _WORKFLOW, "issuer": _WORKFLOW_ISSUER}
    evidence = Evidence(kind=BUNDLE, source="", data=_fixture("provenance.json"))
    files = {_ROOT_PATH: _public_root()}
    finding = verify_slsa.verify({**asked, "root": _ROOT_PATH}, files, evidence, _subject(digest), 0)
    assert finding.reason == reason
    if not reason:
        assert (finding.digest, finding.signed_at) == (digest, 1733354026)
        assert finding.signer == f"{_WORKFLOW} ({_WORKFLOW_ISSUER})"


def _expired() -> Bundle:
    return _SIGNER.sign(_DIGEST, at=SIGNED_AT + timedelta(minutes=10))


def _swapped_entry() -> Bundle:
    """The same statement, signed a second time: the log's entry is of the other signature."""
    again = _SIGNER.sign(_DIGEST)
    return _with(lambda b: b["verificationMaterial"].update(tlogEntries=[_entry(again)]))


def _other_entry() -> Bundle:
    return _with(lambda b: b["verificationMaterial"].update(tlogEntries=[_entry(_OTHER_BUNDLE)]))


def _other_message_entry() -> Bundle:
    other = _SIGNER.sign_message(b"other")
    return _with(
        lambda b: b["verificationMaterial"].update(tlogEntries=[_entry(other)]), _SIGNER.sign_message(b"this")
    )


def _other_certificate() -> Bundle:
    """Signature and entry of one certificate, with another of the same identity."""
    other = Signer(_SIGSTORE).sign(_DIGEST)["verificationMaterial"]["certificate"]
    return _with(lambda b: b["verificationMaterial"].update(certificate=other))


def _moved() -> Bundle:
    """A path that fits, for a position that nobody signed."""

    def change(bundle: Bundle) -> None:
        # Beside the checkpoint's five leaves: the path of the second of eight has as many steps.
        _entry(bundle)["inclusionProof"].update(treeSize="8")

    return _with(change)


def _set(path: str, value: Any) -> Bundle:
    def change(bundle: Bundle) -> None:
        *parts, last = path.split(".")
        place: Any = bundle
        for part in parts:
            place = place[int(part)] if part.isdigit() else place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return _with(change)


_ENTRY = "verificationMaterial.tlogEntries.0"
_PROOF = f"{_ENTRY}.inclusionProof"

_VALID = "the certificate was valid from 2026-03-01 11:59:00 UTC to 2026-03-01 12:09:00 UTC"
#: What is wrong, how it is made, and what is said of it.
_REFUSED: dict[str, tuple[Callable[[], Bundle], str]] = {
    "expired certificate": (
        _expired,
        f"{_VALID}, but the signature is of 2026-03-01 12:10:00 UTC",
    ),
    "certificate not yet valid": (
        lambda: _SIGNER.sign(_DIGEST, at=SIGNED_AT - timedelta(minutes=2)),
        f"{_VALID}, but the signature is of 2026-03-01 11:58:00 UTC",
    ),
    "wrong identity": (
        lambda: Signer(_SIGSTORE, identities=(f"{IDENTITY}2",)).sign(_DIGEST),
        f'the certificate is for the identity "{IDENTITY}2", not "{IDENTITY}"',
    ),
    "two identities": (
        lambda: Signer(_SIGSTORE, identities=(IDENTITY, "https://git.example/other")).sign(_DIGEST),
        "the certificate names 2 identities, exactly one is expected",
    ),
    "wrong issuer": (
        lambda: Signer(_SIGSTORE, issuers=(f"{ISSUER}/",)).sign(_DIGEST),
        f'the identity is confirmed by the issuer "{ISSUER}/", not "{ISSUER}"',
    ),
    "two issuers": (
        lambda: Signer(_SIGSTORE, issuers=("https://other.example", ISSUER)).sign(_DIGEST),
        "the certificate names 2 issuers, exactly one is expected",
    ),
    "certificate of another root": (
        lambda: Signer(Sigstore()).sign(_DIGEST),
        f"the certificate is not by an authority of {_ROOT_PATH}",
    ),
    "certificate for servers": (
        lambda: Signer(_SIGSTORE, usage=SERVER_AUTH).sign(_DIGEST),
        "the certificate is not for signing code",
    ),
    "no SCT": (
        lambda: Signer(_SIGSTORE, log="none").sign(_DIGEST),
        "the certificate has no proof (SCT) that a certificate log has seen it",
    ),
    "SCT of another log": (
        lambda: Signer(_SIGSTORE, log="another").sign(_DIGEST),
        "the proof (SCT) that a certificate log has seen the certificate is not by one of the root",
    ),
    "no time": (lambda: _SIGNER.sign(_DIGEST, promise=False), "nobody vouches for the time of signing"),
    "promise of another time": (
        lambda: _set(f"{_ENTRY}.integratedTime", str(int(SIGNED_AT.timestamp()) + 1)),
        "the promise of the log is not signed by a log of the root, or is of another entry",
    ),
    "no log entry": (
        lambda: _set("verificationMaterial.tlogEntries", []),
        "the bundle has no entries of a transparency log, exactly one is expected",
    ),
    "two log entries": (
        lambda: _set("verificationMaterial.tlogEntries", [_entry(_BUNDLE), _entry(_BUNDLE)]),
        "the bundle has 2 entries of a transparency log, exactly one is expected",
    ),
    "no proof of inclusion": (
        lambda: _set(_PROOF, None),
        "the log entry has no proof of inclusion with a checkpoint",
    ),
    "proof of inclusion tampered": (
        lambda: _set(f"{_PROOF}.hashes", [_flip(_entry(_BUNDLE)["inclusionProof"]["hashes"][0])] * 3),
        "the proof of inclusion is wrong: it does not lead from the entry to the checkpoint",
    ),
    "proof of inclusion for another size": (
        _moved,
        "the proof of inclusion is for another position or size than the checkpoint has",
    ),
    "checkpoint of another entry": (
        lambda: _set(f"{_PROOF}.checkpoint", _entry(_OTHER_BUNDLE)["inclusionProof"]["checkpoint"]),
        "the proof of inclusion is of another checkpoint",
    ),
    "checkpoint not signed": (
        lambda: _set(
            f"{_PROOF}.checkpoint.envelope", "log.example\n5\nAAAA\n\n\u2014 log.example AAAAAAAA\n"
        ),
        "the checkpoint is not signed by a log of the root",
    ),
    "checkpoint of noise": (
        lambda: _set(f"{_PROOF}.checkpoint.envelope", "\n"),
        "the checkpoint is unreadable",
    ),
    "entry of another log": (
        lambda: _SIGNER.sign(_DIGEST, key=cosign.Key().private),
        f"the log entry is of a log that {_ROOT_PATH} does not have; a newer root may have it",
    ),
    "swapped log entry": (_swapped_entry, "the log entry is of another signature or certificate"),
    "log entry for another artifact": (
        _other_entry,
        "the log entry is of something else than what is signed",
    ),
    "log entry of another kind": (
        _other_message_entry,
        "the log entry is of something else than what is signed",
    ),
    "log entry of an unknown kind": (
        lambda: _SIGNER.sign(_DIGEST, form=("intoto", "0.0.2")),
        "the log entry is of a kind that is not supported",
    ),
    "log entry of an unknown version": (
        lambda: _SIGNER.sign(_DIGEST, form=("dsse", "0.0.9")),
        "the log entry is of a version that is not supported",
    ),
    "another certificate of the same identity": (
        _other_certificate,
        "the signature is not of these bytes, though the certificate is the signer's",
    ),
    "statement changed": (
        lambda: _with(
            lambda b: b["dsseEnvelope"].update(
                payload=_replace(b["dsseEnvelope"]["payload"], b"b" * 64, b"a" * 64)
            ),
            _OTHER_BUNDLE,
        ),
        "the signature is not of these bytes, though the certificate is the signer's",
    ),
    "signature for another digest": (
        lambda: _OTHER_BUNDLE,
        f'the signature is for "{_OTHER}", not for this image',
    ),
    "wrong predicate": (
        lambda: _SIGNER.sign(_DIGEST, kind=cosign.SLSA),
        f'the statement is an attestation of the type "{cosign.SLSA}", no signature',
    ),
    "wrong payload type": (
        lambda: _SIGNER.wrap(cosign.statement(_DIGEST), "application/json"),
        'the signed payload is of the type "application/json", not "application/vnd.in-toto+json"',
    ),
    "no statement": (lambda: _SIGNER.wrap(b"{}"), "the signed payload is no in-toto statement"),
    "unsupported version": (
        lambda: _set("mediaType", "application/vnd.dev.sigstore.bundle.v0.9+json"),
        'the bundle has the media type "application/vnd.dev.sigstore.bundle.v0.9+json", version 0.3 is supported',
    ),
    "wrong media type": (
        lambda: _set("mediaType", "application/json"),
        'the bundle has the media type "application/json", version 0.3 is supported',
    ),
    "key instead of certificate": (
        lambda: _set("verificationMaterial", {"publicKey": {"hint": "x"}, "tlogEntries": []}),
        "the signature is by a key, but an identity is asked for",
    ),
    "certificate of noise": (
        lambda: _set("verificationMaterial.certificate.rawBytes", "AAAA"),
        "the bundle is not sound: error parsing asn1 value: ParseError { kind: UnexpectedTag",
    ),
    "member missing": (
        lambda: _set(f"{_ENTRY}.logId", None),
        "the bundle is not sound: verificationMaterial.tlogEntries.0.logId: Field required",
    ),
}


@pytest.mark.parametrize("case", _REFUSED)
def test_refused(case: str) -> None:
    """What is wrong with a bundle is refused, and the reason says what it is."""
    make, reason = _REFUSED[case]
    digest = f"sha256:{hashlib.sha256(b'this').hexdigest()}"
    finding = _verify(dump(make()), _DIGEST, digest)
    assert finding.reason.startswith(reason)
    assert not finding.digest


def test_wrong_counts_against_others() -> None:
    """A signature by the right identity of something else is told apart from one that says nothing."""
    assert _verify(dump(_OTHER_BUNDLE)).contradicts
    assert _verify(dump(_swapped_entry())).contradicts
    assert not _verify(dump(_expired())).contradicts
    assert not _verify(dump(Signer(_SIGSTORE, identities=("https://x.example",)).sign(_OTHER))).contradicts


#: What is wrong with the root, the root, and what is said.
_ROOTS: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"root", f"{_ROOT_PATH} is no trusted root: "),
    "repeated member": (
        b'{"tlogs": [], "tlogs": []}',
        f'{_ROOT_PATH} is no trusted root: the file is not JSON: member "tlogs" appears twice',
    ),
    "member missing": (b"{}", f"{_ROOT_PATH} is no trusted root: mediaType: Field required"),
    "no logs": (_SIGSTORE.root(tlogs=[]), f"{_ROOT_PATH} is no trusted root: it has no transparency log"),
    "no certificate logs": (
        _SIGSTORE.root(ctlogs=[]),
        f"{_ROOT_PATH} is no trusted root: it has no certificate log",
    ),
    "no authorities": (_SIGSTORE.root(certificateAuthorities=[]), f"{_ROOT_PATH} is no trusted root: "),
    "log not believed any more": (
        _SIGSTORE.root(tlogs=[_SIGSTORE.root_log(start=_iso(_SIGSTORE.start), end=_iso(SIGNED_AT - _YEAR))]),
        f"{_ROOT_PATH} does not believe this log at 2026-03-01 12:00:00 UTC",
    ),
    "certificate log not believed any more": (
        _SIGSTORE.root(
            ctlogs=[_SIGSTORE.root_certificate_log(start=_iso(_SIGSTORE.start), end=_iso(SIGNED_AT - _YEAR))]
        ),
        f"{_ROOT_PATH} does not believe the certificate log at 2026-03-01 11:59:00 UTC",
    ),
    "authority not believed any more": (
        _SIGSTORE.root(
            certificateAuthorities=[
                _SIGSTORE.root_authority(start=_iso(_SIGSTORE.start), end=_iso(SIGNED_AT - _YEAR))
            ]
        ),
        f"{_ROOT_PATH} does not believe the certificate's authority at 2026-03-01 12:00:00 UTC",
    ),
}


@pytest.mark.parametrize("case", _ROOTS)
def test_root_refused(case: str) -> None:
    """A root that is none, or does not believe a log or an authority at the time of signing, makes nothing good."""
    root, reason = _ROOTS[case]
    assert _verify(dump(_BUNDLE), root=root).reason.startswith(reason)


def test_time_stamp_of_another_authority() -> None:
    """A time stamp by an authority that the root does not have is no time of signing."""
    root = json.loads(_fixture("root.json"))
    ours = json.loads(_SIGSTORE.root())["certificateAuthorities"]
    root["timestampAuthorities"] = [
        {**ours[0], "certChain": {"certificates": ours[0]["certChain"]["certificates"] * 2}}
    ]
    finding = _verify(_fixture("stamped.json"), root=json.dumps(root).encode())
    assert finding.reason == "nobody that the root has vouches for the time of signing"
    del root["timestampAuthorities"]
    finding = _verify(_fixture("stamped.json"), root=json.dumps(root).encode())
    assert finding.reason == "the bundle has a time stamp, but the root has no authority for time stamps"


def test_reasons_differ() -> None:
    """No two mistakes have the same reason, except those that are the same mistake made in two ways."""
    reasons = [_verify(dump(make()), _DIGEST).reason for make, _ in _REFUSED.values()]
    same = len(reasons) - len(set(reasons))
    # Entry for something else; signature not of these bytes: two ways each.
    assert same == 2


_REFERENCE = "registry.example/app:1"
_PAYLOAD = cosign.payload(_DIGEST, "registry.example/app")


def _classic(
    payload: bytes = _PAYLOAD, signer: Signer = _SIGNER, reference: str = _REFERENCE, **changes: Any
) -> Finding:
    """Verify what cosign wrote before version 3; a change is of ``Sigstore.enter``, or of an annotation."""
    notes = ("signature", "certificate", "log_entry")
    entry = {name: value for name, value in changes.items() if name not in notes}
    members = {**signer.sign_classic(payload, **entry), **{n: changes[n] for n in notes if n in changes}}
    requirement = {"kind": "keyless", "identity": IDENTITY, "issuer": ISSUER, "root": _ROOT_PATH}
    evidence = Evidence(kind=COSIGN_CLASSIC, source="tag", data=payload, **members)
    subject = _subject(_DIGEST).replace(reference=reference)
    return verify_keyless.verify(requirement, {_ROOT_PATH: _SIGSTORE.root()}, evidence, subject, 0)


def test_classic() -> None:
    """What cosign wrote before version 3 vouches too: the log's promise says when."""
    finding = _classic()
    assert (finding.reason, finding.digest) == ("", _DIGEST)
    assert (finding.signer, finding.signed_at) == (f"{IDENTITY} ({ISSUER})", int(SIGNED_AT.timestamp()))


_CLASSIC: dict[str, tuple[Callable[[], Finding], str]] = {
    "by a key": (lambda: _classic(certificate=""), "the signature is by a key, but an identity is asked for"),
    "no promise": (lambda: _classic(log_entry=""), "the signature has no promise of a transparency log"),
    "promise of noise": (lambda: _classic(log_entry="[]"), "the promise of the log has no Payload"),
    "certificate of noise": (
        lambda: _classic(certificate="-----BEGIN"),
        "the certificate of the signature is not one in PEM",
    ),
    "expired certificate": (
        lambda: _classic(at=SIGNED_AT + timedelta(minutes=10)),
        f"{_VALID}, but the signature is of 2026-03-01 12:10:00 UTC",
    ),
    "wrong identity": (
        lambda: _classic(signer=Signer(_SIGSTORE, identities=("https://git.example/x",))),
        f'the certificate is for the identity "https://git.example/x", not "{IDENTITY}"',
    ),
    "certificate of another root": (
        lambda: _classic(signer=Signer(Sigstore())),
        f"the certificate is not by an authority of {_ROOT_PATH}",
    ),
    "promise of another log": (
        lambda: _classic(key=cosign.Key().private),
        f"the log entry is of a log that {_ROOT_PATH} does not have; a newer root may have it",
    ),
    "promise for another payload": (
        lambda: _classic(log_entry=_SIGNER.sign_classic(b"other")["log_entry"]),
        "the log entry is of something else than what is signed",
    ),
    "promise for another signature": (
        lambda: _classic(log_entry=_SIGNER.sign_classic(_PAYLOAD)["log_entry"]),
        "the log entry is of another signature or certificate",
    ),
    "promise for a log entry of another kind": (
        lambda: _classic(log_entry=json.dumps(_promise_of(_entry(_BUNDLE)))),
        "the log entry is of a kind that is not supported",
    ),
    "signature of another payload": (
        lambda: _classic(signature=_SIGNER.sign_classic(b"other")["signature"]),
        "the signature is not of these bytes, though the certificate is the signer's",
    ),
    "another digest": (
        lambda: _classic(cosign.payload(_OTHER, "registry.example/app")),
        f'the signature is for "{_OTHER}", not for this image',
    ),
    "another name": (
        lambda: _classic(cosign.payload(_DIGEST, "registry.example/other")),
        'it is for another name: it signs "registry.example/other", not "registry.example/app',
    ),
    "another type": (
        lambda: _classic(cosign.payload(_DIGEST, "registry.example/app", "atomic container signature")),
        'what is signed is of another type: critical.type is "atomic container signature"',
    ),
}


def _promise_of(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "SignedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
        "Payload": {
            "body": entry["canonicalizedBody"],
            "integratedTime": int(entry["integratedTime"]),
            "logIndex": int(entry["logIndex"]),
            "logID": base64.b64decode(entry["logId"]["keyId"]).hex(),
        },
    }


@pytest.mark.parametrize("case", _CLASSIC)
def test_classic_refused(case: str) -> None:
    """What is wrong with a signature of cosign before version 3 is refused too, and the reason says what it is."""
    verify, reason = _CLASSIC[case]
    finding = verify()
    assert finding.reason.startswith(reason)
    assert not finding.digest


#: Started as ``rkt-verify`` is, and given its work only once everything is loaded.
_WATCHED = """
import base64, json, sys
sys.path.insert(0, sys.argv[1])
sys.path.append(sys.argv[2])
from rkt.config.settings import Installation
from rkt.trust import verify_keyless, verify_slsa
from rkt.trust.evidence import Evidence, Subject
verify_keyless.prepare()
work = json.load(sys.stdin)
seen, reasons, watched = [], [], ("import", "open", "os.", "socket.", "subprocess.", "ctypes.")
is_on = True
sys.addaudithook(lambda event, args: is_on and event.startswith(watched) and seen.append((event, str(args[0]))))
for requirement, root, data, notes in work:
    files = {requirement["root"]: base64.b64decode(root)}
    evidence = Evidence(source="", data=base64.b64decode(data), **notes)
    subject = Subject(name="a", reference="", digests=["sha256:" + "a" * 64])
    reasons.append(verify_keyless.verify(requirement, files, evidence, subject, 0).reason)
is_on = False
json.dump([seen, reasons], sys.stdout)
"""


def test_nothing_opened() -> None:
    """Once the library is loaded, verifying opens no file and no socket, and imports nothing: ``rkt-verify`` could not."""
    requirement = {"identity": IDENTITY, "issuer": ISSUER, "root": _ROOT_PATH}
    workflow = {**requirement, "identity": _WORKFLOW, "issuer": _WORKFLOW_ISSUER}
    bundle = {"kind": BUNDLE}
    payload = cosign.payload(_OTHER, "")
    work: list[tuple[dict[str, str], bytes, bytes, dict[str, str]]] = [
        (requirement, _fixture("root.json"), _fixture("statement.json"), bundle),
        (requirement, _fixture("root.json"), _fixture("stamped.json"), bundle),
        (workflow, _public_root(), _fixture("provenance.json"), bundle),
        (
            requirement,
            _SIGSTORE.root(),
            payload,
            {"kind": COSIGN_CLASSIC, **_SIGNER.sign_classic(payload)},
        ),
        *((requirement, _SIGSTORE.root(), dump(make()), bundle) for make, _ in _REFUSED.values()),
    ]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _WATCHED, f"{ROOT}/src", sysconfig.get_path("purelib")],
        input=json.dumps(
            [(asked, cosign.b64(root), cosign.b64(data), notes) for asked, root, data, notes in work]
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen, reasons = json.loads(done.stdout)
    assert seen == []
    # Of another image, or an attestation: everything before that was looked at.
    said = ["the signature is for ", "the signature is for ", "the statement is an attestation "]
    for reason, words in zip(reasons, [*said, "the signature is for "], strict=False):
        assert reason.startswith(words)


def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library nothing is verified, and the reason says how to install it."""
    verify_keyless.prepare()
    monkeypatch.delattr("rkt.trust.sigstore_bundle")
    monkeypatch.setitem(sys.modules, "rkt.trust.sigstore_bundle", None)
    verify_keyless.prepare()
    reason = _verify(dump(_BUNDLE)).reason
    assert reason == (
        "this installation of rkt cannot verify identities: the Python library sigstore is missing; install "
        "the Debian package rkt-keyless, or use make install EXTRAS=keyless"
    )


def test_is_the_library_there(tmp_path: Path) -> None:
    """Whether the library is there is told without importing it."""
    installation = Installation(package_path="", library_paths=[str(tmp_path)], stage1_images_path="")
    assert not has_sigstore(installation)
    (tmp_path / "sigstore").mkdir()
    assert has_sigstore(installation)

# SPDX-License-Identifier: Apache-2.0
"""Evidence with random damage: each piece is judged, with a reason that can be shown, and what is signed stays what it is.

For a longer run: ``RKT_FUZZ_ROUNDS=20000 pytest tests/fuzz``; ``RKT_FUZZ_SEED`` repeats a run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from rkt.errors import MAX_QUOTED_LENGTH
from rkt.trust import verify_cosign, verify_keyless, verify_slsa
from rkt.trust.evidence import BUNDLE, COSIGN_CLASSIC, Evidence, Finding, Subject
from rkt.trust.verify_worker import _verify
from tests.lib import cosign
from tests.lib.keyless import IDENTITY, ISSUER, Signer, Sigstore, dump
from tests.lib.pace import SLOWNESS
from tests.lib.rkt import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("sigstore", reason="the Python library sigstore is not installed")

ROUNDS = int(os.environ.get("RKT_FUZZ_ROUNDS", "400"))
SEED = int(os.environ["RKT_FUZZ_SEED"])
#: Longest time that one piece may take.
PATIENCE_SECONDS = 1.0 * SLOWNESS
MANIFEST = b'{"schemaVersion":2}'
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
KEY = cosign.Key()
SIGSTORE = Sigstore()
SIGNER = Signer(SIGSTORE)
BUILDER = "https://ci.example"
PROVENANCE = cosign.provenance(BUILDER)
CLASSIC = cosign.payload(DIGEST, "registry.example/app")
#: Members whose bytes somebody signed, or that are a signature: damaged, nothing is good any more.
SIGNED = (
    "rawBytes",
    "payload",
    "sig",
    "signature",
    "canonicalizedBody",
    "rootHash",
    "signedEntryTimestamp",
    "body",
)
#: In place of a value.
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1 << 70,
    "",
    "x" * 1000,
    "9" * 40,
    "\u202e\0",
    [],
    {},
    [[]],
    {"a": 1},
)


def _shared(name: str) -> bytes:
    with open(f"{ROOT}/tests/data/keyless/{name}", "rb") as stream:
        return stream.read()


#: What is asked for, the file, the evidence as JSON.
CASES: dict[str, tuple[dict[str, str], bytes, dict[str, Any]]] = {
    "cosign": ({"kind": "cosign"}, KEY.pem, json.loads(cosign.bundle(KEY, DIGEST))),
    "slsa": (
        {"kind": "slsa", "builder": BUILDER},
        KEY.pem,
        json.loads(cosign.bundle(KEY, DIGEST, kind=cosign.SLSA, predicate=PROVENANCE)),
    ),
    "keyless": ({"kind": "keyless"}, SIGSTORE.root(), SIGNER.sign(DIGEST)),
    "message": ({"kind": "keyless"}, SIGSTORE.root(), SIGNER.sign_message(MANIFEST)),
    "stamped": ({"kind": "keyless"}, _shared("root.json"), json.loads(_shared("stamped.json"))),
    "classic": ({"kind": "keyless"}, SIGSTORE.root(), dict(SIGNER.sign_classic(CLASSIC))),
}
MODULES = {"cosign": verify_cosign, "slsa": verify_slsa, "keyless": verify_keyless}


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for name, member in members:
        yield (*path, name)
        yield from _places(member, (*path, name))


def _damage(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    at = rng.randrange(len(changed) + 1)
    piece = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 5)))
    changed[at : at + rng.choice((0, 1, 4))] = rng.choice(
        (piece, b"", b"\x30\x84\xff\xff\xff\xff", b"0\x80" * 100)
    )
    return bytes(changed)


def _damaged(rng: random.Random, value: dict[str, Any]) -> tuple[dict[str, Any], tuple[Any, ...], bool]:
    """A copy with one change, where it is, and whether it is of bytes that are written in base64."""
    copy = json.loads(json.dumps(value))
    path = rng.choice(list(_places(copy)))
    place: Any = copy
    for name in path[:-1]:
        place = place[name]
    old = place[path[-1]]
    if isinstance(old, str) and rng.random() < 0.8:
        try:
            data = base64.b64decode(old, validate=True)
        except ValueError:
            place[path[-1]] = _damage(rng, old.encode()).decode("utf-8", "replace")
        else:
            damaged = _damage(rng, data)
            place[path[-1]] = cosign.b64(damaged)
            return copy, path, damaged != data
    else:
        place[path[-1]] = rng.choice(VALUES)
    return copy, path, False


def _judge(case: str, value: dict[str, Any]) -> Finding:
    asked, file, _ = CASES[case]
    requirement = {"key": "/file", "root": "/file", "identity": "", "issuer": "", "builder": "", **asked}
    if asked["kind"] == "keyless":
        requirement.update(identity=IDENTITY, issuer=ISSUER)
    if case == "classic":
        notes = {name: str(member) for name, member in value.items()}
        evidence = Evidence(kind=COSIGN_CLASSIC, source="", data=CLASSIC, **notes)
    else:
        evidence = Evidence(kind=BUNDLE, source="", data=dump(value))
    subject = Subject(name="registry.example/app", reference="registry.example/app:1", digests=[DIGEST])
    return _verify(MODULES[asked["kind"]].verify, requirement, {"/file": file}, evidence, subject, 0)


@pytest.mark.parametrize("case", CASES)
def test_damaged_evidence(case: str) -> None:
    """No damage is an error of the program, takes long, or leaves what was signed, or a signature, changed and good."""
    logging.disable(logging.CRITICAL)
    rng = random.Random(f"{case} {SEED}")
    original = CASES[case][2]
    assert _judge(case, original).reason == ""
    try:
        for _ in range(ROUNDS // len(CASES)):
            value, path, is_changed = _damaged(rng, original)
            started = time.monotonic()
            finding = _judge(case, value)
            assert time.monotonic() - started < PATIENCE_SECONDS, (SEED, path)
            assert not finding.reason.startswith("cannot be verified"), (SEED, path, finding.reason)
            assert len(finding.reason) < 20 * MAX_QUOTED_LENGTH, (SEED, path)
            if finding.reason:
                assert not finding.digest, (SEED, path)
            else:
                assert finding.digest == DIGEST, (SEED, path)
                assert not (is_changed and path[-1] in SIGNED), (SEED, path)
    finally:
        logging.disable(logging.NOTSET)

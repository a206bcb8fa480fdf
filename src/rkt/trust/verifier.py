# SPDX-License-Identifier: Apache-2.0
"""Holds evidence against requirements: the command's side of ``rkt-verify``.

The command reads the files that the policy names, hands them over with the evidence, which it never looks into, and
compares what comes back with what it knew before (invariants SG3, SG10).
"""

from __future__ import annotations

import base64
import os
import time

from rkt.errors import RktError
from rkt.privsep.client import run_worker
from rkt.privsep.confine import VERIFY_UID_BASE
from rkt.privsep.wire import foreign_count, foreign_text
from rkt.schema import jsontext
from rkt.trust.evidence import EVIDENCE_FOR, MAX_REASON_LENGTH, Finding
from rkt.trust.keyfiles import read_key_file
from rkt.trust.program import sealed_memory
from rkt.trust.rules import KEYLESS, KEYSTORE, OPENPGP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.trust.evidence import Evidence, Subject
    from rkt.trust.rules import Requirement

_SECONDS = 60.0
_FILES = ("key", "keys", "root")


def verify(
    evidence: Sequence[Evidence], requirements: Sequence[Requirement], subject: Subject, settings: Settings
) -> list[Finding]:
    """What each piece of evidence is worth for each requirement that it could meet.

    Args:
        evidence: foreign.
        requirements: a requirement that nothing need be verified for has no findings.
        subject: what must be signed.
        settings: where the installation is.
    Returns:
        findings, those for one requirement together, in the order of the evidence. One without a ``reason`` vouches for the
        image: its digest is one of the subject's.
    Raises:
        ConfigError: a file that the policy names cannot be used.
        RktError: the worker failed, so that nothing is verified.
    """
    offered = list(evidence)
    pairs = [
        (number, index)
        for number, requirement in enumerate(requirements)
        for index, piece in enumerate(offered)
        if piece.kind in EVIDENCE_FOR.get(requirement.kind, ())
    ]
    files = _read_files(requirements)
    signed = _check_openpgp(pairs, offered, requirements, files, subject, settings)
    # What nobody who counts has signed is not read (invariant SG10).
    found = {pair: finding for pair, finding in signed.items() if finding.reason}
    readable = [pair for pair in pairs if pair not in found]
    if readable:
        values = _ask(_pack(offered, requirements, readable, files, subject), requirements, settings)
        if len(values) != len(readable):
            raise RktError("rkt-verify reported other findings than were asked for")
        for pair, value in zip(readable, values, strict=True):
            found[pair] = _finding(value, pair[0], offered[pair[1]].source, subject, signed.get(pair))
    findings = [found[pair] for pair in pairs]
    return [_unless_wrong(finding, findings) for finding in findings]


def _read_files(requirements: Sequence[Requirement]) -> dict[str, bytes]:
    paths = {
        path
        for requirement in requirements
        for name in _FILES
        if (path := getattr(requirement, name)) and path != KEYSTORE
    }
    return {path: read_key_file(path) for path in sorted(paths)}


def _check_openpgp(
    pairs: Sequence[tuple[int, int]],
    evidence: Sequence[Evidence],
    requirements: Sequence[Requirement],
    files: dict[str, bytes],
    subject: Subject,
    settings: Settings,
) -> dict[tuple[int, int], Finding]:
    """Who signed what is there for requirements of kind ``openpgp``, by ``gpgv``; ``rkt-verify`` can start no program."""
    wanted = [pair for pair in pairs if requirements[pair[0]].kind == OPENPGP]
    if not wanted:
        return {}
    from rkt.trust.simple_signing import check_signature, trusted_keys

    now = int(time.time())
    keys = {
        number: trusted_keys(
            requirements[number].keys, files.get(requirements[number].keys, b""), subject.name, settings
        )
        for number in {number for number, _ in wanted}
    }
    package_path = settings.installation.package_path
    return {
        (number, index): check_signature(
            evidence[index], keys[number], now=now, package_path=package_path
        ).replace(requirement=number)
        for number, index in wanted
    }


def _ask(document: bytes, requirements: Sequence[Requirement], settings: Settings) -> list[Any]:
    """What ``rkt-verify`` says."""
    kinds = {requirement.kind for requirement in requirements}
    if any(requirement.identity for requirement in requirements):
        # Provenance may be by an identity too.
        kinds.add(KEYLESS)
    memory = sealed_memory("evidence", document)
    try:
        answer = run_worker(
            "verify",
            {
                "uid": VERIFY_UID_BASE + (os.getpid() & 0xFFFF),
                "kinds": sorted(kinds),
            },
            {"evidence": memory},
            settings.installation,
            deadline_seconds=_SECONDS,
        )
    finally:
        os.close(memory)
    return _listed(answer)


def _pack(
    evidence: Sequence[Evidence],
    requirements: Sequence[Requirement],
    pairs: Sequence[tuple[int, int]],
    files: dict[str, bytes],
    subject: Subject,
) -> bytes:
    document = {
        "now": int(time.time()),
        "subject": subject.as_dict(),
        "requirements": [requirement.as_dict() for requirement in requirements],
        "files": {path: _encode(content) for path, content in files.items()},
        "evidence": [{**piece.as_dict(), "data": _encode(piece.data)} for piece in evidence],
        "pairs": pairs,
    }
    return jsontext.dump(document).encode("utf-8", "replace")


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _listed(answer: dict[str, Any]) -> list[Any]:
    values = answer.get("findings")
    if not isinstance(values, list):
        raise RktError("rkt-verify reported no findings")
    return values


def _finding(value: Any, requirement: int, source: str, subject: Subject, signed: Finding | None) -> Finding:
    """One of the worker's findings; one that does not say of what it is about this image vouches for nothing.

    Args:
        value: what the worker says.
        requirement: that it must be about.
        source: of the evidence that it is about.
        subject: the image.
        signed: who signed, and when, where the worker was not asked that.
    """
    try:
        number = value["requirement"]
        signed_at = foreign_count(value["signed_at"])
        if type(number) is not int or number != requirement or signed_at is None:
            raise RktError("rkt-verify reported a finding about nothing that was asked")
        finding = Finding(
            requirement=number,
            source=source,
            reason=foreign_text(value["reason"])[:MAX_REASON_LENGTH],
            signer=foreign_text(value["signer"]),
            digest=foreign_text(value["digest"]),
            signed_at=signed_at,
            contradicts=value["contradicts"] is True,
        )
    except (KeyError, TypeError) as e:
        raise RktError("rkt-verify reported an unreadable finding") from e
    if signed is not None:
        finding = finding.replace(signer=signed.signer, signed_at=signed.signed_at)
    if not finding.reason and (finding.digest not in subject.digests or not finding.signer):
        return finding.replace(reason="the verifier names another image than this one")
    return finding


def _unless_wrong(finding: Finding, found: list[Finding]) -> Finding:
    """A good signature does not count beside a wrong one by the same key: somebody trusted signed something else."""
    if finding.reason:
        return finding
    for other in found:
        if other.contradicts and other.requirement == finding.requirement:
            return finding.replace(reason=f"is good, but {other.source}, by the same signer, is wrong")
    return finding

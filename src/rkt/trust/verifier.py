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
from rkt.privsep.wire import foreign_text
from rkt.schema import jsontext
from rkt.trust.evidence import EVIDENCE_FOR, Finding
from rkt.trust.keyfiles import read_key_file
from rkt.trust.program import sealed_memory
from rkt.trust.rules import KEYSTORE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.trust.evidence import Evidence, Subject
    from rkt.trust.rules import Requirement

_SECONDS = 60.0
_MAX_REASON_LENGTH = 600
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
    wanted = {kind for requirement in requirements for kind in EVIDENCE_FOR.get(requirement.kind, ())}
    offered = [piece for piece in evidence if piece.kind in wanted]
    if not offered:
        return []
    memory = sealed_memory("evidence", _pack(offered, requirements, subject))
    try:
        answer = run_worker(
            "verify",
            {
                "uid": VERIFY_UID_BASE + (os.getpid() & 0xFFFF),
                "kinds": sorted({requirement.kind for requirement in requirements}),
            },
            {"evidence": memory},
            settings.installation,
            deadline_seconds=_SECONDS,
        )
    finally:
        os.close(memory)
    found = [_finding(value, len(requirements), subject) for value in _listed(answer)]
    return [_unless_wrong(finding, found) for finding in found]


def _pack(evidence: Sequence[Evidence], requirements: Sequence[Requirement], subject: Subject) -> bytes:
    paths = {
        path
        for requirement in requirements
        for name in _FILES
        if (path := getattr(requirement, name)) and path != KEYSTORE
    }
    document = {
        "now": int(time.time()),
        "subject": subject.as_dict(),
        "requirements": [requirement.as_dict() for requirement in requirements],
        "files": {path: _encode(read_key_file(path)) for path in sorted(paths)},
        "evidence": [{**piece.as_dict(), "data": _encode(piece.data)} for piece in evidence],
    }
    return jsontext.dump(document).encode("utf-8", "replace")


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _listed(answer: dict[str, Any]) -> list[Any]:
    values = answer.get("findings")
    if not isinstance(values, list):
        raise RktError("rkt-verify reported no findings")
    return values


def _finding(value: Any, requirements: int, subject: Subject) -> Finding:
    """One of the worker's findings; one that does not say of what it is about this image vouches for nothing."""
    try:
        number = value["requirement"]
        signed_at = value["signed_at"]
        finding = Finding(
            requirement=number,
            source=foreign_text(value["source"]),
            reason=foreign_text(value["reason"])[:_MAX_REASON_LENGTH],
            signer=foreign_text(value["signer"]),
            digest=foreign_text(value["digest"]),
            signed_at=signed_at,
            contradicts=value["contradicts"] is True,
        )
    except (KeyError, TypeError) as e:
        raise RktError("rkt-verify reported an unreadable finding") from e
    if type(number) is not int or not 0 <= number < requirements or type(signed_at) is not int:
        raise RktError("rkt-verify reported a finding about nothing that was asked")
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

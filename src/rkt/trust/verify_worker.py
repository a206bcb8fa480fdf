# SPDX-License-Identifier: Apache-2.0
"""``rkt-verify``: reads signatures and what is signed, and says what they are worth.

It has a user of its own, no network and no files. Cryptography and everything else is imported before; what a requirement's
kind needs is in a module of that kind, with a function ``verify`` and, where something has to be loaded first, ``prepare``.
"""

from __future__ import annotations

import base64
import importlib
import os

from rkt.privsep import confine
from rkt.privsep.wire import MAX_LINE_BYTES
from rkt.schema import jsontext
from rkt.trust.evidence import MAX_REASON_LENGTH, MAX_TOTAL_BYTES, Evidence, Finding, Subject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeAlias

    from rkt.privsep.worker import Emit, Work

    Verify: TypeAlias = Callable[[dict[str, Any], dict[str, bytes], Evidence, Subject, int], Finding]

_MODULES = {
    "cosign": "rkt.trust.verify_cosign",
    "keyless": "rkt.trust.verify_keyless",
    "openpgp": "rkt.trust.verify_simple_signing",
    "slsa": "rkt.trust.verify_slsa",
}
#: Evidence and files in base64, and room for what is around them.
_MAX_DOCUMENT_BYTES = 4 * MAX_TOTAL_BYTES
#: Of a finding without its reason, and of a character of that, as JSON at most.
_FINDING_BYTES = 700
_CHARACTER_BYTES = 6


def prepare(request: dict[str, Any]) -> Work:
    """Take a request: ``uid``, and ``kinds`` of the requirements. The descriptor ``evidence`` has the rest."""
    jsontext.prepare()
    return Verifying(request)


class Verifying:
    """All evidence against all requirements."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._uid = int(request["uid"])
        self._verifiers: dict[str, Verify] = {}
        for kind in request["kinds"]:
            if kind in _MODULES:
                module = importlib.import_module(_MODULES[kind])
                if hasattr(module, "prepare"):
                    module.prepare()
                self._verifiers[kind] = module.verify

    def confine(self, fds: dict[str, int]) -> None:
        """Keep the descriptor; no network, no files."""
        confine.begin(b"rkt-verify", network=False)
        confine.confine_fetch(network=False, file_size_bytes=0, uid=self._uid)

    def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
        """Verify; the result: ``findings``."""
        data = os.pread(fds["evidence"], _MAX_DOCUMENT_BYTES + 1, 0)
        document = jsontext.parse(data, what="the evidence", limit_bytes=_MAX_DOCUMENT_BYTES)
        findings = list(self.findings(document))
        length = _reason_length(len(findings))
        # Where a piece of evidence was is known to who asks, in the same order.
        return {
            "findings": [
                finding.replace(source="", reason=finding.reason[:length]).as_dict() for finding in findings
            ]
        }

    def findings(self, document: dict[str, Any]) -> Iterator[Finding]:
        """One for each pair of a requirement and a piece of evidence that could meet it."""
        subject = Subject(**document["subject"])
        files = {path: base64.b64decode(text) for path, text in document["files"].items()}
        evidence = [
            Evidence(**{**piece, "data": base64.b64decode(piece["data"])}) for piece in document["evidence"]
        ]
        for number, index in document["pairs"]:
            requirement, piece = document["requirements"][number], evidence[index]
            verify = self._verifiers[requirement["kind"]]
            finding = _verify(verify, requirement, files, piece, subject, document["now"])
            yield finding.replace(requirement=number, source=piece.source)


def _reason_length(count: int) -> int:
    """How many characters of each reason fit into an answer, whatever they are: evidence chooses words of it."""
    return max(
        1, min(MAX_REASON_LENGTH, (MAX_LINE_BYTES // max(1, count) - _FINDING_BYTES) // _CHARACTER_BYTES)
    )


def _verify(
    verify: Verify,
    requirement: dict[str, Any],
    files: dict[str, bytes],
    evidence: Evidence,
    subject: Subject,
    now: int,
) -> Finding:
    nothing = Finding(requirement=0, source=evidence.source)
    if evidence.problem:
        return nothing.replace(reason=evidence.problem)
    try:
        finding = verify(requirement, files, evidence, subject, now)
    except BaseException as e:  # noqa: BLE001 - this piece says nothing; a panic of a library is no Exception
        return nothing.replace(reason=f"cannot be verified: {type(e).__name__}")
    if not finding.reason and finding.digest not in subject.digests:
        return nothing.replace(reason="the signature is for another image")
    return finding

# SPDX-License-Identifier: Apache-2.0
"""The findings while they are collected."""

from __future__ import annotations

from rkt.pod import risk
from rkt.pod.risk import Finding
from rkt.stage0.explain.sources import MANIFEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.stage0.explain.subject import Subject

OTHER_STAGE1 = "another stage1, such as the default one: leave --stage1-… out"
#: Findings that come of a stage1 that does not confine.
_OF_STAGE1 = frozenset(
    (
        "paths-not-hidden",
        "no-system-call-filter",
        "gains-privileges",
        "host-capabilities",
        "more-capabilities",
        "strong-capabilities",
        "no-memory-limit",
        "no-user-namespace",
        "host-network",
        "host-ipc",
    )
)
#: Findings that a pod manifest has no say in.
_BY_FLAG_ONLY = frozenset(
    (
        "caller-environment",
        "host-ipc",
        "host-network",
        "no-user-namespace",
        "paths-not-hidden",
        "unverified-image",
        "unverified-stage1",
    )
)


class Report:
    """All that was found of one pod."""

    def __init__(self, subject: Subject, settings: Settings) -> None:
        self.subject = subject
        self.settings = settings
        self.findings: list[Finding] = []

    def add(self, kind: str, app: str, source: str, text: str, remedy: str) -> None:
        """A finding of a kind in ``risk.POINTS``, unless it weighs nothing here; without an app it is the pod's."""
        points = risk.POINTS[kind][self.subject.private_users]
        if not self.subject.confines and kind in _OF_STAGE1 and "--caps-retain" not in remedy:
            remedy = OTHER_STAGE1
        if self.subject.operator == MANIFEST and kind not in _BY_FLAG_ONLY and "--" in remedy:
            remedy = f"in the pod manifest, what stands for this: {remedy}"
        if points:
            self.findings.append(
                Finding(kind=kind, app=app, points=points, source=source, text=text, remedy=remedy)
            )

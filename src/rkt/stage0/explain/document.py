# SPDX-License-Identifier: Apache-2.0
"""The object that ``rkt explain`` shows; its members: ``docs/explain.md``.

Nothing is decided here a second time. The pod manifest is the one that ``prepare`` would write, mounts, capabilities,
system calls and ids come from the functions that stage1 calls.
"""

from __future__ import annotations

from rkt.pod import risk
from rkt.stage0 import enforcement
from rkt.stage0.explain.app import explain_app
from rkt.stage0.explain.pod import explain_pod, judge_verdicts
from rkt.stage0.explain.report import OTHER_STAGE1, Report
from rkt.stage0.explain.sources import FLAG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.stage0.explain.subject import Subject

FORMAT = "rkt.explain"
VERSION = 1


def explain(subject: Subject, settings: Settings) -> dict[str, Any]:
    """The object of ``--format=json``; ``docs/explain.md`` describes its members."""
    if enforcement.NETWORK in subject.not_enforced:
        subject = subject.replace(networks=["host"])
    if enforcement.IPC in subject.not_enforced:
        subject = subject.replace(ipc="parent")
    report = Report(subject, settings)
    judge_verdicts(report)
    if not subject.confines:
        report.add(
            "unconfined",
            "",
            FLAG,
            f"{subject.stage1} does not confine apps: what they are not kept from by a flag, they may do to this machine",
            OTHER_STAGE1,
        )
    apps = [
        explain_app(report, runtime, image, layers)
        for runtime, image, layers in zip(subject.manifest.apps, subject.images, subject.layers, strict=True)
    ]
    pod = explain_pod(report)
    # Sorted by weight; of equal ones the order of the apps stays.
    found = sorted(report.findings, key=lambda finding: -finding.points)
    score = sum(finding.points for finding in found)
    return {
        "format": FORMAT,
        "version": VERSION,
        "risk": {"score": score, "level": risk.level(score)},
        "pod": pod,
        "apps": apps,
        "findings": [finding.to_json() for finding in found],
    }

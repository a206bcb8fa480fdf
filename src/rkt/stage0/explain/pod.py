# SPDX-License-Identifier: Apache-2.0
"""What a pod as a whole is given: images that nobody vouches for, namespaces that are the host's, paths that are not hidden."""

from __future__ import annotations

import os

from rkt.schema import isolators
from rkt.stage0 import contract
from rkt.stage0.explain.sources import DEFAULT, FLAG, POLICY
from rkt.stage1.common import paths
from rkt.trust.verdict import KIND_INSECURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from rkt.stage0.explain.report import Report


def judge_verdicts(report: Report) -> None:
    """Images, and a stage1, that nobody vouches for."""
    told: set[str] = set()
    for app, name, verdict, is_oci in report.subject.verdicts:
        if (verdict.kind != KIND_INSECURE and not verdict.is_unsigned) or name in told:
            continue
        told.add(name)
        if not name:
            report.add(
                "unverified-stage1",
                "",
                POLICY if verdict.is_unsigned else FLAG,
                "nobody vouches for the stage1 image, whose programs run as root of this machine",
                "use the built-in stage1, or trust its key",
            )
            continue
        if verdict.is_unsigned:
            report.add(
                "unverified-image",
                app,
                POLICY,
                f"nobody signed image {name}: {verdict.rule} lets it pass",
                "trust who signs it (rkt trust --help) in place of that rule, then fetch it again",
            )
            continue
        report.add(
            "unverified-image",
            app,
            FLAG,
            f"nobody vouches for image {name}: it came with --insecure-options=image",
            "trust who signs it (rkt trust --help), then fetch it again without --insecure-options=image"
            if is_oci
            else f"rkt trust --prefix={verdict.name}, then fetch it again without --insecure-options=image",
        )


def explain_pod(report: Report) -> dict[str, Any]:
    """The member ``pod``."""
    subject, operator = report.subject, report.subject.operator
    network = subject.networks[0]
    if network == "host":
        report.add(
            "host-network",
            "",
            FLAG,
            "it uses this machine's network: all its addresses, what listens on localhost, abstract sockets",
            "leave out --net=host",
        )
    if subject.ipc == "parent":
        report.add(
            "host-ipc",
            "",
            FLAG,
            "it shares memory segments, semaphores and message queues with this machine",
            "leave out --ipc=parent",
        )
    if not subject.private_users:
        report.add(
            "no-user-namespace",
            "",
            DEFAULT,
            "a user id in the pod is the same user id on this machine",
            "--private-users",
        )
    sysctls = isolators.last(subject.manifest.isolators, isolators.SYSCTL)
    if sysctls:
        report.add(
            "sysctls",
            "",
            operator,
            f"kernel parameters of its own namespaces are changed: {', '.join(sorted(sysctls))}",
            "leave out --sysctl",
        )
    if subject.inherits_environment:
        report.add(
            "caller-environment",
            "",
            FLAG,
            "its apps see the caller's environment, with whatever secrets are in it",
            "leave out --inherit-env, use --set-env for single variables",
        )
    masked = "paths" not in subject.insecure and subject.confines
    if not masked:
        report.add(
            "paths-not-hidden",
            "",
            FLAG,
            "/proc and /sys are neither hidden nor read-only, and every device may be used that a node is made for",
            "leave paths out of --insecure-options",
        )
    limit = isolators.last(subject.manifest.isolators, isolators.MEMORY)
    return {
        "network": {
            "mode": ",".join(each.partition(":")[0] for each in subject.networks),
            "source": DEFAULT if network == "default" else FLAG,
        },
        "egress": [
            rule
            for rule in subject.manifest.annotations.get(contract.ANNOTATION_EGRESS, "").split(",")
            if rule
        ],
        "ipc": {
            "mode": "parent" if subject.ipc == "parent" else "private",
            "source": FLAG if subject.ipc == "parent" else DEFAULT,
        },
        "user_namespace": {
            "private": subject.private_users,
            "source": FLAG if subject.private_users else DEFAULT,
        },
        "sysctls": dict(sysctls or {}),
        "insecure_options": list(subject.insecure),
        "memory_limit_bytes": limit.limit_amount
        if limit is not None and limit.limit_amount is not None
        else os.sysconf("SC_PHYS_PAGES")
        * os.sysconf("SC_PAGE_SIZE")
        * (100 if "memory" in subject.not_enforced else isolators.DEFAULT_MEMORY_PERCENT)
        // 100,
        "stage1": {"name": subject.stage1, "not_enforced": list(subject.not_enforced)},
        "hidden_paths": _absolute((*paths.MASKED, *paths.thermal_directories())) if masked else [],
        "read_only_paths": [*_absolute(paths.READ_ONLY), "/sys"] if masked else [],
        "base_devices": ["/dev"]
        if "devices" in subject.not_enforced
        else _absolute(name for name, _, _ in paths.DEVICES),
    }


def _absolute(relative: Iterable[bytes]) -> list[str]:
    return [f"/{os.fsdecode(path)}" for path in relative]

# SPDX-License-Identifier: Apache-2.0
"""What an app may ask of the kernel: capabilities and system calls."""

from __future__ import annotations

from rkt.linux import seccomp_isolators, seccomp_profiles
from rkt.pod import risk
from rkt.stage0.explain.sources import FAMILIES, FLAG, source_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.schema.appc import App, ImageManifest
    from rkt.stage0.explain.report import Report

#: Most names of capabilities or system calls that a sentence repeats.
_MOST_NAMES = 4


def judge_capabilities(report: Report, app: str, names: list[str], source: str, *, off: bool) -> None:
    """Findings on the capabilities that an app can come to have; ``off`` if that is all of them by a flag."""
    for kind, found in risk.capability_kinds(names).items():
        if kind == "default-capabilities":
            text = f"{app} has {len(found)} of the usual capabilities of root over its own files and users"
            remedy = "--caps-retain= with those it needs only, or a user other than root"
            report.add(kind, app, source, text, remedy)
            continue
        what = {
            "host-capabilities": "enough for control of this machine",
            "strong-capabilities": "to change what other programs of this machine rely on",
            "more-capabilities": "more than apps have by default",
        }[kind]
        report.add(kind, app, source, f"{app} has {_listed(found)}, {what}", _without(found, source, off=off))


def system_calls(
    report: Report,
    app: App,
    image: ImageManifest,
    name: str,
    wish: seccomp_isolators.Wish,
    *,
    filtered: bool,
) -> dict[str, Any]:
    """The member ``system_calls`` of an app, which has a filter or not, and what it wishes of that."""
    subject = report.subject
    source = source_of(app, image, subject, FAMILIES[1])
    if not filtered:
        source = FLAG if "seccomp" in subject.insecure else source
        report.add(
            "no-system-call-filter",
            name,
            source,
            f"{name} may make every system call",
            "leave seccomp out of --insecure-options"
            if "seccomp" in subject.insecure
            else "no @appc.io/all in --seccomp=mode=retain,…",
        )
        return {"filter": "off", "allowed": None, "added": [], "removed": [], "source": source}
    usual = set(seccomp_profiles.default_names())
    allowed = set(usual)
    if wish.kind == seccomp_isolators.RETAIN:
        allowed = {*wish.names, *seccomp_profiles.words((seccomp_profiles.IMPLICIT,))}
    elif wish.kind:
        allowed -= set(wish.names)
    added = sorted(allowed - usual)
    # What a retain set always has is in the default filter, but for names of other architectures.
    added = [call for call in added if wish.kind == seccomp_isolators.RETAIN and call in wish.names]
    if added:
        report.add(
            "wider-system-calls",
            name,
            source,
            f"{name} may make system calls that no app may by default: {_listed(added)}",
            "leave them out of --seccomp=mode=retain,…",
        )
    return {
        "filter": "default" if not wish.kind else wish.kind.split("-")[1],
        "allowed": sorted(allowed),
        "added": added,
        "removed": sorted(usual - allowed),
        "source": source,
    }


def _without(names: list[str], source: str, *, off: bool) -> str:
    if off:
        return "leave capabilities out of --insecure-options"
    return f"leave {_listed(names)} out of {'--caps-retain' if source == FLAG else 'the pod manifest'}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"

# SPDX-License-Identifier: Apache-2.0
"""What an app of a pod is given: its user, its limits, and what of its image's wishes was left out."""

from __future__ import annotations

from rkt.errors import Stage1Error
from rkt.linux import capabilities, seccomp_isolators, seccomp_profiles
from rkt.schema import appc, isolators
from rkt.schema.probes import parse_probes
from rkt.stage0.explain.privileges import judge_capabilities, system_calls
from rkt.stage0.explain.reach import reach
from rkt.stage0.explain.sources import DEFAULT, FAMILIES, FLAG, source_of, source_of_user
from rkt.stage0.shown import ShownRoot
from rkt.stage1.common import users as accounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.schema.appc import App, ImageManifest, RuntimeApp
    from rkt.stage0.explain.report import Report
    from rkt.stage0.explain.subject import Subject


def explain_app(
    report: Report, runtime: RuntimeApp, image: ImageManifest, layers: list[str]
) -> dict[str, Any]:
    """An element of ``apps``.

    Raises:
        Stage1Error: nobody says what the app is.
    """
    subject = report.subject
    name = str(runtime.name)
    app = runtime.app or (image.app and appc.tightened_app(image.app, seccomp_profiles.narrow)[0])
    if app is None:
        raise Stage1Error(f"app {name!r} has no app section in the pod manifest or in its image")
    uid, gid = _ids(app, image, layers)
    is_root = uid in {0, None} or bool(app.event_handlers)
    kept = capabilities.full_mask()
    off = "capabilities" in subject.insecure
    if not off:
        usual = isolators.DEFAULT_CAPABILITIES if subject.confines else capabilities.NAMES
        kept = capabilities.mask(isolators.retained_capabilities(app.isolators, usual))
    bounding = capabilities.names(kept & ~capabilities.missing(kept))
    wish = seccomp_isolators.parse(
        (i.name, i.value.names, i.value.errno)
        for i in app.isolators
        if i.name.startswith("os/linux/seccomp-")
    )
    filtered = (
        "seccomp" not in subject.insecure and not wish.everything and (subject.confines or bool(wish.kind))
    )
    fixed = isolators.fixes_privileges(
        app.isolators, uid=uid or 0, filtered=filtered, default=subject.confines
    )
    user_source = source_of_user(app, image, subject)
    if is_root:
        who = "runs as root" if uid == 0 else "has event handlers, which run as root of the image"
        if uid is None:
            who = f"runs as user {app.user}, who cannot be looked up and may be root"
        report.add("root-user", name, user_source, f"{name} {who}", "--user=UID of the image, not 0")
    capability_source = FLAG if off else source_of(app, image, subject, FAMILIES[0])
    if is_root or not fixed:
        judge_capabilities(report, name, bounding, capability_source, off=off)
    privileges_source = source_of(app, image, subject, (isolators.NO_NEW_PRIVILEGES,))
    if not fixed:
        report.add(
            "gains-privileges",
            name,
            privileges_source,
            f"{name} may gain privileges by set-uid programs and file capabilities",
            "leave out --no-new-privileges=false",
        )
    return {
        "name": name,
        "image": {
            "name": str(image.name),
            "version": image.labels.get("version", ""),
            "id": runtime.image_id,
        },
        "verified": _verdict_json(subject, name),
        "exec": app.exec,
        "event_handlers": {handler: list(words) for handler, words in app.event_handlers.items()},
        "probes": [
            {
                "kind": probe.kind,
                "method": probe.method,
                "exec": list(probe.words),
                "port": probe.port or None,
            }
            for probe in parse_probes(runtime.annotations)
        ],
        "user": {"name": app.user, "uid": uid, "group": app.group, "gid": gid, "source": user_source},
        "supplementary_gids": list(app.supplementary_gids),
        "capabilities": {
            "bounding": bounding,
            "effective": bounding if uid in {0, None} else [],
            "source": capability_source,
        },
        "no_new_privileges": {"value": fixed, "source": privileges_source},
        "system_calls": system_calls(report, app, image, name, wish, filtered=filtered),
        "root_file_system": {
            "read_only": runtime.readonly_rootfs,
            "source": subject.operator if runtime.readonly_rootfs else DEFAULT,
        },
        **reach(report, runtime, app, name),
        "limits": _limits(report, app, image, name),
        "cut_wishes": _cut_wishes(app, image, subject.insecure),
    }


def _verdict_json(subject: Subject, app: str) -> dict[str, Any]:
    verdict = next(each for owner, name, each, _ in subject.verdicts if owner == app and name)
    return {
        "kind": verdict.kind,
        "rule": verdict.rule,
        "fingerprint": verdict.fingerprint,
        "identities": list(verdict.identities),
        "signers": [{"kind": fact.kind, "signer": fact.signer} for fact in verdict.facts if fact.signer],
    }


def _ids(app: App, image: ImageManifest, layers: list[str]) -> tuple[int | None, int | None]:
    """User and group as stage1 resolves them; ``None`` when the image has no such names."""
    try:
        return accounts.resolve_both(ShownRoot(layers), app.user, app.group, annotations=image.annotations)
    except Stage1Error:
        return None, None


def _cut_wishes(app: App, image: ImageManifest, insecure: list[str]) -> list[str]:
    """What the image asks for and does not get; what a flag replaced or switched off is not spoken of."""
    granted = {
        name
        for word, family in zip(("capabilities", "seccomp"), FAMILIES, strict=True)
        if word in insecure
        for name in family
    }
    wishes: list[str] = []
    for isolator in image.app.isolators if image.app is not None else ():
        if isolator.name in granted:
            continue
        kept, notices = isolators.tighten([isolator], seccomp_profiles.narrow)
        family = next((each for each in FAMILIES if isolator.name in each), (isolator.name,))
        in_force = [each for each in app.isolators if each.name in family]
        if notices and all(each in kept for each in in_force):
            wishes += notices
    return wishes


def _limits(report: Report, app: App, image: ImageManifest, name: str) -> dict[str, Any]:
    subject = report.subject
    memory = isolators.last(app.isolators, isolators.MEMORY)
    pids = isolators.last(app.isolators, isolators.PIDS)
    cpu = isolators.last(app.isolators, isolators.CPU)
    most = None if "pids" in subject.not_enforced else isolators.DEFAULT_MAX_PIDS
    percent = 100 if "memory" in subject.not_enforced else isolators.DEFAULT_MEMORY_PERCENT
    memory_bytes = None if memory is None else memory.limit_amount
    if memory_bytes is None:
        report.add(
            "no-memory-limit",
            name,
            DEFAULT,
            f"{name} may use memory up to the pod's {percent} % of this machine",
            "--memory=256M",
        )
    score = isolators.last(app.isolators, isolators.OOM_SCORE_ADJ)
    if score is not None and score < 0:
        source = source_of(app, image, subject, (isolators.OOM_SCORE_ADJ,))
        text = f"{name} is protected when memory is short, others go first"
        report.add("protected-from-oom", name, source, text, "leave out --oom-score-adj")

    def entry(amount: int | None, isolator: str) -> dict[str, Any]:
        return {"limit": amount, "source": source_of(app, image, subject, (isolator,))}

    return {
        "memory_bytes": entry(memory_bytes, isolators.MEMORY),
        "cpu_thousandths": entry(None if cpu is None else cpu.limit_amount, isolators.CPU),
        "processes": entry(most if pids is None else pids.limit_amount, isolators.PIDS),
    }

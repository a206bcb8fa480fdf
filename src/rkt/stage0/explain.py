# SPDX-License-Identifier: Apache-2.0
"""What a pod may reach, and who gives it that: of a command line before there is a pod, or of a pod on disk.

Nothing is decided here a second time. The pod manifest is the one that ``prepare`` would write, mounts, capabilities,
system calls and ids come from the functions that stage1 calls. Members of the result: ``docs/explain.md``.
"""

from __future__ import annotations

import os
import stat

from rkt.errors import PodError, Stage1Error, UsageError
from rkt.linux import capabilities, files, seccomp_isolators, seccomp_profiles
from rkt.pod import lifecycle, risk, status
from rkt.pod.risk import Finding
from rkt.schema import appc, isolators, jsontext
from rkt.schema.appc import VOLUME_DEVICE, VOLUME_HOST, VOLUME_IMAGE
from rkt.schema.mounts import pair_mounts
from rkt.schema.probes import parse_probes
from rkt.schema.record import Record
from rkt.stage0 import contract, enforcement, prepare, roots
from rkt.stage0.shown import ShownRoot
from rkt.stage0.stage1 import Program, read_program
from rkt.stage1.common import paths
from rkt.stage1.common import users as accounts
from rkt.store.cas import Store
from rkt.trust.verdict import KIND_INSECURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.pod.lifecycle import Pod
    from rkt.pod.request import PodRequest
    from rkt.schema.appc import App, ImageManifest, PodManifest, RuntimeApp
    from rkt.schema.isolators import Isolator
    from rkt.schema.mounts import PairedMount
    from rkt.stage0.run import RunOptions
    from rkt.stage0.stage1 import Choice
    from rkt.trust.verdict import Verdict

FORMAT = "rkt.explain"
VERSION = 1
IMAGE, FLAG, MANIFEST, DEFAULT, POLICY = "image", "flag", "pod-manifest", "default", "trust-policy"
#: How stage1 ``ns`` was started, in the pod directory.
_RUNTIME_CONFIG = "runtime-config"
#: Isolators that say the same thing in two ways.
_FAMILIES = (
    (isolators.CAPABILITIES_RETAIN, isolators.CAPABILITIES_REMOVE),
    (isolators.SECCOMP_RETAIN, isolators.SECCOMP_REMOVE),
)
_LIMIT_BYTES = 4 << 20
#: Most names of capabilities or system calls that a sentence repeats.
_MOST_NAMES = 4
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
_OTHER_STAGE1 = "another stage1, such as the default one: leave --stage1-… out"
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
_HARMLESS_DEVICES = frozenset(os.fsdecode(name) for name, _, _ in paths.DEVICES)


class Subject(Record):
    """A pod, made or not, with all that decides what it may reach.

    Attributes:
        images: of the apps, in their order.
        layers: directories of each app's layers, the topmost first.
        verdicts: (app, image name, verdict, whether it is a Docker or OCI image); the app is empty for volumes and
            dependencies, the name for stage1.
        insecure: words of ``--insecure-options`` in force.
        networks: as ``run`` is told.
        ipc: likewise.
        operator: source of what did not come from an image: ``flag`` or ``pod-manifest``.
        inherits_environment: whether the caller's variables go to the apps.
        stage1: name of its stage1.
        not_enforced: what that does not enforce, by its own word (``stage0/enforcement.py``).
    """

    manifest: PodManifest
    images: list[ImageManifest]
    layers: list[list[str]]
    verdicts: list[tuple[str, str, Verdict, bool]]
    insecure: list[str]
    networks: list[str]
    ipc: str
    private_users: bool
    operator: str
    inherits_environment: bool = False
    stage1: str = ""
    not_enforced: list[str] = []

    @property
    def confines(self) -> bool:
        """Whether apps that ask for nothing are confined."""
        return enforcement.CONFINEMENT not in self.not_enforced


def of_request(
    request: PodRequest, choice: Choice, settings: Settings, options: RunOptions
) -> dict[str, Any]:
    """What the pod of a command line could reach; there is no pod afterwards.

    Raises:
        RktError: the pod could not be made.
    """
    store = Store(settings.data_dir)
    plan = prepare.plan_pod(request, choice, settings, store, single_app=options.interactive, options=options)
    program = Program(plan.stage1_manifest)
    verdicts: list[tuple[str, str, Verdict, bool]] = [("", "", plan.stage1.verdict, False)]
    for app in plan.apps:
        used = (app.image, *app.composed.dependencies)
        verdicts += [(app.name, each.full_name, each.verdict, each.key.is_oci) for each in used]
    for volume in plan.volumes:
        used = (volume.image, *volume.composed.dependencies)
        verdicts += [("", each.full_name, each.verdict, each.key.is_oci) for each in used]
    return explain(
        Subject(
            manifest=appc.parse_pod_manifest(plan.manifest),
            images=[appc.parse_image_manifest(app.manifest) for app in plan.apps],
            layers=[
                [f"{store.layer_path(layer)}/rootfs" for layer in app.composed.layers] for app in plan.apps
            ],
            verdicts=verdicts,
            insecure=settings.insecure.words(),
            networks=options.networks,
            ipc=options.ipc,
            private_users=request.private_users,
            operator=FLAG if request.pod_manifest_path is None else MANIFEST,
            inherits_environment=bool(request.inherited_env),
            stage1=program.name,
            not_enforced=program.not_enforced,
        ),
        settings,
    )


def of_pod(pod: Pod, settings: Settings, options: RunOptions | None) -> dict[str, Any]:
    """What a pod on disk may reach.

    Args:
        pod: prepared, running or exited.
        settings: of the running command.
        options: how a prepared pod is going to be run; ``None`` if no flag says so.
    Raises:
        PodError, UsageError: it is not prepared, or was run otherwise already.
        RktError, OSError: a file of the pod is damaged.
    """
    if pod.place in {lifecycle.EMBRYO, lifecycle.PREPARE, lifecycle.GARBAGE}:
        raise PodError(f'pod "{pod.uuid}" is {pod.state}', hint="rkt list")
    # What came unsigned, the verdicts say by image.
    words = [word for word in status.insecure_words(pod) if word != status.UNSIGNED]
    networks, ipc = ["default"], ""
    if pod.place == lifecycle.PREPARED:
        words += [word for word in settings.insecure.words() if word not in words]
        if options is not None:
            networks, ipc = options.networks, options.ipc
    elif options is not None:
        raise UsageError(f'pod "{pod.uuid}" was started already: flags of run would change nothing')
    else:
        networks, ipc = _started_with(pod)
    manifest = appc.parse_pod_manifest(files.read_bounded(contract.POD_MANIFEST, _LIMIT_BYTES, dir_fd=pod.fd))
    store = Store(settings.data_dir)
    images, layers = [], []
    for app in manifest.apps:
        path = f"appsinfo/{app.name}/manifest"
        images.append(appc.parse_image_manifest(files.read_bounded(path, _LIMIT_BYTES, dir_fd=pod.fd)))
        layers.append([f"{store.layer_path(key)}/rootfs" for key in roots.layer_keys(pod, app.name)])
    return explain(
        Subject(
            manifest=manifest,
            images=images,
            layers=layers,
            verdicts=[_owner(pod, path, verdict) for path, verdict in prepare.pod_verdicts(pod)],
            insecure=words,
            networks=networks,
            ipc=ipc,
            private_users=pod.has(contract.PRIVATE_USERS_PREPARED),
            operator=MANIFEST,
            stage1=read_program(pod).name,
            not_enforced=status.not_enforced(pod),
        ),
        settings,
    )


def _owner(pod: Pod, path: str, verdict: Verdict) -> tuple[str, str, Verdict, bool]:
    if path == prepare.STAGE1_VERDICT:
        return "", "", verdict, False
    kind, owner, what = path.split("/", 2)
    # Only the image itself: those that appc images depend on are appc's.
    key = pod.read(f"{kind}/{owner}/treeStoreID") if what == prepare.VERDICT else None
    is_oci = key is not None and key.startswith(b"sha256-")
    return owner if kind == "appsinfo" else "", verdict.name, verdict, is_oci


def _started_with(pod: Pod) -> tuple[list[str], str]:
    data = pod.read(_RUNTIME_CONFIG)
    if data is None:
        raise PodError(f'pod "{pod.uuid}" does not say how it was started: its stage1 keeps no record')
    networks, ipc = ["none"], ""
    for word in jsontext.parse(data, what=_RUNTIME_CONFIG).get("arguments", ()):
        name, _, value = str(word).partition("=")
        if name == "--net":
            networks = value.split(",")
        elif name == "--ipc":
            ipc = value
    return networks, ipc


class _Report:
    """The findings while they are collected."""

    def __init__(self, subject: Subject, settings: Settings) -> None:
        self.subject = subject
        self.settings = settings
        self.findings: list[Finding] = []

    def add(self, kind: str, app: str, source: str, text: str, remedy: str) -> None:
        points = risk.POINTS[kind][self.subject.private_users]
        if not self.subject.confines and kind in _OF_STAGE1 and "--caps-retain" not in remedy:
            remedy = _OTHER_STAGE1
        if self.subject.operator == MANIFEST and kind not in _BY_FLAG_ONLY and "--" in remedy:
            remedy = f"in the pod manifest, what stands for this: {remedy}"
        if points:
            self.findings.append(
                Finding(kind=kind, app=app, points=points, source=source, text=text, remedy=remedy)
            )


def explain(subject: Subject, settings: Settings) -> dict[str, Any]:
    """The object of ``--format=json``; ``docs/explain.md`` describes its members."""
    if enforcement.NETWORK in subject.not_enforced:
        subject = subject.replace(networks=["host"])
    if enforcement.IPC in subject.not_enforced:
        subject = subject.replace(ipc="parent")
    report = _Report(subject, settings)
    _judge_verdicts(report)
    if not subject.confines:
        report.add(
            "unconfined",
            "",
            FLAG,
            f"{subject.stage1} does not confine apps: what they are not kept from by a flag, they may do to this machine",
            _OTHER_STAGE1,
        )
    apps = [
        _explain_app(report, runtime, image, layers)
        for runtime, image, layers in zip(subject.manifest.apps, subject.images, subject.layers, strict=True)
    ]
    pod = _explain_pod(report)
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


def _judge_verdicts(report: _Report) -> None:
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


def _explain_pod(report: _Report) -> dict[str, Any]:
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


def _explain_app(
    report: _Report, runtime: RuntimeApp, image: ImageManifest, layers: list[str]
) -> dict[str, Any]:
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
    user_source = _source_of_user(app, image, subject)
    if is_root:
        who = "runs as root" if uid == 0 else "has event handlers, which run as root of the image"
        if uid is None:
            who = f"runs as user {app.user}, who cannot be looked up and may be root"
        report.add("root-user", name, user_source, f"{name} {who}", "--user=UID of the image, not 0")
    capability_source = FLAG if off else _source(app, image, subject, _FAMILIES[0])
    if is_root or not fixed:
        _judge_capabilities(report, name, bounding, capability_source, off=off)
    privileges_source = _source(app, image, subject, (isolators.NO_NEW_PRIVILEGES,))
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
        "system_calls": _system_calls(report, app, image, name, wish, filtered=filtered),
        "root_file_system": {
            "read_only": runtime.readonly_rootfs,
            "source": subject.operator if runtime.readonly_rootfs else DEFAULT,
        },
        **_reach(report, runtime, app, name),
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


def _source(app: App, image: ImageManifest, subject: Subject, family: tuple[str, ...]) -> str:
    """Who is behind what the isolators of a family say."""
    said = [isolator for isolator in app.isolators if isolator.name in family]
    if not said:
        return DEFAULT
    return IMAGE if all(isolator in _tightened(image) for isolator in said) else subject.operator


def _tightened(image: ImageManifest) -> list[Isolator]:
    return [] if image.app is None else isolators.tighten(image.app.isolators, seccomp_profiles.narrow)[0]


def _source_of_user(app: App, image: ImageManifest, subject: Subject) -> str:
    if image.app is not None and (image.app.user, image.app.group) == (app.user, app.group):
        return IMAGE
    return subject.operator


def _cut_wishes(app: App, image: ImageManifest, insecure: list[str]) -> list[str]:
    """What the image asks for and does not get; what a flag replaced or switched off is not spoken of."""
    granted = {
        name
        for word, family in zip(("capabilities", "seccomp"), _FAMILIES, strict=True)
        if word in insecure
        for name in family
    }
    wishes: list[str] = []
    for isolator in image.app.isolators if image.app is not None else ():
        if isolator.name in granted:
            continue
        kept, notices = isolators.tighten([isolator], seccomp_profiles.narrow)
        family = next((each for each in _FAMILIES if isolator.name in each), (isolator.name,))
        in_force = [each for each in app.isolators if each.name in family]
        if notices and all(each in kept for each in in_force):
            wishes += notices
    return wishes


def _judge_capabilities(report: _Report, app: str, names: list[str], source: str, *, off: bool) -> None:
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


def _without(names: list[str], source: str, *, off: bool) -> str:
    if off:
        return "leave capabilities out of --insecure-options"
    return f"leave {_listed(names)} out of {'--caps-retain' if source == FLAG else 'the pod manifest'}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"


def _system_calls(
    report: _Report,
    app: App,
    image: ImageManifest,
    name: str,
    wish: seccomp_isolators.Wish,
    *,
    filtered: bool,
) -> dict[str, Any]:
    subject = report.subject
    source = _source(app, image, subject, _FAMILIES[1])
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


def _reach(report: _Report, runtime: RuntimeApp, app: App, name: str) -> dict[str, Any]:
    """Paths and devices, beyond what is the pod's own."""
    subject = report.subject
    sources = {volume.name: volume.source for volume in subject.manifest.volumes}
    sources |= {each.app_volume.name: each.app_volume.source for each in runtime.mounts if each.app_volume}
    mounted: list[dict[str, Any]] = []
    devices: list[dict[str, Any]] = []
    for mount in pair_mounts(runtime, app, subject.manifest):
        source = IMAGE if mount.implicit else subject.operator
        if mount.kind == VOLUME_DEVICE:
            devices.append(
                {"path": mount.path, "host_path": mount.source, "access": mount.access, "source": source}
            )
            _judge_device(report, name, mount, source)
            continue
        entry: dict[str, Any] = {
            "path": mount.path,
            "kind": mount.kind,
            "read_only": mount.read_only,
            "source": source,
        }
        if mount.kind == VOLUME_HOST:
            entry["host_path"] = mount.source
            entry["recursive"] = mount.recursive
            _judge_volume(report, name, mount, source)
        elif mount.kind == VOLUME_IMAGE:
            entry["image_id"] = sources[mount.name]
        mounted.append(entry)
    if not runtime.readonly_rootfs:
        report.add(
            "writable-root", name, DEFAULT, f"{name} can change its own files", "--readonly-rootfs=true"
        )
    return {"paths": mounted, "devices": devices}


def _judge_volume(report: _Report, app: str, mount: PairedMount, source: str) -> None:
    where = os.path.realpath(mount.source or "/")
    shown = mount.source if where == mount.source else f"{mount.source} ({where})"
    # A read-only mount keeps nobody from talking to a socket.
    can_write = not mount.read_only or _kind(where) == stat.S_IFSOCK
    sensitive = risk.is_sensitive(where, report.settings.data_dir)
    kind = f"{'sensitive' if sensitive else 'volume'}-{'write' if can_write else 'read'}"
    verb = "can change" if can_write else "can read"
    grave = ", where it keeps programs, settings or secrets" if sensitive else ""
    remedy = f"a narrower directory than {mount.source}" if sensitive else f"leave out volume {mount.name}"
    if not mount.read_only:
        remedy = f"--volume={mount.name},kind=host,source={mount.source},readOnly=true, or {remedy}"
    report.add(kind, app, source, f"{app} {verb} {shown} of this machine{grave}", remedy)


def _judge_device(report: _Report, app: str, mount: PairedMount, source: str) -> None:
    where = os.path.realpath(mount.source or "/")
    if where[1:] in _HARMLESS_DEVICES:
        return
    sensitive = _kind(where) == stat.S_IFBLK or where in {"/dev/mem", "/dev/kmem", "/dev/port"}
    grave = ", which holds files or memory of this machine" if sensitive else ""
    report.add(
        "sensitive-device" if sensitive else "device",
        app,
        source,
        f"{app} can use {mount.source} ({mount.access}){grave}",
        f"leave out --device={mount.source}",
    )


def _kind(path: str) -> int:
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except OSError:
        return 0  # the pod will not start without it


def _limits(report: _Report, app: App, image: ImageManifest, name: str) -> dict[str, Any]:
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
        source = _source(app, image, subject, (isolators.OOM_SCORE_ADJ,))
        text = f"{name} is protected when memory is short, others go first"
        report.add("protected-from-oom", name, source, text, "leave out --oom-score-adj")

    def entry(amount: int | None, isolator: str) -> dict[str, Any]:
        return {"limit": amount, "source": _source(app, image, subject, (isolator,))}

    return {
        "memory_bytes": entry(memory_bytes, isolators.MEMORY),
        "cpu_thousandths": entry(None if cpu is None else cpu.limit_amount, isolators.CPU),
        "processes": entry(most if pids is None else pids.limit_amount, isolators.PIDS),
    }

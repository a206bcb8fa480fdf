# SPDX-License-Identifier: Apache-2.0
"""Make a pod: find and judge its images, write its directory (spec runtime §1.2).

Everything that can be refused is refused before the pod exists: flags, images, verdicts, the manifest. What follows
can fail only because of the disk or because somebody removes an image at this very moment; then the pod goes again.
"""

from __future__ import annotations

import os

from rkt.errors import HostError, InvalidManifest, NotFound, PodError, Stage1Error, UsageError, reason_of
from rkt.fetch.reference import POLICY_NEVER
from rkt.linux.files import remove_tree, write_all
from rkt.pod import lifecycle, names, status, summary
from rkt.pod.manifest import build_pod_manifest, check_pod_manifest
from rkt.schema import jsontext
from rkt.schema.appc import (
    ANNOTATION_LOG_MODE,
    ANNOTATION_STREAMS,
    VOLUME_IMAGE,
    parse_image_manifest,
    parse_pod_manifest,
)
from rkt.schema.envelope import open_sealed, seal
from rkt.schema.mounts import named_volumes
from rkt.schema.record import Record
from rkt.stage0 import contract, roots
from rkt.stage0.images import Composed, compose, expect, find_by_hash, find_image
from rkt.stage0.messages import tell
from rkt.stage0.stage1 import Program, find_stage1
from rkt.store.cas import Store
from rkt.trust.policy import check_verdict
from rkt.trust.verdict import KIND_BUILTIN, Verdict
from rkt.values import is_image_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rkt.config.settings import Settings
    from rkt.linux.userns import IdRange
    from rkt.net.ports import Forward
    from rkt.pod.lifecycle import Pod
    from rkt.pod.request import AppRequest, PodRequest
    from rkt.schema.appc import ImageManifest, PodManifest, RuntimeApp
    from rkt.stage0.image_volumes import ImageVolume
    from rkt.stage0.lock import Lock
    from rkt.stage0.run import RunOptions
    from rkt.stage0.stage1 import Choice
    from rkt.store.record import ImageRecord

VERDICT = "verdict"
#: Directory of the verdicts of what an image depends on, by key.
DEPENDENCIES = "dependencies"
STAGE1_VERDICT = "stage1/verdict"
_VERDICT_FORMAT = "rkt.verdict"
_VERDICT_VERSION = 1
#: Modes of what stage0 makes are stated where it is made; this is what stage1 and copied trees start from (HH8).
_UMASK = 0o022


class PlannedApp(Record):
    """One app of the pod to be."""

    name: str
    image: ImageRecord
    manifest: bytes
    composed: Composed


class Plan(Record):
    """What is written once the pod exists.

    Attributes:
        ranges: ids of which the pod leases some; ``None`` for a pod without a user namespace.
        ports: of the host, that lead to the pod.
        notices: on wishes of images that were cut.
        not_enforced: the stage1 says that there is something that it does not enforce.
        lost: wishes of images that are none of that.
    """

    stage1: ImageRecord
    stage1_manifest: bytes
    stage1_composed: Composed
    apps: list[PlannedApp]
    manifest: bytes
    overlay: bool
    ranges: list[tuple[int, int]] | None
    ports: list[Forward] = []
    volumes: list[ImageVolume] = []
    notices: list[str] = []
    not_enforced: bool = False
    lost: list[str] = []


def prepare(
    request: PodRequest,
    choice: Choice,
    settings: Settings,
    *,
    uuid_file: str = "",
    single_app: bool = False,
    options: RunOptions | None = None,
    sync: bool,
) -> Pod:
    """Make a pod that stands in ``prepare``, locked by this process.

    Args:
        request: what the command line asks for.
        choice: which stage1.
        settings: of the running command.
        uuid_file: where to write the UUID as soon as the pod exists; empty for nowhere.
        single_app: refuse a pod of several apps.
        options: how it is going to run at once; refuse what cannot be so.
        sync: whether the pod must survive a power cut once this returns; ``run`` needs no such promise.
    Raises:
        RktError: it cannot be made; then there is no pod.
    """
    os.umask(_UMASK)
    store = Store(settings.data_dir)
    plan = plan_pod(request, choice, settings, store, single_app=single_app, options=options)
    for notice in plan.notices:
        tell(settings, notice)
    uuid_fd = _open_uuid_file(uuid_file) if uuid_file else -1
    try:
        pod = lifecycle.create(settings.data_dir)
        if uuid_fd >= 0:
            write_all(uuid_fd, pod.uuid.encode())
    finally:
        if uuid_fd >= 0:
            os.close(uuid_fd)
    try:
        _write(pod, plan, request, settings, store)
        if sync:
            from rkt.linux import libc

            libc.syncfs(pod.fd)
    except BaseException as e:
        _discard(pod, e, settings.data_dir)
        raise
    return pod


def plan_pod(
    request: PodRequest,
    choice: Choice,
    settings: Settings,
    store: Store,
    *,
    single_app: bool = False,
    options: RunOptions | None = None,
) -> Plan:
    """Decide everything about a pod and refuse what can be refused; there is no pod afterwards.

    Args:
        request: what the command line asks for.
        choice: which stage1.
        settings: of the running command.
        store: where images are, and where those that have to be fetched go.
        single_app: refuse a pod of several apps.
        options: how it is going to run at once; refuse what cannot be so.
    Raises:
        RktError: it cannot be made.
    """
    if request.name:
        names.parse(request.name)
        names.check_free(settings.pods_dir, request.name)
    lock = None
    if request.locked:
        from rkt.stage0.lock import load_lock

        lock = load_lock(request.locked)
        request = lock.pin(request, settings, store)
    plan = _plan(request, choice, settings, store, lock)
    if lock is not None:
        lock.check(plan, complete=not request.mutable)
    if options is not None and plan.not_enforced:
        from rkt.stage0 import enforcement

        options = enforcement.settle(Program(plan.stage1_manifest), options)
    networks = None if options is None else options.networks
    if single_app and len(plan.apps) > 1:
        raise UsageError("interactive option only supports one image")
    if single_app:
        from rkt.stage0.attach import check_interactive

        check_interactive(plan.manifest)
    if networks is not None and ANNOTATION_LOG_MODE.encode() in plan.manifest:
        from rkt.stage0.attach import check_log_directory

        check_log_directory(plan.manifest)
    if networks in (["none"], ["host"]) and contract.ANNOTATION_EGRESS.encode() in plan.manifest:
        from rkt.stage0.egress import check_networks

        check_networks(networks)
    served: frozenset[str] = frozenset()
    if networks is not None and "LISTEN_FDS" in os.environ:
        from rkt.stage0.activation import check_sockets

        served = check_sockets(plan.manifest, {app.name: app.manifest for app in plan.apps})
    if networks is not None and plan.ports:
        from rkt.stage0.ports import check_ports

        check_ports(plan.ports, networks, settings, served=served)
    return plan


def _plan(request: PodRequest, choice: Choice, settings: Settings, store: Store, lock: Lock | None) -> Plan:
    opted_out = settings.insecure.image
    stage1 = find_stage1(choice, settings, store)
    check_verdict(stage1.verdict, settings, opted_out=opted_out)
    if lock is not None:
        lock.check_stage1(stage1)
    stage1_manifest = store.manifest_bytes(stage1.key)
    # Refuse an image that is no stage1 before the pod exists.
    program = Program(stage1_manifest)
    for annotation in (contract.ANNOTATION_RUN, contract.ANNOTATION_GC):
        program.entrypoint(annotation)
    if request.mutable:
        changing = (
            contract.ANNOTATION_APP_ADD,
            contract.ANNOTATION_APP_START,
            contract.ANNOTATION_APP_STOP,
            contract.ANNOTATION_APP_RM,
        )
        if not all(program.has(annotation) for annotation in changing):
            raise Stage1Error("stage1 does not support mutable pods", hint="leave --stage1-… out")
    # Its programs are started from the store, so one directory must have them all.
    stage1_composed = compose(stage1, parse_image_manifest(stage1_manifest), settings, store, single=True)
    notices: list[str] = []
    if request.pod_manifest_path is not None:
        data, manifest, apps = _from_manifest(request.pod_manifest_path, settings, store)
    else:
        data, manifest, apps = from_images(request, settings, store, notices)
    volumes: list[ImageVolume] = []
    if any(volume.kind == VOLUME_IMAGE for _, volume in named_volumes(manifest)):
        from rkt.stage0.image_volumes import find_image_volumes, with_ids

        own = request.pod_manifest_path is not None
        policy = POLICY_NEVER if own else request.pull_policy
        volumes = find_image_volumes(manifest, settings, store, pull_policy=policy)
        if not own:
            data = jsontext.dump(with_ids(manifest, volumes).to_json()).encode()
    overlay = not request.no_overlay
    if overlay and (reason := roots.overlay_unsupported(settings.data_dir)):
        tell(settings, f'disabling overlay support: "{reason}"')
        overlay = False
    ranges = None
    if request.private_users:
        from rkt.stage0.users import check_pod_ids, find_ranges

        ranges = find_ranges(settings)
        check_pod_ids(manifest, [app.manifest for app in apps])
    check_known(manifest.apps, program)
    not_enforced = program.has(contract.ANNOTATION_NOT_ENFORCED)
    lost: list[str] = []
    if not_enforced:
        from rkt.stage0 import enforcement

        lost = enforcement.check_pod(
            program,
            manifest,
            [parse_image_manifest(app.manifest) for app in apps],
            private_users=request.private_users,
        )
    if contract.ANNOTATION_EGRESS in manifest.annotations:
        from rkt.stage0 import egress

        egress.check_manifest(manifest, program)
        images = [parse_image_manifest(app.manifest) for app in apps]
        notices += egress.warnings(manifest, images, settings.insecure.words())
    ports: list[Forward] = []
    if manifest.ports:
        from rkt.stage0.ports import forwards

        ports = forwards(manifest, [parse_image_manifest(app.manifest) for app in apps])
    return Plan(
        stage1=stage1,
        stage1_manifest=stage1_manifest,
        stage1_composed=stage1_composed,
        apps=apps,
        manifest=data,
        overlay=overlay,
        ranges=ranges,
        ports=ports,
        volumes=volumes,
        notices=notices,
        not_enforced=not_enforced,
        lost=lost,
    )


def check_known(apps: Sequence[RuntimeApp], program: Program) -> None:
    """Refuse restart policies, probes, limits of logs and streams to attach to that a stage1 would not know of.

    Raises:
        Stage1Error: it does not.
    """
    wishes = (
        (contract.ANNOTATION_RESTARTS, "a restart policy", (contract.ANNOTATION_RESTART,)),
        (contract.ANNOTATION_PROBES, "a probe", contract.ANNOTATIONS_OF_PROBES),
        (contract.ANNOTATION_LOGS, "options of its log", contract.ANNOTATIONS_OF_LOGS),
    )
    for known, what, begins in wishes:
        if program.has(known):
            continue
        for app in apps:
            found = [
                name for name, value in app.annotations.items() if name.startswith(begins) and value != "no"
            ]
            if found:
                raise Stage1Error(
                    f"app {app.name!r} has {what}, which {program.name} does not know",
                    hint=f"leave --{found[0].rpartition('/')[2].removesuffix('-policy')} out",
                )
    for app in apps if not program.has(contract.ANNOTATION_ATTACH) else ():
        for name, value in app.annotations.items():
            if name.startswith(ANNOTATION_STREAMS) and value in {"stream", "tty"}:
                stream = name.removeprefix(ANNOTATION_STREAMS)
                raise Stage1Error(
                    f"app {app.name!r} is to have its {stream} attached to, which {program.name} does not know",
                    hint=f"leave --{stream} out",
                )


def from_images(
    request: PodRequest, settings: Settings, store: Store, notices: list[str]
) -> tuple[bytes, PodManifest, list[PlannedApp]]:
    """Find and judge the images of a request; bytes of the pod manifest they make, the manifest, its apps in order."""
    if not request.apps and not request.mutable:
        raise UsageError("must provide at least one image or specify the pod manifest")
    images: list[tuple[AppRequest, ImageRecord, ImageManifest]] = []
    composed: list[Composed] = []
    manifests: list[bytes] = []
    policy = request.pull_policy
    wanted = [(app.reference, app.signature) for app in request.apps]
    fetcher = expect(wanted, settings, pull_policy=policy, store=store) if len(wanted) > 1 else None
    try:
        for app in request.apps:
            image = find_image(
                app.reference,
                settings,
                signature=app.signature,
                pull_policy=policy,
                store=store,
                fetcher=fetcher,
            )
            check_verdict(image.verdict, settings, opted_out=settings.insecure.image)
            data = store.manifest_bytes(image.key)
            image_manifest = parse_image_manifest(data)
            images.append((app, image, image_manifest))
            composed.append(
                compose(image, image_manifest, settings, store, pull_policy=policy, fetcher=fetcher)
            )
            manifests.append(data)
            store.touch(image.key)
    finally:
        if fetcher is not None:
            fetcher.close()
    manifest = build_pod_manifest(request, images, uid=os.getuid(), gid=os.getgid(), notices=notices)
    # The manifest's apps are in the order of the images.
    apps = [
        PlannedApp(name=app.name, image=image, manifest=data, composed=made)
        for app, (_, image, _), data, made in zip(manifest.apps, images, manifests, composed, strict=True)
    ]
    return jsontext.dump(manifest.to_json()).encode(), manifest, apps


def _from_manifest(
    path: str, settings: Settings, store: Store
) -> tuple[bytes, PodManifest, list[PlannedApp]]:
    """A user's own manifest: its bytes are kept as they are, its images must be in the store."""
    try:
        # Whatever the operator names, a pipe too.
        with open(path, "rb") as file:
            data = file.read(jsontext.MAX_DOCUMENT_BYTES + 1)
    except OSError as e:
        raise UsageError(f"cannot read pod manifest {path}: {e.strerror}") from e
    manifest: PodManifest = parse_pod_manifest(data)
    apps = []
    images: list[ImageManifest] = []
    for app in manifest.apps:
        if not is_image_hash(app.image_id):
            raise InvalidManifest(f'app "{app.name}" in {path} has no image ID')
        image = find_by_hash(app.image_id, settings, store)
        check_verdict(image.verdict, settings, opted_out=settings.insecure.image)
        image_bytes = store.manifest_bytes(image.key)
        image_manifest = parse_image_manifest(image_bytes)
        images.append(image_manifest)
        # By hash, so nothing is fetched, as for the images themselves.
        composed = compose(image, image_manifest, settings, store, pull_policy=POLICY_NEVER)
        apps.append(PlannedApp(name=app.name, image=image, manifest=image_bytes, composed=composed))
        store.touch(image.key)
    check_pod_manifest(manifest, images)
    return data, manifest, apps


def _open_uuid_file(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    except OSError as e:
        raise UsageError(f"cannot write --uuid-file-save={path}: {e.strerror}") from e


def _write(pod: Pod, plan: Plan, request: PodRequest, settings: Settings, store: Store) -> None:
    if request.name:
        names.claim(pod, request.name)
    pod.make_directory("appsinfo")
    pod.make_directory("stage1")
    pod.make_directory(contract.STAGE1_ROOTFS, 0o755)
    with lifecycle.lock_prepare(settings.data_dir):
        _refer(pod, plan, store)
    ids = None
    if plan.ranges is not None:
        from rkt.stage0.users import lease

        ids = lease(pod, settings, plan.ranges, overlay=plan.overlay)
    pod.write(contract.STAGE1_MANIFEST, plan.stage1_manifest)
    pod.write(STAGE1_VERDICT, seal_verdict(plan.stage1.verdict))
    write_dependencies(pod, "stage1", plan.stage1_composed)
    for app in plan.apps:
        pod.write(f"appsinfo/{app.name}/manifest", app.manifest)
        pod.write(f"appsinfo/{app.name}/{VERDICT}", seal_verdict(app.image.verdict))
        write_dependencies(pod, f"appsinfo/{app.name}", app.composed)
    write_volume_verdicts(pod, plan.volumes)
    if plan.overlay:
        _lay_out_overlays(pod, plan, store, ids)
    else:
        _copy_roots(pod, plan, store, ids)
    pod.write("pod.lck", b"")
    pod.write(contract.POD_MANIFEST, plan.manifest)
    pod.write(contract.POD_CREATED, b"")
    if plan.overlay:
        pod.write(contract.OVERLAY_PREPARED, b"")
    if plan.not_enforced:
        from rkt.stage0 import enforcement

        enforcement.record(pod, Program(plan.stage1_manifest), plan.lost)
    words = insecure_words(settings, plan)
    if words:
        pod.write(status.INSECURE_OPTIONS, f"{words}\n".encode())
    summary.write(
        pod.fd,
        summary.Summary(
            created_ns=status.created_ns(pod),
            name=request.name,
            insecure=words,
            apps=[
                summary.AppSummary(name=app.name, image=app.image.full_name, image_id=app.image.key)
                for app in plan.apps
            ],
        ),
    )


def insecure_words(settings: Settings, plan: Plan) -> str:
    """Protections that are off for a pod to be, comma separated; an image that nobody signed is as loud as the others (SG16)."""
    used = [(plan.stage1, plan.stage1_composed)]
    used += [(app.image, app.composed) for app in plan.apps]
    used += [(volume.image, volume.composed) for volume in plan.volumes]
    words = settings.insecure.words()
    if any(each.verdict.is_unsigned for image, made in used for each in (image, *made.dependencies)):
        words.append(status.UNSIGNED)
    return ",".join(words)


def _refer(pod: Pod, plan: Plan, store: Store) -> None:
    """Name the images in the pod directory, then look whether they are still there: now they stay."""
    roots.record_layers(pod, None, plan.stage1.key, plan.stage1_composed.layers)
    for app in plan.apps:
        pod.make_directory(f"appsinfo/{app.name}")
        roots.record_layers(pod, app.name, app.image.key, app.composed.layers)
    if plan.volumes:
        from rkt.stage0.image_volumes import refer

        refer(pod, plan.volumes)
    images = [plan.stage1, *(app.image for app in plan.apps), *(each.image for each in plan.volumes)]
    made = [plan.stage1_composed, *(app.composed for app in plan.apps)]
    check_there(store, images, [*made, *(each.composed for each in plan.volumes)])


def check_there(store: Store, images: list[ImageRecord], made: list[Composed]) -> None:
    """Look whether images that the pod refers to since a moment ago are in the store.

    Raises:
        NotFound: one is not.
    """
    for composed in made:
        if not composed.parts:
            continue
        if composed.layers[0].startswith("deps-"):
            from rkt.store.trees import ensure_tree

            # Already there, unless it was collected a moment ago.
            ensure_tree(store, composed.parts)
        else:
            images += composed.dependencies
    for image in images:
        if not store.contains(image.key):
            raise NotFound(
                f"image {image.key.medium} was removed while the pod was being prepared",
                hint=f"rkt fetch {image.full_name}",
            )


def _lay_out_overlays(pod: Pod, plan: Plan, store: Store, ids: IdRange | None) -> None:
    roots.lay_out_overlays(pod)
    stage1 = plan.stage1
    roots.lay_out_overlay(pod, store, None, stage1.key, plan.stage1_composed.layers)
    for app in plan.apps:
        if app.image.key == stage1.key:
            raise PodError(f'app "{app.name}": the stage1 image cannot be an app of its own pod')
        roots.lay_out_overlay(pod, store, app.name, app.image.key, app.composed.layers, ids)
    base = roots.upper_path(stage1.key, None)
    roots.lay_out_stage1(pod, base, [(app.name, app.manifest) for app in plan.apps])


def _copy_roots(pod: Pod, plan: Plan, store: Store, ids: IdRange | None) -> None:
    copy_root(store, plan.stage1, plan.stage1_composed, f"{pod.path}/{contract.STAGE1_ROOTFS}")
    roots.lay_out_stage1(pod, contract.STAGE1_ROOTFS, [(app.name, app.manifest) for app in plan.apps])
    for app in plan.apps:
        copy_root(store, app.image, app.composed, f"{pod.path}/{roots.app_root(app.name)}", ids)


def copy_root(
    store: Store, image: ImageRecord, composed: Composed, target: str, ids: IdRange | None = None
) -> None:
    """Copy what an image is made of to a directory that is there and empty."""
    from rkt.image.copytree import copy_tree

    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        target_fd = os.open(target, flags)
        try:
            if image.oci or len(composed.layers) > 1:
                from rkt.store.composition import merge, own_parts

                merge(store, composed.parts or own_parts(store, image.key), target_fd, ids=ids)
                return
            source_fd = os.open(f"{store.layer_path(composed.layers[0])}/rootfs", flags)
            try:
                copy_tree(source_fd, target_fd, ids=ids)
            finally:
                os.close(source_fd)
        finally:
            os.close(target_fd)
    except OSError as e:
        raise HostError(f"cannot copy image {image.full_name}: {e.strerror} ({e.filename})") from e


def write_volume_verdicts(pod: Pod, volumes: list[ImageVolume]) -> None:
    """The verdicts of volumes that are images, and of what these depend on."""
    for volume in volumes:
        pod.write(f"{volume.directory}/{VERDICT}", seal_verdict(volume.image.verdict))
        write_dependencies(pod, volume.directory, volume.composed)


def write_dependencies(pod: Pod, directory: str, composed: Composed) -> None:
    """The verdicts of what an image depends on, below its directory in the pod."""
    if not composed.dependencies:
        return
    pod.make_directory(f"{directory}/{DEPENDENCIES}")
    for image in composed.dependencies:
        pod.write(f"{directory}/{DEPENDENCIES}/{image.key}", seal_verdict(image.verdict))


def _discard(pod: Pod, cause: BaseException, data_dir: str) -> None:
    """Take a pod that could not be prepared away again; whatever that leaves is an aborted prepare for gc."""
    if isinstance(cause, OSError) and isinstance(cause.filename, str) and not cause.filename.startswith("/"):
        # Nobody but us knows below which descriptor.
        cause.filename = f"{pod.path}/{cause.filename}"
    try:
        names.release(pod)
        pod.move(lifecycle.GARBAGE, sync=False)
        leased = pod.read_text(contract.PRIVATE_USERS_PREPARED)
        remove_tree(pod.path)
        if leased:
            from rkt.pod import ranges

            ranges.release(data_dir, pod.uuid, leased)
    except (OSError, PodError) as e:
        cause.add_note(f'pod "{pod.uuid}" could not be removed: {reason_of(e)}')
    pod.close()


def seal_verdict(verdict: Verdict) -> bytes:
    """A verdict as it is kept in a pod."""
    return seal(_VERDICT_FORMAT, _VERDICT_VERSION, verdict.to_json())


def check_before(pod: Pod, settings: Settings, options: RunOptions) -> None:
    """Refuse what can be refused of a pod that was made before, while it is as it was.

    Args:
        pod: the pod, with its lock.
        settings: of the running command.
        options: how it is to run.
    Raises:
        RktError: its stage1, streams, networks, sockets, ports, images or user ids do not allow it to.
    """
    if pod.has(contract.NOT_ENFORCED):
        from rkt.stage0 import enforcement
        from rkt.stage0.stage1 import read_program

        options = enforcement.settle(read_program(pod), options)
    if options.interactive:
        from rkt.stage0.attach import check_interactive

        check_interactive(pod.read(contract.POD_MANIFEST) or b"")
    if options.has_networks:
        from rkt.stage0.networks import check_pod_networks

        check_pod_networks(pod, options.networks, settings)
    served: frozenset[str] = frozenset()
    if "LISTEN_FDS" in os.environ:
        from rkt.stage0.activation import check_pod_sockets

        served = check_pod_sockets(pod)
    if not options.has_networks:
        from rkt.stage0.egress import check_pod

        check_pod(pod, options.networks)
    if status.has_ports(pod):
        from rkt.stage0.ports import check_ports_of

        check_ports_of(pod, options.networks, settings, served=served)
    check_pod_verdicts(pod, settings)
    if pod.has(contract.PRIVATE_USERS_PREPARED):
        from rkt.pod import ranges

        ranges.confirm(pod, settings.data_dir)


def check_pod_verdicts(pod: Pod, settings: Settings, apps: list[str] | None = None) -> None:
    """Hold the verdicts a prepared pod carries against today's policy; the store is not asked.

    Args:
        pod: the pod.
        settings: of the running command.
        apps: those that are about to start, ``None`` for all.
    Raises:
        NotVerified: an image may not run any more.
        PodError: the pod has no verdict for an image, which counts as not verified.
    """
    opted_out = settings.insecure.image or "image" in status.insecure_words(pod)
    for path, verdict in pod_verdicts(pod, apps):
        if path == STAGE1_VERDICT and verdict.kind == KIND_BUILTIN:
            # Listed by the installation that prepared the pod. An upgrade lists its successor, takes no trust away, and
            # must not strand what was prepared before it (design §6).
            continue
        check_verdict(verdict, settings, opted_out=opted_out)


def pod_verdicts(pod: Pod, apps: list[str] | None = None) -> Iterator[tuple[str, Verdict]]:
    """The verdicts that a pod carries, each with its path in the pod directory; of some apps, or of all.

    Raises:
        PodError, DamagedRecord: one is missing or not what was written, which counts as not verified.
    """
    apps = status.app_names(pod) if apps is None else apps
    used = [f"appsinfo/{app}" for app in apps]
    if pod.has(contract.IMAGE_VOLUMES):
        from rkt.stage0.image_volumes import directories

        used += directories(pod, apps)
    paths = [STAGE1_VERDICT, *(f"{directory}/{VERDICT}" for directory in used)]
    for directory in ("stage1", *used):
        if pod.has(f"{directory}/{DEPENDENCIES}"):
            names = sorted(os.listdir(f"{pod.path}/{directory}/{DEPENDENCIES}"))
            paths += [f"{directory}/{DEPENDENCIES}/{name}" for name in names]
    for path in paths:
        data = pod.read(path)
        if data is None:
            raise PodError(
                f'pod "{pod.uuid}" has no {path}: it cannot be said whether its images are trusted'
            )
        what = f"{pod.path}/{path}"
        version, body = open_sealed(data, _VERDICT_FORMAT, what)
        if version != _VERDICT_VERSION:
            raise PodError(f"{what} has version {version}, this rkt reads version {_VERDICT_VERSION}")
        yield path, Verdict.from_json(body, what=what)


def finish(pod: Pod) -> None:
    """Leave a prepared pod for ``run-prepared``."""
    # Synchronised at the rename, so that a UUID that was printed is there after a power cut.
    pod.move(lifecycle.PREPARED, sync=True)
    pod.unlock()

# SPDX-License-Identifier: Apache-2.0
"""A pod, made or not, with all that decides what it may reach: of a command line, or of a pod on disk."""

from __future__ import annotations

from rkt.errors import PodError, UsageError
from rkt.linux import files
from rkt.pod import lifecycle, status
from rkt.schema import appc, jsontext
from rkt.schema.record import Record
from rkt.stage0 import contract, enforcement, prepare, roots
from rkt.stage0.explain.sources import FLAG, MANIFEST
from rkt.stage0.stage1 import Program, read_program
from rkt.store.cas import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.pod.lifecycle import Pod
    from rkt.pod.request import PodRequest
    from rkt.schema.appc import ImageManifest, PodManifest
    from rkt.stage0.run import RunOptions
    from rkt.stage0.stage1 import Choice
    from rkt.trust.verdict import Verdict

#: How stage1 ``ns`` was started, in the pod directory.
_RUNTIME_CONFIG = "runtime-config"
_LIMIT_BYTES = 4 << 20


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


def of_request(request: PodRequest, choice: Choice, settings: Settings, options: RunOptions) -> Subject:
    """The pod of a command line; there is none afterwards.

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
    return Subject(
        manifest=appc.parse_pod_manifest(plan.manifest),
        images=[appc.parse_image_manifest(app.manifest) for app in plan.apps],
        layers=[[f"{store.layer_path(layer)}/rootfs" for layer in app.composed.layers] for app in plan.apps],
        verdicts=verdicts,
        insecure=settings.insecure.words(),
        networks=options.networks,
        ipc=options.ipc,
        private_users=request.private_users,
        operator=FLAG if request.pod_manifest_path is None else MANIFEST,
        inherits_environment=bool(request.inherited_env),
        stage1=program.name,
        not_enforced=program.not_enforced,
    )


def of_pod(pod: Pod, settings: Settings, options: RunOptions | None) -> Subject:
    """A pod on disk.

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
    return Subject(
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

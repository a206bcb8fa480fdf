# SPDX-License-Identifier: Apache-2.0
"""Change a pod while it lives: add, start, stop and remove apps (spec runtime §5.1).

One change at a time, under the exclusive lock of ``pod.lck``. What stage0 owes of an app is written before the manifest
names it and removed after the manifest has ceased to; ``appsinfo/APP`` is the first to be made and the last to go. So a
command that was killed leaves a directory there that the manifest does not know, and the next change sweeps it. The pod's
supervisor is asked last when an app comes and first when it goes.

An app's root is mounted in the mount namespace of the supervisor, by a child of ours that joins it: nothing of the pod
runs there, and the host's mounts stay as they are.
"""

from __future__ import annotations

import errno
import os

from rkt.errors import HostError, NotFound, PodError, RktError, Stage1Error, UsageError, reason_of
from rkt.linux import files, libc
from rkt.pod import lifecycle, status, summary
from rkt.schema import jsontext
from rkt.schema.appc import VOLUME_IMAGE, parse_image_manifest, parse_pod_manifest
from rkt.schema.mounts import belongs_to, named_volumes
from rkt.schema.record import Record
from rkt.stage0 import contract, roots
from rkt.stage0.enter import check_not_paused
from rkt.stage0.entrypoint import run_entrypoint
from rkt.stage0.messages import tell
from rkt.stage0.stage1 import program_root, read_program
from rkt.store.cas import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.config.settings import Settings
    from rkt.linux.locks import Lock
    from rkt.pod.lifecycle import Pod
    from rkt.pod.request import AppRequest
    from rkt.schema.appc import PodManifest, RuntimeApp
    from rkt.stage0.image_volumes import ImageVolume
    from rkt.stage0.prepare import PlannedApp

#: Longer than an app and its handlers may take to end.
_TIMEOUT_SECONDS = 60.0
#: How long a pod whose supervisor does not listen any more may take to be over.
_ENDING_SECONDS = 3.0
#: Status of a child that found the supervisor gone.
_GONE = 3
_UCRED_BYTES = 12


def add(settings: Settings, pod: Pod, request: AppRequest, *, locked: str = "") -> str:
    """Add an app of an image in the store to a running pod; returns its name.

    With ``locked``, the path of a lock file, only one that is in it.

    Raises:
        RktError: it cannot be; then the pod is as it was.
    """
    os.umask(0o022)
    _check_running(pod)
    store = Store(settings.data_dir)
    added = _plan(settings, pod, request, store, locked)
    app = added.app
    if added.runtime.annotations:
        from rkt.stage0.prepare import check_known

        check_known([added.runtime], read_program(pod))
    if pod.has(contract.NOT_ENFORCED):
        from rkt.stage0 import enforcement

        images = [parse_image_manifest(app.manifest)]
        for lost in enforcement.check_apps(read_program(pod), [added.runtime], images):
            tell(settings, f"warning: {lost}")
    with _lock(pod):
        _check_running(pod)
        manifest = _manifest(pod)
        _sweep(pod, manifest, lives=True)
        if manifest.app(app.name) is not None:
            raise UsageError(f"error: multiple apps with name {app.name}", hint="--name=NAME")
        try:
            _lay_out(pod, added, store, settings)
            _replace_manifest(pod, manifest.replace(apps=[*manifest.apps, added.runtime]))
            _record(pod, settings, app)
            _tell_service(settings, pod)
            _ask(settings, pod, contract.ANNOTATION_APP_ADD, app.name, "add")
        except BaseException as e:
            try:
                _replace_manifest(pod, manifest)
                _remove_files(pod, app.name, lives=True)
                _forget(pod, app.name)
            except (OSError, RktError) as also:
                e.add_note(f"what was made for it could not be removed: {reason_of(also)}")
            raise
    return str(app.name)


def start(settings: Settings, pod: Pod, name: str) -> None:
    """Start an app that was added, or start it again; its image is held against today's policy first."""
    from rkt.stage0.prepare import check_pod_verdicts

    _check_running(pod)
    with _lock(pod):
        _check_running(pod)
        _find(_manifest(pod), name)
        check_not_paused(pod)
        check_pod_verdicts(pod, settings, [name])
        _ask(settings, pod, contract.ANNOTATION_APP_START, name, "start")


def stop(settings: Settings, pod: Pod, name: str) -> bool:
    """Stop an app and wait until it has ended; false when the whole pod is over."""
    if pod.is_exited:
        return False
    _check_running(pod)
    _find(_manifest(pod), name)
    check_not_paused(pod)
    _ask(settings, pod, contract.ANNOTATION_APP_STOP, name, "stop")
    return True


def remove(settings: Settings, pod: Pod, name: str) -> None:
    """Stop an app if need be, and remove all that is its own; of a pod that is over the files only."""
    if not pod.is_running and not pod.is_exited:
        _check_running(pod)
    with _lock(pod):
        # Who starts a pod that is over locks it before it gets here: what is true now stays the truth.
        lives = pod.is_running
        if lives:
            _check_running(pod, "is running but its supervisor is not ready yet")
            check_not_paused(pod)
        manifest = _manifest(pod)
        _sweep(pod, manifest, lives=lives)
        _find(manifest, name)
        if lives:
            try:
                _ask(settings, pod, contract.ANNOTATION_APP_STOP, name, "stop")
            except _NotRunning:
                pass  # over already, or never started
            _ask(settings, pod, contract.ANNOTATION_APP_RM, name, "remove")
        _replace_manifest(pod, manifest.replace(apps=[app for app in manifest.apps if app.name != name]))
        _remove_files(pod, name, lives=lives)
        _forget(pod, name)
        if lives:
            _tell_service(settings, pod)


def update(settings: Settings, pod: Pod, name: str, flags: AppRequest) -> None:
    """Change the limits of an app of any running pod, in the kernel and in the pod manifest.

    Raises:
        RktError: they cannot be had; then the old ones hold.
    """
    from rkt.pod.manifest import updated_app

    _check_running(pod)
    if not read_program(pod).has(contract.ANNOTATION_APP_UPDATE):
        raise Stage1Error(
            "rkt update not implemented for pod's stage1",
            hint="run another pod, with the limits that it needs",
        )
    with _lock(pod):
        manifest = _any_manifest(pod)
        _find(manifest, name)
        image = parse_image_manifest(pod.read(f"appsinfo/{name}/manifest") or b"")
        apps = [updated_app(app, image, flags) if app.name == name else app for app in manifest.apps]
        _replace_manifest(pod, manifest.replace(apps=apps))
        try:
            _ask(settings, pod, contract.ANNOTATION_APP_UPDATE, name, "update")
        except BaseException:
            _replace_manifest(pod, manifest)
            raise


def _tell_service(settings: Settings, pod: Pod) -> None:
    """Have the metadata service know a registered pod as it is now."""
    if not pod.has(contract.MDS_REGISTERED):
        return
    from rkt.stage0 import metadata

    try:
        metadata.refresh(pod)
    except RktError as e:
        tell(settings, f"warning: the metadata service does not know of the change: {e.message}")


class _NotRunning(PodError):
    """The app does not run."""


class _Over(PodError):
    """The pod does not run, or not any more."""

    def __init__(self, pod: Pod) -> None:
        super().__init__(f'pod "{pod.uuid}" isn\'t currently running', hint=f"rkt status {pod.uuid.short}")


class _Added(Record):
    """An app that is to be added: its entry for the pod manifest, its image, its volumes that are images."""

    runtime: RuntimeApp
    app: PlannedApp
    volumes: list[ImageVolume]


def _plan(settings: Settings, pod: Pod, request: AppRequest, store: Store, locked: str) -> _Added:
    """Decide everything about an app and refuse what can be refused.

    Raises:
        RktError: it cannot be added.
    """
    from rkt.fetch.reference import POLICY_NEVER
    from rkt.pod.request import PodRequest
    from rkt.stage0.prepare import from_images

    # Volumes of a pod do not change, so there is no need for the lock.
    wanted = PodRequest(
        apps=[request], pull_policy=POLICY_NEVER, mutable=True, pod_volumes=_manifest(pod).volumes
    )
    lock = None
    if locked:
        from rkt.stage0.lock import load_lock

        lock = load_lock(locked)
        wanted = lock.pin(wanted, settings, store)
    notices: list[str] = []
    _, planned, (app,) = from_images(wanted, settings, store, notices)
    if lock is not None:
        lock.check_apps([app])
    if contract.ANNOTATION_EGRESS in _manifest(pod).annotations:
        from rkt.stage0.egress import warnings

        notices += warnings(planned, [parse_image_manifest(app.manifest)], status.insecure_words(pod))
    for notice in notices:
        tell(settings, notice)
    volumes: list[ImageVolume] = []
    # Those of the pod were found when it was made.
    planned = planned.replace(volumes=[])
    if any(volume.kind == VOLUME_IMAGE for _, volume in named_volumes(planned)):
        from rkt.stage0.image_volumes import find_image_volumes, with_ids

        volumes = find_image_volumes(planned, settings, store, pull_policy=POLICY_NEVER)
        if lock is not None:
            lock.check_volumes(volumes)
        planned = with_ids(planned, volumes)
    if pod.has(contract.PRIVATE_USERS_PREPARED):
        from rkt.stage0.users import check_pod_ids

        check_pod_ids(planned, [app.manifest])
    return _Added(runtime=planned.apps[0], app=app, volumes=volumes)


def _check_running(pod: Pod, unready: str = "") -> None:
    if not pod.is_running:
        raise _Over(pod)
    if not status.is_ready(pod) or status.container_pid(pod) is None:
        text = (
            f'pod "{pod.uuid}" {unready}' if unready else f'supervisor for pod "{pod.uuid}" is not yet ready'
        )
        raise PodError(text, hint=f"rkt status --wait-ready {pod.uuid.short}")


def _lock(pod: Pod) -> Lock:
    """Keep all others from changing the pod; what it was before may have changed by then.

    Raises:
        PodError: it was removed meanwhile.
    """
    removed = f'pod "{pod.uuid}" was removed by another process'
    try:
        lock = pod.lock_changes()
    except FileNotFoundError as e:
        raise PodError(removed) from e
    if not pod.refresh() or not (pod.is_running or pod.is_exited):
        lock.close()
        raise PodError(removed)
    return lock


def _any_manifest(pod: Pod) -> PodManifest:
    data = pod.read(contract.POD_MANIFEST)
    if data is None:
        raise pod.lacks("has no manifest")
    return parse_pod_manifest(data)


def _manifest(pod: Pod) -> PodManifest:
    manifest = _any_manifest(pod)
    if manifest.annotations.get(contract.ANNOTATION_MUTABLE) != "true":
        raise PodError("immutable pod", hint="rkt app sandbox makes pods whose apps can change")
    return manifest


def _find(manifest: PodManifest, name: str) -> None:
    if manifest.app(name) is None:
        names = ", ".join(str(app.name) for app in manifest.apps)
        raise NotFound(f'error: nonexistent app "{name}"', hint=f"apps: {names}" if names else "")


def _replace_manifest(pod: Pod, manifest: PodManifest) -> None:
    data = jsontext.dump(manifest.to_json()).encode()
    # By descriptor: gc may mark a pod that ends meanwhile, which moves it.
    files.replace_file(
        f"/proc/self/fd/{pod.fd}/{contract.POD_MANIFEST}", data, lifecycle.FILE_MODE, sync=False
    )


def _record(pod: Pod, settings: Settings, app: PlannedApp) -> None:
    """Show the app in lists, and with it that its image was not verified, or not signed, if so."""
    words = status.insecure_words(pod)
    images = (app.image, *app.composed.dependencies)
    new_words = ["image"] if settings.insecure.image else []
    new_words += [status.UNSIGNED] if any(image.verdict.is_unsigned for image in images) else []
    if not set(new_words) <= set(words):
        words += [word for word in new_words if word not in words]
        text = f"{','.join(words)}\n".encode()
        path = f"/proc/self/fd/{pod.fd}/{status.INSECURE_OPTIONS}"
        files.replace_file(path, text, lifecycle.FILE_MODE, sync=False)
    glance = status.read_summary(pod)
    known = [each for each in glance.apps if each.name != app.name]
    new = summary.AppSummary(name=app.name, image=app.image.full_name, image_id=app.image.key)
    summary.write(pod.fd, glance.replace(insecure=",".join(words), apps=[*known, new]))


def _forget(pod: Pod, name: str) -> None:
    glance = status.read_summary(pod)
    summary.write(pod.fd, glance.replace(apps=[app for app in glance.apps if app.name != name]))


def _ask(settings: Settings, pod: Pod, annotation: str, name: str, verb: str) -> None:
    """Have stage1 do its part.

    Raises:
        PodError, Stage1Error: it did not.
    """
    program = read_program(pod)
    if not program.has(annotation):
        raise Stage1Error("stage1 does not support mutable pods")
    root = program_root(pod, Store(settings.data_dir))
    # For a stage1 that has to act inside the pod (spec runtime §1.5, "Crossing entrypoints").
    if program.has(contract.ANNOTATION_ENTER):
        os.environ[contract.ENV_ENTER_COMMAND] = f"{root}/{program.entrypoint(contract.ANNOTATION_ENTER)}"
    os.environ[contract.ENV_ENTER_PID] = str(status.container_pid(pod) or "")
    arguments = [f"--debug={'true' if settings.debug else 'false'}"]
    if annotation == contract.ANNOTATION_APP_ADD:
        arguments.append(f"--uuid={pod.uuid}")
    code = run_entrypoint(
        f"{root}/{program.entrypoint(annotation)}",
        [*arguments, f"--app={name}"],
        pod.path,
        timeout_seconds=_TIMEOUT_SECONDS,
        quiet_stdout=False,
    )
    if annotation == contract.ANNOTATION_APP_STOP and code == contract.EXIT_APP_NOT_RUNNING:
        raise _NotRunning(f'app "{name}" is not running', hint=f"rkt app start {pod.uuid.short} --app={name}")
    if code and not (pod.refresh() and pod.is_running):
        raise _Over(pod)
    if code:
        _find(_manifest(pod), name)  # it may have been removed meanwhile
        raise Stage1Error(f'stage1 failed to {verb} app "{name}": status {code}')


def _lay_out(pod: Pod, added: _Added, store: Store, settings: Settings) -> None:
    """Everything of an app that stage0 owes stage1."""
    from rkt.stage0 import prepare

    app = added.app
    directory = f"appsinfo/{app.name}"
    with lifecycle.lock_prepare(settings.data_dir):
        pod.make_directory(directory)
        roots.record_layers(pod, app.name, app.image.key, app.composed.layers)
        if added.volumes:
            from rkt.stage0.image_volumes import refer

            refer(pod, added.volumes)
        images = [app.image, *(volume.image for volume in added.volumes)]
        made = [app.composed, *(volume.composed for volume in added.volumes)]
        prepare.check_there(store, images, made)
    pod.write(f"{directory}/manifest", app.manifest)
    pod.write(f"{directory}/{prepare.VERDICT}", prepare.seal_verdict(app.image.verdict))
    prepare.write_dependencies(pod, directory, app.composed)
    prepare.write_volume_verdicts(pod, added.volumes)
    ids = None
    if pod.has(contract.PRIVATE_USERS_PREPARED):
        from rkt.pod import ranges

        ids = ranges.read(pod)
    overlay = pod.has(contract.OVERLAY_PREPARED)
    if overlay:
        if app.image.key == roots.tree_key(pod, None):
            raise PodError(f'app "{app.name}": the stage1 image cannot be an app of its own pod')
        roots.lay_out_overlay(pod, store, app.name, app.image.key, app.composed.layers, ids)

    def make_root() -> None:
        root = roots.app_root(app.name)
        os.mkdir(os.path.dirname(root), 0o755)
        files.write_new(f"{os.path.dirname(root)}/manifest", app.manifest, lifecycle.FILE_MODE)
        os.mkdir(root, 0o755)
        if not overlay:
            prepare.copy_root(store, app.image, app.composed, root, ids)
        elif ids is None:
            roots.mount_root(pod, store, app.name)
        else:
            _mount_mapped_root(pod, store, app.name)
        roots.link_mtab(app.name, ids)
        if added.volumes:
            from rkt.stage0.image_volumes import mount_image_volumes

            mount_image_volumes(pod, store, [volume.directory for volume in added.volumes])

    _beside_supervisor(pod, make_root)


def _mount_mapped_root(pod: Pod, store: Store, name: str) -> None:
    """Mount an app's overlay whose layers show the ids of the pod.

    For that the layers are covered for a moment. It is done in a copy of the supervisor's mount namespace, from which only
    the result is taken over: a kill leaves no cover.
    """
    from rkt.linux import mount
    from rkt.stage0.users import open_users

    place = roots.app_root(name)
    target_fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    here_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with open_users(pod) as users:
        libc.unshare(libc.CLONE_NEWNS)
        roots.mount_root(pod, store, name, users)
    tree_fd = mount.clone(place, recursive=False)
    libc.setns(here_fd, libc.CLONE_NEWNS)
    _return_to(root_fd, pod.path)
    mount.attach(tree_fd, target_fd)


def _return_to(root_fd: int, directory: str) -> None:
    # Where rkt itself was started below a chroot the namespace's topmost mount is not its root.
    os.fchdir(root_fd)
    os.chroot(".")
    os.chdir(directory)


def _remove_files(pod: Pod, name: str, *, lives: bool) -> None:
    """Everything of an app that the manifest does not name any more; of a pod that ``lives`` with what it has mounted."""
    root = roots.app_root(name)
    volumes = [
        f"{directory}/{entry}"
        for directory in (contract.SHARED_VOLUMES, contract.IMAGE_VOLUMES)
        if pod.has(directory)
        for entry in os.listdir(f"/proc/self/fd/{pod.fd}/{directory}")
        if belongs_to(name, entry)
    ]

    def unmake_root() -> None:
        for place in (root, *volumes, *(f"{volume}/rootfs" for volume in volumes)):
            try:
                libc.umount2(place.encode(), libc.MNT_DETACH)
            except OSError as e:
                if e.errno not in {errno.EINVAL, errno.ENOENT}:
                    raise
        files.remove_tree(os.path.dirname(root))
        files.remove_tree(f"{contract.STAGE1_ROOTFS}/{contract.NOTIFY_DIR}/{name}")

    if lives:
        try:
            _beside_supervisor(pod, unmake_root)
        except _Over:
            lives = False
    if not lives:
        base = status.stage1_writable_root(pod)
        files.remove_tree(f"{base}/{contract.APPS_DIR}/{name}", dir_fd=pod.fd)
        files.remove_tree(f"{base}/{contract.NOTIFY_DIR}/{name}", dir_fd=pod.fd)
        for mark in ("", "-created", "-started", "-health"):
            files.remove_tree(f"{base}/{contract.STATUS_DIR}/{name}{mark}", dir_fd=pod.fd)
    # Empty where its writer was killed: then nothing was laid out yet.
    if pod.read_text(f"appsinfo/{name}/treeStoreID") and pod.has(contract.OVERLAY_PREPARED):
        key = roots.tree_key(pod, name)
        files.remove_tree(roots.upper_path(key, name), dir_fd=pod.fd)
        files.remove_tree(roots.work_path(key, name), dir_fd=pod.fd)
    from rkt.pod.log import file_names

    logs = [f"{contract.LOGS}/{each}" for each in file_names(pod, name)]
    for path in (*volumes, *logs):
        files.remove_tree(path, dir_fd=pod.fd)
    files.remove_tree(f"{contract.ENDPOINTS}/{name}", dir_fd=pod.fd)
    files.remove_tree(f"appsinfo/{name}", dir_fd=pod.fd)


def _sweep(pod: Pod, manifest: PodManifest, *, lives: bool) -> None:
    """Remove what a change that was killed left behind, and show what it did not come to show."""
    for name in os.listdir(f"/proc/self/fd/{pod.fd}/appsinfo"):
        if manifest.app(name) is None:
            _remove_files(pod, name, lives=lives)
            _forget(pod, name)
    glance = status.read_summary(pod)
    if {app.name for app in glance.apps} != {str(app.name) for app in manifest.apps}:
        members = {str(app.name): app.to_json() for app in manifest.apps}
        summary.write(pod.fd, glance.replace(apps=status.summarized(pod, glance, members)))


def _beside_supervisor(pod: Pod, act: Callable[[], None]) -> None:
    """Do something in the mount namespace of the pod's supervisor, with the pod directory as working directory.

    Raises:
        _Over: the pod has ended.
        HostError: it could not be done.
    """
    supervisor = supervisor_of(pod)
    try:
        pidfd = os.pidfd_open(supervisor)
    except ProcessLookupError:
        raise _Over(pod) from None
    errors_r, errors_w = os.pipe()
    child = -1
    try:
        try:
            root_fd = os.open(f"/proc/{supervisor}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            raise _Over(pod) from None
        try:
            if not pod.refresh() or not pod.is_running:
                raise _Over(pod)
            parent = os.getpid()
            child = os.fork()
            if child == 0:
                # Until it is gone the pod stays locked, by the descriptor that it has inherited.
                libc.die_with(parent)
                _join_and_act(pidfd, root_fd, pod, act, errors_w)
        finally:
            os.close(root_fd)
    finally:
        os.close(pidfd)
        os.close(errors_w)
        if child < 0:
            os.close(errors_r)
    with open(errors_r, "rb") as stream:
        report = stream.read()
    _, code = os.waitpid(child, 0)
    if report or code:
        if os.waitstatus_to_exitcode(code) == _GONE or _has_ended(pod, supervisor):
            raise _Over(pod)
        raise HostError(report.decode(errors="replace") or f"a child was ended by status {code}")


def _has_ended(pod: Pod, supervisor: int) -> bool:
    """Whether what went wrong did so because the supervisor is ending: it leaves its namespaces before its lock."""
    try:
        with open(f"/proc/{supervisor}/stat", "rb") as stream:
            if stream.read().rpartition(b") ")[2][:1] not in b"ZX":
                return not pod.refresh() or not pod.is_running
    except (FileNotFoundError, ProcessLookupError):
        pass
    return True


def _join_and_act(pidfd: int, root_fd: int, pod: Pod, act: Callable[[], None], errors_w: int) -> None:
    try:
        try:
            libc.setns(pidfd, libc.CLONE_NEWNS)
        except ProcessLookupError:
            # The kernel takes its namespaces before its locks.
            os._exit(_GONE)
        _return_to(root_fd, pod.path)
        act()
    except BaseException as e:  # noqa: BLE001 - nothing of the parent's may run in the child
        os.write(errors_w, reason_of(e).encode(errors="replace")[:4096] or b"unknown error")
        os._exit(1)
    os._exit(0)


def supervisor_of(pod: Pod) -> int:
    """Process that listens on the pod's control socket, by the kernel's word."""
    import _socket

    # The name of a socket has 108 bytes; the pod's path may be longer.
    path = f"/proc/self/fd/{pod.fd}/{contract.CONTROL_SOCKET}"
    client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        client.connect(path)
        raw = client.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED_BYTES)
    except OSError as e:
        if status.wait_until(pod, lambda now: not now.is_running, _ENDING_SECONDS):
            raise _Over(pod) from None
        raise Stage1Error("the pod's supervisor does not answer", hint=f"rkt stop --force {pod.uuid}") from e
    finally:
        client.close()
    return int.from_bytes(raw[:4], "little")

# SPDX-License-Identifier: Apache-2.0
"""From flags and image manifests to the pod manifest (spec runtime §1.3, cli §2.5), and the checks of one given by the user.

An app's environment, lowest to highest: the caller's (``--inherit-env``), the image's, ``--set-env-file``, ``--set-env``,
``--environment`` (design §9.8). What an image says of itself only confines; flags may also loosen (design §9.4).
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, UsageError, quoted
from rkt.pod.confinement import check_confinement
from rkt.schema import appc, isolators, jsontext
from rkt.schema.appc import App, ImageManifest, Mount, PodManifest, RuntimeApp
from rkt.schema.isolators import Isolator
from rkt.schema.members import read_texts
from rkt.schema.mounts import clean_path, pair_mounts
from rkt.schema.shorthand import parse_port, parse_sandbox_port, parse_seccomp, parse_volume
from rkt.stage0.contract import (
    ANNOTATION_MUTABLE,
    ANNOTATION_RESTART,
    ANNOTATIONS_OF_LOGS,
    ANNOTATIONS_OF_PROBES,
)
from rkt.values import ACName

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Protocol, TypeVar

    from rkt.pod.request import AppRequest, MountRequest, PodRequest

    _Given = TypeVar("_Given")
    _Checked = TypeVar("_Checked")

    class StoredImage(Protocol):
        """What is needed of an image record."""

        @property
        def image_id(self) -> str:
            """The full appc image ID."""


#: Largest environment file, in bytes.
MAX_ENVIRONMENT_FILE_BYTES = 4 << 20
_EXPERIMENTS = "coreos.com/rkt/experiment/"


def build_pod_manifest(
    request: PodRequest,
    images: Sequence[tuple[AppRequest, StoredImage, ImageManifest]],
    *,
    uid: int = 0,
    gid: int = 0,
    notices: list[str] | None = None,
) -> PodManifest:
    """Make the manifest of a pod from what the command line asks and what its images say.

    Args:
        request: the command line; its ``apps`` are taken from ``images`` instead.
        images: for each app in order, its flags, its image in the store, and that image's manifest.
        uid: the caller's, for an image without app section.
        gid: likewise.
        notices: gets a sentence for each wish of an image that was not granted.
    Raises:
        UsageError: a flag's value, or a combination, is wrong.
        InvalidManifest: an image cannot run, or the result breaks the appc specification.
    """
    volumes = [*request.pod_volumes, *(parse_volume(text) for text in request.volumes)]
    appc.check_volume_names(volumes)
    declared = frozenset(volume.name for volume in volumes)
    from_files = read_environment_files(request.set_env_files)
    for name in request.set_env:
        _check_variable(name, "--set-env")
    notices = [] if notices is None else notices
    apps: list[RuntimeApp] = []
    names: set[str] = set()
    for flags, stored, image in images:
        check_platform(image)
        name = _app_name(flags, image)
        if name in names:
            raise UsageError(f"error: multiple apps with name {name}", hint="rkt run IMAGE --name=NAME …")
        names.add(name)
        app, wishes = _apply_flags(flags, image, uid=uid, gid=gid, image_id=stored.image_id)
        notices += [f"app {quoted(name)}: the image asks in vain for {wish}" for wish in wishes]
        environment = {**app.environment, **from_files, **request.set_env, **flags.environment}
        for variable, value in request.inherited_env.items():
            if appc.is_variable_name(variable) and _is_text(value):
                environment.setdefault(variable, value)
        apps.append(
            RuntimeApp(
                name=name,
                image_id=stored.image_id,
                image_name=image.name,
                image_labels=dict(image.labels),
                app=app.replace(environment=environment),
                readonly_rootfs=bool(flags.readonly_rootfs),
                mounts=_mounts((*flags.mounts, *request.mounts), declared, added=request.mutable),
                annotations=_annotations(flags),
            )
        )
    bounds: list[Isolator] = []
    if request.sysctls:
        from rkt.pod import limit_flags

        bounds = limit_flags.sysctl_isolators(request)
    pod = PodManifest(
        apps=apps,
        volumes=volumes,
        isolators=bounds,
        annotations={**request.annotations, ANNOTATION_MUTABLE: "true" if request.mutable else "false"},
        ports=_ports(request, apps, [image for _, _, image in images]),
        user_annotations=dict(request.user_annotations),
        user_labels=dict(request.user_labels),
    )
    if apps or not request.mutable:
        check_pod_manifest(pod, [image for _, _, image in images])
    else:
        _check_streams(pod)
    _check_text(pod)
    return pod


def updated_app(app: RuntimeApp, image: ImageManifest, flags: AppRequest) -> RuntimeApp:
    """An app of a pod manifest with other limits.

    Args:
        app: the app as it is.
        image: its image, whose app section counts where the pod manifest has none.
        flags: those of limits.
    Raises:
        UsageError: a value is malformed.
        InvalidManifest: the app has no section at all.
    """
    section = app.app or (image.app and appc.tightened_app(image.app, _narrow_syscalls)[0])
    if section is None:
        raise InvalidManifest(
            f"app {quoted(app.name)} has no app section in the pod manifest or in its image"
        )
    _, added = _flag_isolators(flags)
    changed = {each.name for each in added}
    kept = [each for each in section.isolators if each.name not in changed]
    section = section.replace(isolators=[*kept, *added])
    isolators.check_amounts(section.isolators)
    return app.replace(app=section)


def check_pod_manifest(pod: PodManifest, images: Sequence[ImageManifest]) -> None:
    """The checks of a pod manifest, ours or the user's, that need its images.

    Args:
        pod: a parsed manifest.
        images: the image of each app, in the order of the apps.
    Raises:
        InvalidManifest: the pod cannot run.
    """
    if not pod.apps:
        raise InvalidManifest("pod must contain at least one application")
    isolators.check_enforceable(pod.isolators, pod=True)
    _check_streams(pod)
    ports: set[str] = set()
    for runtime_app, image in zip(pod.apps, images, strict=True):
        check_platform(image)
        app = runtime_app.app or image.app
        if app is None:
            raise InvalidManifest(
                f"app {quoted(runtime_app.name)} has no app section in the pod manifest or in image {image.name}"
            )
        if not app.exec or not app.exec[0]:
            raise InvalidManifest(
                f"app {quoted(runtime_app.name)} of image {image.name} names no program to execute",
                hint="rkt run IMAGE --exec=PROGRAM",
            )
        for name, command in app.event_handlers.items():
            if not command or not command[0]:
                raise InvalidManifest(
                    f"the {name} event handler of app {quoted(runtime_app.name)} names no program to execute"
                )
        pair_mounts(runtime_app, app, pod)
        try:
            if runtime_app.app is not None:
                isolators.check_enforceable(app.isolators, pod=False)
            else:
                isolators.check_amounts(app.isolators)
            _check_restart(runtime_app)
            if any(name.startswith(ANNOTATIONS_OF_PROBES) for name in runtime_app.annotations):
                from rkt.schema.probes import parse_probes

                parse_probes(runtime_app.annotations)
            if any(name.startswith(ANNOTATIONS_OF_LOGS) for name in runtime_app.annotations):
                from rkt.schema.log_options import parse_log_options

                parse_log_options(runtime_app.annotations)
            # Of an image's own isolators only those count that confine; stage1 leaves the others out.
            own = app if runtime_app.app is not None else appc.tightened_app(app, _narrow_syscalls)[0]
            check_confinement(own.isolators)
        except InvalidManifest as e:
            raise InvalidManifest(f"app {quoted(runtime_app.name)}: {e.message}", hint=e.hint) from e
        ports.update(port.name for port in app.ports)
    for port in pod.ports:
        if port.pod_port is None and port.name not in ports:
            raise InvalidManifest(
                f"port name {quoted(port.name)} could not be found in any apps",
                hint=f"names of ports: {', '.join(sorted(ports))}"
                if ports
                else "by number: --port=HOSTPORT:PODPORT",
            )


def _ports(
    request: PodRequest, apps: Sequence[RuntimeApp], images: Sequence[ImageManifest]
) -> list[appc.ExposedPort]:
    """The ports of a request; what reads like a number may be the name of a port of an image."""
    if not request.ports:
        return []
    if request.mutable:
        return [parse_sandbox_port(text) for text in request.ports]
    sections = [runtime.app or image.app for runtime, image in zip(apps, images, strict=True)]
    declared = frozenset(str(port.name) for section in sections if section for port in section.ports)
    return [parse_port(text, declared) for text in request.ports]


def _check_streams(pod: PodManifest) -> None:
    """The annotations that say where standard streams and logs go can be honoured.

    Raises:
        InvalidManifest: they cannot.
    """
    has_mode = any(name.startswith(_EXPERIMENTS) for name in pod.annotations)
    if not has_mode and not any(appc.has_streams(app.annotations) for app in pod.apps):
        return
    from rkt.schema import streams

    streams.parse_log_mode(pod.annotations)
    for app in pod.apps:
        try:
            streams.parse_streams(app.annotations)
            streams.parse_log_path(app.annotations)
        except InvalidManifest as e:
            raise InvalidManifest(f"app {quoted(app.name)}: {e.message}", hint=e.hint) from e


def check_platform(image: ImageManifest) -> None:
    """An image runs only if it says that it is for Linux, and for which processor (spec runtime §1.2 step 6).

    Raises:
        InvalidManifest: with rkt's words.
    """
    for label in ("os", "arch"):
        if not image.labels.get(label):
            raise InvalidManifest(f"missing {label} label in the image manifest")
    system = image.labels["os"]
    if system != "linux":
        raise InvalidManifest(f"bad os {quoted(system)} (must be one of: [linux])")
    appc.check_platform_labels(image.labels)


def default_app_name(image_name: str) -> ACName:
    """Name of an app whose flags give none: the last component of the image name, made an AC Name.

    Raises:
        InvalidManifest: nothing of it can be part of an AC Name.
    """
    return ACName.sanitize(image_name.rpartition("/")[2])


def read_environment_files(paths: Iterable[str]) -> dict[str, str]:
    """``NAME=VALUE`` lines of environment files; empty lines and lines that start by ``#`` or ``;`` are skipped.

    Nothing is trimmed and nothing is quoted.

    Raises:
        UsageError: a line without ``=``, a bad name, a name for the second time, or a file that cannot be read.
    """
    environment: dict[str, str] = {}
    for path in paths:
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_ENVIRONMENT_FILE_BYTES + 1)
            text = data.decode("utf-8")
        except OSError as e:
            raise UsageError(f"cannot read environment file {quoted(path)}: {e.strerror}") from e
        except UnicodeDecodeError as e:
            raise UsageError(f"environment file {quoted(path)} is not UTF-8: {e}") from e
        if len(data) > MAX_ENVIRONMENT_FILE_BYTES:
            raise UsageError(
                f"environment file {quoted(path)} is larger than {MAX_ENVIRONMENT_FILE_BYTES} bytes"
            )
        for line in text.split("\n"):
            if not line or line[0] in "#;":
                continue
            name, equals, value = line.partition("=")
            if not equals:
                raise UsageError(
                    f"environment variable must be specified as name=value (file {quoted(path)})"
                )
            _check_variable(name, f"file {quoted(path)}")
            if "\0" in value:
                raise UsageError(
                    f"environment variable {quoted(name)} contains a NUL character (file {quoted(path)})"
                )
            if name in environment:
                raise UsageError(f"environment variable {quoted(name)} already set (file {quoted(path)})")
            environment[name] = value
    return environment


def _annotations(flags: AppRequest) -> dict[str, str]:
    if flags.restart is None:
        return dict(flags.annotations)
    return {**flags.annotations, ANNOTATION_RESTART: flags.restart}


def _check_restart(app: RuntimeApp) -> None:
    policy = app.annotations.get(ANNOTATION_RESTART)
    if policy is not None:
        from rkt.schema.restart import parse_policy

        parse_policy(policy)


def _app_name(flags: AppRequest, image: ImageManifest) -> ACName:
    if flags.name is None:
        return default_app_name(image.name)
    try:
        return ACName.parse(flags.name, what="app name")
    except InvalidManifest as e:
        raise UsageError(f"invalid value in --name flag: {e}") from e


def _apply_flags(
    flags: AppRequest, image: ImageManifest, *, uid: int, gid: int, image_id: str
) -> tuple[App, list[str]]:
    """The app section after the per-app flags, in the order of spec runtime §1.3, but for the environment."""
    app = image.app
    if app is None:
        if flags.exec is None:
            raise UsageError(
                f"error: image {image.name} has no app section and --exec argument is not provided",
                hint=f"rkt run {flags.reference} --exec=PROGRAM",
            )
        app = App(exec=[], user=str(uid), group=str(gid))
    command = [flags.exec] if flags.exec is not None else app.exec
    if flags.args and flags.exec is None and image_id.startswith("sha256-"):
        command = _before_arguments(image, flags.args)
    changes: dict[str, object] = {"exec": [*command, *(flags.args or ())]}
    if flags.working_dir is not None:
        _as_usage("--working-dir", appc.check_working_directory, flags.working_dir)
        changes["working_directory"] = flags.working_dir
    if flags.user is not None:
        changes["user"] = _as_usage("--user", lambda text: appc.check_owner(text, "user"), flags.user)
    if flags.group is not None:
        changes["group"] = _as_usage("--group", lambda text: appc.check_owner(text, "group"), flags.group)
    if flags.supplementary_gids is not None:
        if not all(0 <= one <= appc.MAX_ID for one in flags.supplementary_gids):
            raise UsageError(f"invalid value in --supplementary-gids flag: ids go from 0 to {appc.MAX_ID}")
        changes["supplementary_gids"] = list(flags.supplementary_gids)
    for variable in flags.environment:
        _check_variable(variable, "--environment")
    replaced, added = _flag_isolators(flags)
    own = [isolator for isolator in app.isolators if isolator.name not in replaced]
    app, wishes = appc.tightened_app(app.replace(isolators=own), _narrow_syscalls)
    changes["isolators"] = [*app.isolators, *added]
    if flags.user_annotations is not None:
        changes["user_annotations"] = dict(flags.user_annotations)
    if flags.user_labels is not None:
        changes["user_labels"] = dict(flags.user_labels)
    return app.replace(**changes), wishes


def _before_arguments(image: ImageManifest, args: Sequence[str]) -> list[str]:
    """What arguments given for a Docker or OCI image are put behind: its entry point, as for ``docker run``.

    They replace its command, which is there for when nobody gives any. Without an entry point the first of them is the
    program; but an option is none, so that such arguments go behind the command, as rkt had it for all.
    """
    assert image.app is not None
    text = image.annotations.get(appc.ANNOTATION_DOCKER_ENTRYPOINT, "")
    if text:
        entrypoint = jsontext.parse(text, what="entry point of the image")
        return read_texts(entrypoint, "entry point of the image")
    return image.app.exec if args[0].startswith("-") else []


def _flag_isolators(flags: AppRequest) -> tuple[frozenset[str], list[Isolator]]:
    """Names of the image's isolators that flags replace, and the isolators that flags add."""
    replaced: set[str] = set()
    added: list[Isolator] = []
    if flags.caps_retain is not None and flags.caps_remove is not None:
        raise UsageError("cannot use both --caps-retain and --caps-remove on the same image")
    for name, flag, names in (
        (isolators.CAPABILITIES_RETAIN, "--caps-retain", flags.caps_retain),
        (isolators.CAPABILITIES_REMOVE, "--caps-remove", flags.caps_remove),
    ):
        if names is not None:
            replaced.update((isolators.CAPABILITIES_RETAIN, isolators.CAPABILITIES_REMOVE))
            try:
                added.append(Isolator(name=name, value=isolators.capability_set(names, flag)))
            except InvalidManifest as e:
                raise UsageError(f"invalid value in {flag} flag: {e}") from e
    if flags.seccomp is not None:
        replaced.update((isolators.SECCOMP_RETAIN, isolators.SECCOMP_REMOVE))
        added.append(parse_seccomp(flags.seccomp))
    if flags.no_new_privileges is not None:
        replaced.add(isolators.NO_NEW_PRIVILEGES)
        added.append(Isolator(name=isolators.NO_NEW_PRIVILEGES, value=flags.no_new_privileges))
    # Memory and cpu are appended: the last one wins, and the image's own stays visible.
    if flags.memory is not None:
        memory = _as_usage(
            "--memory", lambda text: isolators.memory_resource({"limit": text}, "--memory"), flags.memory
        )
        if memory.limit_amount is not None and memory.limit_amount < isolators.MIN_MEMORY_BYTES:
            raise UsageError(
                f"memory limit of {memory.limit_amount} bytes too low. Try a reasonable value, such as --memory=16M"
            )
        added.append(Isolator(name=isolators.MEMORY, value=memory))
    if flags.cpu is not None:
        cpu = _as_usage("--cpu", lambda text: isolators.cpu_resource({"limit": text}, "--cpu"), flags.cpu)
        if not cpu.limit_amount:
            raise UsageError("cpu limit of 0 too low. Try a reasonable value, such as --cpu=500m")
        added.append(Isolator(name=isolators.CPU, value=cpu))
    for name, flag, number, lowest, highest in (
        (isolators.CPU_SHARES, "--cpu-shares", flags.cpu_shares, 2, 262144),
        (isolators.OOM_SCORE_ADJ, "--oom-score-adj", flags.oom_score_adj, -1000, 1000),
    ):
        if number is not None:
            if not lowest <= number <= highest:
                raise UsageError(
                    f"invalid value in {flag} flag: {number} is not between {lowest} and {highest}"
                )
            replaced.add(name)
            added.append(Isolator(name=name, value=number))
    if flags.has_limits:
        from rkt.pod import limit_flags

        more = limit_flags.app_isolators(flags)
        replaced.update(each.name for each in more if each.name not in isolators.REPEATABLE)
        added += more
    return frozenset(replaced), added


def _narrow_syscalls(names: list[str]) -> list[str]:
    """Those of an image's retained system calls that the default filter allows."""
    from rkt.linux import seccomp_profiles

    return seccomp_profiles.narrow(names)


def _mounts(requests: Iterable[MountRequest], declared: frozenset[str], *, added: bool) -> list[Mount]:
    """The app's own mounts, then the pod's; of several on one cleaned path the first counts."""
    mounts: dict[str, Mount] = {}
    for request in requests:
        if request.own is None and request.volume not in declared:
            raise UsageError(
                f"dangling mount point {quoted(request.target)}: volume {quoted(request.volume)} not found",
                hint=f"--mnt-volume=name={request.volume},kind=host,source=PATH,target={request.target}"
                if added
                else f"rkt run --volume={request.volume},kind=host,source=PATH …",
            )
        mounts.setdefault(
            clean_path(request.target),
            Mount(volume=ACName(request.volume), path=request.target, app_volume=request.own),
        )
    return list(mounts.values())


def _check_variable(name: str, where: str) -> None:
    if not appc.is_variable_name(name):
        raise UsageError(f"invalid environment variable name {quoted(name)} ({where})")


def _as_usage(flag: str, check: Callable[[_Given], _Checked], value: _Given) -> _Checked:
    try:
        return check(value)
    except InvalidManifest as e:
        raise UsageError(f"invalid value in {flag} flag: {e}") from e


def _is_text(value: str) -> bool:
    """Whether JSON can hold it: an argument or variable of the caller may carry bytes that are no UTF-8."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_text(pod: PodManifest) -> None:
    """The manifest can be written: what was typed may hold bytes that are no UTF-8, and JSON has no place for them."""
    try:
        jsontext.dump(pod.to_json()).encode("utf-8")
    except UnicodeEncodeError as e:
        around = e.object[max(0, e.start - 32) : e.end + 32]
        raise UsageError(f"a flag or an argument is not UTF-8, near {quoted(around)}") from e

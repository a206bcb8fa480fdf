# SPDX-License-Identifier: Apache-2.0
"""Image manifests and pod manifests of the App Container specification 0.8.11 (spec cli §9).

Bytes in, frozen records out, every rule of the specification checked; ``to_json`` gives the canonical form back. Member
names are read in any case and unknown members are ignored, so a caller who must keep a document keeps its bytes.
Repeated members are refused (invariant UN16).
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, quoted
from rkt.schema import jsontext
from rkt.schema.isolators import Isolator, parse_isolators, tighten
from rkt.schema.members import (
    members,
    read_flag,
    read_integer,
    read_list,
    read_text,
    read_text_map,
    read_texts,
    spellings,
)
from rkt.schema.quantity import quantity_text, to_units
from rkt.schema.record import Record
from rkt.values import AC_VERSION, ACIdentifier, ACName, is_image_hash, is_ip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: Largest user or group id; the next one means "no change" to the kernel (invariant RN13).
MAX_ID = 2**32 - 2
#: Where an image says that it was converted from a Docker image.
ANNOTATION_DOCKER_REPOSITORY = "appc.io/docker/repository"
#: The user of such an image, when it gives no group: then it is the one that the image's passwd has for the user.
ANNOTATION_DOCKER_USER = "appc.io/docker/user"
#: Its entry point, a JSON list of arguments: with its command (``…/cmd``) it is ``exec``.
ANNOTATION_DOCKER_ENTRYPOINT = "appc.io/docker/entrypoint"
#: Number of the signal that it wants to be stopped by.
ANNOTATION_DOCKER_STOP_SIGNAL = "appc.io/docker/stopsignal"
#: Names of event handlers.
EVENT_PRE_START = "pre-start"
EVENT_POST_STOP = "post-stop"
#: Annotations of an app by which ``schema/streams.py`` knows where its standard streams and its log go.
ANNOTATION_STREAMS = "coreos.com/rkt/stage2/"
ANNOTATION_LOG_PATH = "coreos.com/rkt/experiment/kubernetes-log-path"
#: Annotation of a pod: a further form of log that its apps may have.
ANNOTATION_LOG_MODE = "coreos.com/rkt/experiment/logmode"
#: Operating systems and processors that images may name.
PLATFORMS = {
    "darwin": ("i386", "x86_64"),
    "freebsd": ("amd64", "arm", "i386"),
    "linux": (
        "aarch64",
        "aarch64_be",
        "amd64",
        "armv6l",
        "armv7b",
        "armv7l",
        "i386",
        "loongarch64",
        "ppc64",
        "ppc64le",
        "riscv64",
        "s390x",
    ),
}
#: Names of annotations and labels by which stage0 and stage1 are steered; an image has no say there (invariant RN20).
RESERVED_PREFIX = "coreos.com/rkt/"
VOLUME_EMPTY = "empty"
VOLUME_HOST = "host"
#: Beyond appc: a file system in memory, a device of the host, the files of an image.
VOLUME_TMPFS = "tmpfs"
VOLUME_DEVICE = "device"
VOLUME_IMAGE = "image"
VOLUME_KINDS = (VOLUME_EMPTY, VOLUME_HOST, VOLUME_TMPFS, VOLUME_DEVICE, VOLUME_IMAGE)
#: What an empty volume gets when nobody says otherwise.
DEFAULT_VOLUME_MODE = 0o755
#: And a ``tmpfs``, as the kernel has it.
DEFAULT_TMPFS_MODE = 0o1777
#: What may be done with a device unless somebody says otherwise.
DEFAULT_ACCESS = "rw"

_DIGITS = frozenset("0123456789")
_OCTAL = frozenset("01234567")
_HEX = frozenset("0123456789abcdef")
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_VARIABLE_START = _LETTERS | frozenset("_")
_VARIABLE_CHARACTERS = _VARIABLE_START | _DIGITS | frozenset(".-")
_SEMVER_CHARACTERS = _LETTERS | _DIGITS | frozenset("-")

_IMAGE_MANIFEST = spellings(
    "acKind", "acVersion", "name", "labels", "app", "annotations", "dependencies", "pathWhitelist"
)
_POD_MANIFEST = spellings(
    "acKind",
    "acVersion",
    "apps",
    "volumes",
    "isolators",
    "annotations",
    "ports",
    "userAnnotations",
    "userLabels",
)
#: Members by which other standards tell their documents apart; with ``acKind`` a document would be two things at once.
_FOREIGN_KINDS = ("mediaType", "schemaVersion")
_APP = spellings(
    "exec",
    "user",
    "group",
    "supplementaryGIDs",
    "eventHandlers",
    "workingDirectory",
    "environment",
    "mountPoints",
    "ports",
    "isolators",
    "userAnnotations",
    "userLabels",
)
_RUNTIME_APP = spellings("name", "image", "app", "readOnlyRootFS", "mounts", "annotations")
_IMAGE = spellings("name", "id", "labels")
_DEPENDENCY = spellings("imageName", "imageID", "labels", "size")
_NAME_VALUE = spellings("name", "value")
_EVENT_HANDLER = spellings("name", "exec")
_MOUNT_POINT = spellings("name", "path", "readOnly")
_PORT = spellings("name", "protocol", "port", "count", "socketActivated")
_EXPOSED_PORT = spellings("name", "hostPort", "hostIP", "podPort")
_MOUNT = spellings("volume", "path", "appVolume")
_VOLUME = spellings("name", "kind", "source", "readOnly", "recursive", "mode", "uid", "gid", "size", "access")


class MountPoint(Record):
    """A place where an image wants a volume."""

    name: ACName
    path: str
    read_only: bool = False

    def to_json(self) -> dict[str, Any]:
        """The mount point as manifests write it."""
        value: dict[str, Any] = {"name": self.name, "path": self.path}
        if self.read_only:
            value["readOnly"] = True
        return value


class Port(Record):
    """A port, or ``count`` ports from ``port`` on, that an app listens on."""

    name: ACName
    protocol: str
    port: int
    count: int = 1
    socket_activated: bool = False

    def to_json(self) -> dict[str, Any]:
        """The port as manifests write it."""
        return {
            "name": self.name,
            "protocol": self.protocol,
            "port": self.port,
            "count": self.count,
            "socketActivated": self.socket_activated,
        }


class App(Record):
    """How to run what is in an image (spec cli §9.4).

    Attributes:
        event_handlers: command by ``pre-start`` or ``post-stop``.
        environment: in the order given.
        working_directory: absolute, or empty.
    """

    exec: list[str]
    user: str
    group: str
    supplementary_gids: list[int] = []
    event_handlers: dict[str, list[str]] = {}
    working_directory: str = ""
    environment: dict[str, str] = {}
    mount_points: list[MountPoint] = []
    ports: list[Port] = []
    isolators: list[Isolator] = []
    user_annotations: dict[str, str] = {}
    user_labels: dict[str, str] = {}

    def to_json(self) -> dict[str, Any]:
        """The app section as manifests write it."""
        value: dict[str, Any] = {"exec": self.exec, "user": self.user, "group": self.group}
        if self.supplementary_gids:
            value["supplementaryGIDs"] = self.supplementary_gids
        if self.event_handlers:
            value["eventHandlers"] = [
                {"name": n, "exec": command} for n, command in self.event_handlers.items()
            ]
        if self.working_directory:
            value["workingDirectory"] = self.working_directory
        if self.environment:
            value["environment"] = _pairs(self.environment)
        if self.mount_points:
            value["mountPoints"] = [mount_point.to_json() for mount_point in self.mount_points]
        if self.ports:
            value["ports"] = [port.to_json() for port in self.ports]
        if self.isolators:
            value["isolators"] = [isolator.to_json() for isolator in self.isolators]
        if self.user_annotations:
            value["userAnnotations"] = self.user_annotations
        if self.user_labels:
            value["userLabels"] = self.user_labels
        return value


class Dependency(Record):
    """An image below this one; later dependencies lie over earlier ones.

    Attributes:
        image_id: full or shortened, or empty.
        size_bytes: of the archive; 0 if not stated.
    """

    image_name: ACIdentifier
    image_id: str = ""
    labels: dict[str, str] = {}
    size_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """The dependency as manifests write it."""
        value: dict[str, Any] = {"imageName": self.image_name}
        if self.image_id:
            value["imageID"] = self.image_id
        if self.labels:
            value["labels"] = _pairs(self.labels)
        if self.size_bytes:
            value["size"] = self.size_bytes
        return value


class ImageManifest(Record):
    """What an ACI says of itself (spec cli §9.3).

    Attributes:
        path_whitelist: absolute paths below the root that are kept; empty for all.
    """

    name: ACIdentifier
    labels: dict[str, str] = {}
    app: App | None = None
    annotations: dict[str, str] = {}
    dependencies: list[Dependency] = []
    path_whitelist: list[str] = []
    ac_version: str = AC_VERSION

    def to_json(self) -> dict[str, Any]:
        """The manifest in canonical form."""
        value: dict[str, Any] = {"acKind": "ImageManifest", "acVersion": self.ac_version, "name": self.name}
        if self.labels:
            value["labels"] = _pairs(self.labels)
        if self.app is not None:
            value["app"] = self.app.to_json()
        if self.annotations:
            value["annotations"] = _pairs(self.annotations)
        if self.dependencies:
            value["dependencies"] = [dependency.to_json() for dependency in self.dependencies]
        if self.path_whitelist:
            value["pathWhitelist"] = self.path_whitelist
        return value


class Volume(Record):
    """Storage of a pod.

    Attributes:
        kind: one of ``VOLUME_KINDS``.
        source: absolute path on the host, for ``host`` and ``device``; for ``image`` what it is called.
        read_only, recursive: ``None`` if not stated.
        mode, uid, gid: of the directory made for ``empty`` and ``tmpfs``; ``None`` for others.
        size_bytes: most that a ``tmpfs`` holds; ``None`` if not stated.
        access: some of ``rwm``, for ``device``; else empty.
    """

    name: ACName
    kind: str
    source: str = ""
    read_only: bool | None = None
    recursive: bool | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size_bytes: int | None = None
    access: str = ""

    def to_json(self) -> dict[str, Any]:
        """The volume as manifests write it."""
        value: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.source:
            value["source"] = self.source
        if self.read_only is not None:
            value["readOnly"] = self.read_only
        if self.recursive is not None:
            value["recursive"] = self.recursive
        if self.mode is not None:
            value["mode"] = f"{self.mode:04o}"
        if self.uid is not None:
            value["uid"] = self.uid
        if self.gid is not None:
            value["gid"] = self.gid
        if self.size_bytes is not None:
            value["size"] = str(self.size_bytes)
        if self.access:
            value["access"] = self.access
        return value


class Mount(Record):
    """A volume's place in one app; ``app_volume`` is a volume of its own instead of one of the pod's."""

    volume: ACName
    path: str
    app_volume: Volume | None = None

    def to_json(self) -> dict[str, Any]:
        """The mount as manifests write it."""
        value: dict[str, Any] = {"volume": self.volume, "path": self.path}
        if self.app_volume is not None:
            value["appVolume"] = self.app_volume.to_json()
        return value


class ExposedPort(Record):
    """A port of the host that is forwarded to an app's port of this name, or to ``pod_port``."""

    name: ACName
    host_port: int
    host_ip: str = ""
    pod_port: Port | None = None

    def to_json(self) -> dict[str, Any]:
        """The port as manifests write it."""
        value: dict[str, Any] = {"name": self.name, "hostPort": self.host_port}
        if self.host_ip:
            value["hostIP"] = self.host_ip
        if self.pod_port is not None:
            value["podPort"] = self.pod_port.to_json()
        return value


class RuntimeApp(Record):
    """One app of a pod.

    Attributes:
        image_name: ``None`` if not stated.
        image_id: full or shortened.
        app: overrides the image's whole app section; ``None`` to use the image's.
    """

    name: ACName
    image_id: str
    image_name: ACIdentifier | None = None
    image_labels: dict[str, str] = {}
    app: App | None = None
    readonly_rootfs: bool = False
    mounts: list[Mount] = []
    annotations: dict[str, str] = {}

    def to_json(self) -> dict[str, Any]:
        """The app as pod manifests write it."""
        image: dict[str, Any] = {}
        if self.image_name is not None:
            image["name"] = self.image_name
        image["id"] = self.image_id
        if self.image_labels:
            image["labels"] = _pairs(self.image_labels)
        value: dict[str, Any] = {"name": self.name, "image": image}
        if self.app is not None:
            value["app"] = self.app.to_json()
        if self.readonly_rootfs:
            value["readOnlyRootFS"] = True
        if self.mounts:
            value["mounts"] = [mount.to_json() for mount in self.mounts]
        if self.annotations:
            value["annotations"] = _pairs(self.annotations)
        return value


class PodManifest(Record):
    """What a pod is made of (spec cli §9.5)."""

    apps: list[RuntimeApp] = []
    volumes: list[Volume] = []
    isolators: list[Isolator] = []
    annotations: dict[str, str] = {}
    ports: list[ExposedPort] = []
    user_annotations: dict[str, str] = {}
    user_labels: dict[str, str] = {}
    ac_version: str = AC_VERSION

    def app(self, name: str) -> RuntimeApp | None:
        """The app of that name."""
        for app in self.apps:
            if app.name == name:
                return app
        return None

    def to_json(self) -> dict[str, Any]:
        """The manifest in canonical form."""
        value: dict[str, Any] = {
            "acVersion": self.ac_version,
            "acKind": "PodManifest",
            "apps": [app.to_json() for app in self.apps],
        }
        if self.volumes:
            value["volumes"] = [volume.to_json() for volume in self.volumes]
        if self.isolators:
            value["isolators"] = [isolator.to_json() for isolator in self.isolators]
        if self.annotations:
            value["annotations"] = _pairs(self.annotations)
        if self.ports:
            value["ports"] = [port.to_json() for port in self.ports]
        if self.user_annotations:
            value["userAnnotations"] = self.user_annotations
        if self.user_labels:
            value["userLabels"] = self.user_labels
        return value


def parse_image_manifest(data: bytes) -> ImageManifest:
    """Parse and validate an image manifest.

    Raises:
        InvalidManifest: it is larger than 4 MiB, no JSON, or breaks the specification.
    """
    fields = _document(data, "ImageManifest", _IMAGE_MANIFEST, "image manifest")
    labels = _read_labels(fields.get("labels", []), "labels")
    check_platform_labels(labels)
    annotations = _read_pairs(fields.get("annotations", []), "annotations", _check_annotation)
    app = fields.get("app")
    return ImageManifest(
        name=ACIdentifier.parse(fields.get("name", ""), what="image name"),
        labels=labels,
        app=None if app is None else parse_app(app),
        annotations=annotations,
        dependencies=[
            _read_dependency(value) for value in read_list(fields.get("dependencies", []), "dependencies")
        ],
        path_whitelist=[
            _read_whitelisted(path) for path in read_texts(fields.get("pathWhitelist", []), "pathWhitelist")
        ],
        ac_version=fields["acVersion"],
    )


def parse_pod_manifest(data: bytes) -> PodManifest:
    """Parse and validate a pod manifest, written by us or by a user.

    What needs the images too is left to ``pod.manifest.check_pod_manifest``.

    Raises:
        InvalidManifest: it is larger than 4 MiB, no JSON, or breaks the specification.
    """
    fields = _document(data, "PodManifest", _POD_MANIFEST, "pod manifest")
    apps = [_read_runtime_app(value) for value in read_list(fields.get("apps", []), "apps")]
    check_app_names(apps)
    volumes = [parse_volume_object(value) for value in read_list(fields.get("volumes", []), "volumes")]
    check_volume_names(volumes)
    return PodManifest(
        apps=apps,
        volumes=volumes,
        isolators=parse_isolators(fields.get("isolators", []), pod=True),
        annotations=_read_pairs(fields.get("annotations", []), "annotations", _check_annotation),
        ports=[_read_exposed_port(value) for value in read_list(fields.get("ports", []), "ports")],
        user_annotations=read_text_map(fields.get("userAnnotations", {}), "userAnnotations"),
        user_labels=read_text_map(fields.get("userLabels", {}), "userLabels"),
        ac_version=fields["acVersion"],
    )


def parse_app(value: object) -> App:
    """An app section from decoded JSON.

    Raises:
        InvalidManifest: it breaks the specification.
    """
    fields = members(value, _APP, "app")
    handlers: dict[str, list[str]] = {}
    for element in read_list(fields.get("eventHandlers", []), "eventHandlers"):
        handler = members(element, _EVENT_HANDLER, "event handler")
        name = read_text(handler.get("name", ""), "name of an event handler")
        if name not in {EVENT_PRE_START, EVENT_POST_STOP}:
            raise InvalidManifest(f"bad event handler {quoted(name)} (must be one of: [pre-start post-stop])")
        if name in handlers:
            raise InvalidManifest(f"event handler {quoted(name)} appears twice")
        handlers[name] = read_texts(handler.get("exec", []), f"exec of event handler {quoted(name)}")
    working_directory = read_text(fields.get("workingDirectory", ""), "workingDirectory")
    check_working_directory(working_directory)
    return App(
        exec=read_texts(fields.get("exec", []), "exec"),
        user=check_owner(read_text(fields.get("user", ""), "user"), "user"),
        group=check_owner(read_text(fields.get("group", ""), "group"), "group"),
        supplementary_gids=[
            read_integer(gid, "an element of supplementaryGIDs", 0, MAX_ID)
            for gid in read_list(fields.get("supplementaryGIDs", []), "supplementaryGIDs")
        ],
        event_handlers=handlers,
        working_directory=working_directory,
        environment=_read_environment(fields.get("environment", [])),
        mount_points=[
            _read_mount_point(point) for point in read_list(fields.get("mountPoints", []), "mountPoints")
        ],
        ports=[_read_port(port) for port in read_list(fields.get("ports", []), "ports")],
        isolators=parse_isolators(fields.get("isolators", []), pod=False),
        user_annotations=read_text_map(fields.get("userAnnotations", {}), "userAnnotations"),
        user_labels=read_text_map(fields.get("userLabels", {}), "userLabels"),
    )


def tightened_app(app: App, narrow_syscalls: Callable[[list[str]], list[str]]) -> tuple[App, list[str]]:
    """An image's app section as far as an image may go (design §9.4): isolators only tighten, reserved names are gone.

    Args:
        app: the image's section.
        narrow_syscalls: as for ``isolators.tighten``.
    Returns:
        the section to use, and some words on each isolator that was cut or left out.
    """
    isolators, notices = tighten(app.isolators, narrow_syscalls)
    return (
        app.replace(
            isolators=isolators,
            user_annotations=_without_reserved(app.user_annotations),
            user_labels=_without_reserved(app.user_labels),
        ),
        notices,
    )


def parse_volume_object(value: object) -> Volume:
    """A volume from decoded JSON.

    Raises:
        InvalidManifest: it breaks the specification.
    """
    fields = members(value, _VOLUME, "volume")
    name = ACName.parse(fields.get("name", ""), what="volume name")
    what = f"volume {quoted(name)}"
    mode = fields.get("mode")
    return make_volume(
        name=name,
        kind=read_text(fields.get("kind", ""), f"kind of {what}"),
        source=read_text(fields.get("source", ""), f"source of {what}"),
        read_only=read_flag(fields["readOnly"], f"readOnly of {what}") if "readOnly" in fields else None,
        recursive=read_flag(fields["recursive"], f"recursive of {what}") if "recursive" in fields else None,
        mode=None if mode is None else parse_mode(read_text(mode, f"mode of {what}")),
        uid=read_integer(fields["uid"], f"uid of {what}", 0, MAX_ID) if "uid" in fields else None,
        gid=read_integer(fields["gid"], f"gid of {what}", 0, MAX_ID) if "gid" in fields else None,
        size=quantity_text(fields["size"], f"size of {what}") if "size" in fields else None,
        access=read_text(fields["access"], f"access of {what}") if "access" in fields else None,
    )


def make_volume(
    *,
    name: ACName,
    kind: str,
    source: str = "",
    read_only: bool | None = None,
    recursive: bool | None = None,
    mode: int | None = None,
    uid: int | None = None,
    gid: int | None = None,
    size: str | None = None,
    access: str | None = None,
) -> Volume:
    """A volume whose fields fit its kind, with the kind's defaults (spec cli §1.7).

    Raises:
        InvalidManifest: they do not fit.
    """
    what = f"volume {quoted(name)}"
    if kind not in VOLUME_KINDS:
        raise InvalidManifest(
            f"bad kind {quoted(kind)} of {what} (must be one of: [{' '.join(VOLUME_KINDS)}])"
        )
    if kind not in {VOLUME_EMPTY, VOLUME_TMPFS}:
        if not source:
            raise InvalidManifest(f"source for {kind} {what} cannot be empty")
        if "\0" in source:
            raise InvalidManifest(f"source for {kind} {what} contains a NUL character")
        if kind != VOLUME_IMAGE and not source.startswith("/"):
            raise InvalidManifest(f"source for {kind} {what} must be absolute path: {quoted(source)}")
        for field, value in (("mode", mode), ("uid", uid), ("gid", gid)):
            if value is not None:
                raise InvalidManifest(f"{field} cannot be set on {kind} {what}")
    else:
        if source:
            raise InvalidManifest(f"source for {kind} {what} must be empty")
        if mode is None:
            mode = DEFAULT_VOLUME_MODE if kind == VOLUME_EMPTY else DEFAULT_TMPFS_MODE
        uid = uid or 0
        gid = gid or 0
    if size is not None and kind != VOLUME_TMPFS:
        raise InvalidManifest(f"size cannot be set on {kind} {what}")
    size_bytes = None if size is None else to_units(size, f"size of {what}")
    if size_bytes == 0:
        raise InvalidManifest(f"size of {what} cannot be 0, which means without limit")
    if kind == VOLUME_DEVICE:
        access = DEFAULT_ACCESS if access is None else access
        if not access or not frozenset("rwm").issuperset(access) or len(set(access)) != len(access):
            raise InvalidManifest(f"invalid access {quoted(access)} of {what}: some of the letters rwm")
        if read_only is not None:
            raise InvalidManifest(f"readOnly cannot be set on device {what}", hint="access=r")
    elif access is not None:
        raise InvalidManifest(f"access cannot be set on {kind} {what}")
    if kind == VOLUME_IMAGE and read_only is False:
        raise InvalidManifest(f"image {what} is always read-only")
    return Volume(
        name=name,
        kind=kind,
        source=source,
        read_only=read_only,
        recursive=recursive,
        mode=mode,
        uid=uid,
        gid=gid,
        size_bytes=size_bytes,
        access=access or "",
    )


def parse_mode(text: str) -> int:
    """Permission bits in octal, 0 to 07777."""
    if not text or len(text) > 6 or not _OCTAL.issuperset(text) or int(text, 8) > 0o7777:
        raise InvalidManifest(f"invalid mode {quoted(text)}: octal permission bits as 0755 are expected")
    return int(text, 8)


def check_platform_labels(labels: dict[str, str]) -> None:
    """Hold ``os`` and ``arch`` of an image against the platforms that exist; an ``arch`` alone means nothing.

    Raises:
        InvalidManifest: the pair is not one of them.
    """
    system = labels.get("os")
    if system is None:
        return
    if system not in PLATFORMS:
        raise InvalidManifest(f"bad os {quoted(system)} (must be one of: [{' '.join(PLATFORMS)}])")
    arch = labels.get("arch")
    if arch is not None and arch not in PLATFORMS[system]:
        raise InvalidManifest(
            f"bad arch {quoted(arch)} for {system} (must be one of: [{' '.join(PLATFORMS[system])}])"
        )


def check_app_names(apps: list[RuntimeApp]) -> None:
    """No two apps of a pod share a name."""
    seen: set[str] = set()
    for app in apps:
        if app.name in seen:
            raise InvalidManifest(f"duplicate apps of name {quoted(app.name)}")
        seen.add(app.name)


def check_volume_names(volumes: list[Volume]) -> None:
    """No two volumes of a pod share a name."""
    seen: set[str] = set()
    for volume in volumes:
        if volume.name in seen:
            raise InvalidManifest(f"duplicate volume name {quoted(volume.name)}")
        seen.add(volume.name)


def check_owner(text: str, what: str) -> str:
    """A user or group as manifests and flags write it: digits, a name, or an absolute path in the image.

    Digits are an id and nothing else (invariant RN13); a name or path that could break a line of an account file is refused.
    """
    if not text:
        raise InvalidManifest(f"{what} is required")
    if _DIGITS.issuperset(text):
        if len(text) > 10 or int(text) > MAX_ID:
            raise InvalidManifest(f"invalid {what} {quoted(text)}: ids go from 0 to {MAX_ID}")
    elif not text.isprintable() or (":" in text and text[0] != "/"):
        raise InvalidManifest(
            f"invalid {what} {quoted(text)}: a number, a name or an absolute path is expected"
        )
    return text


def check_working_directory(text: str) -> None:
    """A working directory is absolute, or empty."""
    if text and text[0] != "/":
        raise InvalidManifest(f"workingDirectory must be an absolute path: {quoted(text)}")


def has_streams(annotations: dict[str, str]) -> bool:
    """Whether an app's annotations ask for anything but the usual standard streams and log."""
    return any(name.startswith(ANNOTATION_STREAMS) or name == ANNOTATION_LOG_PATH for name in annotations)


def is_variable_name(text: str) -> bool:
    """Whether a variable may have that name: ``^[A-Za-z_][A-Za-z_0-9.-]*$``."""
    return bool(text) and text[0] in _VARIABLE_START and _VARIABLE_CHARACTERS.issuperset(text)


def _without_reserved(names: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in names.items() if not name.lower().startswith(RESERVED_PREFIX)}


def _pairs(mapping: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in mapping.items()]


def _document(data: bytes, kind: str, table: dict[str, str], what: str) -> dict[str, Any]:
    value = jsontext.parse(data, what=what)
    fields = members(value, table, what)
    found = fields.get("acKind", "")
    if found == "":
        raise InvalidManifest(f"invalid {what}: missing ACKind")
    if found != kind:
        raise InvalidManifest(f"invalid {what}: bad ACKind {quoted(str(found))} (must be {kind})")
    for foreign in _FOREIGN_KINDS:
        if foreign in value:
            raise InvalidManifest(f"invalid {what}: it names two types, by acKind and by {foreign}")
    version = fields.get("acVersion", "")
    if not isinstance(version, str):
        raise InvalidManifest(f"invalid {what}: acVersion must be a string")
    _check_version(version)
    return fields


def _check_version(text: str) -> None:
    """Hold ``text`` against Semantic Versioning 2.0.0; any version that is not zero will do (spec cli §9.6)."""
    core, plus, build = text.partition("+")
    core, dash, pre_release = core.partition("-")
    numbers = core.split(".")
    if core in {"", "0.0.0"} and not dash and not plus:
        raise InvalidManifest("ACVersion must be set")
    well_formed = (
        len(numbers) == 3
        and len(text) <= 255
        and all(_is_plain_number(number) for number in numbers)
        and (not plus or all(part and _SEMVER_CHARACTERS.issuperset(part) for part in build.split(".")))
        and (
            not dash
            or all(
                part
                and _SEMVER_CHARACTERS.issuperset(part)
                and (not _DIGITS.issuperset(part) or _is_plain_number(part))
                for part in pre_release.split(".")
            )
        )
    )
    if not well_formed:
        raise InvalidManifest(
            f"invalid ACVersion {quoted(text)}: a semantic version as {AC_VERSION} is expected"
        )


def _is_plain_number(text: str) -> bool:
    return bool(text) and _DIGITS.issuperset(text) and (text == "0" or text[0] != "0")


def _read_pairs(value: object, what: str, check: Callable[[str, str], None] | None = None) -> dict[str, str]:
    """A list of names and values; names are AC Identifiers and unique."""
    pairs: dict[str, str] = {}
    for element in read_list(value, what):
        fields = members(element, _NAME_VALUE, f"an element of {what}")
        name = ACIdentifier.parse(fields.get("name", ""), what=f"name in {what}")
        text = read_text(fields.get("value", ""), f"{what} {quoted(name)}")
        if name in pairs:
            raise InvalidManifest(f"duplicate name {quoted(name)} in {what}")
        if check is not None:
            check(name, text)
        pairs[name] = text
    return pairs


def _read_labels(value: object, what: str) -> dict[str, str]:
    labels = _read_pairs(value, what)
    if "name" in labels:
        raise InvalidManifest(f'invalid label name "name" in {what}')
    return labels


def _check_annotation(name: str, text: str) -> None:
    if name == "created":
        if not is_date(text):
            raise InvalidManifest(f"annotation created {quoted(text)} is not an RFC 3339 date")
    elif name in {"homepage", "documentation"}:
        scheme, separator, rest = text.partition("://")
        if (
            not separator
            or scheme.lower() not in {"http", "https"}
            or not rest
            or not text.isprintable()
            or " " in text
        ):
            raise InvalidManifest(f"annotation {name} {quoted(text)} is not an http or https URL")


def is_date(text: str) -> bool:
    """Whether ``text`` is a date as RFC 3339 §5.6 has it; days are not counted per month."""
    if (
        len(text) < 20
        or text[10] not in "Tt"
        or text[13] != ":"
        or text[16] != ":"
        or text[4] != "-"
        or text[7] != "-"
    ):
        return False
    clock = text[19:]
    if clock[0] == ".":
        fraction = len(clock[1:]) - len(clock[1:].lstrip("0123456789"))
        if fraction == 0:
            return False
        clock = clock[1 + fraction :]
    if clock not in {"Z", "z"}:
        if len(clock) != 6 or clock[0] not in "+-" or clock[3] != ":":
            return False
        zone = (clock[1:3], clock[4:6])
        if not all(_DIGITS.issuperset(part) for part in zone) or int(zone[0]) > 23 or int(zone[1]) > 59:
            return False
    numbers = (text[:4], text[5:7], text[8:10], text[11:13], text[14:16], text[17:19])
    if not all(_DIGITS.issuperset(number) for number in numbers):
        return False
    _, month, day, hour, minute, second = map(int, numbers)
    return 1 <= month <= 12 and 1 <= day <= 31 and hour <= 23 and minute <= 59 and second <= 60


def _read_image_id(value: object, what: str, *, algorithms: tuple[str, ...] = ("sha512", "sha256")) -> str:
    text = read_text(value, what)
    algorithm, digits = text[: len("sha512")], text[len("sha512-") :]
    if (
        not is_image_hash(text)
        or algorithm not in algorithms
        or len(digits) > 128
        or not _HEX.issuperset(digits)
    ):
        expected = " or ".join(f"{each}-" for each in algorithms)
        raise InvalidManifest(f"invalid {what} {quoted(text)}: {expected} and hex digits are expected")
    return text


def _read_dependency(value: object) -> Dependency:
    fields = members(value, _DEPENDENCY, "dependency")
    image_id = fields.get("imageID", "")
    return Dependency(
        image_name=ACIdentifier.parse(fields.get("imageName", ""), what="imageName of a dependency"),
        image_id=_read_image_id(image_id, "imageID of a dependency", algorithms=("sha512",))
        if image_id != ""
        else "",
        labels=_read_labels(fields.get("labels", []), "labels of a dependency"),
        size_bytes=read_integer(fields.get("size", 0), "size of a dependency", 0, 2**63 - 1),
    )


def _read_whitelisted(path: str) -> str:
    if not path.startswith("/") or ".." in path.split("/"):
        raise InvalidManifest(
            f"invalid path {quoted(path)} in pathWhitelist: it must be absolute, without .."
        )
    return path


def _read_environment(value: object) -> dict[str, str]:
    environment: dict[str, str] = {}
    for element in read_list(value, "environment"):
        fields = members(element, _NAME_VALUE, "an environment variable")
        name = read_text(fields.get("name", ""), "name of an environment variable")
        if not is_variable_name(name):
            raise InvalidManifest(f"invalid environment variable name {quoted(name)}")
        if name in environment:
            raise InvalidManifest(f"duplicate environment variable {quoted(name)}")
        environment[name] = read_text(fields.get("value", ""), f"environment variable {quoted(name)}")
    return environment


def _read_mount_point(value: object) -> MountPoint:
    fields = members(value, _MOUNT_POINT, "mount point")
    name = ACName.parse(fields.get("name", ""), what="mount point name")
    path = read_text(fields.get("path", ""), f"path of mount point {quoted(name)}")
    if not path or "\0" in path:
        raise InvalidManifest(f"path of mount point {quoted(name)} must be set")
    return MountPoint(
        name=name,
        path=path,
        read_only=read_flag(fields.get("readOnly", False), f"readOnly of mount point {quoted(name)}"),
    )


def _read_port(value: object) -> Port:
    fields = members(value, _PORT, "port")
    name = ACName.parse(fields.get("name", ""), what="port name")
    what = f"port {quoted(name)}"
    number = read_integer(fields.get("port", 0), what, 1, 65535)
    return Port(
        name=name,
        protocol=read_text(fields.get("protocol", ""), f"protocol of {what}"),
        port=number,
        count=read_integer(fields.get("count", 1), f"count of {what}", 1, 65536 - number),
        socket_activated=read_flag(fields.get("socketActivated", False), f"socketActivated of {what}"),
    )


def _read_exposed_port(value: object) -> ExposedPort:
    fields = members(value, _EXPOSED_PORT, "exposed port")
    name = ACName.parse(fields.get("name", ""), what="port name")
    host_ip = read_text(fields.get("hostIP", ""), f"hostIP of port {quoted(name)}")
    if host_ip and not is_ip(host_ip):
        raise InvalidManifest(f"hostIP {quoted(host_ip)} of port {quoted(name)} is not a valid IP")
    pod_port = fields.get("podPort")
    return ExposedPort(
        name=name,
        host_port=read_integer(fields.get("hostPort", 0), f"hostPort of port {quoted(name)}", 1, 65535),
        host_ip=host_ip,
        pod_port=None if pod_port is None else _read_port(pod_port),
    )


def _read_runtime_app(value: object) -> RuntimeApp:
    fields = members(value, _RUNTIME_APP, "app of the pod")
    name = ACName.parse(fields.get("name", ""), what="app name")
    image = members(fields.get("image", {}), _IMAGE, f"image of app {quoted(name)}")
    if image.get("id", "") == "":
        raise InvalidManifest(f"image id of app {quoted(name)} must be set")
    image_name = image.get("name", "")
    app = fields.get("app")
    return RuntimeApp(
        name=name,
        image_id=_read_image_id(image["id"], f"image id of app {quoted(name)}"),
        image_name=ACIdentifier.parse(image_name, what="image name") if image_name != "" else None,
        image_labels=_read_labels(image.get("labels", []), f"image labels of app {quoted(name)}"),
        app=None if app is None else parse_app(app),
        readonly_rootfs=read_flag(
            fields.get("readOnlyRootFS", False), f"readOnlyRootFS of app {quoted(name)}"
        ),
        mounts=[_read_mount(mount) for mount in read_list(fields.get("mounts", []), "mounts")],
        annotations=_read_pairs(fields.get("annotations", []), "annotations", _check_annotation),
    )


def _read_mount(value: object) -> Mount:
    fields = members(value, _MOUNT, "mount")
    volume = fields.get("volume", "")
    path = read_text(fields.get("path", ""), "path of a mount")
    if volume == "":
        raise InvalidManifest("volume must be set in a mount")
    if not path or "\0" in path:
        raise InvalidManifest("path must be set in a mount")
    own = fields.get("appVolume")
    app_volume = None if own is None else parse_volume_object(own)
    return Mount(volume=ACName.parse(volume, what="volume of a mount"), path=path, app_volume=app_volume)

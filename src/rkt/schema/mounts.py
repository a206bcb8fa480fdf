# SPDX-License-Identifier: Apache-2.0
"""Which volume is mounted where in each app (spec cli §9.5, runtime §3.10); decided here, done by stage1.

1. Every mount of the app is made, on its own volume or the pod's volume it names; of two on one path the first counts.
2. A mount point of the image whose path has a mount by now is done.
3. Else the pod's volume with the mount point's name is mounted there.
4. Else an implicit empty volume ``APP-MOUNTPOINT`` is, which ends with the app.

What an app has of its own is kept under names with a dot, which no volume of the pod can have: apps of one pod never meet
in a volume that one of them brought along, and it can be removed with the app.

Paths are compared as text after cleaning, which is about the order of precedence only. The target is handed on as it was
written, to be resolved inside the app's root, links and all.
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, quoted
from rkt.schema.appc import (
    DEFAULT_VOLUME_MODE,
    VOLUME_DEVICE,
    VOLUME_EMPTY,
    VOLUME_HOST,
    VOLUME_IMAGE,
    App,
    PodManifest,
    RuntimeApp,
    Volume,
)
from rkt.schema.record import Record
from rkt.values import ACName


class PairedMount(Record):
    """One mount to make in an app.

    Attributes:
        name: of the volume.
        directory: what it is called where the pod keeps it.
        path: target in the app's root, absolute, not cleaned.
        kind: of the volume.
        source: path on the host, for ``host`` and ``device``; ``None`` for what is kept in the pod's directory under the
            volume's directory.
        read_only: whether the app sees it read-only.
        recursive: whether mounts below the source come along.
        mode, uid, gid: of the directory made for an empty volume or a tmpfs.
        size_bytes: most that a tmpfs holds; ``None`` leaves it to the kernel.
        access: to a device.
        implicit: whether nobody asked for this volume; a converted Docker image then expects its own files in it.
    """

    name: ACName
    directory: str
    path: str
    source: str | None
    read_only: bool
    recursive: bool
    mode: int = DEFAULT_VOLUME_MODE
    uid: int = 0
    gid: int = 0
    implicit: bool = False
    kind: str = VOLUME_HOST
    size_bytes: int | None = None
    access: str = ""


def clean_path(path: str) -> str:
    """``path`` taken from the root, without empty and ``.`` components, each ``..`` taking one component away."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    return "/" + "/".join(parts)


def pair_mounts(
    runtime_app: RuntimeApp, app: App, pod: PodManifest, *, recursive_default: bool = True
) -> list[PairedMount]:
    """The mounts of one app of a pod, explicit ones first, in the order given.

    Args:
        runtime_app: the app's entry in the pod manifest.
        app: the app section that counts, the entry's own or its image's.
        pod: the pod manifest.
        recursive_default: what holds for a volume that does not say; ``fly`` wants ``False`` (spec runtime §3.10).
    Raises:
        InvalidManifest: a mount names no volume, or its target is one that volumes must not cover.
    """
    volumes: dict[str, Volume] = {volume.name: volume for volume in pod.volumes}
    points = [(point, _checked_place(point.path, runtime_app.name)) for point in app.mount_points]
    paired: dict[str, PairedMount] = {}
    own: dict[str, Volume] = {}
    for mount in runtime_app.mounts:
        volume = mount.app_volume or volumes.get(mount.volume)
        if volume is None:
            raise InvalidManifest(
                f"could not find volume {quoted(mount.volume)}, mounted on {quoted(mount.path)} in app"
                f" {quoted(runtime_app.name)}"
            )
        if mount.app_volume and own.setdefault(volume.name, volume) != volume:
            raise InvalidManifest(
                f"app {quoted(runtime_app.name)} has two volumes of its own named {quoted(volume.name)}"
            )
        place = _checked_place(mount.path, runtime_app.name)
        if place not in paired:
            # Either way of meeting a read-only mount point will do: by the volume's name, as rkt has it, or by the path.
            wanted = any(p.read_only for p, path in points if p.name == mount.volume or path == place)
            directory = own_directory(runtime_app.name, volume.name) if mount.app_volume else volume.name
            paired[place] = _pair(volume, directory, mount.path, wanted, recursive_default)
    for point, place in points:
        if place not in paired:
            volume = volumes.get(point.name)
            if volume is not None:
                paired[place] = _pair(volume, volume.name, point.path, point.read_only, recursive_default)
            else:
                name = ACName.parse(f"{runtime_app.name}-{point.name}", what="implicit volume name")
                volume = Volume(name=name, kind=VOLUME_EMPTY)
                directory = f"{own_directory(runtime_app.name, point.name)}.implicit"
                paired[place] = _pair(
                    volume, directory, point.path, point.read_only, recursive_default
                ).replace(implicit=True)
    return list(paired.values())


def own_directory(app: str, volume: str) -> str:
    """What a volume that only one app has is called where the pod keeps it."""
    return f"{app}.{volume}"


def belongs_to(app: str, directory: str) -> bool:
    """Whether a volume's directory is one of an app's own."""
    return directory.startswith(f"{app}.")


def named_volumes(pod: PodManifest) -> list[tuple[str, Volume]]:
    """Every volume that a manifest names, the pod's and those of its apps, each with its directory's name."""
    found: dict[str, Volume] = {str(volume.name): volume for volume in pod.volumes}
    for app in pod.apps:
        for mount in app.mounts:
            if mount.app_volume is not None:
                found[own_directory(app.name, mount.app_volume.name)] = mount.app_volume
    return list(found.items())


def _pair(
    volume: Volume, directory: str, path: str, point_read_only: bool, recursive_default: bool
) -> PairedMount:
    return PairedMount(
        name=volume.name,
        directory=directory,
        path=path if path.startswith("/") else f"/{path}",
        kind=volume.kind,
        source=volume.source if volume.kind in {VOLUME_HOST, VOLUME_DEVICE} else None,
        # The operator's word on the volume counts before the image's on the mount point.
        read_only=_read_only(volume, point_read_only),
        recursive=recursive_default if volume.recursive is None else volume.recursive,
        mode=DEFAULT_VOLUME_MODE if volume.mode is None else volume.mode,
        uid=volume.uid or 0,
        gid=volume.gid or 0,
        size_bytes=volume.size_bytes,
        access=volume.access,
    )


def _read_only(volume: Volume, point_read_only: bool) -> bool:
    if volume.kind == VOLUME_IMAGE:
        return True
    if volume.kind == VOLUME_DEVICE:
        # The device policy says what may be done; the mount has no say in a device.
        return False
    return point_read_only if volume.read_only is None else volume.read_only


def _checked_place(path: str, app: str) -> str:
    """The cleaned path; the root itself and ``/proc`` are refused, where labels and masks would meet a fake file (RN4)."""
    place = clean_path(path)
    if place in {"/", "/proc"} or place.startswith("/proc/"):
        raise InvalidManifest(f"app {quoted(app)} must not have a mount on {quoted(path)}")
    return place

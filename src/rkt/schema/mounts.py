# SPDX-License-Identifier: Apache-2.0
"""Which volume is mounted where in each app (spec cli §9.5, runtime §3.10); decided here, done by stage1.

1. Every mount of the app is made, on its own volume or the pod's volume it names; of two on one path the first counts.
2. A mount point of the image whose path has a mount by now is done.
3. Else the pod's volume with the mount point's name is mounted there.
4. Else an implicit empty volume ``APP-MOUNTPOINT`` is, which ends with the pod.

Paths are compared as text after cleaning, which is about the order of precedence only. The target is handed on as it was
written, to be resolved inside the app's root, links and all.
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, quoted
from rkt.schema.appc import DEFAULT_VOLUME_MODE, VOLUME_EMPTY, App, RuntimeApp, Volume
from rkt.schema.record import Record
from rkt.values import MAX_NAME_LENGTH, ACName

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class PairedMount(Record):
    """One mount to make in an app.

    Attributes:
        volume: its storage.
        target: path in the app's root, absolute, not cleaned.
        read_only: whether the app sees it read-only.
        recursive: whether mounts below the volume's source come along; ``None`` leaves it to the flavour.
        implicit: whether nobody asked for this volume; a converted Docker image then expects its own files in it.
    """

    volume: Volume
    target: str
    read_only: bool
    recursive: bool | None = None
    implicit: bool = False


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


def pair_mounts(apps: Sequence[tuple[RuntimeApp, App]], volumes: Sequence[Volume]) -> list[list[PairedMount]]:
    """The mounts of each app of a pod, in the order of ``apps``.

    Args:
        apps: each app of the pod with the app section that counts, its own or its image's.
        volumes: those of the pod.
    Raises:
        InvalidManifest: a mount names no volume, or its target is one that volumes must not cover.
    """
    by_name: dict[str, Volume] = {volume.name: volume for volume in volumes}
    names = {*by_name, *(mount.volume for runtime_app, _ in apps for mount in runtime_app.mounts)}
    return [_pair_app(runtime_app, app, by_name, names) for runtime_app, app in apps]


def _pair_app(
    runtime_app: RuntimeApp, app: App, volumes: dict[str, Volume], names: set[str]
) -> list[PairedMount]:
    paired: dict[str, PairedMount] = {}
    points = [(point, clean_path(point.path)) for point in app.mount_points]
    for mount in runtime_app.mounts:
        volume = mount.app_volume or volumes.get(mount.volume)
        if volume is None:
            raise InvalidManifest(
                f"could not find volume {quoted(mount.volume)}, mounted on {quoted(mount.path)} in app"
                f" {quoted(runtime_app.name)}"
            )
        place = _checked_place(mount.path, runtime_app.name)
        if place in paired:
            continue
        # The operator's word on the volume counts first. Else either way of meeting a read-only mount point is enough: by
        # the volume's name, as rkt had it, or by the path.
        read_only = volume.read_only
        if read_only is None:
            read_only = any(
                point.read_only for point, path in points if point.name == mount.volume or path == place
            )
        paired[place] = PairedMount(
            volume=volume, target=_absolute(mount.path), read_only=read_only, recursive=volume.recursive
        )
    for point, path in points:
        place = _checked_place(path, runtime_app.name)
        if place in paired:
            continue
        volume = volumes.get(point.name)
        implicit = volume is None
        if volume is None:
            volume = Volume(
                name=_free_name(f"{runtime_app.name}-{point.name}", names),
                kind=VOLUME_EMPTY,
                mode=DEFAULT_VOLUME_MODE,
                uid=0,
                gid=0,
            )
            names.add(volume.name)
        paired[place] = PairedMount(
            volume=volume,
            target=_absolute(point.path),
            read_only=point.read_only if volume.read_only is None else volume.read_only,
            recursive=volume.recursive,
            implicit=implicit,
        )
    return list(paired.values())


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def _checked_place(path: str, app: str) -> str:
    """The cleaned path; the root itself and ``/proc`` are refused, where labels and masks would meet a fake file (RN4)."""
    place = clean_path(path)
    if place in {"/", "/proc"} or place.startswith("/proc/"):
        raise InvalidManifest(f"app {quoted(app)} must not have a mount on {quoted(path)}")
    return place


def _free_name(wanted: str, taken: set[str]) -> ACName:
    """``wanted``, or with a number where that is taken: app ``a``, point ``b-c`` and app ``a-b``, point ``c`` must not share."""
    name = wanted[:MAX_NAME_LENGTH].rstrip("-")
    number = 1
    while name in taken:
        number += 1
        name = f"{wanted[: MAX_NAME_LENGTH - 12].rstrip('-')}-{number}"
    return ACName.parse(name)

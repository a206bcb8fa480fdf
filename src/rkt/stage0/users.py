# SPDX-License-Identifier: Apache-2.0
"""``--private-users`` on the side of stage0: ids for the pod, and layers shown with them; imported only when asked for.

The layers of the store keep the owners that the image gave. Before the overlay of an app is mounted, each of its layers
is covered, in the pod's own mount namespace, by an idmapped clone of itself; the overlay takes a private clone of that
and goes on when the cover is gone. What the pod changes lies in the upper directory and belongs to its own ids.
"""

from __future__ import annotations

import errno
import os

from rkt.errors import HostError, UsageError
from rkt.linux import libc, mount
from rkt.linux.userns import UserNamespace
from rkt.pod import ranges
from rkt.schema.appc import parse_image_manifest
from rkt.schema.mounts import named_volumes
from rkt.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from rkt.config.settings import Settings
    from rkt.linux.userns import IdRange
    from rkt.pod.lifecycle import Pod
    from rkt.schema.appc import PodManifest

#: There in every kernel with user namespaces.
_UID_MAP = "/proc/self/uid_map"


def find_ranges(settings: Settings) -> ranges.Pool:
    """The ids from which a pod may lease, on a host that has user namespaces.

    Raises:
        HostError: it has none.
        ConfigError: the configured ids will not do.
    """
    if not os.path.exists(_UID_MAP):
        raise HostError(
            "--private-users is not supported, kernel compiled without user namespace support",
            hint="run it without --private-users",
        )
    return ranges.configured_pool(settings)


def check_pod_ids(manifest: PodManifest, images: list[bytes]) -> None:
    """Refuse ids that the pod will not have; those behind names are looked at by stage1.

    Args:
        manifest: the pod's.
        images: manifests of the apps' images, in the same order.
    Raises:
        UsageError: an app or an empty volume asks for such an id.
    """
    asked: list[tuple[str, str, str]] = [
        (f'volume "{volume.name}"', what, str(number))
        for _, volume in named_volumes(manifest)
        for what, number in (("uid", volume.uid), ("gid", volume.gid))
        if number is not None
    ]
    for runtime, image in zip(manifest.apps, images, strict=True):
        app = runtime.app or parse_image_manifest(image).app
        if app is None:
            continue
        owner = f'app "{runtime.name}"'
        asked += [(owner, "user", app.user), (owner, "group", app.group)]
        asked += [(owner, "supplementary group", str(gid)) for gid in app.supplementary_gids]
    for owner, what, text in asked:
        if is_number(text) and int(text) >= ranges.COUNT:
            raise UsageError(
                f"{owner}: {what} {text} is outside the ids of a pod with --private-users, 0 to {ranges.COUNT - 1}",
                hint="run it without --private-users",
            )


def lease(pod: Pod, settings: Settings, pool: ranges.Pool, *, overlay: bool) -> IdRange:
    """Give the pod its ids, and look whether the host can show layers with them.

    Raises:
        HostError: it cannot, and the pod wants overlays.
        PodError: no ids are left.
    """
    ids = ranges.lease(pod, settings.data_dir, pool)
    if overlay:
        _check_layers(f"{settings.data_dir}/cas/layer", ids)
    return ids


def _check_layers(path: str, ids: IdRange) -> None:
    """Refuse to prepare what could not be run, as far as that can be said here.

    Raises:
        HostError: the layers cannot be shown with other ids, or there can be no user namespace.
    """
    try:
        users = UserNamespace.create(ids)
    except OSError as e:
        if e.errno == errno.EPERM:
            # Below a chroot; the pod will have a mount namespace whose root is this one, where it can be had.
            return
        raise _refusal(e) from e
    with users:
        try:
            os.close(mount.clone(path, recursive=False, idmap_fd=users.idmap_fd))
        except OSError as e:
            raise HostError(
                f"cannot show {path} with other ids: {e.strerror}: the kernel is older than 5.19, or its file system has "
                "no idmapped mounts",
                hint="rkt run --private-users --no-overlay",
            ) from e


def open_users(pod: Pod) -> UserNamespace:
    """A user namespace with the pod's ids.

    Raises:
        HostError: the kernel refuses.
        PodError: the pod's record is damaged.
    """
    ids = ranges.read(pod)
    assert ids is not None
    try:
        return UserNamespace.create(ids)
    except OSError as e:
        raise _refusal(e) from e


def _refusal(e: OSError) -> HostError:
    return HostError(f"cannot make a user namespace: {e.strerror}", hint="sysctl user.max_user_namespaces")


class ShownLayers:
    """For the time of a ``with``, directories of this mount namespace show the ids of a pod."""

    __slots__ = ("_paths", "_shown", "_users")

    def __init__(self, paths: list[str], users: UserNamespace) -> None:
        self._paths = paths
        self._users = users
        self._shown: list[str] = []

    def __enter__(self) -> None:
        try:
            for path in self._paths:
                mount.bind(path, path, recursive=False, idmap_fd=self._users.idmap_fd)
                self._shown.append(path)
        except BaseException:
            self._hide()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hide()

    def _hide(self) -> None:
        for path in self._shown:
            libc.umount2(path.encode(), libc.MNT_DETACH | libc.UMOUNT_NOFOLLOW)

# SPDX-License-Identifier: Apache-2.0
"""Volumes of a pod: from its manifest to detached mounts that the apps' children attach (spec runtime §3.10).

What a volume is made of is opened once, looked at by descriptor, and mounted by that descriptor (invariant VL1).
"""

from __future__ import annotations

import errno
import os

from rkt.errors import Stage1Error
from rkt.linux import cgroup_devices, libc, mount
from rkt.schema.appc import (
    ANNOTATION_DOCKER_REPOSITORY,
    VOLUME_DEVICE,
    VOLUME_HOST,
    VOLUME_IMAGE,
    VOLUME_TMPFS,
)
from rkt.schema.mounts import clean_path, pair_mounts
from rkt.stage0 import contract
from rkt.stage1.common import steps
from rkt.stage1.common.sources import open_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.linux.userns import IdRange, UserNamespace
    from rkt.schema.mounts import PairedMount
    from rkt.stage1.common.pod import LoadedPod, PodApp

    #: As ``linux.cgroup_devices`` takes it: (``b`` or ``c``, major, minor or None, access).
    DeviceRule = tuple[str, int, int | None, str]

_KIND = 0o170000
_DIRECTORY = 0o040000
_FILE = 0o100000
_DEVICES = {0o020000: "c", 0o060000: "b"}
#: What every pod may use anyway.
_DEFAULT_DEVICES = frozenset((kind, major, minor) for kind, major, minor, _ in cgroup_devices.DEFAULT_DEVICES)
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Volume:
    """One mount of an app, its source held open."""

    __slots__ = ("fd", "mount", "status")

    def __init__(self, mount: PairedMount, fd: int) -> None:
        self.mount = mount
        self.fd = fd
        self.status = os.fstat(fd)

    @property
    def place(self) -> bytes:
        """Where it is mounted, cleaned, relative to the app's root."""
        return clean_path(self.mount.path)[1:].encode()

    @property
    def device(self) -> DeviceRule | None:
        """What the device policy has to allow; ``None`` when the source is no device."""
        kind = _DEVICES.get(self.status.st_mode & _KIND)
        if kind is None:
            return None
        number = self.status.st_rdev
        access = self.mount.access or ("r" if self.mount.read_only else "rw")
        return kind, os.major(number), os.minor(number), access

    def attach(self, users: UserNamespace | None = None) -> steps.Step:
        """A detached copy of the source with the volume's attributes, to be attached in the app's child.

        Read-only goes all the way down (VL2). Later mounts of the host below the source do not arrive: they would arrive
        writable. The attributes are set before the mount is anywhere.

        Args:
            users: the pod's user namespace. With it ids on disk are those inside the pod; where the file system cannot do
                that, a notice says so, and what is root's there is nobody's in the pod.
        """
        wanted = self.mount
        attributes = libc.MOUNT_ATTR_NOSUID | (libc.MOUNT_ATTR_RDONLY if wanted.read_only else 0)
        if not self._needs_devices():
            attributes |= libc.MOUNT_ATTR_NODEV
        kind = self.status.st_mode & _KIND
        try:
            tree = mount.clone(
                self.fd, attributes=attributes, recursive=wanted.recursive, propagation=libc.MS_PRIVATE
            )
            if (
                users is not None
                and wanted.kind in {VOLUME_HOST, VOLUME_IMAGE}
                and kind in {_DIRECTORY, _FILE}
            ):
                from rkt.stage1.common.private_users import map_volume

                depth = libc.AT_RECURSIVE if wanted.recursive else 0
                map_volume(tree, users, depth, f"volume {str(wanted.name)!r}: {wanted.source or 'the image'}")
        except OSError as e:
            if e.errno == errno.EINVAL:
                raise Stage1Error(
                    f"volume {str(wanted.name)!r}: {wanted.source or wanted.name} cannot be bind mounted"
                ) from e
            raise
        return steps.AttachTree(tree, wanted.path.encode(), is_directory=kind == _DIRECTORY, name=wanted.name)

    def _needs_devices(self) -> bool:
        """A device, or the operator's own ``/dev``; the device policy decides what can be opened."""
        if self.device is not None:
            return True
        return self.mount.source is not None and self.place.partition(b"/")[0] == b"dev"

    def close(self) -> None:
        """Let go of the source; what was attached stays."""
        os.close(self.fd)


class Volumes:
    """The volumes of every app of a pod."""

    __slots__ = ("_apps",)

    def __init__(
        self, pod: LoadedPod, ids: IdRange | None, warn: Callable[[str], None], *, recursive: bool = True
    ) -> None:
        """Open every source, and make the empty volumes.

        Args:
            pod: the pod whose directory is the working directory.
            ids: of a pod with a user namespace; what is kept in the pod's directory is owned by these.
            warn: told of mount points for which nobody gave a volume.
            recursive: what holds for a volume that does not say.
        Raises:
            Stage1Error: a source is missing or must not be used.
        """
        self._apps: dict[str, list[Volume]] = {}
        try:
            for app in pod.apps:
                opened = self._apps[app.name] = []
                for wanted in pair_mounts(app.runtime, app.app, pod.manifest, recursive_default=recursive):
                    opened.append(Volume(wanted, _open(wanted, app, ids, warn)))  # noqa: PERF401 - closed when one fails
        except BaseException:
            self.close()
            raise

    def of(self, app: str) -> list[Volume]:
        """Those of one app, in the order in which they are to be mounted: what lies deeper comes later."""
        return sorted(self._apps[app], key=lambda volume: volume.place.count(b"/"))

    def devices(self, app: str | None = None) -> list[DeviceRule]:
        """What the device policy has to allow in addition, for one app or for the whole pod."""
        names = self._apps if app is None else [app]
        rules = (volume.device for name in names for volume in self._apps[name])
        return list(
            dict.fromkeys(rule for rule in rules if rule is not None and rule[:3] not in _DEFAULT_DEVICES)
        )

    def close(self) -> None:
        """Let go of everything that is open, once the apps have started."""
        for volumes in self._apps.values():
            for volume in volumes:
                volume.close()
        self._apps.clear()


def _open(wanted: PairedMount, app: PodApp, ids: IdRange | None, warn: Callable[[str], None]) -> int:
    if wanted.kind == VOLUME_IMAGE:
        return os.open(f"{contract.IMAGE_VOLUMES}/{wanted.directory}/rootfs", _OPEN_DIRECTORY)
    if wanted.source is None:
        return _open_empty(wanted, app, ids, warn)
    try:
        fd = open_source(wanted.source)
    except OSError as e:
        # systemd-nspawn's words, which rkt's users and tests know.
        raise Stage1Error(
            f"Failed to stat {wanted.source}: {os.strerror(e.errno or 0)}",
            hint=f"create it, or change the source of volume {wanted.name}",
        ) from e
    if wanted.kind == VOLUME_DEVICE:
        _check_device(fd, wanted)
    return fd


def _check_device(fd: int, wanted: PairedMount) -> None:
    if os.fstat(fd).st_mode & _KIND not in _DEVICES:
        os.close(fd)
        raise Stage1Error(
            f"volume {str(wanted.name)!r}: {wanted.source} is no device",
            hint=f"--volume={wanted.name},kind=host,source={wanted.source}",
        )


def _open_empty(wanted: PairedMount, app: PodApp, ids: IdRange | None, warn: Callable[[str], None]) -> int:
    """The directory of an empty volume, made by the first app that mounts it; of a tmpfs, with one mounted there."""
    if wanted.implicit:
        warn(
            f"warning: no volume specified for mount point {wanted.path} of app {app.name}, implicitly creating an "
            '"empty" volume. This volume will be removed when the pod is garbage-collected.'
        )
    os.makedirs(contract.SHARED_VOLUMES, mode=0o755, exist_ok=True)
    path = f"{contract.SHARED_VOLUMES}/{wanted.directory}"
    try:
        os.mkdir(path, 0o700)
        is_new = True
    except FileExistsError:
        # A pod that was started again keeps its directories; what was mounted there went with the last run.
        is_new = wanted.kind == VOLUME_TMPFS and not os.path.ismount(path)
    if is_new and wanted.kind == VOLUME_TMPFS:
        size = b",size=%d" % wanted.size_bytes if wanted.size_bytes is not None else b""
        libc.mount(b"tmpfs", path.encode(), b"tmpfs", libc.MS_NOSUID | libc.MS_NODEV, b"mode=700" + size)
    fd = os.open(path, _OPEN_DIRECTORY)
    try:
        if is_new:
            uid, gid = wanted.uid, wanted.gid
            if ids is not None:
                uid, gid = ids.outside(uid), ids.outside(gid)
            os.fchown(fd, uid, gid)
            os.fchmod(fd, wanted.mode)
            if wanted.implicit and ANNOTATION_DOCKER_REPOSITORY in app.image.annotations:
                _fill(fd, wanted, app)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _fill(fd: int, wanted: PairedMount, app: PodApp) -> None:
    """Mode, owner and contents of the image's directory, as Docker does it; links are resolved inside the image.

    The root shows owners as the pod's ids are on the host, which is how they are kept in the pod's directory.
    """
    root_fd = os.open(app.rootfs_path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        source_fd = libc.openat2(
            root_fd,
            wanted.path.encode(),
            os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC,
            libc.RESOLVE_IN_ROOT | libc.RESOLVE_NO_MAGICLINKS,
        )
    except OSError as e:
        if e.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            return  # the image has no such directory, so the volume stays empty
        raise
    finally:
        os.close(root_fd)
    from rkt.linux.copytree import Copier

    try:
        Copier(None, link=False).run(source_fd, fd)
    except OSError as e:
        raise Stage1Error(
            f"cannot copy {wanted.path} of the image of app {app.name} to its volume: {e.strerror}: {os.fsdecode(e.filename)}"
        ) from e
    finally:
        os.close(source_fd)

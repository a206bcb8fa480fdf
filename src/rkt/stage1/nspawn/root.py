# SPDX-License-Identifier: Apache-2.0
"""What systemd-nspawn gets as the pod's root, made before it starts, in the supervisor's mount namespace.

::

    /                    a tmpfs of this pod's own: nothing that the pod writes there is ever read by the host
    ├── usr              the host's, read-only; bin, sbin, lib… lead there as on the host
    ├── etc              machine-id, hostname, os-release, passwd, group, ld.so.cache
    ├── rkt              read-only: units, environment files and the FIFOs of the apps' output, which the supervisor fills
    └── opt/stage2/APP/rootfs   the app's root with /sys, /dev, volumes and the engine's files in it

An app's root is made by the very steps of the other flavours, so what an image has there is followed as little as there.
Only ``/proc`` is left to systemd: it shows a pid namespace that does not exist yet.
"""

from __future__ import annotations

import errno
import os

from rkt.linux import files, libc, mount
from rkt.stage0 import contract
from rkt.stage1.common import steps
from rkt.stage1.common.app_root import OWN_FILES, SHM, TTY_GID, devices, engine_files, kernel_file_systems
from rkt.stage1.common.own_files import hostname_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rkt.linux.userns import UserNamespace
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.pod import PodApp
    from rkt.stage1.common.volumes import Volume

#: Where the root is mounted, below the pod directory.
POD_ROOT = f"{contract.STAGE1_ROOTFS}/rkt/pod-root"
#: What the supervisor and the pod share: a tmpfs that the pod sees read-only at ``/rkt``.
SHARED = f"{contract.STAGE1_ROOTFS}/rkt/shared"
#: Where the roots of apps that come later are made.
SCAFFOLD = f"{contract.STAGE1_ROOTFS}/rkt/scaffold"
UNITS = f"{SHARED}/units"
STREAMS = f"{SHARED}/streams"
#: The apps' roots as the pod sees them.
APPS = "opt/stage2"
_SAFE = libc.MS_NOSUID | libc.MS_NODEV
_ROOT_OPTIONS = b"mode=755,size=16m,nr_inodes=4096"
_SHARED_OPTIONS = b"mode=755,size=16m,nr_inodes=16384"
_NAMES = b"passwd: files\ngroup: files\nshadow: files\nhosts: files\n"
_MAX_FILE_BYTES = 16 << 20


def make_shared() -> None:
    """The directory that supervisor and pod share; to be called in the supervisor's mount namespace."""
    for path in (SHARED, POD_ROOT):
        os.makedirs(path, mode=0o755, exist_ok=True)
    libc.mount(b"tmpfs", SHARED.encode(), b"tmpfs", _SAFE | libc.MS_NOEXEC, _SHARED_OPTIONS)
    for path in (UNITS, STREAMS, f"{SHARED}/env"):
        os.mkdir(path, 0o755)


def make_root(arguments: RunArguments) -> None:
    """The root without apps; to be called as the owner of the pod's files."""
    root = POD_ROOT.encode()
    libc.mount(b"tmpfs", root, b"tmpfs", _SAFE, _ROOT_OPTIONS)
    # systemd-nspawn makes its copy a slave of this one, so the roots of apps that come later arrive there.
    libc.mount(None, root, None, libc.MS_SHARED)
    owner = os.stat(SHARED + "/units").st_uid
    os.chown(root, owner, owner)
    for name in ("usr", "etc", "rkt", "run", "var", "var/log", "var/lib", "dev", "proc", "sys", "opt", APPS):
        os.mkdir(f"{POD_ROOT}/{name}", 0o755)
    os.mkdir(f"{POD_ROOT}/root", 0o700)
    os.mkdir(f"{POD_ROOT}/tmp", 0o1777)
    mount.bind("/usr", f"{POD_ROOT}/usr", attributes=mount.READ_ONLY | mount.UNTRUSTED)
    mount.bind(SHARED, f"{POD_ROOT}/rkt", attributes=mount.READ_ONLY | mount.UNTRUSTED)
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        _take_directory(name)
    files.write_new(f"{POD_ROOT}/etc/nsswitch.conf", _NAMES, 0o644)
    files.write_new(f"{POD_ROOT}/etc/machine-id", arguments.uuid.replace("-", "").encode() + b"\n", 0o444)
    files.write_new(f"{POD_ROOT}/etc/hostname", hostname_of(arguments).encode() + b"\n", 0o644)
    for name in ("os-release", "ld.so.cache"):
        try:
            content = files.read_bounded(os.path.realpath(f"/etc/{name}"), _MAX_FILE_BYTES)
        except FileNotFoundError:
            content = b"ID=linux\n" if name == "os-release" else b""
        files.write_new(f"{POD_ROOT}/etc/{name}", content, 0o644)


def _take_directory(name: str) -> None:
    """A directory beside ``/usr``, as the host has it: today's hosts have links."""
    try:
        target = os.readlink(f"/{name}")
    except FileNotFoundError:
        return
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        os.mkdir(f"{POD_ROOT}/{name}", 0o755)
        mount.bind(f"/{name}", f"{POD_ROOT}/{name}", attributes=mount.READ_ONLY | mount.UNTRUSTED)
    else:
        os.symlink(target, f"{POD_ROOT}/{name}")


def make_app_root(
    app: PodApp,
    arguments: RunArguments,
    pod_path: bytes,
    volumes: Sequence[Volume],
    users: UserNamespace | None,
    base: str = POD_ROOT,
) -> int:
    """One app's root in the pod's, or below another ``base``; the working directory becomes that.

    Returns:
        a descriptor of it.
    """
    place = pod_path + f"/{base}/{APPS}/{app.name}/rootfs".encode()
    os.makedirs(place, 0o755)
    source = pod_path + b"/" + app.rootfs_path.encode()
    mount.bind(source, place, attributes=mount.UNTRUSTED)
    os.chdir(place)
    root_fd = os.open(b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    step: steps.Step | None = None
    try:
        for step in root_steps(arguments, pod_path, volumes, users):
            step.apply(root_fd)
            step.release()
        if app.runtime.readonly_rootfs:
            libc.mount_setattr(root_fd, b"", libc.AT_EMPTY_PATH, set_=libc.MOUNT_ATTR_RDONLY)
    except OSError as e:
        what = f"{step.describe()}: " if step is not None else ""
        path = os.fsdecode(e.filename or b"")
        where = "" if path in what else f": {path}"
        raise OSError(e.errno, f"app {app.name!r}: {what}{e.strerror}{where}") from e
    return root_fd


def root_steps(
    arguments: RunArguments, pod_path: bytes, volumes: Sequence[Volume], users: UserNamespace | None
) -> Iterator[steps.Step]:
    """What is done to an app's root, in that order; a step is made when the one before has been applied."""
    covered = {volume.place for volume in volumes}
    tops = {place.partition(b"/")[0] for place in covered}
    own = pod_path + b"/" + OWN_FILES.encode()
    # The cgroups that could be shown are the host's.
    yield from kernel_file_systems(
        own, covered, masked=not arguments.disable_paths, unified_cgroup=False, own_processes=False
    )
    if b"sys" in tops:
        yield KeepAsIs(b"sys")
    if b"dev" not in covered:
        tty_gid = TTY_GID if users is None else users.ids.outside(TTY_GID)
        yield from devices(pod_path + b"/" + SHM.encode(), tty_gid)
        if users is not None:
            from rkt.stage1.common.private_users import Give

            yield Give(b"dev/pts", users.ids)
            if arguments.ipc != "parent":
                yield Give(b"dev/mqueue", users.ids)
    yield from engine_files(own, arguments)
    yield KeepAsIs(b"run")
    # Some procfs, so that a volume that would lie there is refused; the pod's own comes later.
    yield steps.MountFilesystem(b"proc", b"proc", libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC)
    for volume in volumes:
        yield volume.attach(users)
    yield TakeAway(b"proc")


class KeepAsIs(steps.Step):
    """Make a directory of the image a mount point, which systemd then leaves as it is."""

    __slots__ = ("path",)

    def __init__(self, path: bytes) -> None:
        self.path = path

    def describe(self) -> str:
        """See ``Step``."""
        return f"keep /{os.fsdecode(self.path)}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        try:
            fd = steps.open_target(root_fd, self.path, want_directory=True)
        except OSError as e:
            if e.errno in {errno.ELOOP, errno.ENOTDIR, errno.EPERM}:
                return  # a link to itself, to the root or into /proc
            raise
        try:
            mount.attach(mount.clone(fd, attributes=mount.UNTRUSTED), fd)
        finally:
            os.close(fd)


class TakeAway(steps.Step):
    """Unmount what an earlier step has mounted."""

    __slots__ = ("path",)

    def __init__(self, path: bytes) -> None:
        self.path = path

    def describe(self) -> str:
        """See ``Step``."""
        return f"unmount /{os.fsdecode(self.path)}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        libc.umount2(self.path, libc.UMOUNT_NOFOLLOW | libc.MNT_DETACH)

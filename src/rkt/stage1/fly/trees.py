# SPDX-License-Identifier: Apache-2.0
"""What the app sees of the host: its kernel file systems and volumes, as detached mounts with the host's propagation.

They are copied in the host's own mount namespace, so that a copy of a shared mount is its peer: what the app mounts below
is seen on the host, and what the host mounts later is seen by the app. That is what an agent of the host is for, which
mounts volumes for others.

The host's own mounts are changed in one case only (spec runtime §3.13): a volume that is to be written to, and whose
source is itself a mount point that is private on the host, is made shared there, and that is said. Everything else stays:

- what is read-only is private, all the way down: what came later would be writable,
- a tree in which another volume has its place only receives, or that volume would be mounted on the host too.
"""

from __future__ import annotations

import errno
import os

from rkt.errors import Stage1Error
from rkt.linux import libc, mount
from rkt.stage1.common import steps
from rkt.stage1.common.host_mounts import host_mounts
from rkt.stage1.common.sources import open_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from rkt.stage1.common.volumes import Volume

#: The host's own, whatever the image has there.
KERNEL = (b"dev", b"proc", b"sys")
_KIND = 0o170000
_DIRECTORY = 0o040000
_FDINFO_BYTES = 4096


def kernel_trees(volumes: Sequence[Volume]) -> list[steps.Step]:
    """``/dev``, ``/proc`` and ``/sys`` of the host with all that is mounted there; to be called in ``HostMounts``."""
    places = [volume.place for volume in volumes]
    plan: list[steps.Step] = []
    for name in KERNEL:
        if name in places:
            continue
        receives = any(place.startswith(name + b"/") for place in places)
        tree = mount.clone(b"/" + name, propagation=libc.MS_SLAVE if receives else 0)
        plan += [steps.MakeDirectory(name), AttachHost(tree, name)]
    return plan


def volume_tree(volume: Volume, volumes: Sequence[Volume], say: Callable[[str], None]) -> steps.Step:
    """One of the volumes, attached when what it lies in is; those made of something of the host in ``HostMounts``.

    Args:
        volume: the one.
        volumes: all of them.
        say: told what is changed on the host.
    """
    if volume.mount.source is None:
        # The pod's own; the host is not to see what is mounted there.
        step = volume.attach()
        assert isinstance(step, steps.AttachTree)
        tree = step.tree_fd
    else:
        holds = any(other.place.startswith(volume.place + b"/") for other in volumes)
        tree = _clone(volume, say, holds=holds)
    above = volume.place.partition(b"/")[0]
    in_kernel = above in KERNEL and above not in [other.place for other in volumes]
    return AttachVolume(tree, volume, in_kernel=in_kernel)


def _clone(volume: Volume, say: Callable[[str], None], *, holds: bool) -> int:
    """The source as a detached mount, looked at again where we are."""
    wanted = volume.mount
    source = wanted.source or ""
    fd = open_source(source)
    try:
        status = os.fstat(fd)
        if not os.path.samestat(status, volume.status):
            raise Stage1Error(
                f"volume {str(wanted.name)!r}: {source} was replaced a moment ago", hint="run it again"
            )
        propagation = libc.MS_PRIVATE if wanted.read_only else libc.MS_SLAVE if holds else 0
        if status.st_mode & _KIND == _DIRECTORY and not propagation:
            _share(fd, wanted.recursive, say)
        try:
            return mount.clone(
                fd,
                attributes=libc.MOUNT_ATTR_RDONLY if wanted.read_only else 0,
                recursive=wanted.recursive,
                propagation=propagation,
            )
        except OSError as e:
            if e.errno == errno.EINVAL:
                raise Stage1Error(
                    f"volume {str(wanted.name)!r}: {source} cannot be bind mounted",
                    hint=f"findmnt -o TARGET,PROPAGATION -T {source}",
                ) from e
            raise
    finally:
        os.close(fd)


def _share(fd: int, recursive: bool, say: Callable[[str], None]) -> None:
    """Make a private mount whose root the source is shared on the host."""
    found = mount_of(fd)
    path = os.readlink(f"/proc/self/fd/{fd}")
    if found is None or found.point != path or is_shared(found):
        return
    libc.mount(None, b"/proc/self/fd/%d" % fd, None, libc.MS_SHARED | (libc.MS_REC if recursive else 0))
    say(f"{path} is a shared mount on the host from now on, so that what the app mounts there is seen")


def mount_of(fd: int) -> mount.Mount | None:
    """The mount that a descriptor lies in; ``None`` if it is not in the caller's namespace."""
    with open(f"/proc/self/fdinfo/{fd}", "rb", buffering=0) as file:
        lines = file.read(_FDINFO_BYTES).splitlines()
    number = next((int(line.partition(b":")[2]) for line in lines if line.startswith(b"mnt_id:")), -1)
    return next((found for found in mount.mountinfo() if found.mount_id == number), None)


def is_shared(found: mount.Mount) -> bool:
    """Whether what is mounted there is also mounted elsewhere."""
    return any(word.startswith("shared:") for word in found.propagation.split(" "))


class HostMounts:
    """Inside, the process is in the host's mount namespace, in its working directory; else where it was.

    Where rkt was started below a chroot the host's paths are not the caller's: the process stays where it is, and what the
    app mounts is not seen on the host.

    Attributes:
        is_host: whether it is the host's.
    """

    __slots__ = ("_here", "_own_fd", "is_host")

    def __init__(self) -> None:
        self._own_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._here = os.getcwdb()
        self.is_host = False

    def __enter__(self) -> Self:
        """See the class."""
        fd = host_mounts()
        if fd >= 0:
            root = os.stat("/")
            libc.setns(fd, libc.CLONE_NEWNS)
            self.is_host = os.path.samestat(root, os.stat("/"))
            if self.is_host:
                os.chdir(self._here)
            else:
                self._return()
        return self

    def __exit__(self, *exception: object) -> None:
        """See the class."""
        if self.is_host:
            self._return()
        os.close(self._own_fd)

    def _return(self) -> None:
        libc.setns(self._own_fd, libc.CLONE_NEWNS)
        os.chdir(self._here)


class AttachHost(steps.Step):
    """Show a tree of the host at a directory that an earlier step made sure of."""

    __slots__ = ("path", "tree_fd")

    def __init__(self, tree_fd: int, path: bytes) -> None:
        self.tree_fd = tree_fd
        self.path = path

    def describe(self) -> str:
        """See ``Step``."""
        return f"/{os.fsdecode(self.path)} of the host"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        target_fd = os.open(self.path, flags, dir_fd=root_fd)
        try:
            mount.attach(os.dup(self.tree_fd), target_fd)
        finally:
            os.close(target_fd)


class AttachVolume(steps.AttachTree):
    """A volume; never on what the host would see as mounted over, nor where a file of the host's would have to be made."""

    __slots__ = ("in_kernel",)

    def __init__(self, tree_fd: int, volume: Volume, *, in_kernel: bool) -> None:
        is_directory = volume.status.st_mode & _KIND == _DIRECTORY
        wanted = volume.mount
        super().__init__(tree_fd, wanted.path.encode(), is_directory=is_directory, name=wanted.name)
        #: Whether its place is in one of the host's kernel file systems.
        self.in_kernel = in_kernel

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        target = os.fsdecode(self.path)
        if self.in_kernel:
            try:
                os.close(libc.openat2(root_fd, self.path, os.O_PATH, libc.RESOLVE_IN_ROOT))
            except FileNotFoundError as e:
                raise Stage1Error(
                    f"volume {self.name!r}: {target} is not there, and nothing is made in what is the host's",
                    hint="choose a target outside /dev and /sys",
                ) from e
        target_fd = steps.open_target(root_fd, self.path, want_directory=self.is_directory)
        try:
            if (os.fstat(target_fd).st_mode & _KIND == _DIRECTORY) != self.is_directory:
                kinds = ("a directory", "a file")
                theirs, ours = kinds if not self.is_directory else kinds[::-1]
                raise Stage1Error(
                    f"volume {self.name!r}: {target} is {theirs}, the source is {ours}",
                    hint="choose another target",
                )
            found = mount_of(target_fd)
            if found is not None and is_shared(found):
                raise Stage1Error(
                    f"volume {self.name!r}: {target} leads to {found.point}, which the host shares and would see covered",
                    hint="give a target without symbolic links",
                )
            flags = libc.MOVE_MOUNT_F_EMPTY_PATH | libc.MOVE_MOUNT_T_EMPTY_PATH
            libc.move_mount(self.tree_fd, b"", target_fd, b"", flags)
        finally:
            os.close(target_fd)

# SPDX-License-Identifier: Apache-2.0
"""Opening what a host volume is made of: by descriptor, and through no link that somebody else may have placed (VL1).

The operator's path may contain symbolic links (``/var/run``), and the kernel would follow every one. Among them may be one
that the operator does not know of: made a moment ago by a user of the host, or by the root of a pod that has a directory
above it as a volume, and leading to a file that the pod must not see. So a link is followed only if

- it, and every directory on the way to it, is root's and cannot be changed by others; or it is another user's and leads to
  what is that user's anyway,
- no other pod can write where it lies,
- it was not changed a moment ago.

What is opened is the descriptor to mount, so nothing that is swapped afterwards counts.
"""

from __future__ import annotations

import errno
import os
import time

from rkt.errors import InvalidManifest, Stage1Error
from rkt.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_LINKS = 40
_MAX_MANIFEST_BYTES = 4 << 20
#: A link that is younger may be one that is being swapped just now.
_YOUNG_NS = 100_000_000
_KIND = 0o170000
_DIRECTORY = 0o040000
_LINK = 0o120000
_STICKY = 0o1000
_OTHERS_WRITE = 0o022
#: Directories beside the pod's own that hold pods which had or have volumes.
_PLACES = ("run", "exited-garbage")


def open_source(path: str) -> int:
    """Open a volume's source as ``O_PATH``; the caller owns the descriptor.

    Raises:
        Stage1Error: a link on the way must not be followed.
        OSError: it is not there, or something else is wrong with it.
    """
    name = os.fsencode(path)
    try:
        return libc.openat2(libc.AT_FDCWD, name, os.O_PATH | os.O_CLOEXEC, libc.RESOLVE_NO_SYMLINKS)
    except OSError as e:
        if e.errno != errno.ELOOP:
            raise
    walk = _Walk(path)
    try:
        return walk.run(name)
    finally:
        walk.close()


class _Walk:
    """Resolves a path that has links in it, one component after the other."""

    __slots__ = ("_fds", "_owner", "_path", "_writable")

    def __init__(self, path: str) -> None:
        self._path = path
        #: The directories from the root to where we are; ``..`` goes back in it.
        self._fds = [os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
        #: The user who could have chosen where we are, if that is not root.
        self._owner = 0
        self._writable: set[tuple[int, int]] | None = None

    def close(self) -> None:
        """Let go of the directories."""
        for fd in self._fds:
            os.close(fd)

    def run(self, name: bytes) -> int:
        """The descriptor of what the path leads to."""
        pending = name.split(b"/")
        links = 0
        while pending:
            part = pending.pop(0)
            if part in {b"", b"."}:
                continue
            if part == b"..":
                self._leave()
                continue
            fd = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fds[-1])
            status = os.fstat(fd)
            if status.st_mode & _KIND != _LINK:
                self._fds.append(fd)
                continue
            try:
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self._path)
                target = os.readlink(b"", dir_fd=fd)
            finally:
                os.close(fd)
            self._check(os.fsdecode(part), status)
            if target.startswith(b"/"):
                while len(self._fds) > 1:
                    self._leave()
            pending = target.split(b"/") + pending
        if self._owner and os.fstat(self._fds[-1]).st_uid != self._owner:
            raise self._refuse(f"leads through a link of user {self._owner} to what is not that user's")
        return os.dup(self._fds[-1])

    def _leave(self) -> None:
        if len(self._fds) > 1:
            os.close(self._fds.pop())

    def _check(self, name: str, link: os.stat_result) -> None:
        """Whether the link ``name`` in the directory where we are may be followed."""
        if abs(time.time_ns() - link.st_ctime_ns) < _YOUNG_NS:
            raise self._refuse(f"has a symbolic link {name} that was changed a moment ago", "run it again")
        if self._writable is None:
            self._writable = set(_writable_sources())
        owners = {link.st_uid}
        for fd in self._fds:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) in self._writable:
                raise self._refuse(f"has a symbolic link {name} in a volume that a pod can write to")
            if status.st_mode & _OTHERS_WRITE and not status.st_mode & _STICKY:
                raise self._refuse(f"has a symbolic link {name} that others than root can change")
            owners.add(status.st_uid)
        owners.discard(0)
        if self._owner:
            owners.add(self._owner)
        if len(owners) > 1:
            raise self._refuse(f"has symbolic links that several users can change, the last one {name}")
        if owners:
            self._owner = owners.pop()

    def _refuse(self, what: str, hint: str = "") -> Stage1Error:
        return Stage1Error(
            f"source {self._path} {what}", hint=hint or "give the path it leads to, as realpath prints it"
        )


def _writable_sources() -> Iterator[tuple[int, int]]:
    """Device and inode of every directory of the host that a pod beside this one can write to, or could."""
    from rkt.linux import files
    from rkt.schema import appc

    own = os.path.basename(os.getcwd())
    for place in _PLACES:
        try:
            pods = os.listdir(f"../../{place}")
        except FileNotFoundError:
            continue
        for pod in pods:
            if pod == own:
                continue
            try:
                manifest = appc.parse_pod_manifest(
                    files.read_bounded(f"../../{place}/{pod}/pod", _MAX_MANIFEST_BYTES)
                )
            except (OSError, InvalidManifest):
                continue  # collected since, or never finished
            own_volumes = [mount.app_volume for app in manifest.apps for mount in app.mounts]
            for volume in (*manifest.volumes, *own_volumes):
                if volume is None or volume.kind != appc.VOLUME_HOST or volume.read_only:
                    continue
                try:
                    status = os.stat(volume.source)
                except OSError:
                    continue
                if status.st_mode & _KIND == _DIRECTORY:
                    yield status.st_dev, status.st_ino

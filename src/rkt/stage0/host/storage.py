# SPDX-License-Identifier: Apache-2.0
"""What the file system of the data directory can do, by trying it in a directory there that is removed at once."""

from __future__ import annotations

import errno
import os
import shutil

from rkt.linux import libc, mount
from rkt.linux.userns import IdRange, UserNamespace
from rkt.stage0.host.attempt import CannotTry, attempt
from rkt.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.stage0.host.facts import Trial

#: Directories of attempts; what a killed one left is taken away by the next.
_NAME = ".rkt-check-host"
_IDS = IdRange(0x52000000, 65536)
#: <linux/fs.h>
FICLONE = 0x40049409


def nearest(path: str) -> str:
    """The longest part of a path that there is."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def file_system_of(path: str) -> tuple[str, list[str]]:
    """Type and options of the mount that a directory is on."""
    device = os.stat(path).st_dev
    found = [
        each
        for each in mount.mountinfo()
        if each.device == f"{os.major(device)}:{os.minor(device)}"
        or path == each.point
        or path.startswith(each.point.rstrip("/") + "/")
    ]
    best = max(found, key=lambda each: len(each.point) if path.startswith(each.point) else -1, default=None)
    return (best.fstype, best.options.split(",")) if best else ("", [])


def room(path: str) -> tuple[int, int]:
    """Bytes and inodes that may still be used; -1 inodes where they are not counted."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize, status.f_favail if status.f_files else -1


def trials(directory: str) -> dict[str, Trial]:
    """Try what pods and images need of the file system that a directory is on."""
    place = f"{directory}/{_NAME}-{os.getpid()}"
    acts: dict[str, Callable[[str], str]] = {
        "writable": _writable,
        "overlay": _overlay,
        "idmapped mounts": _idmapped,
        "unnamed files": _unnamed,
        "reflinks": _reflink,
    }
    if os.access(directory, os.W_OK | os.X_OK):
        _sweep(directory)
    # Made, used and removed by a child each, whose mounts nobody else sees.
    found: dict[str, Trial] = {}
    for name, act in acts.items():
        try:
            found[name] = attempt(lambda act=act: _in(place, act))  # type: ignore[misc]
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return found


def _sweep(directory: str) -> None:
    for name in os.listdir(directory):
        pid = name.removeprefix(f"{_NAME}-")
        if pid != name and is_number(pid) and not os.path.exists(f"/proc/{pid}"):
            shutil.rmtree(f"{directory}/{name}", ignore_errors=True)


def _in(place: str, act: Callable[[str], str]) -> str:
    try:
        os.mkdir(place, 0o700)
    except PermissionError:
        if os.geteuid() != 0:
            raise CannotTry from None
        raise
    return act(place)


def _writable(place: str) -> str:
    with open(f"{place}/file", "wb", buffering=0) as stream:
        stream.write(b"x")
    os.link(f"{place}/file", f"{place}/link")
    os.rename(f"{place}/link", f"{place}/other")
    return ""


def _overlay(place: str) -> str:
    if os.geteuid() != 0:
        # A user's overlay, in a user namespace, is another thing than root's.
        raise CannotTry
    from rkt.stage0.roots import overlay_unsupported

    reason = overlay_unsupported(place)
    if reason:
        raise OSError(0, reason)
    libc.unshare(libc.CLONE_NEWNS)
    mount.make_private_recursive()
    for name in ("lower", "upper", "work", "root"):
        os.mkdir(f"{place}/{name}")
    with open(f"{place}/lower/file", "w", encoding="ascii") as stream:
        stream.write("below")
    mount.overlay([f"{place}/lower"], f"{place}/upper", f"{place}/work", f"{place}/root")
    with open(f"{place}/root/file", "a", encoding="ascii") as stream:
        stream.write(" and above")
    os.mkdir(f"{place}/root/new")
    os.unlink(f"{place}/root/file")
    with open(f"{place}/lower/file", encoding="ascii") as stream:
        if stream.read() != "below" or not os.path.isdir(f"{place}/upper/new"):
            raise OSError(0, "changes went elsewhere than they should")
    os.chdir("/")
    libc.umount2(f"{place}/root".encode(), libc.MNT_DETACH)
    return ""


def _idmapped(place: str) -> str:
    if os.geteuid() != 0:
        raise CannotTry
    with UserNamespace.create(_IDS) as users:
        tree = mount.clone(place, recursive=False, idmap_fd=users.idmap_fd)
        try:
            if os.fstat(tree).st_uid != _IDS.first:
                raise OSError(0, "the ids are not shifted")
        finally:
            os.close(tree)
    return ""


def _unnamed(place: str) -> str:
    os.close(os.open(place, os.O_TMPFILE | os.O_RDWR, 0o600))
    return ""


def _reflink(place: str) -> str:
    import fcntl

    with open(f"{place}/one", "wb", buffering=0) as stream:
        stream.write(b"x" * 4096)
    with open(f"{place}/one", "rb") as source, open(f"{place}/two", "wb") as target:
        try:
            fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
        except OSError as e:
            raise OSError(e.errno, os.strerror(e.errno or errno.EOPNOTSUPP)) from None
    return ""

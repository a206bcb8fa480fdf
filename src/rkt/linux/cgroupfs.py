# SPDX-License-Identifier: Apache-2.0
"""The cgroup file systems of this host: which hierarchies there are, where the caller is in each, and their files.

A host has hierarchies of version 1 (controllers alone or together), or that of version 2, or both (hybrid).

Source: Documentation/admin-guide/cgroup-v1/, Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: How it shows that somebody else has removed a group meanwhile.
GONE = frozenset((errno.ENOENT, errno.ENODEV))
_READ_LIMIT_BYTES = 1 << 16


class Hierarchy:
    """One mounted cgroup file system and the caller's place in it."""

    __slots__ = ("controllers", "mount_point", "own_path", "root", "version")

    def __init__(
        self, version: int, controllers: Sequence[str], mount_point: str, root: str, own_path: str
    ) -> None:
        self.version = version
        #: For version 1: names such as ``cpu`` or ``name=systemd``. For version 2: empty, see ``available``.
        self.controllers = tuple(controllers)
        self.mount_point = mount_point
        #: Cgroup that is visible at the mount point; ``/`` but for bind mounts.
        self.root = root
        #: The caller's cgroup as ``/proc/self/cgroup`` names it.
        self.own_path = own_path

    def offers(self, controller: str) -> bool:
        """Whether this is the version 1 hierarchy of a controller; version 1 calls ``io`` ``blkio``."""
        return controller in self.controllers or (controller == "io" and "blkio" in self.controllers)

    @property
    def key(self) -> str:
        """What the record of a pod calls this hierarchy, as in ``/proc/PID/cgroup``: empty for version 2."""
        return ",".join(self.controllers)

    def directory(self, path: str) -> str | None:
        """Where a cgroup is in the file system; None when it is not below what is mounted."""
        root = self.root.rstrip("/")
        if path == self.root or not root:
            relative = path.strip("/") if not root else ""
        elif path.startswith(root + "/"):
            relative = path[len(root) + 1 :]
        else:
            return None
        if ".." in relative.split("/"):
            return None  # the caller is outside of the root of its cgroup namespace
        return f"{self.mount_point}/{relative}" if relative else self.mount_point


class Hierarchies:
    """Those of the host, as the caller sees them."""

    __slots__ = ("_all",)

    def __init__(self, hierarchies: Sequence[Hierarchy]) -> None:
        self._all = tuple(hierarchies)

    def __iter__(self) -> Iterator[Hierarchy]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def unified(self) -> Hierarchy | None:
        """The version 2 hierarchy, None without."""
        return next((item for item in self._all if item.version == 2), None)


def detect(mountinfo: bytes | None = None, membership: bytes | None = None) -> Hierarchies:
    """Find the hierarchies of this host.

    Args:
        mountinfo: content of ``/proc/self/mountinfo``, read if not given.
        membership: content of ``/proc/self/cgroup``, read if not given.
    """
    if mountinfo is None:
        mountinfo = _read_all("/proc/self/mountinfo")
    if membership is None:
        membership = _read_all("/proc/self/cgroup")
    own: dict[str, str] = {}
    for line in membership.decode("utf-8", "surrogateescape").splitlines():
        _, names, path = line.split(":", 2)
        # The kernel's order here is not always that of the mount options.
        own[",".join(sorted(names.split(",")))] = path
    hierarchies: dict[str, Hierarchy] = {}
    for entry in mountinfo.splitlines():
        if b" - cgroup" not in entry:
            continue
        left, _, right = entry.decode("utf-8", "surrogateescape").partition(" - ")
        fields, tail = left.split(" "), right.split(" ")
        if tail[0] == "cgroup2":
            version, controllers = 2, []
        elif tail[0] == "cgroup":
            version, controllers = 1, sorted(filter(_is_controller, tail[2].split(",")))
        else:
            continue
        key = ",".join(controllers)
        # Mounted several times, the first mount counts in which the caller's own cgroup can be seen.
        if key not in own or (key in hierarchies and hierarchies[key].directory(own[key])):
            continue
        hierarchies[key] = Hierarchy(version, controllers, _octal(fields[4]), _octal(fields[3]), own[key])
    return Hierarchies(list(hierarchies.values()))


def membership(pid: int) -> dict[str, str]:
    """A process's group in each hierarchy, as ``/proc/PID/cgroup`` names both; ``{}`` when it is gone."""
    try:
        text = _read_all(f"/proc/{pid}/cgroup").decode("utf-8", "surrogateescape")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = (line.split(":", 2) for line in text.splitlines())
    return {",".join(sorted(names.split(","))): path for _, names, path in fields}


def walk(directory: str) -> list[str]:
    """A directory and all below it, parents first."""
    found = [directory]
    for path in found:  # grows while it is walked
        try:
            with os.scandir(path) as entries:
                found += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            continue
    return found


def read(path: str) -> str:
    """Content of a file of a cgroup; surrogates stand for what is not UTF-8."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while chunk := os.read(fd, _READ_LIMIT_BYTES):
            text += chunk
        return text.decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)


def write(path: str, data: bytes) -> None:
    """Write to a file of a cgroup by one system call.

    Raises:
        OSError: the kernel refuses; the message says what was to be written.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    except OSError as e:
        raise OSError(e.errno, f"cannot write {data.decode()!r}: {e.strerror}", path) from None
    finally:
        os.close(fd)


def write_if_there(path: str, data: bytes) -> None:
    """Likewise, but nothing where this kernel has no such file, or the group was removed meanwhile."""
    try:
        write(path, data)
    except OSError as e:
        if e.errno not in GONE:
            raise


def _is_controller(option: str) -> bool:
    # Mount options of version 1 that are not names of controllers, see cgroup1_show_options() in the kernel.
    return option not in {
        "rw",
        "ro",
        "noprefix",
        "xattr",
        "cpuset_v2_mode",
        "clone_children",
        "favordynmods",
        "none",
        "seclabel",
    } and not option.startswith("release_agent=")


def _octal(field: str) -> str:
    if "\\" not in field:
        return field
    from rkt.linux.mount import unescape

    return unescape(field.encode("utf-8", "surrogateescape"))


def _read_all(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.readall()

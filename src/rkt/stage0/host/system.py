# SPDX-License-Identifier: Apache-2.0
"""What runs on the host and is installed there: the init system and its services, programs, our own parts."""

from __future__ import annotations

import os
import socket
import sys

from rkt.config.stage1 import load_stage1
from rkt.errors import RktError
from rkt.linux import cgroupfs, inotify, libc, mount
from rkt.net import program
from rkt.stage0.host import bus, kernel
from rkt.stage0.host.attempt import CannotTry
from rkt.stage0.stage1 import built_in_images

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.config.settings import Installation, Settings
    from rkt.linux.cgroupfs import Hierarchy

#: Directories and links of a root that has the host's ``/usr``.
_ROOT = ("dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var")
_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
SYSTEMD = "/usr/lib/systemd/systemd"
#: Libraries that are imported on use, and what for.
LIBRARIES = ("urllib3", "isal", "cryptography", "rich")


def init() -> str:
    """Name of process 1; ``systemd`` only where it manages the host."""
    if os.path.isdir("/run/systemd/system"):
        return "systemd"
    try:
        with open("/proc/1/comm", encoding="utf-8", errors="replace") as stream:
            name = stream.read().strip()
    except OSError:
        return ""
    return name if name != "systemd" else "init"


def bus_answers() -> str:
    """Whether the system's D-Bus talks to us."""
    return f"{len(bus.names())} names"


def machined() -> str:
    """Whether pods can be registered with systemd-machined."""
    if bus.MACHINED not in bus.names():
        raise OSError(0, f"nobody answers for {bus.MACHINED}")
    return ""


def journal() -> str:
    """Whether a journal takes lines."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as handle:
        handle.connect("/run/systemd/journal/socket")
    return ""


def selinux() -> str:
    """Mode of SELinux; an error where it is off."""
    with open("/sys/fs/selinux/enforce", encoding="ascii") as stream:
        return "enforcing" if stream.read().strip() == "1" else "permissive"


def apparmor() -> str:
    """An error where AppArmor is off."""
    with open("/sys/module/apparmor/parameters/enabled", encoding="ascii") as stream:
        if stream.read().strip() != "Y":
            raise OSError(0, "switched off")
    return ""


def version_of(name: str) -> Callable[[], str]:
    """The first line that a program says about its version."""

    def act() -> str:
        path = program.find(name)
        if not path:
            raise OSError(2, "there is no such program")
        ended = program.run([path, "--version"])
        if ended.status:
            raise OSError(
                0, f"{path} ends with status {ended.status}: {' '.join(ended.errors.split())[:200]}"
            )
        return f"{ended.output.partition(chr(10))[0].strip()}, {path}"

    return act


def confining_programs() -> str:
    """What gives the rights of programs up that read foreign data."""
    missing = [name for name in ("unshare", "setpriv", "prlimit") if not program.find(name)]
    if missing:
        raise OSError(2, f"there is no {', '.join(missing)}")
    return ""


def libseccomp() -> str:
    """The library that makes filters of the workers of a fetch."""
    from rkt.linux.seccomp import Library

    Library()
    return ""


def libraries(installation: Installation) -> Callable[[], str]:
    """Whether the libraries of the installation are there."""

    def act() -> str:
        from importlib.util import find_spec

        sys.path += installation.library_paths
        missing = [name for name in LIBRARIES if find_spec(name) is None]
        if missing:
            raise OSError(0, f"not installed: {', '.join(missing)}")
        return ""

    return act


def reaper(path: str) -> Callable[[], str]:
    """Whether a stage1 image brings the pod's first process."""

    def act() -> str:
        import tarfile

        with tarfile.open(path) as archive:
            if not any(member.name.endswith("/reaper") and member.isfile() for member in archive):
                raise OSError(2, f"{path} has no first process of a pod")
        return ""

    return act


def watches() -> str:
    """The systemd of one more pod would get its inotify instances; returns how many each user may have."""
    if os.geteuid() == 0:
        inotify.try_room()
    return str(inotify.limit())


def nspawn() -> str:
    """systemd-nspawn runs a program in a root that has the host's ``/usr``, as a pod's root has.

    In groups of its own, which are removed: nspawn makes more below its own and leaves them.
    """
    if os.geteuid() != 0:
        raise CannotTry
    path = program.find("systemd-nspawn")
    if not path:
        raise OSError(2, "there is no such program")
    groups = _own_groups()
    place = kernel.own_mounts()
    try:
        libc.mount(b"tmpfs", b"/run", b"tmpfs", libc.MS_NOSUID | libc.MS_NODEV, b"mode=755")
        root = f"{place}/root"
        for name in ("", *_ROOT):
            os.mkdir(f"{root}/{name}")
        for name in _LINKS:
            if os.path.lexists(f"/{name}"):
                os.symlink(f"usr/{name}", f"{root}/{name}")
        mount.bind("/usr", f"{root}/usr", attributes=mount.READ_ONLY)
        with open(f"{root}/usr/lib/os-release", "rb"), open(f"{root}/etc/machine-id", "w", encoding="ascii"):
            pass
        flags = ["--quiet", "--register=no", "--keep-unit", "--private-network", "--link-journal=no"]
        ended = program.run([path, *flags, f"--directory={root}", "/usr/bin/true"])
        if ended.status:
            lines = [line.strip() for line in ended.errors.splitlines() if line.strip()]
            raise OSError(0, lines[-1][:200] if lines else f"it ends with status {ended.status}")
    finally:
        _remove_groups(groups)
    return ""


def systemd() -> str:
    """Whether the host has a systemd that can be a pod's first process."""
    if not os.access(SYSTEMD, os.X_OK):
        raise OSError(2, f"there is no {SYSTEMD}")
    return ""


def _own_groups() -> list[tuple[Hierarchy, str, str]]:
    """Move to groups of our own in the hierarchies that systemd uses: (hierarchy, group before, group)."""
    found = []
    for each in cgroupfs.detect():
        parent = each.directory(each.own_path)
        if parent is None or not (each.version == 2 or "name=systemd" in each.controllers):
            continue
        path = f"{parent}/rkt-check-host-{os.getpid()}"
        os.mkdir(path, 0o755)
        _enter(path)
        found.append((each, parent, path))
    return found


def _remove_groups(groups: list[tuple[Hierarchy, str, str]]) -> None:
    for _, parent, path in groups:
        _enter(parent)
        below = [directory for directory, _, _ in os.walk(path)]
        for directory in reversed(below):
            os.rmdir(directory)


def _enter(path: str) -> None:
    with open(f"{path}/cgroup.procs", "w", encoding="ascii") as stream:
        stream.write("0")


def flavors(settings: Settings) -> tuple[list[str], str, str]:
    """Flavours of the installation, the default one (empty: somebody else's), and what is wrong with them."""
    try:
        images, default = built_in_images(settings)
    except RktError as e:
        return [], "", e.message
    try:
        configured = load_stage1(settings)
    except PermissionError:
        pass  # root's pods may have another default
    except RktError as e:
        return list(images), "", e.message
    else:
        if configured.name or configured.location:
            names = {image.name: flavor for flavor, image in images.items()}
            default = names.get(configured.name, "")
    absent = [image.path for image in images.values() if not os.path.isfile(image.path)]
    return list(images), default, f"{absent[0]} is missing" if absent else ""

# SPDX-License-Identifier: Apache-2.0
"""What the engine puts into an app's root: kernel file systems with their masks, devices, files that name the pod."""

from __future__ import annotations

from rkt.linux import libc
from rkt.stage0 import contract
from rkt.stage1.common import paths, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage1.common.arguments import RunArguments

#: Directory of the engine's own files for a pod, a small read-only tmpfs that no app can reach except by binds.
OWN_FILES = f"{contract.STAGE1_ROOTFS}/rkt/own"
#: ``/dev/shm`` of the pod, shared by its apps as they share its IPC namespace.
SHM = f"{contract.STAGE1_ROOTFS}/rkt/shm"
#: gid of group tty, by convention and in devpts(5).
TTY_GID = 5
_SAFE = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC


def kernel_file_systems(
    own: bytes, covered: set[bytes], *, masked: bool, unified_cgroup: bool, own_processes: bool = True
) -> list[steps.Step]:
    """``/proc`` and ``/sys`` (spec runtime §3.5).

    Args:
        own: path of ``OWN_FILES``.
        covered: where the app has volumes, relative to its root.
        masked: whether what is not an app's business is hidden or read-only.
        unified_cgroup: whether it may see its cgroups.
        own_processes: whether the caller is in the pod's pid namespace, so that ``/proc`` can be mounted; else somebody
            else does it, with its masks.
    """
    plan: list[steps.Step] = [steps.MakeDirectory(b"proc")]
    if own_processes:
        plan.append(steps.MountFilesystem(b"proc", b"proc", _SAFE))
    # What the operator mounts there may not fit into a sysfs (spec runtime §3.5, row 6).
    has_sys = not any(place.partition(b"/")[0] == b"sys" for place in covered)
    if has_sys:
        plan.append(steps.MakeDirectory(b"sys"))
        plan.append(steps.MountFilesystem(b"sysfs", b"sys", _SAFE | (libc.MS_RDONLY if masked else 0)))
    if not masked:
        return plan
    plan += [
        steps.ReadOnly(path) for path in paths.READ_ONLY if own_processes or not path.startswith(b"proc/")
    ]
    for path in (*paths.MASKED, *paths.thermal_directories()):
        if path.startswith(b"sys/") and not has_sys:
            continue
        if path.startswith(b"proc/") and not own_processes:
            continue
        if path == b"sys/fs" and unified_cgroup:
            plan.append(steps.MountFilesystem(b"tmpfs", b"sys/fs", _SAFE, b"mode=755,size=4k,nr_inodes=8"))
            plan.append(steps.MakeDirectory(b"sys/fs/cgroup"))
            plan.append(steps.MountFilesystem(b"cgroup2", b"sys/fs/cgroup", _SAFE | libc.MS_RDONLY))
            continue
        plan.append(steps.Mask(path, own + b"/hidden-file", own + b"/hidden-directory"))
    return plan


def devices(shm: bytes, tty_gid: int) -> list[steps.Step]:
    """An app's own ``/dev``.

    Args:
        shm: path of ``SHM``.
        tty_gid: group of terminals, as the host numbers it.
    """
    return [
        steps.MakeDirectory(b"dev"),
        steps.MountFilesystem(
            b"tmpfs", b"dev", libc.MS_NOSUID | libc.MS_NOEXEC, b"mode=755,size=64k,nr_inodes=256"
        ),
        *(steps.MakeDevice(*device) for device in paths.DEVICES),
        steps.MakeDirectory(b"dev/pts"),
        steps.MountFilesystem(
            b"devpts",
            b"dev/pts",
            libc.MS_NOSUID | libc.MS_NOEXEC,
            b"newinstance,ptmxmode=0666,mode=0620,gid=%d" % tty_gid,
        ),
        steps.MakeDirectory(b"dev/mqueue"),
        steps.MountFilesystem(b"mqueue", b"dev/mqueue", _SAFE),
        steps.MakeDirectory(b"dev/shm", 0o1777),
        steps.Bind(shm, b"dev/shm"),
        steps.MakeSymlink(b"pts/ptmx", b"dev/ptmx"),
        steps.MakeSymlink(b"/proc/self/fd", b"dev/fd"),
        steps.MakeSymlink(b"/proc/self/fd/0", b"dev/stdin"),
        steps.MakeSymlink(b"/proc/self/fd/1", b"dev/stdout"),
        steps.MakeSymlink(b"/proc/self/fd/2", b"dev/stderr"),
    ]


def engine_files(own: bytes, arguments: RunArguments) -> list[steps.Step]:
    """``/etc/hostname``, ``/etc/hosts``, ``/etc/resolv.conf`` as spec runtime §3.8 asks."""
    plan: list[steps.Step] = [
        steps.MakeDirectory(b"tmp", 0o1777, keep=True),
        steps.MakeDirectory(b"run", keep=True),
        steps.MakeDirectory(b"etc", keep=True),
        steps.BindFile(own + b"/hostname", b"etc/hostname"),
    ]
    if arguments.resolv_mode in {"stage0", "host", "network"}:
        plan.append(steps.BindFile(own + b"/resolv.conf", b"etc/resolv.conf"))
    plan.append(
        steps.BindFile(own + b"/hosts", b"etc/hosts", only_if_absent=arguments.hosts_mode == "default")
    )
    return plan

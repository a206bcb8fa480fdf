# SPDX-License-Identifier: Apache-2.0
"""Sysctls of a pod, written inside its namespaces before anything of it runs; imported when there are any.

``/proc/sys`` shows whoever opens a file the value of his own namespaces. So the supervisor writes them itself, while it
is in the pod's, through the host's ``/proc``: apps see theirs read-only.
"""

from __future__ import annotations

import os

from rkt.errors import Stage1Error
from rkt.linux import libc
from rkt.schema import isolators
from rkt.schema.limits import NAMESPACE_IPC, NAMESPACE_NET, NAMESPACE_UTS, check_sysctl
from rkt.stage1.common.arguments import ids_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.pod import LoadedPod

#: The namespaces that have any.
ALL = (NAMESPACE_IPC, NAMESPACE_NET, NAMESPACE_UTS)
_ROOT = "/proc/sys"
_RESOLVE = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS | libc.RESOLVE_NO_MAGICLINKS


def check(pod: LoadedPod, arguments: RunArguments) -> None:
    """Every sysctl belongs to a namespace that this pod has for itself.

    Raises:
        Stage1Error: one would be the host's.
    """
    shared = {}
    if "host" in arguments.networks:
        shared[NAMESPACE_NET] = "--net=host"
    if arguments.ipc == "parent":
        shared[NAMESPACE_IPC] = "--ipc=parent"
    for name, value in _sysctls(pod).items():
        flag = shared.get(check_sysctl(name, value))
        if flag is not None:
            raise Stage1Error(f"sysctl {name} would be the host's with {flag}", hint=f"leave out {flag}")


def write(pod: LoadedPod, arguments: RunArguments, kinds: tuple[str, ...] = ALL) -> None:
    """Set those of some namespaces, the pod's, in which the calling process is: it would be another's elsewhere.

    Raises:
        Stage1Error: the kernel has no such sysctl for a pod, or refuses the value.
    """
    root_fd = os.open(_ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name, value in _sysctls(pod).items():
            if check_sysctl(name, value) not in kinds:
                continue
            try:
                try:
                    _write(root_fd, name, value)
                except PermissionError:
                    ids = ids_of(arguments)
                    if ids is None:
                        raise
                    # Some ask for the user id that is root in the user namespace that owns the pod's, whatever else one may do.
                    os.seteuid(ids.first)
                    try:
                        _write(root_fd, name, value)
                    finally:
                        os.seteuid(0)
            except OSError as e:
                missing = isinstance(e, FileNotFoundError)
                reason = "this kernel has none of that name for a pod" if missing else e.strerror
                raise Stage1Error(f"cannot set sysctl {name} to {value!r}: {reason}") from e
    finally:
        os.close(root_fd)


def write_uts(pod: LoadedPod, arguments: RunArguments, leader_pidfd: int) -> None:
    """Set those of a UTS namespace that somebody else has made for the pod.

    Args:
        pod: as for ``write``.
        arguments: likewise.
        leader_pidfd: of a process that is in it.
    Raises:
        Stage1Error: as for ``write``.
    """
    if not any(check_sysctl(name, value) == NAMESPACE_UTS for name, value in _sysctls(pod).items()):
        return
    own_fd = os.open("/proc/self/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.setns(leader_pidfd, libc.CLONE_NEWUTS)
        try:
            if os.path.samestat(os.fstat(own_fd), os.stat("/proc/self/ns/uts")):
                raise Stage1Error("the pod has no UTS namespace of its own")
            write(pod, arguments, (NAMESPACE_UTS,))
        finally:
            libc.setns(own_fd, libc.CLONE_NEWUTS)
    finally:
        os.close(own_fd)


def _write(root_fd: int, name: str, value: str) -> None:
    path = name.replace(".", "/").encode()
    fd = libc.openat2(root_fd, path, os.O_WRONLY | os.O_CLOEXEC, _RESOLVE)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _sysctls(pod: LoadedPod) -> dict[str, str]:
    values: dict[str, str] = isolators.last(pod.manifest.isolators, isolators.SYSCTL) or {}
    return values

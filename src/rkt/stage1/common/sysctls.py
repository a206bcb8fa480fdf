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
from rkt.schema.limits import NAMESPACE_IPC, NAMESPACE_NET, check_sysctl
from rkt.stage1.common.private_users import parse_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.pod import LoadedPod

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


def write(pod: LoadedPod, arguments: RunArguments) -> None:
    """Set them; the calling process is in the pod's namespaces.

    Raises:
        Stage1Error: the kernel has no such sysctl for a pod, or refuses the value.
    """
    root_fd = os.open(_ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name, value in _sysctls(pod).items():
            try:
                try:
                    _write(root_fd, name, value)
                except PermissionError:
                    if not arguments.private_users:
                        raise
                    # Some ask for the user id that is root in the user namespace that owns the pod's, whatever else one may do.
                    os.seteuid(parse_ids(arguments.private_users).first)
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

# SPDX-License-Identifier: Apache-2.0
"""A unit of the host's systemd for the pod: machined lists machines that are in one, and no others.

A pod that a service or scope runs has it already. One that somebody starts by hand may not: with cgroups of version 2 its
groups go beside the caller's (see ``linux.cgroup``), to a slice, which is no unit of processes. The supervisor then asks
for a scope of its own, ``machine.slice/rkt-UUID.scope``, before it makes groups, which are below it and as they always are.
"""

from __future__ import annotations

import _socket
import os
import time

from rkt.errors import RktError
from rkt.stage1.nspawn import command
from rkt.stage1.nspawn.dbus import Manager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.linux.cgroupfs import Hierarchies

#: Where the host's systemd listens without a bus, for root.
_PRIVATE = "/run/systemd/private"
_SECONDS = 5.0


def enter(host: Hierarchies, uuid: str, say: Callable[[str], None], *, debug: bool) -> bool:
    """Get a scope if machined should know the pod and would not.

    Args:
        host: the hierarchies, which are to be looked at anew when this was done.
        uuid: of the pod.
        say: for diagnostics.
        debug: whether those are wanted.
    Returns:
        whether the supervisor is elsewhere now. Where it could not be done the pod is not registered, and runs.
    """
    if not command.has_machined() or _will_be_in_unit(host):
        return False
    name = f"{command.machine_name(uuid)}.scope"
    try:
        _ask(name, f"pod {uuid}")
        deadline = time.monotonic() + _SECONDS
        while f"/{name}" not in command.own_group():
            if time.monotonic() > deadline:
                raise OSError(0, f"{name} was not entered")
            time.sleep(0.005)
    except (OSError, RktError) as e:
        if debug:
            say(f"machined will not list the pod: {e}")
        return False
    return True


def _will_be_in_unit(host: Hierarchies) -> bool:
    """Whether the pod's groups will be below a unit: those of version 2 are if nobody else is in the caller's."""
    if not command.is_in_unit(command.own_group()):
        return False
    unified = host.unified
    if unified is None or len(host) > 1:
        return True
    directory = unified.directory(unified.own_path)
    if directory is None:
        return False
    with open(f"{directory}/cgroup.procs", encoding="ascii") as stream:
        return stream.read().split() == [str(os.getpid())]


def _ask(name: str, description: str) -> None:
    link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    try:
        link.connect(_PRIVATE)
        Manager(link, deadline=time.monotonic() + _SECONDS).start_scope(name, os.getpid(), description)
    finally:
        link.close()

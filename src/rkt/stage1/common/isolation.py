# SPDX-License-Identifier: Apache-2.0
"""The namespaces that the apps of a pod share: network, IPC, UTS, and the pid namespace of their first process.

The supervisor makes them and forks from inside, so that children are born there, then goes back: it serves the host.
"""

from __future__ import annotations

import os

from rkt.linux import libc, namespaces, network_lo

_SHARED = libc.CLONE_NEWNET | libc.CLONE_NEWIPC | libc.CLONE_NEWUTS


class PodNamespaces:
    """The namespaces of a pod, entered on creation; ``leave`` returns to the host's, ``enter`` comes back.

    Args:
        flags: ``CLONE_NEW…`` bits out of network, IPC and UTS; the others stay the caller's.
        hostname: of the new UTS namespace.
        pid: the pod's first process, when it was born in them already; else they are made here.
        with_pids: whether a pid namespace is made too, for children.
    """

    __slots__ = ("_host", "_pod")

    def __init__(self, flags: int, hostname: bytes, *, pid: int = 0, with_pids: bool = True) -> None:
        kinds = [(kind, flag) for kind, flag in namespaces.KINDS if flag & flags & _SHARED]
        self._host = [(namespaces.open_namespace("self", kind), flag) for kind, flag in kinds]
        if pid:
            self._pod = [(namespaces.open_namespace(pid, kind), flag) for kind, flag in kinds]
            self._join(self._pod)
            pid_fd = namespaces.open_namespace(pid, "pid")
            libc.setns(pid_fd, libc.CLONE_NEWPID)
            os.close(pid_fd)
        else:
            # The pid namespace is for children: the first one becomes its pid 1.
            libc.unshare(flags & _SHARED | (libc.CLONE_NEWPID if with_pids else 0))
            self._pod = [(namespaces.open_namespace("self", kind), flag) for kind, flag in kinds]
        if flags & libc.CLONE_NEWUTS:
            libc.sethostname(hostname)
        if flags & libc.CLONE_NEWNET:
            network_lo.loopback_up()

    @property
    def net_fd(self) -> int:
        """Of the pod's network namespace, which must be its own."""
        return next(fd for fd, flag in self._pod if flag == libc.CLONE_NEWNET)

    def enter(self) -> None:
        """Let the next children be born in the pod."""
        self._join(self._pod)

    def leave(self) -> None:
        """Go back to the host's namespaces; harmless when there already."""
        self._join(self._host)

    def close(self) -> None:
        """Close the descriptors; children keep what they were born with."""
        for fd, _ in (*self._host, *self._pod):
            os.close(fd)
        self._host = self._pod = []

    @staticmethod
    def _join(places: list[tuple[int, int]]) -> None:
        for fd, flag in places:
            libc.setns(fd, flag)

# SPDX-License-Identifier: Apache-2.0
"""Freezing the processes of a running pod and letting them go on, by the freezer of its cgroup.

The file ``paused`` in the pod's directory says that somebody wanted it; without it nobody needs to ask the kernel. It is
written before the pod is frozen and removed after it goes on, so that it is there whenever the pod is frozen.
"""

from __future__ import annotations

import os

from rkt.errors import HostError, PodError
from rkt.linux import cgroup_freezer, cgroupfs
from rkt.pod import lifecycle, processes
from rkt.stage0 import contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.pod.lifecycle import Pod


def pause(pod: Pod) -> bool:
    """Freeze a pod; false for one that is frozen already.

    Raises:
        PodError: it does not run, or a process of it cannot be stopped now.
        HostError: the host has no freezer.
    """
    processes.open_group(pod)
    try:
        # An app that is being started would be frozen half-way, and whoever starts it with it.
        with pod.lock_changes():
            if not pod.refresh():
                raise PodError(f'pod "{pod.uuid}" was removed by another process')
            return _pause(pod)
    except OSError as e:
        if e.errno not in cgroupfs.GONE:
            raise
        _unmark(pod)
        raise processes.not_running(pod) from e


def _pause(pod: Pod) -> bool:
    group = processes.open_group(pod)
    if not group.directories():
        raise processes.not_running(pod)
    if cgroup_freezer.freezer_of(group) is None:
        raise HostError(
            f'cannot pause pod "{pod.uuid}": it was started on a host with neither cgroup version 2 nor the freezer of version 1',
            hint="mount -t cgroup2 none /sys/fs/cgroup/unified, then start the pod again",
        )
    if cgroup_freezer.is_frozen(group):
        return False
    os.close(
        os.open(contract.PAUSED, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, lifecycle.FILE_MODE, dir_fd=pod.fd)
    )
    if not cgroup_freezer.freeze(group):
        cgroup_freezer.thaw(group)
        _unmark(pod)
        raise PodError(
            f'pod "{pod.uuid}" cannot be paused: a process of it does not stop',
            hint="a disk may not answer; try again",
        )
    return True


def unpause(pod: Pod) -> bool:
    """Let a pod go on; false for one that is not frozen.

    Raises:
        PodError: it does not run.
    """
    group = processes.open_group(pod)
    try:
        was_frozen = cgroup_freezer.is_frozen(group)
        cgroup_freezer.thaw(group)
    except OSError as e:
        if e.errno not in cgroupfs.GONE:
            raise
        raise processes.not_running(pod) from e
    finally:
        _unmark(pod)
    return was_frozen


def is_frozen(pod: Pod) -> bool:
    """What the kernel says of a running pod."""
    try:
        return cgroup_freezer.is_frozen(processes.open_group(pod))
    except (PodError, OSError):
        return False  # it is ending


def _unmark(pod: Pod) -> None:
    try:
        os.unlink(contract.PAUSED, dir_fd=pod.fd)
    except FileNotFoundError:
        return

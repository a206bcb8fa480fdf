# SPDX-License-Identifier: Apache-2.0
"""The pod's cgroups and what its isolators limit there (spec runtime §3.6, invariant RN24)."""

from __future__ import annotations

import os

from rkt.errors import Stage1Error
from rkt.linux import cgroup, files
from rkt.schema import isolators
from rkt.stage0 import contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.pod import LoadedPod, PodApp

#: Ceilings of a pod that asks for nothing (invariant RN24).
DEFAULT_MAX_PIDS = 4096
#: Of the host's memory; the pod meets its ceiling before the host does.
DEFAULT_MEMORY_PERCENT = 90
_CPU_ISOLATORS = ("resource/cpu", "os/linux/cpu-shares")


def create_groups(host: cgroup.Cgroups, pod: LoadedPod, arguments: RunArguments) -> cgroup.Group:
    """The pod's cgroups below the caller's own, with the ceilings that every pod has."""
    wants_cpu = any(isolator.name in _CPU_ISOLATORS for app in pod.apps for isolator in app.app.isolators)
    controllers = (*cgroup.DEFAULT_CONTROLLERS, *(("cpu",) if wants_cpu else ()))
    groups = host.create_pod(group_name(arguments.uuid), controllers)
    # At once, so that a gc knows what to remove should we be killed.
    files.replace_file(contract.SUBCGROUP, groups.record().encode(), 0o640, sync=False)
    try:
        if groups.has("pids"):
            groups.set_pids_limit(DEFAULT_MAX_PIDS)
        memory = isolators.last(pod.manifest.isolators, "resource/memory")
        if memory is not None and memory.limit_amount is not None:
            groups.set_memory_limit(memory.limit_amount)
        elif groups.has("memory"):
            total_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            groups.set_memory_limit(total_bytes * DEFAULT_MEMORY_PERCENT // 100)
        if not arguments.disable_paths:
            _set_devices(groups)
    except BaseException:
        groups.remove()
        raise
    return groups


def _set_devices(groups: cgroup.Group) -> None:
    """The device policy; a host that has no means for one is told how to go without.

    Raises:
        Stage1Error: neither a version 1 ``devices`` hierarchy nor a version 2 one can be used.
    """
    try:
        groups.set_devices()
    except OSError as e:
        raise Stage1Error(
            f"cannot restrict the pod's devices: {e.strerror}", hint="rkt run --insecure-options=paths"
        ) from e


def create_app_group(groups: cgroup.Group, app: PodApp) -> cgroup.Group:
    """An app's own cgroups with what its isolators limit; requests are ignored as in rkt."""
    memory = isolators.last(app.app.isolators, "resource/memory")
    cpu = isolators.last(app.app.isolators, "resource/cpu")
    shares = isolators.last(app.app.isolators, "os/linux/cpu-shares")
    has_memory = memory is not None and memory.limit_amount is not None
    has_cpu = cpu is not None and cpu.limit_amount is not None
    controllers = [
        name for name, wanted in (("memory", has_memory), ("cpu", has_cpu or shares is not None)) if wanted
    ]
    group = groups.child(app.name, controllers)
    if has_memory:
        group.set_memory_limit(memory.limit_amount)
    if has_cpu:
        group.set_cpu_limit(cpu.limit_amount)
    if shares is not None:
        group.set_cpu_shares(shares)
    return group


def group_name(uuid: str) -> str:
    """Name of a pod's cgroups."""
    return f"rkt-{uuid}"

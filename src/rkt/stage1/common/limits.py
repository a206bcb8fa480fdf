# SPDX-License-Identifier: Apache-2.0
"""The pod's cgroups and what its isolators limit there (spec runtime §3.6, invariant RN24).

What the operator asked for and this host cannot do is an error that names it. What only the image wished for is said
and left out: the operator never asked, and the pod's own ceilings still hold.

===============================  =====================================  ===========================================
isolator                         version 2                              version 1
===============================  =====================================  ===========================================
``resource/memory`` limit        ``memory.max``, no swap,               ``memory.limit_in_bytes`` and ``memsw``
                                 ``memory.oom.group``
``resource/memory`` request      ``memory.low``                         ``memory.soft_limit_in_bytes``
``resource/cpu`` limit           ``cpu.max``                            ``cpu.cfs_quota_us``
``resource/cpu`` request         ``cpu.weight``, 1024 shares for a CPU  ``cpu.shares``
``os/linux/cpu-shares``          ``cpu.weight``                         ``cpu.shares``
``os/linux/cpuset-cpus``         ``cpuset.cpus``                        ``cpuset.cpus``
``resource/pids``                ``pids.max``                           ``pids.max``
``resource/block-bandwidth``,    ``io.max``                             ``blkio.throttle.…``
``…iops``, ``os/linux/io-limits``
``os/linux/io-weight``           ``io.weight``, ``io.bfq.weight``       ``blkio.bfq.weight``
===============================  =====================================  ===========================================

A request that equals its limit, as flags write it, says nothing more than the limit and is left alone.
"""

from __future__ import annotations

import errno
import os

from rkt.errors import Stage1Error, quoted
from rkt.linux import cgroup, cgroup_devices, cgroup_limits, files
from rkt.schema import isolators
from rkt.stage0 import contract
from rkt.stage1.common import steps
from rkt.stage1.common.groups import INIT_GROUP, group_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from rkt.linux.cgroupfs import Hierarchies
    from rkt.schema.isolators import Isolator, Resource
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.pod import LoadedPod, PodApp
    from rkt.stage1.common.volumes import DeviceRule

_CONTROLLERS = {
    isolators.MEMORY: "memory",
    isolators.CPU: "cpu",
    isolators.CPU_SHARES: "cpu",
    isolators.CPUSET_CPUS: "cpuset",
    isolators.PIDS: "pids",
    isolators.BLOCK_BANDWIDTH: "io",
    isolators.BLOCK_IOPS: "io",
    isolators.IO_LIMITS: "io",
    isolators.IO_WEIGHT: "io",
}
_DISK_ISOLATORS = frozenset((isolators.BLOCK_BANDWIDTH, isolators.BLOCK_IOPS, isolators.IO_LIMITS))
_SHARES_OF_A_CPU = 1024
_LEAST_SHARES = 2
_MOST_SHARES = 262144


def create_groups(
    host: Hierarchies,
    pod: LoadedPod,
    arguments: RunArguments,
    report: Callable[[str], None],
    *,
    devices: Sequence[DeviceRule] = (),
    also: Sequence[str] = (),
) -> cgroup.Group:
    """The pod's cgroups below the caller's own, with the ceilings that every pod has.

    Args:
        host: the hierarchies.
        pod: what is to run.
        arguments: of ``run``.
        report: gets a sentence on each wish of an image that cannot be granted.
        devices: what the pod's volumes need of the device policy.
        also: further hierarchies of version 1 to have groups in, where there are such.
    Raises:
        Stage1Error: a limit that the operator asked for cannot be set here.
    """
    names = {each.name for app in pod.apps for each in (*app.app.isolators, *pod.manifest.isolators)}
    # What apps that are added later will ask for, nobody knows yet.
    needed = {_CONTROLLERS[name] for name in _CONTROLLERS if arguments.mutable or name in names}
    needed.difference_update(cgroup.DEFAULT_CONTROLLERS)
    if host.unified is None:
        needed.add(cgroup.FREEZER)
    needed.update(each for each in also if any(hierarchy.offers(each) for hierarchy in host))
    groups = cgroup.create_pod(
        host, group_name(arguments.uuid), (*cgroup.DEFAULT_CONTROLLERS, *sorted(needed))
    )
    # At once, so that a gc knows what to remove should we be killed.
    files.replace_file(contract.SUBCGROUP, groups.record().encode(), 0o640, sync=False)
    try:
        if groups.has("pids"):
            cgroup_limits.set_pids_limit(groups, _pids_ceiling(pod))
        if groups.has("memory"):
            total_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            cgroup_limits.set_memory_limit(groups, total_bytes * isolators.DEFAULT_MEMORY_PERCENT // 100)
        _set_all(groups, pod.manifest.isolators, [], "pod", report)
        _protect(groups, pod)
        # Where apps come later the groups below have policies of their own, and version 2 could not widen this one.
        if not arguments.disable_paths and (not arguments.mutable or groups.has("devices")):
            _set_devices(groups, devices)
    except BaseException:
        groups.remove()
        raise
    return groups


def create_init_group(groups: cgroup.Group, arguments: RunArguments) -> cgroup.Group:
    """The group of pid 1. A group of its own: in version 2 no process may be in the pod's group once apps have theirs.

    Raises:
        Stage1Error: the pod's devices cannot be restricted.
    """
    group = groups.child(INIT_GROUP)
    if arguments.mutable and not arguments.disable_paths and not groups.has("devices"):
        _set_devices(group, ())
    return group


def make_room(groups: cgroup.Group, pod: LoadedPod, devices: Sequence[DeviceRule]) -> None:
    """Set the ceilings of a running pod anew, for an app that is about to start.

    Args:
        groups: the pod's.
        pod: as it is now, with that app.
        devices: what the app's volumes need of the device policy.
    """
    if groups.has("pids"):
        cgroup_limits.set_pids_limit(groups, _pids_ceiling(pod))
    _protect(groups, pod)
    cgroup_devices.admit(groups, devices)


def _pids_ceiling(pod: LoadedPod) -> int:
    """Processes of a pod: the usual number, or what its apps may have together if that is more."""
    limits = [isolators.last(app.app.isolators, isolators.PIDS) for app in pod.apps]
    asked: int = sum(limit.limit_amount for limit in limits if limit is not None)
    return max(isolators.DEFAULT_MAX_PIDS, asked)


def _protect(groups: cgroup.Group, pod: LoadedPod) -> None:
    """In version 2 an app is protected only as far as its pod is; a pod that says nothing gets what its apps ask."""
    if isolators.last(pod.manifest.isolators, isolators.MEMORY) is not None:
        return
    amounts = [_request(isolators.last(app.app.isolators, isolators.MEMORY)) for app in pod.apps]
    if any(amounts) and groups.has("memory"):
        cgroup_limits.set_memory_request(groups, sum(amounts))


def _set_devices(group: cgroup.Group, devices: Sequence[DeviceRule]) -> None:
    """The device policy; a host that has no means for one is told how to go without.

    Raises:
        Stage1Error: neither a version 1 ``devices`` hierarchy nor a version 2 one can be used.
    """
    try:
        cgroup_devices.restrict(group, (*cgroup_devices.DEFAULT_DEVICES, *devices))
    except OSError as e:
        from rkt.linux.disk import remedy

        # To go without is for hosts that have no means, not for those where it does not work today.
        hint = remedy(e.errno) or "rkt run --insecure-options=paths"
        raise Stage1Error(f"cannot restrict the pod's devices: {e.strerror}", hint=hint) from e


def create_app_group(
    groups: cgroup.Group,
    pod: LoadedPod,
    app: PodApp,
    report: Callable[[str], None],
    *,
    devices: Sequence[DeviceRule] | None = None,
) -> cgroup.Group:
    """An app's own cgroups with what its isolators limit.

    Args:
        groups: the pod's.
        pod: the pod.
        app: the app.
        report: as for ``create_groups``.
        devices: the app's own, where apps of the pod differ in them; ``None`` leaves it to the pod's policy.
    Raises:
        Stage1Error: a limit that the operator asked for cannot be set here.
    """
    controllers = controllers_of(app)
    if devices is not None and groups.has("devices"):
        controllers.add("devices")
    group = groups.child(app.name, controllers)
    try:
        if devices is not None:
            _set_devices(group, devices)
        set_app_limits(group, pod, app, report)
    except BaseException:
        # The pod may go on without this app.
        group.remove()
        raise
    return group


def check_app_limits(groups: cgroup.Group, app: PodApp, report: Callable[[str], None]) -> None:
    """What ``create_app_group`` says of controllers that are missing, where somebody else makes the app's group.

    Args:
        groups: the pod's.
        app: the app.
        report: as for ``create_groups``.
    Raises:
        Stage1Error: a limit that the operator asked for cannot be set here.
    """
    wishes = _wishes(app)
    for name in sorted({each.name for each in app.app.isolators} & _CONTROLLERS.keys()):
        controller = _CONTROLLERS[name]
        if groups.has(controller):
            continue
        text = f"app {quoted(app.name)}: {name}: cgroup controller {controller} is not available on this host"
        if not _is_wish(name, app.app.isolators, wishes):
            raise Stage1Error(text, hint="leave the limit out, or run on a host that has it")
        report(f"{text}; the image's wish is left out")


def controllers_of(app: PodApp) -> set[str]:
    """Those that the app's isolators need."""
    return {_CONTROLLERS[each.name] for each in app.app.isolators if each.name in _CONTROLLERS}


def set_app_limits(group: cgroup.Group, pod: LoadedPod, app: PodApp, report: Callable[[str], None]) -> None:
    """What an app's isolators limit, on its own cgroups.

    Raises:
        Stage1Error: a limit that the operator asked for cannot be set here.
    """
    bound = isolators.last(pod.manifest.isolators, isolators.CPU)
    wanted = [_within(each, bound) if each.name == isolators.CPU else each for each in app.app.isolators]
    # In version 1 a group is not bound by the disk limits of the one above it.
    wanted = [*(each for each in pod.manifest.isolators if each.name in _DISK_ISOLATORS), *wanted]
    _set_all(group, wanted, _wishes(app), f"app {quoted(app.name)}", report)


def _within(isolator: Isolator, bound: Resource | None) -> Isolator:
    """A cpu limit no higher than the pod's, which holds anyway: version 1 refuses a higher one."""
    value = isolator.value
    if value.limit_amount is None or bound is None or bound.limit_amount is None:
        return isolator
    if value.limit_amount <= bound.limit_amount:
        return isolator
    return isolators.Isolator(name=isolator.name, value=value.replace(limit_amount=bound.limit_amount))


def _set_all(
    group: cgroup.Group,
    wanted: Sequence[Isolator],
    wishes: Sequence[Isolator],
    whose: str,
    report: Callable[[str], None],
) -> None:
    names = {each.name for each in wanted}
    for name, setter in _SETTERS.items():
        if name not in names:
            continue
        value = isolators.last(wanted, name)
        try:
            setter(group, value)
        except OSError as e:
            text = f"{whose}: {name}: {e.strerror}"
            if e.errno != errno.ENOTSUP or not _is_wish(name, wanted, wishes):
                raise Stage1Error(text, hint="leave the limit out, or run on a host that has it") from e
            report(f"{text}; the image's wish is left out")
    if names & _DISK_ISOLATORS:
        _set_disks(group, wanted, wishes, whose, report)


def _wishes(app: PodApp) -> list[Isolator]:
    """What the image of an app asks for by itself, as far as it may."""
    own = app.image.app.isolators if app.image.app is not None else []
    return isolators.tighten(own, lambda names: names)[0] if own else []


def _is_wish(name: str, wanted: Sequence[Isolator], wishes: Sequence[Isolator]) -> bool:
    """Whether the isolator comes from the image alone; what flags add stands after it."""
    return [each for each in wanted if each.name == name] == [each for each in wishes if each.name == name]


def _request(value: Resource | None) -> int:
    """A request that says more than its limit does, else 0."""
    if value is None or value.request_amount is None or value.request_amount == value.limit_amount:
        return 0
    return value.request_amount


def _set_memory(group: cgroup.Group, value: Resource) -> None:
    if value.limit_amount is not None:
        cgroup_limits.set_memory_limit(group, value.limit_amount)
    if request := _request(value):
        cgroup_limits.set_memory_request(group, request)


def _set_cpu(group: cgroup.Group, value: Resource) -> None:
    if value.limit_amount is not None:
        cgroup_limits.set_cpu_limit(group, value.limit_amount)
    if request := _request(value):
        shares = request * _SHARES_OF_A_CPU // 1000
        cgroup_limits.set_cpu_shares(group, min(max(shares, _LEAST_SHARES), _MOST_SHARES))


def _set_cpus(group: cgroup.Group, value: str) -> None:
    from rkt.schema.limits import parse_cpus

    cgroup_limits.set_cpus(group, value, parse_cpus(value, isolators.CPUSET_CPUS))


#: In this order: shares win over those that a request of CPU gives.
_SETTERS: dict[str, Callable[[cgroup.Group, Any], None]] = {
    isolators.CPU: _set_cpu,
    isolators.CPU_SHARES: cgroup_limits.set_cpu_shares,
    isolators.CPUSET_CPUS: _set_cpus,
    isolators.IO_WEIGHT: cgroup_limits.set_io_weight,
    isolators.MEMORY: _set_memory,
    isolators.PIDS: lambda group, value: cgroup_limits.set_pids_limit(group, value.limit_amount),
}


def _set_disks(
    group: cgroup.Group,
    wanted: Sequence[Isolator],
    wishes: Sequence[Isolator],
    whose: str,
    report: Callable[[str], None],
) -> None:
    from rkt.stage1.common import disks

    if not group.has("io"):
        text = f"{whose}: cgroup controller io is not available on this host"
        mine = [each for each in wanted if each.name in _DISK_ISOLATORS]
        if not all(each in wishes for each in mine):
            raise Stage1Error(text, hint="leave the limits of disks out, or run on a host that has it")
        report(f"{text}; the image's wish is left out")
        return
    try:
        disks.set_limits(group, wanted)
    except OSError as e:
        raise Stage1Error(f"{whose}: limit of disks: {e.strerror}") from e


def has_sysctls(pod: LoadedPod) -> bool:
    """Whether there is any need for the module ``sysctls``."""
    return any(each.name == isolators.SYSCTL for each in pod.manifest.isolators)


def oom_score_steps(app: PodApp) -> list[steps.Step]:
    """The step that sets the score, if one is to be set."""
    score = wanted_oom_score(app)
    return [] if score is None else [steps.SetOomScore(score)]


def wanted_oom_score(app: PodApp) -> int | None:
    """The score that is asked for; without a word no app is better protected than usual, whoever started the pod."""
    score: int | None = isolators.last(app.app.isolators, isolators.OOM_SCORE_ADJ)
    own = int(files.read_bounded(steps.OWN_SCORE, 64))
    if score is None:
        return 0 if own < 0 else None
    if score < own and _is_wish(isolators.OOM_SCORE_ADJ, app.app.isolators, _wishes(app)):
        return None
    return score

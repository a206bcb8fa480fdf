# SPDX-License-Identifier: Apache-2.0
"""Limits of block devices: which disks a pod's isolators mean, and how fast each may be used."""

from __future__ import annotations

import errno
import os
import stat

from rkt.linux import cgroup_limits
from rkt.schema import isolators
from rkt.schema.limits import DEVICE_RATES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.linux.cgroup import Group
    from rkt.schema.isolators import Isolator

_SYS_BLOCK = "/sys/block"


def set_limits(group: Group, wanted: Sequence[Isolator]) -> None:
    """Set what ``resource/block-bandwidth``, ``resource/block-iops`` and ``os/linux/io-limits`` ask for together.

    Of several limits on one disk the lowest counts. The appc isolators are for every disk that the host has at this
    moment; one that cannot be throttled, such as a loop device without a file, is passed over.

    Raises:
        OSError: a device that was named is none, or the kernel refuses.
    """
    everywhere, named = _asked(wanted)
    if everywhere:
        for device in all_disks():
            rates = dict(everywhere)
            _lower(rates, named.pop(device, {}))
            try:
                cgroup_limits.set_io_limit(group, device, rates)
            except OSError as e:
                if e.errno not in {errno.ENODEV, errno.EOPNOTSUPP}:
                    raise
    for device, rates in named.items():
        cgroup_limits.set_io_limit(group, device, rates)


def wanted_limits(wanted: Sequence[Isolator]) -> dict[tuple[int, int], dict[str, int]]:
    """The same in numbers: disk -> kind of limit, one of ``DEVICE_RATES`` -> rate.

    Raises:
        OSError: a device that was named is none.
    """
    everywhere, named = _asked(wanted)
    limits = {device: dict(everywhere) for device in all_disks()} if everywhere else {}
    for device, rates in named.items():
        _lower(limits.setdefault(device, {}), rates)
    return limits


def _asked(wanted: Sequence[Isolator]) -> tuple[dict[str, int], dict[tuple[int, int], dict[str, int]]]:
    """Rates for every disk, and rates of disks that are named."""
    everywhere: dict[str, int] = {}
    named: dict[tuple[int, int], dict[str, int]] = {}
    for isolator in wanted:
        if isolator.name == isolators.BLOCK_BANDWIDTH:
            _lower(everywhere, dict.fromkeys(DEVICE_RATES[:2], isolator.value.limit_amount))
        elif isolator.name == isolators.BLOCK_IOPS:
            _lower(everywhere, dict.fromkeys(DEVICE_RATES[2:], isolator.value.limit_amount))
        elif isolator.name == isolators.IO_LIMITS:
            for limit in isolator.value:
                rates = {kind: limit[kind] for kind in DEVICE_RATES if kind in limit}
                _lower(named.setdefault(disk_of(limit["device"]), {}), rates)
    return everywhere, named


def disk_of(path: str) -> tuple[int, int]:
    """Major and minor number of a block device, of the whole disk for a partition: only disks have a queue.

    Raises:
        OSError: it is not there, or no block device.
    """
    status = os.stat(path)
    if not stat.S_ISBLK(status.st_mode):
        raise OSError(errno.ENOTBLK, f"{path} is no block device", path)
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    place = f"/sys/dev/block/{number}"
    if os.path.exists(f"{place}/partition"):
        number = _number(f"{os.path.realpath(place)}/..")
    major, _, minor = number.partition(":")
    return int(major), int(minor)


def all_disks() -> list[tuple[int, int]]:
    """Every disk of the host that holds anything."""
    disks = []
    for name in sorted(os.listdir(_SYS_BLOCK)):
        with open(f"{_SYS_BLOCK}/{name}/size", encoding="ascii") as file:
            if int(file.read()) == 0:
                continue
        major, _, minor = _number(f"{_SYS_BLOCK}/{name}").partition(":")
        disks.append((int(major), int(minor)))
    return disks


def _number(place: str) -> str:
    with open(f"{place}/dev", encoding="ascii") as file:
        return file.read().strip()


def _lower(rates: dict[str, int], more: dict[str, int]) -> None:
    for kind, rate in more.items():
        rates[kind] = min(rate, rates.get(kind, rate))

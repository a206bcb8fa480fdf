# SPDX-License-Identifier: Apache-2.0
"""What the kernel has written down of the limits of running pods, whichever version of cgroups keeps them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.linux import cgroupfs

if TYPE_CHECKING:
    from tests.lib.rkt import Rkt


class Kernel:
    """What the kernel has written down for the apps of a running pod."""

    def __init__(self, rkt: Rkt, uuid: str) -> None:
        self._place = rkt.pod_path(uuid)

    def pid(self, app: str) -> int:
        """Number of an app's first process."""
        with open(f"{self._place}/appsinfo/{app}/pid", encoding="ascii") as file:
            return int(file.read().split()[0])

    def directory(self, app: str, controller: str) -> tuple[int, str]:
        """Version and directory of the cgroup that bounds an app, or skips where the host has none."""
        with open(f"/proc/{self.pid(app)}/cgroup", "rb") as file:
            found = cgroupfs.detect(membership=file.read())
        for hierarchy in found:
            directory = hierarchy.directory(hierarchy.own_path) or ""
            if hierarchy.version == 1 and hierarchy.offers(controller):
                return 1, directory
            while hierarchy.version == 2 and "/rkt-" in directory:
                with open(f"{directory}/cgroup.controllers", encoding="ascii") as file:
                    if controller in file.read().split():
                        return 2, directory
                directory = os.path.dirname(directory)  # without a limit of its own, the pod's
        pytest.skip(f"the host has no cgroup controller {controller}")

    def read(self, app: str, controller: str, *, v1: str, v2: str, above: int = 0) -> str:
        """A file of an app's cgroup, or of one so many levels above, by its name in each version."""
        version, directory = self.directory(app, controller)
        for _ in range(above):
            directory = os.path.dirname(directory)
        with open(f"{directory}/{v1 if version == 1 else v2}", encoding="ascii") as file:
            return file.read().strip()

    def memory_limit(self, app: str, above: int = 0) -> int:
        """Bytes."""
        text = self.read(app, "memory", v1="memory.limit_in_bytes", v2="memory.max", above=above)
        return int(text)

    def millicores(self, app: str, above: int = 0) -> int:
        """Thousandths of a CPU."""
        quota = self.read(app, "cpu", v1="cpu.cfs_quota_us", v2="cpu.max", above=above).split()
        period = (
            quota[1]
            if len(quota) == 2
            else self.read(app, "cpu", v1="cpu.cfs_period_us", v2="cpu.max", above=above)
        )
        return int(quota[0]) * 1000 // int(period)

    def shares(self, app: str) -> int:
        """Shares of version 1, or the weight of version 2."""
        return int(self.read(app, "cpu", v1="cpu.shares", v2="cpu.weight"))

    def max_pids(self, app: str, above: int = 0) -> int:
        """Processes."""
        return int(self.read(app, "pids", v1="pids.max", v2="pids.max", above=above))

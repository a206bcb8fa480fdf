# SPDX-License-Identifier: Apache-2.0
"""What an app may not see or change below ``/proc`` and ``/sys`` (invariant RN7), and the devices that every app has.

rkt's list, those of Docker, containerd and podman of today, and what tells root about memory of the whole host.
"""

from __future__ import annotations

import os

#: Hidden behind something empty and unreadable.
MASKED = (
    b"proc/acpi",
    b"proc/asound",
    b"proc/bootconfig",
    b"proc/config.gz",
    b"proc/interrupts",
    b"proc/kallsyms",
    b"proc/kcore",
    b"proc/keys",
    b"proc/kmem",
    b"proc/kmsg",
    b"proc/kpagecgroup",
    b"proc/kpagecount",
    b"proc/kpageflags",
    b"proc/latency_stats",
    b"proc/mem",
    b"proc/sched_debug",
    b"proc/scsi",
    b"proc/slabinfo",
    b"proc/timer_list",
    b"proc/timer_stats",
    b"proc/vmallocinfo",
    b"sys/dev/block",
    b"sys/devices/virtual/powercap",
    b"sys/firmware",
    b"sys/fs",
    b"sys/hypervisor",
    b"sys/kernel/debug",
    b"sys/kernel/security",
    b"sys/kernel/tracing",
    b"sys/module",
    b"sys/power",
)
#: Readable, never writable. ``/sys`` as a whole is mounted read-only.
READ_ONLY = (
    b"proc/bus",
    b"proc/fs",
    b"proc/irq",
    b"proc/sys",
    b"proc/sysrq-trigger",
)
#: Name, major and minor number of what is in every app's ``/dev``.
DEVICES = (
    (b"dev/null", 1, 3),
    (b"dev/zero", 1, 5),
    (b"dev/full", 1, 7),
    (b"dev/random", 1, 8),
    (b"dev/urandom", 1, 9),
    (b"dev/tty", 5, 0),
)
_CPUS = "sys/devices/system/cpu"


def thermal_directories(root: str = "/") -> list[bytes]:
    """Counters of each processor's heat, from which other containers' work can be told; only some hardware has them."""
    if not os.path.isdir(f"{root}{_CPUS}/cpu0/thermal_throttle"):
        return []
    return [
        f"{_CPUS}/{name}/thermal_throttle".encode()
        for name in sorted(os.listdir(f"{root}{_CPUS}"))
        if os.path.isdir(f"{root}{_CPUS}/{name}/thermal_throttle")
    ]

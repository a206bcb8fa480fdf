# SPDX-License-Identifier: Apache-2.0
"""What an app may not see or change below ``/proc`` and ``/sys``: rkt's list and that of today's engines (invariant RN7)."""

from __future__ import annotations

#: Hidden behind something empty and unreadable.
MASKED = (
    b"proc/acpi",
    b"proc/asound",
    b"proc/config.gz",
    b"proc/interrupts",
    b"proc/kallsyms",
    b"proc/kcore",
    b"proc/keys",
    b"proc/kmem",
    b"proc/kmsg",
    b"proc/latency_stats",
    b"proc/mem",
    b"proc/sched_debug",
    b"proc/scsi",
    b"proc/timer_list",
    b"proc/timer_stats",
    b"proc/vmallocinfo",
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

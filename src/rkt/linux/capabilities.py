# SPDX-License-Identifier: Apache-2.0
"""Capabilities: their names, the default bounding set, and giving them up.

The order matters. In a child that is about to exec, still root::

    drop_bounding(mask)        needs CAP_SETPCAP, so before the rest is given up
    clear_ambient()
    setgroups, setresgid       need CAP_SETGID
    setresuid                  to a non-root user: the kernel empties effective, permitted and ambient
    limit(mask)                for root: effective and permitted become mask, inheritable becomes empty
    limit(0)                   for a non-root user

A capability of ``mask`` that the caller itself lacks stays absent; ``missing`` says which.
"""

from __future__ import annotations

from rkt.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: By number, <linux/capability.h>.
NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)


def mask(names: Iterable[str]) -> int:
    """Bits of capabilities named as ``CAP_CHOWN`` or ``CHOWN``, in any case.

    Raises:
        ValueError: a name is unknown.
    """
    bits = 0
    for name in names:
        full = name.upper()
        if not full.startswith("CAP_"):
            full = "CAP_" + full
        if full not in NAMES:
            raise ValueError(f"unknown capability {name}")
        bits |= 1 << NAMES.index(full)
    return bits


def names(bits: int) -> list[str]:
    """Names of the capabilities in a mask, by number; one that this program does not know is ``CAP_<number>``."""
    return [
        NAMES[number] if number < len(NAMES) else f"CAP_{number}"
        for number in range(bits.bit_length())
        if bits >> number & 1
    ]


def last_capability() -> int:
    """Number of the kernel's last capability."""
    with open("/proc/sys/kernel/cap_last_cap", "rb", buffering=0) as file:
        return int(file.read(16))


def full_mask() -> int:
    """Every capability that the kernel knows."""
    return (1 << last_capability() + 1) - 1


def missing(bits: int) -> int:
    """Those capabilities of a mask that the caller does not have and so cannot pass on."""
    return bits & ~libc.capget()[1]


def drop_bounding(keep: int, last: int = len(NAMES) - 1) -> None:
    """Take everything but ``keep`` out of the bounding set.

    Args:
        keep: mask of what stays, if it is there.
        last: the kernel's last capability, from ``last_capability``, read before ``/proc`` is out of reach.
    Raises:
        OSError: ``EPERM`` without CAP_SETPCAP.
    """
    for number in range(last + 1):
        if not keep >> number & 1:
            libc.prctl(libc.PR_CAPBSET_DROP, number)


def clear_ambient() -> None:
    """Empty the ambient set (invariant RN9)."""
    libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)


def limit(bits: int) -> None:
    """Make effective and permitted ``bits`` as far as the caller has them, and inheritable empty (invariant RN9)."""
    kept = bits & libc.capget()[1]
    libc.capset(kept, kept, 0)


def read_status(pid: int | str = "self") -> dict[str, int]:
    """The five sets of a process by their names in ``/proc/PID/status``: CapInh, CapPrm, CapEff, CapBnd, CapAmb."""
    sets = {}
    with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
        for line in file.readall().splitlines():
            if line.startswith(b"Cap"):
                key, _, value = line.partition(b":")
                sets[key.decode()] = int(value, 16)
    return sets

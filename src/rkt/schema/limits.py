# SPDX-License-Identifier: Apache-2.0
"""Limits that appc has no isolator for: rlimits, block devices, CPU sets, sysctls; values to checked values.

=============================  ====================================================================================
isolator                       value as manifests write it, and as ``Isolator.value`` holds it
=============================  ====================================================================================
``os/linux/rlimits``           ``{"nofile": {"soft": 1024, "hard": 2048}, …}``; unlimited is -1
``os/linux/io-limits``         ``[{"device": "/dev/sda", "read-bps": 1000000, …}, …]``; rates are quantities
``os/linux/cpuset-cpus``       ``"0-3,6"``
``os/unix/sysctl``             ``{"net.ipv4.ip_forward": "1", …}``, pod only, appc's own
=============================  ====================================================================================

Flags give the same values in a shorter form.
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, quoted
from rkt.schema.quantity import quantity_text, to_units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Names of setrlimit(2) in the form that ``--ulimit`` of other engines has. ``locks`` is not there: Linux ignores it.
RLIMIT_NAMES = (
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
)
UNLIMITED = -1
#: What a limit of a block device can be about.
DEVICE_RATES = ("read-bps", "write-bps", "read-iops", "write-iops")
#: Sysctls of the pod's own IPC namespace; a name ending in a dot is for all below it.
_IPC_SYSCTLS = (
    "fs.mqueue.",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
)
NAMESPACE_IPC = "ipc"
NAMESPACE_NET = "net"
NAMESPACE_UTS = "uts"

_MAX_RLIMIT = 2**63 - 1
_MAX_CPU = 8191
_MAX_SYSCTL_VALUE = 1024
_DIGITS = frozenset("0123456789")
_SYSCTL_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
#: The comma, colon, slash and dot are those of port ranges and addresses.
_SYSCTL_VALUE_CHARACTERS = _SYSCTL_CHARACTERS | frozenset(" \t.,:/")


def parse_ulimit(text: str) -> tuple[str, dict[str, int]]:
    """``NAME=SOFT[:HARD]`` of ``--ulimit``: name, and soft and hard limit.

    Raises:
        InvalidManifest: it is malformed.
    """
    name, _, value = text.partition("=")
    soft, colon, hard = value.partition(":")
    return _name_of_rlimit(name, "--ulimit"), _pair(soft, hard if colon else soft, name)


def read_rlimits(value: object, what: str) -> dict[str, dict[str, int]]:
    """The value of ``os/linux/rlimits`` from decoded JSON.

    Raises:
        InvalidManifest: a name or number is wrong.
    """
    if not isinstance(value, dict) or not value:
        raise InvalidManifest(f'{what} is not an object as {{"nofile": {{"soft": 1024, "hard": 2048}}}}')
    limits = {}
    for name, pair in value.items():
        _name_of_rlimit(name, what)
        if not isinstance(pair, dict) or set(pair) - {"soft", "hard"} or "hard" not in pair:
            raise InvalidManifest(f"{name} of {what} is not an object of soft and hard")
        hard = pair["hard"]
        limits[name] = _pair(pair.get("soft", hard), hard, name)
    return limits


def parse_device_rate(kind: str, text: str) -> dict[str, Any]:
    """``PATH:RATE`` of ``--device-read-bps`` and its siblings: one element of ``os/linux/io-limits``.

    Args:
        kind: of ``DEVICE_RATES``.
        text: the flag's value.
    Raises:
        InvalidManifest: it is malformed.
    """
    path, _, rate = text.rpartition(":")
    return _device_limit({"device": path, kind: rate}, f"--device-{kind}")


def read_io_limits(value: object, what: str) -> list[dict[str, Any]]:
    """The value of ``os/linux/io-limits`` from decoded JSON.

    Raises:
        InvalidManifest: a device or rate is wrong.
    """
    if not isinstance(value, list) or not value:
        raise InvalidManifest(f'{what} is not a list as [{{"device": "/dev/sda", "read-bps": "1M"}}]')
    return [_device_limit(element, what) for element in value]


def parse_cpus(text: object, what: str) -> frozenset[int]:
    """The CPUs of a list as ``0-3,6``.

    Raises:
        InvalidManifest: it is malformed.
    """
    cpus: set[int] = set()
    for part in text.split(",") if isinstance(text, str) else [""]:
        first, dash, last = part.partition("-")
        last = last if dash else first
        for word in (first, last):
            if not word or not _DIGITS.issuperset(word) or len(word) > 4 or int(word) > _MAX_CPU:
                raise InvalidManifest(
                    f"invalid {what} {quoted(str(text))}: a list of CPUs is written as 0-3,6"
                )
        if int(first) > int(last):
            raise InvalidManifest(f"invalid {what} {quoted(str(text))}: {quoted(part)} runs backwards")
        cpus.update(range(int(first), int(last) + 1))
    return frozenset(cpus)


def read_cpus(value: object, what: str) -> str:
    """The value of ``os/linux/cpuset-cpus`` from decoded JSON, as it was written.

    Raises:
        InvalidManifest: it is malformed.
    """
    parse_cpus(value, what)
    return str(value)


def read_sysctls(value: object, what: str) -> dict[str, str]:
    """The value of ``os/unix/sysctl`` from decoded JSON.

    Raises:
        InvalidManifest: one may not be set for a pod, see ``check_sysctl``.
    """
    if not isinstance(value, dict):
        raise InvalidManifest(f"{what} is not an object of names and values")
    for name, text in value.items():
        check_sysctl(name, text)
    return dict(value)


def check_sysctl(name: str, value: object) -> str:
    """Hold a sysctl against the list of those that belong to a pod's own namespaces.

    Everything else is the host's: whoever could set ``kernel.core_pattern`` would own it. A name has plain components
    between dots, a value neither line feeds nor ``+``, so that no reader further on finds two in one (CVE-2022-0811).

    Returns:
        the namespace it belongs to, one of ``NAMESPACE_…``.
    Raises:
        InvalidManifest: name or value is malformed, or it is not a pod's to set.
    """
    parts = name.split(".")
    if not all(part and part[0] != "-" and _SYSCTL_CHARACTERS.issuperset(part) for part in parts):
        raise InvalidManifest(f"invalid sysctl name {quoted(name)}", hint="--sysctl=net.core.somaxconn=1024")
    if (
        not isinstance(value, str)
        or not value.strip()
        or len(value) > _MAX_SYSCTL_VALUE
        or not _SYSCTL_VALUE_CHARACTERS.issuperset(value)
    ):
        raise InvalidManifest(f"invalid value {quoted(str(value))} of sysctl {name}")
    if parts[0] == "net" and len(parts) > 2:
        return NAMESPACE_NET
    if name == "kernel.domainname":
        return NAMESPACE_UTS
    if any(name == known or (known[-1] == "." and name.startswith(known)) for known in _IPC_SYSCTLS):
        return NAMESPACE_IPC
    raise InvalidManifest(
        f"sysctl {name} may not be set for a pod: it is the host's",
        hint="net.*, kernel.domainname, kernel.msg*, kernel.sem, kernel.shm* and fs.mqueue.* may",
    )


def _name_of_rlimit(name: object, what: str) -> str:
    if name not in RLIMIT_NAMES:
        raise InvalidManifest(
            f"unknown limit {quoted(str(name))} of {what}", hint=f"one of {', '.join(RLIMIT_NAMES)}"
        )
    return str(name)


def _pair(soft: object, hard: object, name: str) -> dict[str, int]:
    pair = {"soft": _rlimit(soft, name), "hard": _rlimit(hard, name)}
    if pair["hard"] != UNLIMITED and not 0 <= pair["soft"] <= pair["hard"]:
        raise InvalidManifest(f"soft limit {soft} of {name} is more than hard limit {hard}")
    return pair


def _rlimit(value: object, name: str) -> int:
    if isinstance(value, str) and (value == "unlimited" or value == str(UNLIMITED)):
        return UNLIMITED
    if isinstance(value, str) and value and _DIGITS.issuperset(value) and len(value) < 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not UNLIMITED <= value <= _MAX_RLIMIT:
        raise InvalidManifest(
            f"invalid limit {quoted(str(value))} of {name}: a whole number or unlimited is expected",
            hint="--ulimit=nofile=1024:2048",
        )
    return value


def _device_limit(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) - {"device", *DEVICE_RATES} or len(value) < 2:
        raise InvalidManifest(f"{what} is not a device with rates of {', '.join(DEVICE_RATES)}")
    path = value.get("device")
    if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise InvalidManifest(
            f"invalid device {quoted(str(path))} of {what}: the absolute path of a block device is expected",
            hint="--device-read-bps=/dev/sda:10M",
        )
    limit: dict[str, Any] = {"device": path}
    for kind in DEVICE_RATES:
        if kind in value:
            rate = to_units(quantity_text(value[kind], f"{kind} of {path}"), f"{kind} of {path}")
            if not rate:
                raise InvalidManifest(f"{kind} of {path} is 0", hint="a rate such as 10M")
            limit[kind] = rate
    return limit

# SPDX-License-Identifier: Apache-2.0
"""Settings of the network namespace that the caller is in, by ``/proc/sys/net``."""

from __future__ import annotations

import os

from rkt.errors import HostError

_ROOT = "/proc/sys/net"


def read(name: str) -> str:
    """A setting such as ``ipv4/conf/rkt0/route_localnet``; empty when there is none."""
    try:
        fd = os.open(f"{_ROOT}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return os.read(fd, 256).decode().strip()
    finally:
        os.close(fd)


def write(name: str, value: str) -> None:
    """Change a setting, if it is another one; what is gone with its interface is no matter.

    Raises:
        HostError: the kernel refuses.
    """
    try:
        if read(name) == value:
            return
        fd = os.open(f"{_ROOT}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except FileNotFoundError:
        return
    except OSError as e:
        raise HostError(f"cannot set {_ROOT}/{name} to {value}: {e.strerror}") from e


def ignore_router_advertisements(interfaces: list[str] | None = None) -> None:
    """Take no IPv6 router, address or route from whoever announces itself as one (invariant NT1: CVE-2020-13401).

    Args:
        interfaces: those to set; ``None`` for all of the namespace and those to come.
    Raises:
        HostError: the kernel refuses.
    """
    if interfaces is None:
        try:
            interfaces = os.listdir(f"{_ROOT}/ipv6/conf")
        except FileNotFoundError:
            # A kernel without IPv6 believes nobody.
            return
    for interface in interfaces:
        write(f"ipv6/conf/{interface}/accept_ra", "0")

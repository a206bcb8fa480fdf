# SPDX-License-Identifier: Apache-2.0
"""``/etc/hosts`` and ``/etc/resolv.conf`` of a pod (spec runtime §3.8)."""

from __future__ import annotations

from rkt.linux import files
from rkt.stage0 import contract

_LIMIT_BYTES = 1 << 20
_FALLBACK = """\
# This is the default rkt /etc/hosts
127.0.0.1 localhost localhost.domain localhost4 localhost4.localdomain4 {hostname}
::1 ip6-localhost ip6-loopback localhost6 localhost6.localdomain6
fe00::0 ip6-localnet
ff00::0 ip6-mcastprefix
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
ff02::3 ip6-allhosts
"""


def hosts_file(mode: str, hostname: str) -> bytes:
    """Content for one of the modes ``default``, ``stage0`` (written by stage0), ``host``."""
    if mode == "host":
        return files.read_bounded("/etc/hosts", _LIMIT_BYTES)
    if mode == "stage0":
        return files.read_bounded(f"{contract.STAGE1_ROOTFS}/etc/rkt-hosts", _LIMIT_BYTES)
    return _FALLBACK.format(hostname=hostname).encode()


def resolv_file(mode: str) -> bytes:
    """Content for the modes ``stage0`` and ``host``; links of the host's own file are followed."""
    path = "/etc/resolv.conf" if mode == "host" else f"{contract.STAGE1_ROOTFS}/etc/rkt-resolv.conf"
    with open(path, "rb") as stream:
        return stream.read(_LIMIT_BYTES)

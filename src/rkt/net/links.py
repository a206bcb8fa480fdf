# SPDX-License-Identifier: Apache-2.0
"""By which interface the host reaches a pod, read from the routes of the network namespace that the caller is in."""

from __future__ import annotations

import sys
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from rkt.linux.files import read_bounded
from rkt.schema.record import Record

_ROUTES = "/proc/thread-self/net/route"
_ROUTES6 = "/proc/thread-self/net/ipv6_route"
_MAX_BYTES = 16 << 20
# <linux/route.h>, <linux/ipv6_route.h>
RTF_UP = 0x1
RTF_GATEWAY = 0x2
RTF_REJECT = 0x200
_COLUMNS = 8


class Link(Record):
    """A route to a pod.

    Attributes:
        interface: of the host.
        prefix: bits of the route; all of them where the pod is alone on the link.
    """

    interface: str
    prefix: int


def is_v6(address: str) -> bool:
    """Whether an address, or a network, is of IPv6."""
    return ":" in address


def packed(address: str) -> bytes:
    """The bytes of an address: 4 or 16."""
    return inet_pton(AF_INET6 if is_v6(address) else AF_INET, address)


def canonical(address: str) -> str:
    """The one spelling of an address."""
    family = AF_INET6 if is_v6(address) else AF_INET
    return inet_ntop(family, inet_pton(family, address))


def network_of(address: str, prefix: int) -> str:
    """``172.16.28.0/24`` of ``172.16.28.2`` and 24."""
    data = packed(address)
    bits = len(data) * 8
    number = int.from_bytes(data, "big") >> (bits - prefix) << (bits - prefix)
    family = AF_INET6 if is_v6(address) else AF_INET
    return f"{inet_ntop(family, number.to_bytes(len(data), 'big'))}/{prefix}"


def link_to(address: str) -> Link | None:
    """The most particular route to an address that needs no gateway; ``None`` when there is none."""
    best: Link | None = None
    wanted = packed(address)
    for interface, prefix, network in _routes6() if is_v6(address) else _routes4():
        bits = len(wanted) * 8
        shift = bits - prefix
        if int.from_bytes(wanted, "big") >> shift == int.from_bytes(network, "big") >> shift and (
            best is None or prefix > best.prefix
        ):
            best = Link(interface=interface, prefix=prefix)
    return best


def _routes4() -> list[tuple[str, int, bytes]]:
    found = []
    for line in _lines(_ROUTES)[1:]:
        words = line.split()
        if len(words) >= _COLUMNS and int(words[3], 16) & (RTF_UP | RTF_GATEWAY | RTF_REJECT) == RTF_UP:
            # Hexadecimal as the machine writes its integers.
            network = int(words[1], 16).to_bytes(4, sys.byteorder)
            prefix = int(words[7], 16).bit_count()
            found.append((words[0], prefix, network))
    return found


def _routes6() -> list[tuple[str, int, bytes]]:
    found = []
    for line in _lines(_ROUTES6):
        words = line.split()
        if (
            len(words) > _COLUMNS
            and int(words[8], 16) & (RTF_UP | RTF_GATEWAY | RTF_REJECT) == RTF_UP
            and words[-1] != "lo"
        ):
            found.append((words[-1], int(words[1], 16), bytes.fromhex(words[0])))
    return found


def _lines(path: str) -> list[str]:
    try:
        return read_bounded(path, _MAX_BYTES).decode().splitlines()
    except FileNotFoundError:
        return []

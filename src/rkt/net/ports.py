# SPDX-License-Identifier: Apache-2.0
"""Which ports of the host a pod wants, and who has them already (spec runtime §4.6)."""

from __future__ import annotations

import sys
from _socket import AF_INET, AF_INET6, inet_ntop

from rkt.errors import InvalidManifest, PodError, quoted
from rkt.linux.files import read_bounded
from rkt.net.links import canonical, is_v6
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from rkt.schema.appc import ExposedPort, Port

PROTOCOLS = ("tcp", "udp")
#: Every address of the host, of either family.
EVERY = ""
EVERY_IPV4 = "0.0.0.0"  # noqa: S104 - an address to compare with; nothing is bound to it
EVERY_IPV6 = "::"
_LOOPBACK_IPV6 = "::1"
_MAX_BYTES = 64 << 20
#: States of <net/tcp_states.h> in which somebody listens: TCP_LISTEN, and for UDP, which does not, TCP_CLOSE.
_LISTENING = {"tcp": "0A", "udp": "07"}


class Forward(Record):
    """One port of the host that leads to one of the pod.

    Attributes:
        protocol: ``tcp`` or ``udp``.
        host_ip: address of the host; ``EVERY``, ``EVERY_IPV4`` or ``EVERY_IPV6`` for all.
        name: of the port in the pod manifest.
    """

    protocol: str
    host_port: int
    pod_port: int
    host_ip: str = EVERY
    name: str = ""

    def __str__(self) -> str:
        """As rkt words it."""
        address = self.host_ip or EVERY_IPV4
        return f"{self.protocol}-{f'[{address}]' if is_v6(address) else address}:{self.host_port}"

    def meets(self, protocol: str, port: int, address: str) -> bool:
        """Whether somebody who has a port at an address, or at every one, is in the way."""
        return protocol == self.protocol and port == self.host_port and _addresses_meet(address, self.host_ip)

    def to_json(self) -> dict[str, Any]:
        """The member of ``portMappings`` that plugins with this capability read."""
        value: dict[str, Any] = {
            "hostPort": self.host_port,
            "containerPort": self.pod_port,
            "protocol": self.protocol,
        }
        if self.host_ip:
            value["hostIP"] = self.host_ip
        return value


def _addresses_meet(one: str, other: str) -> bool:
    if one == other or EVERY in {one, other}:
        return True
    if is_v6(one) != is_v6(other):
        return False
    return bool({one, other} & {EVERY_IPV4, EVERY_IPV6})


def forwards_of(exposed: Iterable[ExposedPort], apps: Iterable[tuple[str, Sequence[Port]]]) -> list[Forward]:
    """What the ports of a pod manifest come to.

    Args:
        exposed: ``ports`` of the pod manifest.
        apps: name and ports of each app.
    Raises:
        InvalidManifest: a name is unknown or not unique, a protocol cannot be forwarded, or two want the same port.
    """
    found: list[Forward] = []
    known = [(app, port) for app, ports in apps for port in ports]
    for wanted in exposed:
        target = wanted.pod_port
        if target is None:
            named = [(app, port) for app, port in known if port.name == wanted.name]
            if len({app for app, _ in named}) > 1:
                raise InvalidManifest(
                    f'port name "{wanted.name}" defined multiple apps',
                    hint="by number: --port=HOSTPORT:PODPORT",
                )
            if not named:
                names = ", ".join(sorted({port.name for _, port in known}))
                raise InvalidManifest(
                    f'port name "{wanted.name}" could not be found in any apps',
                    hint=f"names of ports: {names}" if names else "by number: --port=HOSTPORT:PODPORT",
                )
            target = named[0][1]
        if target.protocol not in PROTOCOLS:
            raise InvalidManifest(
                f'port "{wanted.name}" is of protocol {quoted(target.protocol)}: only tcp and udp can be forwarded'
            )
        if wanted.host_port + target.count > 1 << 16:
            raise InvalidManifest(
                f'port "{wanted.name}" stands for {target.count} ports: there are none after 65535 on the host'
            )
        address = canonical(wanted.host_ip) if wanted.host_ip else EVERY
        if address == _LOOPBACK_IPV6:
            raise InvalidManifest(
                f'port "{wanted.name}" cannot be had at ::1, from which the kernel leads to no other link',
                hint=f"--port=127.0.0.1:{wanted.host_port}:{target.port}",
            )
        for offset in range(target.count):
            forward = Forward(
                protocol=target.protocol,
                host_port=wanted.host_port + offset,
                pod_port=target.port + offset,
                host_ip=address,
                name=str(wanted.name),
            )
            for other in found:
                if forward.meets(other.protocol, other.host_port, other.host_ip):
                    raise InvalidManifest(f"port {forward} already mapped to pod port {other.pod_port}")
            found.append(forward)
    return found


def check_listeners(forwards: Iterable[Forward]) -> None:
    """Refuse ports on which a program of the host listens: what came for it would go to the pod.

    Raises:
        PodError: one does.
    """
    # One port may be wanted at several addresses.
    wanted: dict[tuple[str, int], list[Forward]] = {}
    for forward in forwards:
        wanted.setdefault((forward.protocol, forward.host_port), []).append(forward)
    for protocol in {protocol for protocol, _ in wanted}:
        for address, port in listeners(protocol):
            # A socket on :: has the addresses of IPv4 too, unless it was told not to, which nothing here says.
            where = EVERY if address == EVERY_IPV6 else address
            for forward in wanted.get((protocol, port), ()):
                if forward.meets(protocol, port, where):
                    shown = f"[{address}]" if is_v6(address) else address
                    raise PodError(
                        f"port {forward} is in use: a program of the host listens on {shown}:{port}",
                        hint=f"ss -lp{protocol[0]}n 'sport = {port}'",
                    )


def listeners(protocol: str) -> list[tuple[str, int]]:
    """Address and port of each socket of the caller's network namespace that waits for others."""
    found = []
    for kind, family in ((protocol, AF_INET), (f"{protocol}6", AF_INET6)):
        try:
            data = read_bounded(f"/proc/thread-self/net/{kind}", _MAX_BYTES)
        except FileNotFoundError:
            # A kernel without IPv6.
            continue
        for line in data.decode().splitlines()[1:]:
            words = line.split(None, 4)
            if words[3] == _LISTENING[protocol]:
                address, _, port = words[1].partition(":")
                found.append((_read_address(address, family), int(port, 16)))
    return found


def _read_address(text: str, family: int) -> str:
    """An address as these files have it: words of 32 bits, each as the machine writes its integers."""
    words = [int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8)]
    data = b"".join(words)
    if family == AF_INET6 and data[:12] == b"\0" * 10 + b"\xff\xff":
        return inet_ntop(AF_INET, data[12:])
    return inet_ntop(family, data)

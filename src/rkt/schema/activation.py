# SPDX-License-Identifier: Apache-2.0
"""Which app gets which socket that a service manager passed (spec runtime §3.10): by protocol and port number.

A port of an app that is declared ``socketActivated`` is expected where ``--port`` has it on the host, else at its own
number. An exposed port says the address too, if it has one.
"""

from __future__ import annotations

from rkt.errors import UsageError, quoted
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Protocol

    from rkt.schema.appc import App, ExposedPort

    class Socket(Protocol):
        """What counts of a socket, as ``linux.listening`` has it."""

        protocol: str
        address: str
        port: int


_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - what sockets are compared with


class Expected(Record):
    """A port for which an app wants a socket.

    Attributes:
        app: name of the app.
        port: name of its port.
        first, count: numbers on the host.
        address: on the host; empty for any.
    """

    app: str
    port: str
    protocol: str
    first: int
    count: int = 1
    address: str = ""

    def __str__(self) -> str:
        numbers = str(self.first) if self.count == 1 else f"{self.first}-{self.first + self.count - 1}"
        return f"{self.app}: {self.port} {self.protocol} {numbers}"


def expected(apps: Iterable[tuple[str, App]], exposed: Sequence[ExposedPort]) -> list[Expected]:
    """The sockets that the apps of a pod want.

    Args:
        apps: name and section of each.
        exposed: ports of the pod manifest.
    """
    at = {str(port.name): port for port in exposed}
    found = []
    for name, app in apps:
        for port in app.ports:
            if not port.socket_activated:
                continue
            place = at.get(str(port.name))
            found.append(
                Expected(
                    app=name,
                    port=str(port.name),
                    protocol=port.protocol,
                    first=place.host_port if place else port.port,
                    count=1 if place else port.count,
                    address=place.host_ip if place else "",
                )
            )
    return found


def fits(socket: Socket, wish: Expected) -> bool:
    """Whether protocol and number are those."""
    return socket.protocol == wish.protocol and wish.first <= (socket.port or -1) < wish.first + wish.count


def has_address(socket: Socket, wish: Expected) -> bool:
    """Whether the address is the one too, or any will do."""
    if not wish.address or wish.address in _EVERY_ADDRESS:
        return True
    return _packed(socket.address) == _packed(wish.address)


def assign(sockets: Sequence[Socket], wishes: Sequence[Expected]) -> list[Expected]:
    """For each socket, whose it is.

    Raises:
        UsageError: nobody's, that of several apps, or one with another address.
    """
    return [_owner(socket, wishes) for socket in sockets]


def _owner(socket: Socket, wishes: Sequence[Expected]) -> Expected:
    fitting = [wish for wish in wishes if fits(socket, wish)]
    if not fitting:
        declared = "; ".join(str(wish) for wish in wishes) or "none"
        raise UsageError(
            f"no app declares the socket that was passed as descriptor {socket}; socketActivated ports of the apps: {declared}",
            hint="--port=NAME:HOSTPORT says which number a port has on the host",
        )
    if len({wish.app for wish in fitting}) > 1:
        names = " and ".join(wish.app for wish in fitting)
        raise UsageError(f"the socket that was passed as descriptor {socket} is declared by the apps {names}")
    if not has_address(socket, fitting[0]):
        raise UsageError(
            f"the socket that was passed as descriptor {socket} has another address than port "
            f"{quoted(fitting[0].port)}: {fitting[0].address}"
        )
    return fitting[0]


def _packed(address: str) -> bytes:
    from _socket import AF_INET, AF_INET6, inet_pton

    packed = inet_pton(AF_INET6 if ":" in address else AF_INET, address.partition("%")[0])
    # An IPv4 address as an IPv6 socket has it.
    mapped = bytes(10) + b"\xff\xff"
    return packed[12:] if packed.startswith(mapped) and len(packed) == 16 else packed

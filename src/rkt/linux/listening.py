# SPDX-License-Identifier: Apache-2.0
"""Listening sockets that a service manager passed to this process (sd_listen_fds(3))."""

from __future__ import annotations

import _socket
import os

FIRST_FD = 3
#: More than systemd passes to a unit by default.
_MAX_SOCKETS = 512


class Listening:
    """One socket.

    Attributes:
        fd: where it is, and stays.
        name: as the manager calls it; ``unknown`` if it does not say.
        protocol: ``tcp``, ``udp``, or the word for what no app can declare.
        address, port: what it listens on, the address as the kernel writes it.
    """

    __slots__ = ("address", "fd", "name", "port", "protocol")

    def __init__(self, *, fd: int, name: str, protocol: str, address: str = "", port: int = 0) -> None:
        self.fd = fd
        self.name = name
        self.protocol = protocol
        self.address = address
        self.port = port

    def __str__(self) -> str:
        where = f"[{self.address}]" if ":" in self.address else self.address
        what = f" {self.protocol} {where}:{self.port}" if self.port else f", {self.protocol}"
        return f"{self.fd} ({self.name}){what}"


def passed(environment: dict[str, str], pid: int) -> list[Listening]:
    """What was passed to the process ``pid``, which calls this; none if the variables are meant for another one.

    Raises:
        ValueError: the variables are malformed, or a descriptor that they tell of is not there.
    """
    if "LISTEN_FDS" not in environment or environment.get("LISTEN_PID") != str(pid):
        return []
    text = environment["LISTEN_FDS"]
    if not (text.isascii() and text.isdecimal()) or int(text) > _MAX_SOCKETS:
        raise ValueError(f"LISTEN_FDS is {text!r}: not a number of sockets up to {_MAX_SOCKETS}")
    count = int(text)
    names = environment["LISTEN_FDNAMES"].split(":") if environment.get("LISTEN_FDNAMES") else []
    if names and len(names) != count:
        raise ValueError(f"LISTEN_FDNAMES has {len(names)} names for {count} sockets")
    return [_look(FIRST_FD + index, names[index] if names else "unknown") for index in range(count)]


def _look(fd: int, name: str) -> Listening:
    try:
        is_socket = os.fstat(fd).st_mode & 0o170000 == 0o140000
    except OSError as e:
        raise ValueError(f"descriptor {fd}, of which LISTEN_FDS tells, is not there") from e
    if not is_socket:
        return Listening(fd=fd, name=name, protocol="no socket")
    handle = _socket.socket(fileno=fd)
    try:
        family, kind = handle.family, handle.type
        if family not in {_socket.AF_INET, _socket.AF_INET6}:
            return Listening(
                fd=fd, name=name, protocol="a Unix socket" if family == _socket.AF_UNIX else "a socket"
            )
        if kind == _socket.SOCK_STREAM and not handle.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
            return Listening(fd=fd, name=name, protocol="a connection (of a unit with Accept=yes)")
        protocol = {_socket.SOCK_STREAM: "tcp", _socket.SOCK_DGRAM: "udp"}.get(kind, "a raw socket")
        address, port = handle.getsockname()[:2]
        return Listening(fd=fd, name=name, protocol=protocol, address=address, port=port)
    finally:
        handle.detach()

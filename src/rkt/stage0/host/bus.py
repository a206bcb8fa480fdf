# SPDX-License-Identifier: Apache-2.0
"""Asks the system's D-Bus who answers there, by as much of its protocol as that takes; starts nobody.

Source: D-Bus Specification, "Message Format" and "Authentication Protocol".
"""

from __future__ import annotations

import os
import socket
import struct

SOCKET = "/run/dbus/system_bus_socket"
MACHINED = "org.freedesktop.machine1"
_DRIVER = "org.freedesktop.DBus"
_SECONDS = 5
_MAX_BYTES = 1 << 20
_HEADER = struct.Struct("<cBBBIII")
_CALL, _ANSWER, _ERROR = 1, 2, 3
#: Header fields: number, type of the value.
_PATH, _INTERFACE, _MEMBER, _DESTINATION = (1, b"o"), (2, b"s"), (3, b"s"), (6, b"s")


def names() -> list[str]:
    """Names of services that run or could be started.

    Raises:
        OSError: there is no bus, or it does not talk to this caller.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as handle:
        handle.settimeout(_SECONDS)
        handle.connect(SOCKET)
        handle.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        if not handle.recv(_MAX_BYTES).startswith(b"OK "):
            raise OSError(0, "the bus does not accept this user")
        handle.sendall(b"BEGIN\r\n")
        with handle.makefile("rb") as stream:
            found = []
            for serial, member in enumerate(("Hello", "ListNames", "ListActivatableNames"), 1):
                handle.sendall(call(serial, member))
                body = _answer(stream.read)
                if serial > 1:
                    found += strings(body)
    return found


def call(serial: int, member: str) -> bytes:
    """A method call without arguments on the bus itself."""
    fields = b""
    for (number, kind), value in (
        (_PATH, "/org/freedesktop/DBus"),
        (_INTERFACE, _DRIVER),
        (_MEMBER, member),
        (_DESTINATION, _DRIVER),
    ):
        fields += bytes(-len(fields) % 8) + bytes((number, 1)) + kind + b"\0"
        fields += struct.pack("<I", len(value)) + value.encode() + b"\0"
    head = _HEADER.pack(b"l", _CALL, 0, 1, 0, serial, len(fields))
    return head + fields + bytes(-len(fields) % 8)


def _answer(read: object) -> bytes:
    """The body of the next answer; signals are passed over."""
    assert callable(read)
    while True:
        head = read(_HEADER.size)
        if len(head) < _HEADER.size:
            raise OSError(0, "the bus hung up")
        order, kind, _, _, body_size, _, fields_size = _HEADER.unpack(head)
        size = fields_size + -fields_size % 8 + body_size
        if order != b"l" or size > _MAX_BYTES:
            raise OSError(0, "the bus answers in a way that is not understood")
        body = read(size)[size - body_size :]
        if kind == _ERROR:
            raise OSError(0, "the bus refuses to list names")
        if kind == _ANSWER:
            return bytes(body)


def strings(body: bytes) -> list[str]:
    """An array of strings."""
    found = []
    place, end = 4, 4 + struct.unpack_from("<I", body)[0]
    while place < end:
        place += -place % 4
        size = struct.unpack_from("<I", body, place)[0]
        found.append(body[place + 4 : place + 4 + size].decode("utf-8", "replace"))
        place += 4 + size + 1
    return found

# SPDX-License-Identifier: Apache-2.0
"""Network namespaces that stand for a host, its neighbours and its pods, without a process in any of them.

A socket stays in the namespace in which it was made, so one thread can be all of them: ``with inside(space)`` makes it there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from typing import TYPE_CHECKING

from rkt.linux import libc
from tests.lib.pace import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import Iterator

#: For what arrives; nothing leaves the machine.
PATIENCE_SECONDS = 2.0 * SLOWNESS
#: For what must not arrive.
SILENCE_SECONDS = 0.15 * SLOWNESS


class Space:
    """A network namespace, which lives until it is closed."""

    def __init__(self) -> None:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc.unshare(libc.CLONE_NEWNET)
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            libc.setns(before, libc.CLONE_NEWNET)
            os.close(before)
        # Addresses that are usable at once.
        for scope in ("all", "default"):
            self.write(f"ipv6/conf/{scope}/accept_dad", "0")
            self.write(f"ipv6/conf/{scope}/dad_transmits", "0")
        self.ip("link set lo up")

    @classmethod
    def of(cls, pid: int) -> Space:
        """That of a process."""
        space = cls.__new__(cls)
        space.fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        return space

    @property
    def path(self) -> str:
        """A name for it that programs take."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Do something there."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc.setns(self.fd, libc.CLONE_NEWNET)
            yield
        finally:
            libc.setns(before, libc.CLONE_NEWNET)
            os.close(before)

    def run(self, *words: str, stdin: str | None = None) -> str:
        """What a command prints there."""
        with self.inside():
            done = subprocess.run(
                words, input=stdin, capture_output=True, text=True, check=False, timeout=30 * SLOWNESS
            )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def ip(self, text: str) -> str:
        """``ip`` with these words."""
        return self.run("ip", *text.split())

    def write(self, setting: str, value: str) -> None:
        """Change what ``/proc/sys/net`` has."""
        with self.inside(), open(f"/proc/sys/net/{setting}", "w", encoding="ascii") as stream:
            stream.write(value)

    def read(self, setting: str) -> str:
        """What ``/proc/sys/net`` has."""
        with self.inside(), open(f"/proc/sys/net/{setting}", encoding="ascii") as stream:
            return stream.read().strip()

    def rules(self) -> str:
        """All firewall rules, without counters that count."""
        return self.run("nft", "-s", "list", "ruleset")

    def veth(self, name: str, peer: Space, peer_name: str, *addresses: str, bridge: str = "") -> None:
        """A pair, with addresses for this end, or a bridge that it is put into."""
        self.ip(f"link add {name} type veth peer name {peer_name} netns {peer.path}")
        if bridge:
            self.ip(f"link set {name} master {bridge}")
        for address in addresses:
            self.address(name, address)
        self.ip(f"link set {name} up")

    def address(self, name: str, address: str) -> None:
        """An address, usable at once."""
        self.ip(f"addr add {address} dev {name}" + (" nodad" if ":" in address else ""))

    def close(self) -> None:
        """The end of it, with all in it."""
        os.close(self.fd)

    def serve(self, protocol: str, port: int, address: str = "") -> socket.socket:
        """A socket that waits for somebody, on every address of both families unless one is given."""
        family = socket.AF_INET if "." in address else socket.AF_INET6
        with self.inside():
            made = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            made.bind((address or "::", port))
            if protocol == "tcp":
                made.listen(8)
        made.settimeout(PATIENCE_SECONDS)
        return made


def talk(
    client: Space, address: str, port: int, server: socket.socket, *, expected: bool = True, source: str = ""
) -> str | None:
    """Send something, and have the server answer.

    Returns:
        the client's address as the server sees it; ``None`` when nothing arrived.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with client.inside():
        sender = socket.socket(family, server.type)
    with sender:
        sender.settimeout(PATIENCE_SECONDS if expected else SILENCE_SECONDS)
        server.settimeout(sender.gettimeout())
        if source:
            sender.bind((source, 0))
        try:
            sender.connect((address, port))
            if server.type == socket.SOCK_STREAM:
                connection, peer = server.accept()
                with connection:
                    connection.sendall(b"answer")
                    assert sender.recv(64) == b"answer"
            else:
                sender.send(b"question")
                _, peer = server.recvfrom(64)
                server.sendto(b"answer", peer)
                assert sender.recv(64) == b"answer"
        except OSError:
            return None
        return str(peer[0]).removeprefix("::ffff:")

# SPDX-License-Identifier: Apache-2.0
"""A host of its own for tests of networks: namespaces in which rkt, plugins and peers run, far from the real host's.

The network namespace is new, with its own ``/proc/sys/net``, firewall and interfaces; of the mount namespace's
directories ``/run`` and ``/var/lib`` show what the real host has and keep what is written to themselves, so that names of
namespaces, leases and locks are the test's. Processes, users, cgroups and all other files are the real host's. A second
namespace, ``peer``, is another host on the same wire::

    host   uplink 192.0.2.1/24, 2001:db8::1/64   ───   eth0 192.0.2.2/24, 2001:db8::2/64   peer
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import DEFAULT
from tests.lib.host import missing
from tests.lib.rkt import Rkt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

HOST = "192.0.2.1"
PEER = "192.0.2.2"
HOST6 = "2001:db8::1"
PEER6 = "2001:db8::2"
UPLINK = "uplink"
#: Where the distribution has its plugins.
PLUGINS = "/usr/lib/cni"

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_EMPTY_RULE = re.compile(
    r"\s*(table .*|chain (PREROUTING|INPUT|OUTPUT|FORWARD|POSTROUTING) \{|type .* hook .*|\}|)$"
)
_SCRIPT = """\
set -e
mount -t tmpfs -o mode=755 none "$1"
for d in run var/lib; do
  n="$1/$(echo "$d" | tr / -)"
  mkdir "$n" "$n.work"
  mount -t overlay -o "lowerdir=/$d,upperdir=$n,workdir=$n.work" none "/$d"
done
mkdir -p /run/netns /var/lib/cni
ip link set lo up
echo ready
exec cat
"""
_SERVER = """\
import socket, sys
server = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    client, address = server.accept()
    client.sendall(address[0].removeprefix("::ffff:").encode() + b"\\n")
    client.close()
"""
_CLIENT = """\
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as client:
    while data := client.recv(4096):
        sys.stdout.write(data.decode())
"""


def marks(*programs: str) -> list[pytest.MarkDecorator]:
    """What a module of tests with networks needs: root, plugins, and programs besides those that a host of its own takes."""
    absent = missing("nsenter", "unshare", "ip", *programs)
    return [
        pytest.mark.root,
        pytest.mark.skipif(bool(absent), reason=absent),
        pytest.mark.skipif(not os.path.exists(f"{PLUGINS}/bridge"), reason=f"no CNI plugins in {PLUGINS}"),
    ]


class Namespace:
    """Namespaces that live as long as a process that waits for the end of its input: they go with the test."""

    def __init__(self, words: Sequence[str], *, has_mounts: bool) -> None:
        self._kinds = ("--net", "--mount") if has_mounts else ("--net",)
        self._holder = subprocess.Popen(
            ["unshare", *self._kinds, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": _PATH},
        )
        assert self._holder.stdout is not None
        answer = self._holder.stdout.readline()
        if answer != b"ready\n":
            self.close()
            raise AssertionError("no namespaces for a host of the test's own")
        self.pid = self._holder.pid

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words before a command that is to run there."""
        return ("nsenter", f"--target={self.pid}", *self._kinds, "--wdns=/", "--")

    def run(self, *words: str, text: str | None = None, check: bool = True, timeout: float = 30) -> str:
        """Standard output of a command that is run there."""
        done = subprocess.run(
            [*self.prefix, *words],
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env={"PATH": _PATH},
        )
        assert not check or done.returncode == 0, f"{words}: status {done.returncode}\n{done.stderr}"
        return done.stdout

    def popen(self, *words: str) -> subprocess.Popen[str]:
        """A command that goes on there."""
        return subprocess.Popen(
            [*self.prefix, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": _PATH},
        )

    def serve(self, port: str) -> subprocess.Popen[str]:
        """A server there that tells each client the address that it sees of it."""
        server = self.popen(sys.executable, "-IS", "-c", _SERVER, port)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        return server

    def call(self, address: str, port: str) -> str:
        """What a server says to a caller from there; empty when there is none."""
        return self.run(sys.executable, "-IS", "-c", _CLIENT, address, port, check=False)

    def close(self) -> None:
        """Let the namespaces go."""
        self._holder.kill()
        self._holder.wait()
        for pipe in (self._holder.stdin, self._holder.stdout):
            if pipe is not None:
                pipe.close()


class NetHost(Namespace):
    """A host with a wire to another host; ``rkt`` makes engines that run on it.

    Attributes:
        peer: the other host.
        base: directory for what the host writes.
    """

    def __init__(self, base: str, flavor: str = DEFAULT) -> None:
        self.base = base
        self._flavor = flavor
        os.makedirs(f"{base}/changes")
        self._engines: list[Rkt] = []
        words = ["--propagation=private", "sh", "-c", _SCRIPT, "sh", f"{base}/changes"]
        super().__init__(words, has_mounts=True)
        try:
            self.peer = Namespace(["sh", "-c", "ip link set lo up; echo ready; exec cat"], has_mounts=False)
        except BaseException:
            self.close()
            raise
        self.ip(
            f"link add {UPLINK} type veth peer name eth0 netns {self.peer.pid}",
            f"addr add {HOST}/24 dev {UPLINK}",
            f"addr add {HOST6}/64 dev {UPLINK} nodad",
            f"link set {UPLINK} up",
        )
        self.peer.run(
            "ip",
            "-batch",
            "-",
            text=f"addr add {PEER}/24 dev eth0\naddr add {PEER6}/64 dev eth0 nodad\nlink set eth0 up\n",
        )
        self._before = self.state()

    def ip(self, *commands: str) -> None:
        """Change interfaces and addresses, all in one go, as ``ip -batch`` reads it."""
        self.run("ip", "-batch", "-", text="\n".join(commands) + "\n")

    def rkt(self, name: str = "engine") -> Rkt:
        """An engine that runs on this host."""
        engine = Rkt(os.path.join(self.base, name), prefix=self.prefix, flavor=self._flavor)
        self._engines.append(engine)
        return engine

    def state(self) -> dict[str, list[str]]:
        """What networks leave on a host: interfaces, names of namespaces, rules, addresses that are taken, names of pods."""
        script = (
            "ip -o link | sed 's/^[0-9]*: //; s/[@:].*//'; echo ==; ls /run/netns; echo ==; "
            "find /var/lib/cni -type f ! -name lock ! -name 'last_reserved_ip*'; echo ==; "
            "nft list ruleset; echo ==; grep ' /run/netns/' /proc/self/mountinfo; echo ==; "
            "find /run/rkt/names -type f ! -name .lock 2>/dev/null || true"
        )
        parts = self.run("sh", "-c", script).split("==\n")
        names = ("interfaces", "namespaces", "leases", "rules", "mounts", "names")
        found = {name: part.splitlines() for name, part in zip(names, parts, strict=True)}
        # Tables and chains that are there for whoever comes next say nothing.
        found["rules"] = [line for line in found["rules"] if not _EMPTY_RULE.match(line)]
        return found

    def leaks(self, *, but: Sequence[str] = ()) -> list[str]:
        """What is there now and was not at first.

        Args:
            but: interfaces that networks may leave, such as bridges.
        """
        now = self.state()
        return [
            f"{kind}: {line}"
            for kind, lines in now.items()
            for line in lines
            if line.strip() and line not in self._before[kind] and line not in but
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for engine in self._engines:
                engine.close()
        finally:
            self.peer.close()
            self.close()

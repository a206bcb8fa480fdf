# SPDX-License-Identifier: Apache-2.0
"""The host's rules for pods, between real network namespaces: a host, its pods on a bridge, a neighbour on a wire."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import uuid as uuids
from typing import TYPE_CHECKING

import pytest

from rkt.errors import PodError
from rkt.net import firewall, nft
from rkt.net.firewall import Endpoint
from rkt.net.ports import Forward, check_listeners
from tests.lib.netlab import Space, talk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

PORT = 8080
WEB = 80
HOST = "172.16.28.1"
LAN = "192.0.2.1"
LAN6 = "2001:db8::1"
NEIGHBOUR = "192.0.2.2"


class Lab:
    """One host, ``web`` and ``other`` on its bridge, ``neighbour`` on a wire of its own."""

    def __init__(self) -> None:
        self.host, self.web, self.other, self.neighbour = (Space() for _ in range(4))
        self.legacy = False
        self.host.ip("link add rkt0 type bridge")
        for address in (f"{HOST}/24", "fd28::1/64"):
            self.host.address("rkt0", address)
        self.host.ip("link set rkt0 up")
        for number, pod in ((2, self.web), (3, self.other)):
            self.host.veth(f"veth{number}", pod, "eth0", bridge="rkt0")
            self.host.ip(f"link set veth{number} type bridge_slave hairpin on")
            pod.address("eth0", f"172.16.28.{number}/24")
            pod.address("eth0", f"fd28::{number}/64")
            pod.ip("link set eth0 up")
            pod.ip(f"route add default via {HOST}")
            pod.ip("-6 route add default via fd28::1")
        self.host.veth("lan0", self.neighbour, "eth0", f"{LAN}/24", f"{LAN6}/64")
        self.neighbour.address("eth0", f"{NEIGHBOUR}/24")
        self.neighbour.address("eth0", "2001:db8::2/64")
        self.neighbour.ip("link set eth0 up")
        self.host.write("ipv4/ip_forward", "1")
        self.host.write("ipv6/conf/all/forwarding", "1")

    @contextlib.contextmanager
    def published(
        self, *forwards: Forward, uuid: str = "", number: int = 2, masquerade: bool = True
    ) -> Iterator[str]:
        """A pod's rules, as long as they are needed; they leave nothing."""
        uuid = uuid or str(uuids.uuid4())
        addresses = [f"172.16.28.{number}/24", f"fd28::{number}/64"]
        endpoint = Endpoint(addresses=addresses, masquerade=masquerade, links=[f"veth{number}"])
        with self.host.inside():
            firewall.install(uuid, [endpoint], forwards)
        try:
            yield uuid
        finally:
            with self.host.inside():
                firewall.remove(uuid)

    def close(self) -> None:
        """The end of all of it."""
        for space in (self.host, self.web, self.other, self.neighbour):
            space.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The namespaces, and a lock of this test's own."""
    directory = os.fspath(tmp_path_factory.mktemp("lock"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(firewall, "_LOCK_DIRECTORY", directory)
        patch.setattr(firewall, "_LOCK", f"{directory}/network.lock")
        lab = Lab()
        yield lab
        lab.close()


def state(lab: Lab) -> list[str]:
    """What rules of pods could change on a host."""
    return [
        lab.host.rules(),
        lab.host.read("ipv4/conf/rkt0/route_localnet"),
        lab.host.run("iptables-legacy", "-S") if lab.legacy else "",
    ]


@pytest.fixture(autouse=True)
def _nothing_left(lab: Lab) -> Iterator[None]:
    """After each test the host's rules and settings are those of before."""
    before = state(lab)
    yield
    assert state(lab) == before


def forward(protocol: str = "tcp", host_ip: str = "", port: int = PORT) -> Forward:
    """A port of the host that leads to the web server."""
    return Forward(protocol=protocol, host_port=port, pod_port=WEB, host_ip=host_ip)


#: Who, by which address of the host, and whom the server sees.
WAYS = [
    pytest.param("host", "127.0.0.1", HOST, id="T9 loopback of the host"),
    pytest.param("host", HOST, HOST, id="T7 the host by its address on the bridge"),
    pytest.param("host", LAN, LAN, id="the host by another address"),
    pytest.param("host", LAN6, LAN6, id="the host, IPv6"),
    pytest.param("neighbour", LAN, NEIGHBOUR, id="another host, seen as itself"),
    pytest.param("neighbour", LAN6, "2001:db8::2", id="another host, seen as itself, IPv6"),
    pytest.param("other", HOST, HOST, id="another pod"),
    pytest.param("other", LAN, HOST, id="another pod by another address of the host"),
    pytest.param("other", "fd28::1", "fd28::1", id="another pod, IPv6"),
    pytest.param("web", HOST, HOST, id="the pod itself"),
    pytest.param("web", "fd28::1", "fd28::1", id="the pod itself, IPv6"),
]


@pytest.fixture(scope="class")
def servers(lab: Lab) -> Iterator[list[socket.socket]]:
    """Servers in a pod, and the ports of the host that lead to them."""
    protocols = ("tcp", "udp")
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(lab.web.serve(protocol, WEB)) for protocol in protocols]
        stack.enter_context(lab.published(*(forward(protocol) for protocol in protocols)))
        yield made


class TestReach:
    """One set of rules for all ways."""

    @pytest.mark.parametrize(("client", "address", "seen"), WAYS)
    def test_a_port_is_reached(
        self, lab: Lab, servers: list[socket.socket], client: str, address: str, seen: str
    ) -> None:
        """By TCP and UDP everybody reaches a port by any address; the server sees the true client where the answer can pass."""
        for server in servers:
            assert talk(getattr(lab, client), address, PORT, server) == seen

    def test_ipv6_loopback_refuses_at_once(self, lab: Lab, servers: list[socket.socket]) -> None:
        """Who asks ::1 first is told at once that nobody listens there, and goes on with 127.0.0.1."""
        assert servers
        with lab.host.inside():
            client = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        with client:
            client.settimeout(30)
            with pytest.raises(ConnectionRefusedError):
                client.connect(("::1", PORT))


@pytest.mark.parametrize(
    ("host_ip", "reached"),
    [
        pytest.param(HOST, {HOST}, id="T8 the bridge"),
        pytest.param("127.0.0.1", {"127.0.0.1"}, id="loopback"),
        pytest.param(LAN6, {LAN6}, id="IPv6"),
        pytest.param("0.0.0.0", {HOST, "127.0.0.1", LAN}, id="all of IPv4"),
        pytest.param("::", {LAN6}, id="all of IPv6"),
    ],
)
def test_a_bound_port_is_reached_there_only(lab: Lab, host_ip: str, reached: set[str]) -> None:
    """NT4: a port that is bound to an address answers at that address and at no other."""
    with lab.web.serve("tcp", WEB) as server, lab.published(forward(host_ip=host_ip)):
        for address in (HOST, "127.0.0.1", LAN, LAN6):
            assert bool(talk(lab.host, address, PORT, server, expected=address in reached)) == (
                address in reached
            ), address


def test_only_what_is_for_the_host_is_forwarded(lab: Lab) -> None:
    """NT4: a pod that asks another host's port is not led to a pod of ours that has the same (CVE-2019-9946)."""
    with (
        lab.neighbour.serve("tcp", PORT) as theirs,
        lab.web.serve("tcp", WEB) as ours,
        lab.published(forward()),
        lab.published(number=3),
    ):
        assert talk(lab.other, NEIGHBOUR, PORT, theirs) == LAN
        assert talk(lab.host, NEIGHBOUR, PORT, theirs) == LAN
        assert talk(lab.host, LAN, PORT, ours) == LAN


@contextlib.contextmanager
def towards_loopback(space: Space, gateway: str) -> Iterator[None]:
    """Have somebody send packets for 127.0.0.1 to a gateway, as only root of a pod or of a neighbour can."""
    space.ip("addr del 127.0.0.1/8 dev lo")
    space.ip(f"route add 127.0.0.1/32 via {gateway} dev eth0")
    space.write("ipv4/conf/eth0/route_localnet", "1")
    try:
        yield
    finally:
        space.write("ipv4/conf/eth0/route_localnet", "0")
        space.ip("route del 127.0.0.1/32 dev eth0")
        space.ip("addr add 127.0.0.1/8 dev lo")


def test_neighbours_do_not_reach_the_loopback_of_the_host(lab: Lab) -> None:
    """NT3: that 127.0.0.1 leads to a pod lets nobody on the bridge reach services on it (CVE-2020-8558)."""
    with lab.host.serve("tcp", 9999, "127.0.0.1") as service, lab.published(forward()) as uuid:
        assert lab.host.read("ipv4/conf/rkt0/route_localnet") == "1"
        with towards_loopback(lab.other, HOST):
            where = ("127.0.0.1", 9999, service)
            assert talk(lab.other, *where, expected=False, source="172.16.28.3") is None
            # So that it is this rule which keeps them out.
            lab.host.run("nft", "flush", "chain", "inet", "rkt", "arriving")
            assert talk(lab.other, *where, source="172.16.28.3") == "172.16.28.3"
        assert uuid


def test_a_port_on_loopback_is_not_reached_by_neighbours(lab: Lab) -> None:
    """NT4: a packet for 127.0.0.1 from outside is not led to the pod whose port is bound to it."""
    with lab.web.serve("tcp", WEB) as server, lab.published(forward(host_ip="127.0.0.1")):
        for space, gateway, source in ((lab.neighbour, LAN, NEIGHBOUR), (lab.other, HOST, "172.16.28.3")):
            with towards_loopback(space, gateway):
                assert talk(space, "127.0.0.1", PORT, server, expected=False, source=source) is None
        assert talk(lab.host, "127.0.0.1", PORT, server) == HOST


def test_the_loopback_setting_stays_when_it_was_the_operators(lab: Lab) -> None:
    """An interface that carried loopback addresses before there were pods goes on doing so."""
    lab.host.write("ipv4/conf/rkt0/route_localnet", "1")
    try:
        with lab.published(forward()):
            pass
        assert lab.host.read("ipv4/conf/rkt0/route_localnet") == "1"
    finally:
        lab.host.write("ipv4/conf/rkt0/route_localnet", "0")


def test_masquerading_is_for_the_pod_alone(lab: Lab) -> None:
    """NT3: what a pod sends out has the host's address; what the host or a neighbour sends keeps its own."""
    with lab.neighbour.serve("tcp", 99) as far, lab.web.serve("tcp", WEB) as near, lab.published():
        assert talk(lab.web, NEIGHBOUR, 99, far) == LAN
        assert talk(lab.web, "2001:db8::2", 99, far) == LAN6
        assert talk(lab.other, "172.16.28.2", WEB, near) == "172.16.28.3"
        assert talk(lab.host, NEIGHBOUR, 99, far) == LAN
        with lab.other.serve("tcp", 99) as pod:
            assert talk(lab.web, "172.16.28.3", 99, pod) == "172.16.28.2"


def test_pods_with_alike_names_do_not_meet(lab: Lab) -> None:
    """The rules of two pods whose UUIDs differ in the last digit only come and go by themselves."""
    one, two = (f"11111111-2222-4333-8444-55555555555{digit}" for digit in "12")
    with lab.web.serve("tcp", WEB) as server, lab.published(forward(), uuid=one):
        before = state(lab)
        with lab.published(forward(port=8081), uuid=two, number=3):
            assert state(lab) != before
        assert state(lab) == before
        assert talk(lab.neighbour, LAN, PORT, server) == NEIGHBOUR


def test_rules_are_removed_twice(lab: Lab) -> None:
    """Taking back is exact and may be done again, also for a pod that never had any rules."""
    with lab.published(forward()) as uuid, lab.host.inside():
        firewall.remove(uuid)
        firewall.remove(uuid)
        firewall.remove(str(uuids.uuid4()))


@pytest.mark.parametrize(
    ("first", "second", "meets"),
    [
        ("", "", True),
        ("", LAN, True),
        (LAN, "", True),
        ("0.0.0.0", LAN, True),
        (LAN, HOST, False),
        ("0.0.0.0", "::", False),
        (LAN6, "::", True),
    ],
)
def test_a_port_has_one_pod(lab: Lab, first: str, second: str, meets: bool) -> None:
    """NT4: a port that leads to a pod is refused to another one, whichever address overlaps; then nothing has changed."""
    with lab.published(forward(host_ip=first)) as uuid:
        before = state(lab)
        if meets:
            with (
                pytest.raises(PodError, match=f"is forwarded to pod {uuid} already"),
                lab.published(forward(host_ip=second), number=3),
            ):
                pass
        else:
            with lab.published(forward(host_ip=second), number=3):
                pass
        assert state(lab) == before


def test_each_change_looks_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Putting rules in force and taking them back are two runs of nft each: one that looks, one that changes all at once."""
    scripts: list[str] = []
    run = nft.run

    def counted(script: str, *, netns_fd: int = -1) -> list[dict[str, Any]]:
        scripts.append(script)
        return run(script, netns_fd=netns_fd)

    monkeypatch.setattr(nft, "run", counted)
    with lab.published(forward(port=8081), number=3), lab.published(forward()):
        pass
    assert len(scripts) == 8
    assert sum(script.startswith("list ") for script in scripts) == 4


FIREWALLS = {
    "iptables": (["iptables-nft", "-P", "FORWARD", "DROP"], ["nft", "delete", "table", "ip", "filter"]),
    "iptables-legacy": (
        ["iptables-legacy", "-P", "FORWARD", "DROP"],
        ["iptables-legacy", "-P", "FORWARD", "ACCEPT"],
    ),
    "nftables": (
        [
            "nft",
            "add table inet own ; add chain inet own gate { type filter hook forward priority 0 ; policy drop ; }",
        ],
        ["nft", "delete", "table", "inet", "own"],
    ),
}


@pytest.mark.parametrize("kind", FIREWALLS)
def test_a_closed_firewall_lets_pods_through(lab: Lab, kind: str) -> None:
    """Where policy drops what is forwarded, ports are reached and pods reach out all the same, and nobody else does."""
    close, reopen = FIREWALLS[kind]
    lab.legacy = kind == "iptables-legacy"
    lab.host.run(*close)
    try:
        before = state(lab)
        with lab.web.serve("tcp", WEB) as server, lab.neighbour.serve("tcp", 99) as far:
            with lab.published(forward()):
                assert talk(lab.neighbour, LAN, PORT, server) == NEIGHBOUR
                assert talk(lab.other, LAN, PORT, server) == HOST
                assert talk(lab.web, NEIGHBOUR, 99, far) == LAN
                # A pod that is not ours, and a port of ours that is not published.
                assert talk(lab.other, NEIGHBOUR, 99, far, expected=False) is None
            assert state(lab) == before
    finally:
        lab.host.run(*reopen)
        lab.legacy = False


def _router_advertisement() -> bytes:
    # RFC 4861: type, code, checksum (the kernel's), hop limit, flags, lifetime of 1800 s, two timers.
    return struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)


def test_a_pod_is_no_router(lab: Lab) -> None:
    """NT1: a router advertisement that a pod sends reaches neither the host nor other pods (CVE-2020-13401, CVE-2020-10749)."""

    def announce(sender: Space) -> bool:
        with lab.web.inside():
            listener = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        with sender.inside():
            raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
            index = socket.if_nametoindex("eth0")
        with listener, raw:
            listener.settimeout(0.3)
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            raw.sendto(_router_advertisement(), ("ff02::1", 0, 0, index))
            try:
                while listener.recv(256)[0] != 134:
                    pass
            except TimeoutError:
                return False
            return True

    assert announce(lab.other)
    with lab.published(number=3):
        assert not announce(lab.other)
        for interface in ("rkt0", "veth3"):
            assert lab.host.read(f"ipv6/conf/{interface}/accept_ra") == "0"
    assert "default" not in lab.host.ip("-6 route")


def test_what_the_host_listens_on_is_seen(lab: Lab) -> None:
    """NT4: a port on which a program of the host listens is refused, at the addresses that it has."""
    with lab.host.serve("tcp", 7001, LAN), lab.host.serve("udp", 7002), lab.host.inside():
        for wanted, taken in (
            (forward(port=7001), True),
            (forward(port=7001, host_ip=LAN), True),
            (forward(port=7001, host_ip=HOST), False),
            (forward(port=7001, host_ip=LAN6), False),
            (forward("udp", port=7001), False),
            (forward("udp", port=7002, host_ip=HOST), True),
            (forward("udp", port=7002, host_ip="::"), True),
        ):
            if taken:
                with pytest.raises(PodError, match="a program of the host listens on"):
                    check_listeners([wanted])
            else:
                check_listeners([wanted])


def test_an_address_that_the_pod_lacks(lab: Lab) -> None:
    """A port at an address of IPv6 is refused for a pod that has none, rather than silently left out."""
    endpoint = Endpoint(addresses=["172.16.28.2/24"])
    with lab.host.inside(), pytest.raises(PodError, match="the pod has no IPv6 address"):
        firewall.install(str(uuids.uuid4()), [endpoint], [forward(host_ip=LAN6)])

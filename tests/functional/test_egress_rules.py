# SPDX-License-Identifier: Apache-2.0
"""Egress rules between real network namespaces: a pod, and a world with several addresses."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.net import egress
from tests.lib.netlab import Space, talk

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

POD = "192.0.2.9"
NEAR = "192.0.2.1"
FAR = "198.51.100.1"
NEAR6 = "2001:db8::1"
FAR6 = "2001:db8:1::1"
PLACES = (NEAR, FAR, NEAR6, FAR6)
NAMES = {"near.example": [NEAR, NEAR6]}


@pytest.fixture(scope="module")
def spaces() -> Iterator[tuple[Space, Space]]:
    """A pod, and the world that it is wired to."""
    pod, world = Space(), Space()
    world.veth("wire", pod, "eth0", f"{NEAR}/24", f"{NEAR6}/64")
    for address in (f"{POD}/24", "2001:db8::9/64"):
        pod.address("eth0", address)
    pod.ip("link set eth0 up")
    pod.ip(f"route add default via {NEAR}")
    pod.ip(f"-6 route add default via {NEAR6}")
    for address in (f"{FAR}/32", f"{FAR6}/128"):
        world.address("lo", address)
    yield pod, world
    pod.close()
    world.close()


@pytest.mark.parametrize(
    ("text", "reached"),
    [
        ("deny", set()),
        ("allow", set(PLACES)),
        (f"allow:{NEAR},deny", {NEAR}),
        ("allow:192.0.2.0/24", {NEAR}),
        ("allow:2001:db8::/64,deny", {NEAR6}),
        ("allow:[2001:db8::]/32:80/tcp,deny", {NEAR6, FAR6}),
        (f"allow:{NEAR}:80/tcp,allow:{FAR}:81/tcp,deny", {NEAR}),
        (f"allow:{NEAR}:80/udp,allow:{FAR}:79-81,deny", {FAR}),
        ("allow:near.example:80,deny", {NEAR, NEAR6}),
        (f"deny:{FAR}", {NEAR, NEAR6, FAR6}),
        (f"deny:{NEAR},allow:192.0.2.0/24,deny", set()),
        (f"deny:{NEAR}:80/tcp,allow", {FAR, NEAR6, FAR6}),
    ],
)
def test_a_pod_reaches_what_its_rules_say(spaces: tuple[Space, Space], text: str, reached: set[str]) -> None:
    """A pod connects to what is allowed, and is told at once that it may not connect to the rest."""
    pod, world = spaces
    egress.install(egress.parse([text]), NAMES, [], pod.fd)
    with world.serve("tcp", 80) as server:
        for address in PLACES:
            seen = talk(pod, address, 80, server, expected=address in reached)
            assert (seen is not None) == (address in reached), address
        # Those who come to the pod are answered, whatever it may begin.
        with pod.serve("tcp", 80) as own:
            assert talk(world, POD, 80, own) == NEAR
            assert talk(pod, "127.0.0.1", 80, own) == "127.0.0.1"


def test_names_need_the_name_servers(spaces: tuple[Space, Space]) -> None:
    """Where a name is allowed the pod's name servers answer its questions, and do nothing else for it."""
    pod, world = spaces
    servers = egress.name_servers(f"# one\nsearch example\nnameserver {FAR}\nnameserver bad\n")
    assert servers == [FAR]
    egress.install(egress.parse(["allow:near.example,deny"]), NAMES, servers, pod.fd)
    with world.serve("udp", 53, FAR) as resolver, world.serve("udp", 54, FAR) as other:
        assert talk(pod, FAR, 53, resolver) == POD
        assert talk(pod, FAR, 54, other, expected=False) is None

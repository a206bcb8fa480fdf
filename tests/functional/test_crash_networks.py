# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of rkt at random moments while networks of pods are set up and taken back: one gc leaves the host as it was (issue 8, invariant NT7)."""

from __future__ import annotations

import json
import os
import random
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.images import fetch
from tests.lib.nethost import NetHost, marks
from tests.lib.pace import rounds
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [*marks("nft", "iptables"), pods("networks")]
#: ``RKT_TEST_NETWORK_KILLS=100`` is what is run by hand before a release.
KILLS = int(os.environ.get("RKT_TEST_NETWORK_KILLS", "0")) or rounds(16, at_least=10)
#: Printed when a test fails, so that its moments can be had again.
SEED = int(os.environ.get("RKT_TEST_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
INSECURE = "--insecure-options=image"
#: What stays for the next pod.
BRIDGES = ("rkt0",)
#: A chain whose second plugin writes rules by iptables, on a link of its own.
CHAIN = {
    "cniVersion": "1.0.0",
    "name": "chain",
    "plugins": [
        {
            "type": "ptp",
            "ipMasq": True,
            "ipam": {"type": "host-local", "subnet": "11.11.7.0/24"},
        },
        {"type": "firewall", "backend": "iptables"},
    ],
}


@pytest.fixture
def host(flavor: str) -> Iterator[NetHost]:
    """A host where what is forwarded is dropped unless somebody accepts it, as docker has it."""
    with tempfile.TemporaryDirectory(prefix="rkt-test-") as base, NetHost(f"{base}/host", flavor) as made:
        made.run("iptables", "-P", "FORWARD", "DROP")
        yield made


#: What pods join in turn.
NETS = ("default,chain", "default", "chain")


def words(image: str, net: str, port: int) -> list[str]:
    """A pod with networks, ports and egress rules that ends at once."""
    flags = [f"--net={net}", f"--port={port}:80", "--egress=allow:192.0.2.2,deny"]
    return ["run", INSECURE, *flags, image, "--exec=/bin/true"]


@pytest.mark.timeout(600)
def test_killed_set_ups(host: NetHost, images: Images) -> None:
    """After pods that were killed at any moment of setting networks up, between two plugins or while they are taken back, one gc leaves namespaces, links, rules and leases exactly as before."""
    rkt = host.rkt()
    os.makedirs(f"{rkt.local}/net.d", mode=0o755)
    with open(f"{rkt.local}/net.d/10-chain.conflist", "w", encoding="ascii") as stream:
        json.dump(CHAIN, stream)
    image = fetch(rkt, images.busybox())
    # What the first pod leaves for all others, such as the bridge and chains of plugins, is there before.
    rkt.run(*words(image, NETS[0], 20000), check=0)
    whole = {net: measure(rkt, words(image, net, 20000)) for net in NETS}
    rkt.run("gc", "--grace-period=0", check=0)
    before = host.state()
    moments = random.Random(SEED)
    killed = 0
    for number in range(KILLS):
        net = NETS[number % len(NETS)]
        process = rkt.popen(*words(image, net, 20001 + number))
        seconds = moments.uniform(0.15, 1) * whole[net]
        time.sleep(seconds)
        if process.poll() is None:
            killed += 1
        else:
            # Too late: the machine was busier when it was measured.
            whole[net] = seconds
        process.kill()
        process.wait(20)
    wait_for(lambda: is_over(rkt), "end of the killed pods")
    left = sorted({leak.partition(":")[0] for leak in host.leaks(but=BRIDGES)})
    print(f"seed {SEED}: {killed} of {KILLS} killed, {len(rkt.pods())} pods, left {left}")
    for _ in range(3):
        process = rkt.popen("gc", "--grace-period=0")
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        process.wait(20)
    wait_for(lambda: is_over(rkt), "end of what the killed gc had started")
    collected = rkt.run("gc", "--grace-period=0", "--expire-prepared=0", check=0)
    assert rkt.pods() == {}, collected
    assert host.state() == before, (SEED, collected)
    assert killed >= KILLS // 4, "the moments were too late to mean anything"
    # Not only right because nothing ever happened.
    assert left


def measure(rkt: Rkt, command: list[str]) -> float:
    """Seconds that one undisturbed command takes."""
    begun = time.monotonic()
    rkt.run(*command, check=0)
    return time.monotonic() - begun


def is_over(rkt: Rkt) -> bool:
    """Whether no pod lives; a plugin that was at work ends by itself and keeps its pod until then."""
    return "\trunning\t" not in rkt.run("list", check=0).stdout

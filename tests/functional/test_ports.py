# SPDX-License-Identifier: Apache-2.0
"""Ports and egress rules of real pods, on a host of the test's own (spec runtime §4.6, §6.5); the rules' own tests are beside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.host import missing
from tests.lib.images import fetch
from tests.lib.nethost import HOST, PEER, NetHost
from tests.lib.netlab import Space, talk
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from tests.lib.images import Images
    from tests.lib.rkt import Result

NEEDED = ("nsenter", "unshare", "ip", "nft")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing(*NEEDED)), reason=missing(*NEEDED)),
    pytest.mark.skipif(not os.path.exists("/usr/lib/cni/bridge"), reason="no CNI plugins in /usr/lib/cni"),
    pods("networks"),
]
INSECURE = "--insecure-options=image"
PORT = 8080
#: Address of the host on the network, by the network.
GATEWAYS = {"default": "172.16.28.1", "custom": "11.11.5.1"}
BRIDGES = ("rkt0", "customs")


class Pod:
    """One that runs, with its namespace."""

    def __init__(self, uuid: str, space: Space) -> None:
        self.uuid = uuid
        self.space = space


class Lab:
    """A host, its neighbour, and an engine whose pods wait until they are stopped."""

    def __init__(self, base: str, images: Images, flavor: str) -> None:
        self.host = NetHost(f"{base}/host", flavor)
        self.rkt = self.host.rkt()
        self.image = fetch(
            self.rkt,
            images.busybox(file="ports", app={"ports": [{"name": "http", "port": 80, "protocol": "tcp"}]}),
        )
        self.here, self.there = Space.of(self.host.pid), Space.of(self.host.peer.pid)
        os.makedirs(f"{self.rkt.local}/net.d", mode=0o755)
        custom: dict[str, Any] = {
            "cniVersion": "0.4.0",
            "name": "custom",
            "type": "bridge",
            "bridge": "customs",
            "isGateway": True,
            "hairpinMode": True,
            "ipMasq": True,
            "ipam": {"type": "host-local", "subnet": "11.11.5.0/24", "routes": [{"dst": "0.0.0.0/0"}]},
        }
        with open(f"{self.rkt.local}/net.d/10-custom.conf", "w", encoding="utf-8") as stream:
            json.dump(custom, stream)

    def words(self, *flags: str, script: str = "sleep 1000") -> list[str]:
        """The command line of a pod."""
        return [INSECURE, *flags, self.image, "--exec=/bin/sh", "--", "-c", script]

    def refused(self, *flags: str) -> Result:
        """A pod that must not come to be."""
        before = self.rkt.pods()
        done = self.rkt.run("run", *self.words(*flags), check=254)
        assert self.rkt.pods() == before
        return done

    @contextlib.contextmanager
    def pod(self, *flags: str, command: str = "run") -> Iterator[Pod]:
        """One that runs as long as it is needed, and leaves nothing."""
        known = set(self.rkt.pods("run")) if command != "start" else set()
        words = self.words(*flags) if command == "run" else [*flags]
        process = self.rkt.popen(*command.split(), *words)

        def uuid() -> str | None:
            assert process.poll() is None, process.stderr_text
            for each in self.rkt.pods("run"):
                if each not in known and self.rkt.run("wait", "--ready", "--timeout=10s", each).status == 0:
                    return each
            return None

        found = wait_for(uuid, "a running pod")
        with open(f"{self.rkt.pod_path(found)}/pid", encoding="ascii") as stream:
            space = Space.of(int(stream.read()))
        try:
            yield Pod(found, space)
        finally:
            space.close()
            self.rkt.run("stop", "--force", found, check=0)
            process.wait()

    def close(self) -> None:
        """Stop everything; what is left on the host is an error."""
        self.rkt.stop_everything()
        leaks = self.host.leaks(but=BRIDGES)
        self.here.close()
        self.there.close()
        self.host.__exit__(None, None, None)
        assert not leaks, "\n".join(leaks)


@pytest.fixture(scope="module")
def lab(images: Images, flavor: str) -> Iterator[Lab]:
    """One host for all of this file."""
    with tempfile.TemporaryDirectory(prefix="rkt-test-") as base:
        made = Lab(base, images, flavor)
        try:
            yield made
        finally:
            made.close()


@pytest.mark.parametrize(
    ("net", "host_port"),
    [
        pytest.param("default", 80, id="T7 T9 the same port"),
        pytest.param("default", PORT, id="T7 T9 another port"),
        pytest.param("custom", PORT, id="T10 a bridge of the operator's"),
    ],
)
def test_a_port_by_name(lab: Lab, net: str, host_port: int) -> None:
    """A port of the image, by its name, answers at the network's gateway, at 127.0.0.1, and to other hosts and pods (runtime T7, T9, T10)."""
    gateway = GATEWAYS[net]
    with lab.pod(f"--net={net}", f"--port=http:{host_port}") as pod, pod.space.serve("tcp", 80) as server:
        assert talk(lab.here, gateway, host_port, server) == gateway
        assert talk(lab.here, "127.0.0.1", host_port, server) == gateway
        assert talk(lab.there, HOST, host_port, server) == PEER
        assert talk(pod.space, gateway, host_port, server) == gateway
        if net == "custom":
            # Another pod may not have it, and one that is started later is refused before it exists.
            taken = f"port tcp-0.0.0.0:{host_port} is forwarded to pod {pod.uuid} already"
            assert taken in lab.refused("--net=default", f"--port={host_port}:81").stderr
    assert lab.host.leaks(but=BRIDGES) == []
    assert lab.here.read("ipv4/conf/all/route_localnet") == "0"


@pytest.mark.parametrize("net", GATEWAYS)
def test_a_bound_port(lab: Lab, net: str) -> None:
    """A port that is bound to the gateway does not answer at 127.0.0.1 (runtime T8, T10; invariant NT4)."""
    gateway = GATEWAYS[net]
    flags = (f"--net={net}", f"--port=http:{gateway}:{PORT}", "--port=5353:53/udp")
    with (
        lab.pod(*flags) as pod,
        pod.space.serve("tcp", 80) as server,
        pod.space.serve("udp", 53) as resolver,
    ):
        assert talk(lab.here, gateway, PORT, server) == gateway
        assert talk(lab.here, "127.0.0.1", PORT, server, expected=False) is None
        assert talk(lab.there, HOST, 5353, resolver) == PEER


def test_ports_of_a_sandbox(lab: Lab) -> None:
    """A pod without apps says its ports itself; they are in the pod manifest, and answer."""
    flags = ("--net=default", f"--port=web:tcp:80:0.0.0.0:{PORT}", f"--port={PORT}:81/udp")
    with lab.pod(*flags, command="app sandbox") as pod, pod.space.serve("tcp", 80) as server:
        assert talk(lab.there, HOST, PORT, server) == PEER
        manifest = json.loads(lab.rkt.run("cat-manifest", pod.uuid, check=0).stdout)
        assert [(port["name"], port["podPort"]["port"]) for port in manifest["ports"]] == [
            ("web", 80),
            ("81-udp", 81),
        ]


def test_ports_that_are_refused(lab: Lab) -> None:
    """What cannot be had is refused before there is a pod: an unknown name, one port twice, one on which the host listens (NT4)."""
    with lab.here.serve("tcp", PORT):
        for flags, message in (
            ([f"--port={PORT}:80"], f"port tcp-0.0.0.0:{PORT} is in use: a program of the host listens on"),
            (["--port=www:81"], 'port name "www" could not be found in any apps'),
            (["--port=http:81", "--port=81:82"], "port tcp-0.0.0.0:81 already mapped to pod port 80"),
            (["--egress=allow:nobody knows"], "--egress"),
        ):
            assert message in lab.refused("--net=default", *flags).stderr
    for net in ("none", "host"):
        for flag in ("--port=http:81", "--egress=deny"):
            assert f"flag does not work with '{net}' networking" in lab.refused(f"--net={net}", flag).stderr


def test_egress_rules(lab: Lab) -> None:
    """A pod with rules reaches what they allow and nothing else, also when it is started again; status and explain show them."""
    rules = f"allow:{PEER}:{PORT}/tcp,deny"
    flags = ("--net=default", f"--egress={rules}", "--port=http:80")
    with lab.there.serve("tcp", PORT) as allowed, lab.there.serve("tcp", PORT + 1) as denied:

        def check(pod: Pod) -> None:
            assert talk(pod.space, PEER, PORT, allowed) == HOST
            assert talk(pod.space, PEER, PORT + 1, denied, expected=False) is None
            with pod.space.serve("tcp", 80) as server:
                assert talk(lab.there, HOST, 80, server) == PEER

        with lab.pod(*flags) as pod:
            check(pod)
            assert f"egress={rules}" in lab.rkt.run("status", pod.uuid, check=0).lines
            explained = json.loads(
                lab.rkt.run("explain", "--format=json", f"--pod={pod.uuid}", check=0).stdout
            )
            assert explained["pod"]["egress"] == rules.split(",")
            uuid = pod.uuid
        with lab.pod(uuid, command="start") as pod:
            check(pod)


def test_a_killed_pod_leaves_its_port_to_gc(lab: Lab) -> None:
    """NT7: what a pod whose engine was killed left of rules goes with rkt gc, by its UUID, and its port is free again."""
    flags = ("--net=default", f"--port=http:{PORT}")
    process = lab.rkt.popen("run", *lab.words(*flags))
    held = wait_for(lambda: f"tcp . {PORT} comment" in lab.here.rules(), "the pod's rules")
    assert held
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    lab.rkt.run("gc", "--grace-period=0s", check=0)
    assert lab.host.leaks(but=BRIDGES) == []
    with lab.pod(*flags) as pod, pod.space.serve("tcp", 80) as server:
        assert talk(lab.there, HOST, PORT, server) == PEER


def test_who_could_lift_egress_rules_is_told(lab: Lab) -> None:
    """Apps of a pod cannot change its egress rules; an operator who gives them CAP_NET_ADMIN is told what that means."""
    uuid = lab.rkt.run("prepare", "--egress=deny", *lab.words(), check=0)
    assert "warning" not in uuid.stderr
    strong = lab.rkt.run(
        "prepare",
        INSECURE,
        "--egress=deny",
        lab.image,
        "--exec=/bin/true",
        "--caps-retain=CAP_NET_ADMIN",
        check=0,
    )
    assert "has CAP_NET_ADMIN, by which it can get around the egress rules" in strong.stderr
    lab.rkt.run("rm", uuid.lines[-1], strong.lines[-1], check=0)


def test_a_pod_has_no_raw_or_packet_sockets(lab: Lab) -> None:
    """NT2: an app has neither CAP_NET_RAW nor CAP_NET_ADMIN, nor packet sockets: no other pod's address can be had by a false ARP."""
    script = "grep CapBnd /proc/self/status; arping -c1 -w1 -I eth0 172.16.28.1; echo arping $?; ping -c1 -W1 172.16.28.1; ip link set eth0 down; echo link $?"
    done = lab.rkt.run("run", "--net=default", *lab.words(script=script), check=0)
    bounding = int(next(line for line in done.lines if "CapBnd" in line).split()[-1], 16)
    assert not bounding & (1 << 12 | 1 << 13)
    assert not any(line.endswith(("arping 0", "link 0")) for line in done.lines)


def test_the_pod_ignores_router_advertisements(lab: Lab) -> None:
    """NT1: no link of a pod, and none of the host's towards pods, takes a route from who calls itself a router."""
    with lab.pod("--net=default") as pod:
        assert pod.space.read("ipv6/conf/eth0/accept_ra") == "0"
        assert lab.here.read("ipv6/conf/rkt0/accept_ra") == "0"
        ends = [line.split(":")[1].split("@")[0].strip() for line in lab.here.ip("-o link").splitlines()]
        for end in ends:
            if end.startswith("veth"):
                assert lab.here.read(f"ipv6/conf/{end}/accept_ra") == "0"
                assert f'"{end}"' in lab.here.rules()

# SPDX-License-Identifier: Apache-2.0
"""A web server in a pod behind networks of many kinds: the distribution's plugins, and others' (spec runtime §4, §6.5)."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.nethost import HOST, HOST6, PEER, PEER6, UPLINK, marks
from tests.lib.netlab import PATIENCE_SECONDS, Space
from tests.lib.netpods import PodLab
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from tests.lib.images import Images
    from tests.lib.nethost import Namespace
    from tests.lib.rkt import Running

pytestmark = [*marks("tc", "iptables"), pods("networks")]
#: A port of the host.
PORT = "8080"
GATEWAY = "172.16.28.1"
SERVE = "busybox httpd -f -h /www"
#: Says whom the server sees.
WHO = b"#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n%s\\n' \"$REMOTE_ADDR\"\n"
BRIDGES = ("rkt0", "testbr", "outerbr")


class Lab(PodLab):
    """With an image of a web server."""

    def __init__(self, base: str, images: Images, flavor: str) -> None:
        ports = [{"name": "http", "port": 80, "protocol": "tcp"}]
        files: dict[str, bytes | tuple[bytes, int]] = {"www/cgi-bin/who": (WHO, 0o755)}
        super().__init__(base, images.busybox("example.com/web", files=files, app={"ports": ports}), flavor)

    @contextlib.contextmanager
    def pod(self, net: str, *flags: str, script: str = SERVE) -> Iterator[tuple[str, Running]]:
        """A pod, with a web server unless it has another script, as long as it is needed."""
        uuid, process = self.start(net, script, *flags)
        try:
            yield uuid, process
        finally:
            self.stop(uuid, process)

    def seen(self, where: Namespace, address: str, port: str = "80") -> str:
        """Whom the server sees when somebody asks it; waits until it is there."""
        return _address(wait_for(lambda: _get(where, address, int(port)), f"an answer of {address}"))


def _get(where: Namespace, address: str, port: int) -> str:
    """What a web server says, empty while there is none."""
    space = Space.of(where.pid)
    try:
        with space.inside():
            client = socket.create_connection((address, port), PATIENCE_SECONDS)
        with client, client.makefile("rb") as stream:
            client.sendall(b"GET /cgi-bin/who HTTP/1.0\r\n\r\n")
            return stream.read().partition(b"\r\n\r\n")[2].decode()
    except OSError:
        return ""
    finally:
        space.close()


def _address(text: str) -> str:
    """An address as people write it, of what the server puts into the environment."""
    return text.strip().strip("[]").removeprefix("::ffff:")


@pytest.fixture(scope="module")
def lab(images: Images, flavor: str) -> Iterator[Lab]:
    """One host for all of this file."""
    with tempfile.TemporaryDirectory(prefix="rkt-test-") as base:
        made = Lab(base, images, flavor)
        try:
            yield made
        finally:
            made.close(but=BRIDGES)


def test_a_web_server_is_reached_by_everybody(lab: Lab) -> None:
    """A web server in a pod is reached from the host's loopback, from another host and from another pod by name; it sees who asks, but for the host's loopback, which cannot be answered (runtime T4, T7, T9)."""
    with lab.pod("default", "--name=web", f"--port=http:{PORT}"):
        assert lab.seen(lab.host, "127.0.0.1", PORT) == GATEWAY
        assert lab.seen(lab.host, GATEWAY, PORT) == GATEWAY
        assert lab.seen(lab.host.peer, HOST, PORT) == PEER
        script = f"for i in web {HOST}:{PORT}; do wget -q -O - http://$i/cgi-bin/who; done"
        by_name, by_host = lab.sh("default:IP=172.16.28.77", script).lines
        # A pod that asks by the host's port gets its answer through the host.
        assert (_address(by_name), _address(by_host)) == ("172.16.28.77", GATEWAY)
    assert lab.host.leaks(but=BRIDGES) == []


def test_the_hosts_network_and_none(lab: Lab) -> None:
    """With --net=host a pod is in the host's namespace, where its server answers on loopback; with --net=none it has loopback and nothing else (runtime T1, T2, T3)."""
    names = "readlink /proc/self/ns/net; grep -o '[a-z0-9]*:' /proc/self/net/dev"
    with lab.pod("host", script=f"{names}; {SERVE} -p 127.0.0.1:{PORT}") as (uuid, process):
        assert lab.seen(lab.host, "127.0.0.1", PORT) == "127.0.0.1"
        hosts = lab.host.run("sh", "-c", names).splitlines()
        assert f"{UPLINK}:" in hosts
        assert process.stdout_text.splitlines() == hosts
        # Nothing is recorded, because nothing is to be taken back.
        assert not {"netns", "net-info.json", "net"}.intersection(os.listdir(lab.rkt.pod_path(uuid)))
    namespace, *links = lab.sh("none", names).lines
    assert namespace != hosts[0]
    assert links == ["lo:"]


def test_a_chain_of_the_distributions_plugins(lab: Lab) -> None:
    """Static addresses of both families, bandwidth, tuning, firewall and portmap in one list: each does its part, also where the host drops what is forwarded, and takes it back."""
    addresses = [
        {"address": "11.11.6.9/24", "gateway": "11.11.6.1"},
        {"address": "fd11:6::9/64", "gateway": "fd11:6::1"},
    ]
    lab.chain(
        "web",
        {
            "type": "bridge",
            "bridge": "testbr",
            "isGateway": True,
            "ipam": {
                "type": "static",
                "addresses": addresses,
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
            "dns": {"nameservers": ["11.11.6.53"], "search": ["lab.example"]},
        },
        {"type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 800_000},
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "77"}, "mac": "c2:11:22:33:44:55"},
        {"type": "firewall", "backend": "iptables"},
        {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
    )
    lab.host.run("iptables", "-P", "FORWARD", "DROP")
    try:
        look = "cat /proc/sys/net/core/somaxconn /sys/class/net/eth0/address; grep -v '^#' /etc/resolv.conf"
        with lab.pod("web", f"--port=http:{PORT}", script=f"{look}; {SERVE}") as (uuid, process):
            assert lab.seen(lab.host.peer, HOST, PORT) == PEER
            assert lab.seen(lab.host, "127.0.0.1", PORT) == "11.11.6.1"
            lab.host.peer.run("ip", "-6", "route", "replace", "fd11:6::/64", "via", HOST6)
            assert lab.seen(lab.host.peer, "fd11:6::9") == PEER6
            assert process.stdout_text.split() == [
                "77",
                "c2:11:22:33:44:55",
                *("search", "lab.example"),
                *("nameserver", "11.11.6.53"),
            ]
            (network,) = lab.status(uuid)["networks"]
            assert network["ips"] == ["11.11.6.9/24", "fd11:6::9/64"]
            assert "tbf" in lab.host.run("tc", "qdisc", "show")
            assert "-s 11.11.6.9/32 " in lab.host.run("iptables", "-S")
            assert "--to-destination 11.11.6.9:80" in lab.host.run("iptables", "-t", "nat", "-S")
        assert not _of_pods(lab, "11.11.6.9", "fd11:6::9")
    finally:
        lab.host.run("iptables", "-P", "FORWARD", "ACCEPT")


def _of_pods(lab: Lab, *addresses: str) -> list[str]:
    """What a pod left; the chains that the plugins have for all of theirs stay, as they do with every engine."""
    script = "iptables-save; ip6tables-save"
    rules = lab.host.run("sh", "-c", script).splitlines()
    left = [line for line in rules if any(each in line for each in addresses)]
    lab.host.run(
        "sh",
        "-c",
        "for i in iptables ip6tables; do for t in filter nat; do $i -t $t -F; $i -t $t -X; done; done",
    )
    return left + lab.host.leaks(but=BRIDGES)


@pytest.fixture
def _ipvlan(lab: Lab) -> None:
    probe = subprocess.run(
        [*lab.host.prefix, "ip", "link", "add", "link", UPLINK, "name", "probe", "type", "ipvlan"],
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode:
        pytest.skip(f"the kernel has no ipvlan: {probe.stderr.strip()}")
    lab.host.ip("link del probe")


@pytest.mark.usefixtures("_ipvlan")
@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_ipvlan(lab: Lab, mode: str) -> None:
    """On ipvlan, whose interfaces share the host's hardware address, one pod reaches another; other hosts are reached on layer 2."""
    ipam = {"type": "host-local", "subnet": "192.0.2.0/24", "rangeStart": "192.0.2.40"}
    lab.define("shared", "ipvlan", master=UPLINK, mode=mode, ipam=ipam)
    with lab.pod("shared:IP=192.0.2.44"):
        script = "until wget -q -O - http://192.0.2.44/cgi-bin/who; do sleep 0.02; done"
        assert _address(lab.sh("shared:IP=192.0.2.45", script).stdout) == "192.0.2.45"
        if mode == "l2":
            assert lab.seen(lab.host.peer, "192.0.2.44") == PEER
    assert lab.host.leaks(but=BRIDGES) == []


#: Calls another plugin as plugins do.
_DELEGATE = """\
import ipaddress, json, os, subprocess, sys
config = json.load(sys.stdin)
command, netns, name = (os.environ["CNI_" + each] for each in ("COMMAND", "NETNS", "IFNAME"))

def delegate(kind, config):
    places = [directory + "/" + kind for directory in os.environ["CNI_PATH"].split(":")]
    path = next(place for place in places if os.path.isfile(place))
    done = subprocess.run([path], input=json.dumps(config).encode(), stdout=subprocess.PIPE)
    if done.returncode:
        sys.stdout.buffer.write(done.stdout)
        sys.exit(1)
    return done.stdout
"""

#: As flannel's: the configuration of another plugin is made of a file that a daemon has written.
FLANNEL = (
    _DELEGATE
    + """
with open(config["subnetFile"]) as stream:
    values = dict(line.strip().split("=", 1) for line in stream)
sys.stdout.buffer.write(delegate("bridge", {
    "cniVersion": config["cniVersion"],
    "isGateway": True,
    "ipMasq": values["FLANNEL_IPMASQ"] != "true",
    "mtu": int(values["FLANNEL_MTU"]),
    **config["delegate"],
    "name": config["name"],
    "ipam": {
        "type": "host-local",
        "subnet": str(ipaddress.ip_interface(values["FLANNEL_SUBNET"]).network),
        "routes": [{"dst": values["FLANNEL_NETWORK"]}],
    },
}))
"""
)
SUBNET = """\
FLANNEL_NETWORK=11.11.0.0/16
FLANNEL_SUBNET=11.11.7.1/24
FLANNEL_MTU=1472
FLANNEL_IPMASQ=true
"""


def test_a_plugin_that_calls_another(lab: Lab) -> None:
    """A plugin in the manner of flannel's, which has bridge do the work with what its daemon wrote down, gives a pod MTU and default gateway; all is known by the outer network's name (runtime T18)."""
    path = f"{lab.rkt.base}/subnet.env"
    with open(path, "w", encoding="ascii") as stream:
        stream.write(SUBNET)
    lab.python_plugin("flannel", FLANNEL)
    lab.define("outer", "flannel", subnetFile=path, delegate={"bridge": "outerbr", "isDefaultGateway": True})
    with lab.pod("outer", script="ip route; cat /sys/class/net/eth0/mtu; sleep 30") as (uuid, process):
        shown = wait_for(
            lambda: process.stdout_text if "1472" in process.stdout_text else "", "routes and MTU"
        )
        assert "default via 11.11.7.1 dev eth0" in shown
        assert "11.11.0.0/16 via 11.11.7.1 dev eth0" in shown
        (network,) = lab.status(uuid)["networks"]
        assert network["netName"] == "outer"
        assert network["ip"].startswith("11.11.7.")
    assert lab.host.leaks(but=BRIDGES) == []


#: As Calico's: a pair of interfaces without a bridge, an address without a subnet, a router that is not there.
DATAPATH = (
    _DELEGATE
    + """
def ip(*commands):
    for words in commands:
        subprocess.run(["ip", *words.split()], check=True, stdout=sys.stderr)

host_end = "cali" + os.environ["CNI_CONTAINERID"][:8]
if command == "ADD":
    result = json.loads(delegate(config["ipam"]["type"], config))
    address = result["ips"][0]["address"]
    pod = os.path.basename(netns)
    ip(
        f"link add {host_end} address ee:ee:ee:ee:ee:ee type veth peer name {name} netns {pod}",
        f"-n {pod} addr add {address} dev {name}",
        f"-n {pod} link set {name} up",
        f"link set {host_end} up",
        f"-n {pod} route add 169.254.1.1 dev {name} scope link",
        f"-n {pod} route add default via 169.254.1.1",
        f"-n {pod} neigh add 169.254.1.1 dev {name} lladdr ee:ee:ee:ee:ee:ee nud permanent",
        f"route add {address} dev {host_end}",
    )
    with open("/proc/sys/net/ipv4/ip_forward", "w") as stream:
        stream.write("1")
    json.dump({
        "cniVersion": config["cniVersion"],
        "interfaces": [{"name": host_end}, {"name": name, "sandbox": netns}],
        "ips": [{"version": "4", "address": address, "interface": 1}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
    }, sys.stdout)
elif command == "DEL":
    # It may be gone already, with the namespace at its other end.
    subprocess.run(["ip", "link", "del", host_end], stderr=subprocess.DEVNULL)
    delegate(config["ipam"]["type"], config)
"""
)
ADDRESSES = """\
import json, os, sys
config = json.load(sys.stdin)
owner = os.environ["CNI_CONTAINERID"]
directory = "/var/lib/cni/blocks"
os.makedirs(directory, exist_ok=True)
if os.environ["CNI_COMMAND"] == "ADD":
    for number in range(1, 63):
        try:
            with open(f"{directory}/10.65.0.{number}", "x") as stream:
                stream.write(owner)
        except FileExistsError:
            continue
        ips = [{"version": "4", "address": f"10.65.0.{number}/32"}]
        json.dump({"cniVersion": config["cniVersion"], "ips": ips}, sys.stdout)
        break
elif os.environ["CNI_COMMAND"] == "DEL":
    for name in os.listdir(directory):
        with open(f"{directory}/{name}") as stream:
            if stream.read() == owner:
                os.unlink(f"{directory}/{name}")
"""


def test_networks_of_third_parties(lab: Lab) -> None:
    """A list in the manner of Calico's, with addresses and a datapath of its own before portmap and bandwidth: pods reach each other by routes alone, other hosts a port, and the server sees them."""
    lab.python_plugin("routed", DATAPATH)
    lab.python_plugin("routed-ipam", ADDRESSES)
    own: dict[str, Any] = {"type": "routed", "ipam": {"type": "routed-ipam"}, "policy": {"type": "k8s"}}
    lab.chain(
        "k8s-pod-network",
        own,
        {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        {
            "type": "bandwidth",
            "capabilities": {"bandwidth": True},
            "ingressRate": 8_000_000,
            "ingressBurst": 800_000,
        },
        version="0.3.1",
    )
    with lab.pod("k8s-pod-network", f"--port=http:{PORT}", "--name=web") as (uuid, _):
        assert lab.address(uuid) == "10.65.0.1"
        assert lab.seen(lab.host.peer, HOST, PORT) == PEER
        assert "tbf" in lab.host.run("tc", "qdisc", "show", "dev", f"cali{uuid[:8]}")
        shown = lab.sh("k8s-pod-network", "ip route; wget -q -O - http://web/cgi-bin/who").lines
        assert shown[0].startswith("default via 169.254.1.1 dev eth0")
        assert _address(shown[-1]) == "10.65.0.2"
    assert not _of_pods(lab, "10.65.0.")

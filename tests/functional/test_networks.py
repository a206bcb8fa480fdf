# SPDX-License-Identifier: Apache-2.0
"""Networks of pods, with the plugins of the distribution, on a host of the test's own (spec runtime §4, §6.5)."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.images import fetch
from tests.lib.nethost import HOST, PEER, UPLINK, marks
from tests.lib.netpods import INSECURE, PodLab
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from tests.lib.images import Images

pytestmark = [*marks(), pods("networks")]
PORT = "8080"
#: What networks leave on a host for the next pod.
BRIDGES = ("rkt0", "rkt1", "testbr")


class Lab(PodLab):
    """With servers that say who has called them."""

    def __init__(self, base: str, images: Images, flavor: str) -> None:
        super().__init__(base, images.busybox(), flavor)
        self.servers = [place.serve(PORT) for place in (self.host, self.host.peer)]

    def finish(self) -> None:
        """Stop everything; what is left on the host is an error."""
        for server in self.servers:
            server.kill()
            server.communicate()
        self.close(but=BRIDGES)


@pytest.fixture(scope="module")
def lab(images: Images, flavor: str) -> Iterator[Lab]:
    """One host for all of this file."""
    with tempfile.TemporaryDirectory(prefix="rkt-test-") as base:
        made = Lab(base, images, flavor)
        try:
            yield made
        finally:
            made.finish()


def test_the_default_network_reaches_out(lab: Lab) -> None:
    """A pod has a namespace with one interface and an address of its own; host and strangers answer it, the latter see the host (runtime T4, T5, T15)."""
    script = f"readlink /proc/self/ns/net; ip -o -4 addr show eth0; nc {HOST} {PORT}; nc {PEER} {PORT}; ls /sys/class/net"
    shown = lab.sh("default:IP=172.16.28.123", script).lines
    assert shown[0] != lab.host.run("readlink", "/proc/self/ns/net").strip()
    assert " 172.16.28.123/24 " in shown[1]
    # The host is seen by its own, the peer sees the host for the pod.
    assert shown[2:] == ["172.16.28.123", HOST, "eth0", "lo"]
    assert lab.host.leaks(but=BRIDGES) == []


def test_a_pod_is_served_shown_and_killed(lab: Lab) -> None:
    """The host reaches a pod by the address that list and status show; when the engine is killed, gc takes all of it back (runtime T6, security NT7)."""
    uuid, process = lab.start(
        "default-restricted:IP=172.31.42.42,default", f"nc -l -p {PORT} -e echo hello; sleep 30"
    )
    (row,) = [line for line in lab.rkt.run("list", "--no-legend", check=0).lines if line.startswith(uuid[:8])]
    assert row.endswith(f"default-restricted:ip4=172.31.42.42, default:ip4={lab.address(uuid, 1)}")
    assert f"networks={row.rpartition(chr(9))[2]}\n" in lab.rkt.run("status", uuid, check=0).stdout
    assert wait_for(lambda: lab.host.call("172.31.42.42", PORT), "an answer of the app") == "hello\n"
    # What others on the host have to do with networks finds the pod's by name.
    names = lab.host.run("nsenter", f"--net=/run/netns/rkt-{uuid}", "ls", "/proc/self/net/dev_snmp6").split()
    assert set(names) >= {"eth0", "eth1", "lo"}
    process.kill()
    process.wait(10)
    assert f"namespaces: rkt-{uuid}" in lab.host.leaks(but=BRIDGES)
    lab.rkt.run("gc", "--grace-period=0", check=0)
    assert lab.host.leaks(but=BRIDGES) == []


def test_an_address_is_given_once(lab: Lab) -> None:
    """A second pod that wants a taken address fails and leaves nothing; the first one stops cleanly and gives it back (runtime T16)."""
    _, process = lab.start("default:IP=172.16.28.98", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
    result = lab.sh("default:IP=172.16.28.98", "true", check=254)
    assert "requested IP address 172.16.28.98 is not available" in result.stderr
    assert 'stage1: failed to setup network: network "default": plugin "bridge" failed (ADD)' in result.stderr
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    # Released with the pod, not with its directory.
    assert lab.sh("default:IP=172.16.28.98", "true").status == 0
    assert lab.host.leaks(but=BRIDGES) == []


def test_a_forced_stop_releases_networks_too(lab: Lab) -> None:
    """What a killed supervisor cannot do any more the command does that killed it."""
    uuid, _ = lab.start("default", "sleep 30")
    lab.rkt.run("stop", "--force", uuid, check=0)
    assert lab.host.leaks(but=BRIDGES) == []


IPAM = {"type": "host-local", "subnet": "11.11.5.0/24"}
ROUTED = {**IPAM, "routes": [{"dst": "0.0.0.0/0"}]}


@pytest.mark.parametrize(
    ("name", "members"),
    [
        (
            "bridged",
            {"type": "bridge", "bridge": "testbr", "isGateway": True, "ipMasq": True, "ipam": ROUTED},
        ),
        (
            "ptp-network-with-a-name-of-fifty-four-characters-long1",
            {"type": "ptp", "ipMasq": True, "ipam": ROUTED},
        ),
        ("on-the-wire", {"type": "macvlan", "master": UPLINK, "ipam": IPAM}),
    ],
    ids=["T13-bridge", "T11-T17-ptp", "T12-T14-macvlan"],
)
def test_pods_of_a_network_reach_each_other(lab: Lab, name: str, members: dict[str, Any]) -> None:
    """With bridge, ptp and macvlan one pod reaches another, by the address asked for; with masquerading also strangers, as the host (runtime T11, T12, T13, T14, T17)."""
    lab.define(name, **{"kind": members["type"], **{key: members[key] for key in members if key != "type"}})
    uuid, process = lab.start(f"{name}:IP=11.11.5.44", f"nc -l -p {PORT} -e hostname")
    script = f"until nc 11.11.5.44 {PORT}; do sleep 0.02; done"
    if members.get("ipMasq"):
        script += f"; nc {PEER} {PORT}"
    shown = lab.sh(name, script).lines
    assert shown == [f"rkt-{uuid}", *([HOST] if members.get("ipMasq") else [])]
    assert process.wait(20) == 0
    assert lab.host.leaks(but=BRIDGES) == []


#: Writes down how it is called, and knows names and an address without asking anybody, as a plugin with its own address
#: management does.
RECORDER = """\
set -e
cat >>{log}.in
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS $CNI_PATH $CNI_VERSION" >>{log}
test "$CNI_COMMAND" != ADD || {{
  ip -n rkt-"$CNI_CONTAINERID" link add "$CNI_IFNAME" type veth peer name other
  echo '{{"ip4": {{"ip": "11.11.3.7/24", "gateway": "11.11.3.1"}}, "dns": {{"nameservers": ["1.2.3.4"], "domain": "example.net"}}}}'
}}
test "$CNI_COMMAND" != DEL || ip -n rkt-"$CNI_CONTAINERID" link del "$CNI_IFNAME"
"""


def test_a_plugin_of_somebody_elses(lab: Lab) -> None:
    """A plugin from net.d reads its file byte for byte, is called as CNI has it, and its name servers are the pod's unless --dns says otherwise (runtime T20, T21, T22, T23, T24)."""
    log = f"{lab.rkt.base}/recorder"
    lab.plugin("recorder", RECORDER.format(log=log))
    with open(f"{lab.net_d}/30-recorded.conf", "w", encoding="utf-8") as stream:
        stream.write('{ "name":"recorded",\n\t"type": "recorder" }\n')
    resolver = "cat /etc/resolv.conf; ls /sys/class/net"
    shown = lab.sh("recorded", resolver)
    assert shown.lines == [
        "# Generated by rkt from network recorded",
        "",
        "nameserver 1.2.3.4",
        "domain example.net",
        "eth0",
        "lo",
        "other",
    ]
    with (
        open(f"{log}.in", encoding="utf-8") as stream,
        open(f"{lab.net_d}/30-recorded.conf", encoding="utf-8") as own,
    ):
        assert stream.read().startswith(own.read())
    with open(log, encoding="utf-8") as stream:
        add, delete = (line.split() for line in stream)
    uuid = add[1]
    assert add[0] == "ADD"
    assert add[2:4] == ["eth0", f"/run/netns/rkt-{uuid}"]
    assert add[4].split(":")[:2] == [lab.net_d, "/usr/lib/rkt/plugins/net"]
    assert add[5] == "0.1.0"
    assert delete == ["DEL", *add[1:]]
    assert "nameserver 244.244.244.244" in lab.sh("recorded", resolver, "--dns=244.244.244.244").lines
    assert "No such file" in lab.sh("recorded", "cat /etc/resolv.conf", "--dns=none", check=1).stderr
    assert lab.host.leaks(but=BRIDGES) == []


def test_a_list_of_plugins_is_a_chain(lab: Lab) -> None:
    """Each plugin of a list gets what the one before it answered; when one refuses, all are told to take back what they did, and nothing is left."""
    bridge = {"type": "bridge", "bridge": "testbr", "isGateway": True, "ipam": IPAM}
    tuning = {"type": "tuning", "sysctl": {"net.ipv4.conf.all.log_martians": "1"}, "mtu": 1400}
    log = f"{lab.rkt.base}/refuser"
    lab.plugin(
        "refuser",
        f'echo "$CNI_COMMAND" >>{log}; cat >>{log}.in\ntest "$CNI_COMMAND" != ADD || {{ echo \'{{"code": 7, "msg": "not today"}}\'; exit 1; }}',
    )
    lab.write("10-chain.conflist", {"cniVersion": "1.0.0", "name": "chain", "plugins": [bridge, tuning]})
    lab.write(
        "10-broken.conflist",
        {"cniVersion": "1.0.0", "name": "broken", "plugins": [bridge, {"type": "refuser"}]},
    )
    shown = lab.sh("chain", "cat /proc/sys/net/ipv4/conf/all/log_martians /sys/class/net/eth0/mtu").lines
    assert shown == ["1", "1400"]
    refused = lab.sh("broken", "true", check=254).stderr
    assert 'failed to setup network: network "broken": plugin "refuser" failed (ADD): not today' in refused
    with open(log, encoding="utf-8") as stream:
        assert stream.read().split() == ["ADD", "DEL"]
    with open(f"{log}.in", encoding="utf-8") as stream:
        given = json.loads(stream.read().partition("}{")[0] + "}")
    assert (given["name"], given["cniVersion"]) == ("broken", "1.0.0")
    assert given["prevResult"]["ips"][0]["address"].startswith("11.11.5.")
    assert lab.host.leaks(but=BRIDGES) == []


def test_users_of_its_own_do_not_take_a_pods_network(lab: Lab) -> None:
    """A pod with --private-users has networks like any other; its namespace is its own users', so root there may change it and nothing of the host's."""
    script = f"cat /proc/self/uid_map; nc {HOST} {PORT}"
    lines = lab.sh("default:IP=172.16.28.77", script, "--private-users").lines
    assert lines[0].split()[1] != "0"
    assert lines[1:] == ["172.16.28.77"]
    assert lab.host.leaks(but=BRIDGES) == []


def test_without_a_flag_a_pod_has_the_default_network(lab: Lab, images: Images) -> None:
    """run, run-prepared and start without --net give a pod the network called default; without plugins the error says what to do (runtime T4)."""
    rkt = lab.host.rkt("usual")
    rkt.use_the_usual_network()
    image = fetch(rkt, images.busybox())
    uuid = rkt.run("prepare", INSECURE, image, "--exec=/bin/nc", "--", HOST, PORT, check=0).stdout.strip()
    assert rkt.run("run-prepared", uuid, check=0).stdout.startswith("172.16.28.")
    assert rkt.run("start", uuid, check=0).stdout.startswith("172.16.28.")
    os.makedirs(f"{rkt.local}/net.d", mode=0o755)
    with open(f"{rkt.local}/net.d/default.conf", "w", encoding="ascii") as stream:
        stream.write('{"name": "default", "type": "no-such-plugin"}')
    before = rkt.pods()
    refused = rkt.run("run", INSECURE, image, check=254).stderr
    assert 'could not find plugin "no-such-plugin"' in refused
    assert "hint: install the CNI plugins" in refused
    assert "--net=none" in refused
    assert rkt.pods() == before
    assert lab.host.leaks(but=BRIDGES) == []

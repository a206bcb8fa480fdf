# SPDX-License-Identifier: Apache-2.0
"""``rkt net list``, ``check`` and ``gc``, on a host of the test's own."""

from __future__ import annotations

import json
import os
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.images import fetch
from tests.lib.nethost import NetHost, marks
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Rkt, Running

pytestmark = [*marks("nft", "iptables"), pods("networks")]
INSECURE = "--insecure-options=image"
BRIDGES = ("rkt0",)
#: Somebody else's plugin of CNI 1.1.0, which may be told to refuse, and keeps what GC tells it.
FUSSY = """\
test ! -e {base}/refuse-"$CNI_COMMAND" || {{ echo '{{"code": 7, "msg": "not today"}}'; exit 1; }}
case "$CNI_COMMAND" in
  ADD) echo '{{"cniVersion": "1.1.0", "ips": []}}' ;;
  GC) cat >{base}/told ;;
esac
"""


class Site:
    """A host with two engines that share an image."""

    def __init__(self, base: str, images: Images, flavor: str) -> None:
        self.host = NetHost(f"{base}/host", flavor)
        self.rkt = self.host.rkt("one")
        self.other = self.host.rkt("two")
        self.images = {each.base: fetch(each, images.busybox()) for each in (self.rkt, self.other)}
        self.net_d = f"{self.rkt.local}/net.d"
        os.makedirs(self.net_d, mode=0o755)
        with open(f"{self.net_d}/fussy", "w", encoding="ascii") as stream:
            stream.write("#!/bin/sh\n" + FUSSY.format(base=base))
        os.chmod(f"{self.net_d}/fussy", 0o755)
        with open(f"{self.net_d}/50-own.conf", "w", encoding="ascii") as stream:
            json.dump({"cniVersion": "1.1.0", "name": "own", "type": "fussy"}, stream)
        self.base = base

    def start(self, net: str, *flags: str, rkt: Rkt | None = None) -> tuple[str, Running]:
        """A pod that goes on; its UUID."""
        engine = rkt or self.rkt
        known = set(engine.pods("run"))
        process = engine.popen(
            "run",
            INSECURE,
            f"--net={net}",
            *flags,
            self.images[engine.base],
            "--exec=/bin/sleep",
            "--",
            "600",
        )

        def uuid() -> str | None:
            assert process.poll() is None, process.stderr_text
            new = [each for each in engine.pods("run") if each not in known]
            return next((each for each in new if os.path.exists(f"{engine.pod_path(each)}/pid")), None)

        return wait_for(uuid, "a running pod"), process

    def kill(self, uuid: str, process: Running, rkt: Rkt | None = None) -> None:
        """The engine of a pod, and wait until nothing of it is at work."""
        process.kill()
        process.wait(20)
        row = f"{uuid[:8]}\t"

        def is_over() -> bool:
            lines = (rkt or self.rkt).run("list", "--no-legend", check=0).lines
            return all("\trunning\t" not in line for line in lines if line.startswith(row))

        wait_for(is_over, "end of a killed pod")

    def refuse(self, verb: str) -> str:
        """Have the plugin refuse; the file that says so."""
        path = f"{self.base}/refuse-{verb}"
        with open(path, "w", encoding="ascii"):
            return path

    def check(self, status: int) -> str:
        """What net check prints, on one line for each finding."""
        shown = json.loads(self.rkt.run("net", "check", "--format=json", check=status).stdout)
        assert shown["ok"] is (status == 0)
        return "\n".join(
            f"{each['state']} {each['about']}: {each['text']} [{each['hint']}]" for each in shown["findings"]
        )


@pytest.fixture(scope="module")
def site(images: Images, flavor: str) -> Iterator[Site]:
    """One host for all of this file; what is left on it is an error."""
    with tempfile.TemporaryDirectory(prefix="rkt-test-") as base:
        made = Site(base, images, flavor)
        try:
            yield made
            made.rkt.stop_everything()
            made.other.stop_everything()
            assert made.host.leaks(but=BRIDGES) == []
        finally:
            made.host.__exit__(None, None, None)


def test_networks_are_listed_with_their_pods(site: Site) -> None:
    """List shows every network in the order of set-up, its plugins, subnet and file, and running pods with their addresses; check compares these with what plugins made."""
    uuid, process = site.start("default:IP=172.16.28.70,own", "--name=shown")
    table = [line.split("\t") for line in site.rkt.run("net", "list", "--no-legend", check=0).lines]
    rows = {row[0]: [cell for cell in row if cell] for row in table}
    assert list(rows) == ["own", "default-restricted", "default"]
    stage1 = "stage1:etc/rkt/net.d/99-default.conf"
    assert rows["default"] == ["default", "bridge", "172.16.28.0/24", f"{uuid[:8]} 172.16.28.70/24", stage1]
    assert rows["own"] == ["own", "fussy", "-", uuid[:8], f"{site.net_d}/50-own.conf"]
    (default,) = [
        each
        for each in json.loads(site.rkt.run("net", "list", "--format=json", check=0).stdout)
        if each["name"] == "default"
    ]
    pod = {"uuid": uuid, "pod_name": "shown", "interface": "eth1", "ips": ["172.16.28.70/24"]}
    assert default == {
        "name": "default",
        "plugins": ["bridge"],
        "cni_version": "0.4.0",
        "subnets": ["172.16.28.0/24"],
        "masqueraded": True,
        "file": stage1,
        "pods": [pod],
    }
    assert f"ok pod {uuid[:8]}: eth1 in default: as its plugins made it []" in site.check(0)
    site.host.run("ip", "-n", f"rkt-{uuid}", "addr", "flush", "dev", "eth1")
    assert f"bad pod {uuid[:8]}: eth1: plugin" in site.check(3)
    site.kill(uuid, process)
    site.rkt.run("gc", "--grace-period=0", check=0)


def test_what_would_not_work_is_told_before(site: Site) -> None:
    """Check reads every file, not only up to the first bad one, finds plugins, and asks those of CNI 1.1.0 whether they are ready; status 3, and what to type."""
    refusal = site.refuse("STATUS")
    bad = {"30-broken.conf": "{", "31-lost.conf": '{"name": "lost", "type": "no-such-plugin"}'}
    bad["60-own.conf"] = '{"name": "own", "type": "fussy"}'
    for name, text in bad.items():
        with open(f"{site.net_d}/{name}", "w", encoding="ascii") as stream:
            stream.write(text)
    try:
        found = site.check(3)
        shown = site.rkt.run("net", "check", check=3).stdout
    finally:
        for name in bad:
            os.unlink(f"{site.net_d}/{name}")
        os.unlink(refusal)
    assert f'bad networks: network configuration "{site.net_d}/30-broken.conf" is not JSON' in found
    assert 'bad network lost: could not find plugin "no-such-plugin" [install the CNI plugins' in found
    assert 'bad network own: plugin "fussy" failed (STATUS): not today' in found
    assert f"note network own: {site.net_d}/60-own.conf does not count" in found
    assert "ok network default: " in found
    assert "\n! network lost" in shown
    assert "\nnext: install the CNI plugins" in shown
    assert "ok network own: " in site.check(0)


def test_gc_takes_back_what_is_dead_and_ours(site: Site) -> None:
    """Net gc takes back the networks of a killed pod and keeps the pod; running pods and those of another engine, dead or not, stay as they are, and plugins are told of all of them."""
    dead, dead_process = site.start("default:IP=172.16.28.71", "--port=18071:80")
    alive, alive_process = site.start("default:IP=172.16.28.72,own", "--port=18072:80")
    foreign, foreign_process = site.start("default:IP=172.16.28.73", rkt=site.other)
    site.kill(dead, dead_process)
    site.kill(foreign, foreign_process, site.other)
    found = site.check(3)
    assert f"bad pod {dead[:8]}: is over, and its networks are not taken back [rkt net gc]" in found
    assert f"note others: /run/netns/rkt-{foreign} is of a pod that is not in {site.rkt.data}" in found
    site.rkt.run("net", "gc", check=0)
    left = "\n".join(site.host.leaks(but=BRIDGES))
    assert dead not in left
    assert "172.16.28.71" not in left
    for uuid, address in ((alive, "72"), (foreign, "73")):
        assert f"namespaces: rkt-{uuid}" in left
        assert f"leases: /var/lib/cni/networks/default/172.16.28.{address}" in left
    assert site.rkt.pods()[dead] == "run"
    assert "ok pod" in site.check(0)
    with open(f"{site.base}/told", encoding="utf-8") as stream:
        told = json.load(stream)["cni.dev/valid-attachments"]
    assert {"containerID": alive, "ifname": "eth0"} in told
    assert {"containerID": foreign, "ifname": "eth0"} in told
    assert dead not in {each["containerID"] for each in told}
    site.kill(alive, alive_process)
    # The pod has to wait for its grace period, its networks do not.
    site.rkt.run("gc", check=0)
    assert site.rkt.pods()[alive] == "exited-garbage"
    assert alive not in "\n".join(site.host.leaks(but=BRIDGES))
    site.other.run("gc", "--grace-period=0", check=0)
    site.rkt.run("gc", "--grace-period=0", check=0)
    assert site.host.leaks(but=BRIDGES) == []


def test_what_a_plugin_refuses_is_tried_again(site: Site) -> None:
    """When a plugin cannot take an interface back, the pod may go; what is needed to try again stays, check tells of it, and a later gc succeeds."""
    refusal = site.refuse("DEL")
    uuid, process = site.start("own")
    site.kill(uuid, process)
    site.rkt.run("gc", "--grace-period=0", check=0)
    assert site.rkt.pods() == {}
    kept = f"{site.rkt.data}/net-left/{uuid}"
    assert os.listdir(kept) != []
    assert (
        f"bad pod {uuid[:8]}: is gone, and its networks could not be taken back [rkt net gc]" in site.check(3)
    )
    assert "not today" in site.rkt.run("net", "gc", check=254).stderr
    os.unlink(refusal)
    site.rkt.run("gc", check=0)
    assert not os.path.exists(kept)
    site.check(0)


def test_a_list_that_fails_late_leaves_no_rules(site: Site) -> None:
    """When the last plugin of a list refuses, those before it are told on DEL what had been made by then, without which firewall would leave its rules."""
    plugins = [
        {"type": "ptp", "ipMasq": True, "ipam": {"type": "host-local", "subnet": "11.11.8.0/24"}},
        {"type": "firewall", "backend": "iptables"},
        {"type": "fussy"},
    ]
    path = f"{site.net_d}/70-late.conflist"
    with open(path, "w", encoding="ascii") as stream:
        json.dump({"cniVersion": "1.0.0", "name": "late", "plugins": plugins}, stream)
    refusal = site.refuse("ADD")
    try:
        words = ("run", INSECURE, "--net=late", site.images[site.rkt.base], "--exec=/bin/true")
        assert 'plugin "fussy" failed (ADD): not today' in site.rkt.run(*words, check=254).stderr
        rules = site.host.run("nft", "list", "ruleset")
        assert "chain CNI-FORWARD" in rules
        assert "11.11.8." not in rules
    finally:
        os.unlink(refusal)
        os.unlink(path)
        # The chains themselves, which the plugin keeps for the next one.
        site.host.run("nft", "flush", "ruleset")

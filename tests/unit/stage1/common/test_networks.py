# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from rkt.net import config, setup
from rkt.net.config import Network
from rkt.net.results import Dns, Result
from rkt.net.setup import Attached, Plan
from rkt.schema.appc import PodManifest
from rkt.stage1.common import networks
from rkt.stage1.common.arguments import RunArguments
from rkt.stage1.common.pod import LoadedPod
from rkt.values import PodUUID

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def attached(name: str, *servers: str) -> Attached:
    """A network that was set up, with name servers."""
    network = Network(name=name, path=f"/{name}.conf", version=config.VERSIONS[-1], plugins=[], raw=b"")
    return Attached(network=network, interface="eth0", args="", result=Result(dns=Dns(servers=list(servers))))


def test_networks_are_told_once_that_another_speaks_of_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first network that says something about names is heard, and each later one is warned of once, however often it is asked."""
    said: list[str] = []
    found = [attached("quiet"), attached("first", "192.0.2.1"), attached("second", "192.0.2.2")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(networks, "say", said.append)
    monkeypatch.setattr(setup, "plan", lambda *_, **__: Plan(networks=[], search=[]))
    monkeypatch.setattr(setup, "quiet_ipv6", lambda: None)
    monkeypatch.setattr(setup, "attach", lambda *_, **__: found)
    monkeypatch.setattr(setup, "record", lambda *_: None)
    monkeypatch.setattr(setup, "describe", lambda *_: [])
    monkeypatch.setattr(networks, "HostView", lambda *_: nullcontext())
    uuid = PodUUID.parse("6f1e1f0c-0000-4000-8000-000000000001")
    pod = networks.Networks(RunArguments(uuid=uuid, networks=["all"]), -1)
    pod.attach(LoadedPod(manifest=PodManifest(apps=[]), apps=[]), -1)
    assert [pod.dns(), pod.dns()] == [("first", found[1].result.dns)] * 2
    assert said == ["warning: network second plugin specified DNS configuration, but DNS already supplied"]

# SPDX-License-Identifier: Apache-2.0
"""Answers of plugins, of every version, in one form and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rkt.errors import NetworkError
from rkt.net import results
from rkt.net.config import VERSIONS
from rkt.net.results import Address, Dns, Result, Route

RESULT = Result(
    interfaces=[{"name": "rkt0"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
    addresses=[
        Address(address="10.1.2.3", prefix=24, gateway="10.1.2.1", interface=1),
        Address(address="fd00::3", prefix=64, interface=1),
    ],
    routes=[Route(destination="0.0.0.0/0", gateway="10.1.2.1"), Route(destination="::/0")],
    dns=Dns(servers=["1.2.3.4"], domain="example.net", search=["example.net"], options=["rotate"]),
)


def parse(members: Any, version: str = "1.0.0") -> tuple[Result, dict[str, Any]]:
    """Read an answer, given as text or as an object."""
    raw = members if isinstance(members, str) else json.dumps(members)
    return results.parse(raw.encode(), version, what='plugin "p"')


@pytest.mark.parametrize("version", VERSIONS)
def test_a_result_survives_every_version(version: str) -> None:
    """What is written for a version is read as the same; before 0.3.0 there were no interfaces to keep."""
    written = results.render(RESULT, version)
    read, handed_on = parse(written, version)
    assert handed_on == written
    if version in {"0.1.0", "0.2.0"}:
        assert read.interfaces == []
        assert [each.replace(interface=1) for each in read.addresses] == RESULT.addresses
    else:
        assert read.replace(interfaces=RESULT.interfaces) == RESULT
        assert ("version" in written["ips"][0]) is (version < "1.0.0")
    assert (read.routes, read.dns) == (RESULT.routes, RESULT.dns)


def test_an_answer_of_another_version_is_converted() -> None:
    """The next plugin gets the version of its configuration, with what that can say; of the same version, all members."""
    _, handed_on = parse(results.render(RESULT, "0.2.0"), "1.0.0")
    assert handed_on["cniVersion"] == "1.0.0"
    assert handed_on["ips"][0] == {"address": "10.1.2.3/24", "gateway": "10.1.2.1"}
    _, handed_on = parse({"cniVersion": "1.1.0", "ips": [], "x-own": [1]}, "1.1.0")
    assert handed_on["x-own"] == [1]


def test_the_address_of_the_pod_is_not_that_of_the_host() -> None:
    """Addresses of interfaces outside the pod are not the pod's; IPv4 comes first."""
    members = {
        "interfaces": [{"name": "veth"}, {"name": "eth0", "sandbox": "/x"}],
        "ips": [
            {"address": "10.0.0.1/24", "interface": 0},
            {"address": "fd00::2/64", "interface": 1},
            {"address": "10.0.0.2/24", "interface": 1},
        ],
    }
    result, _ = parse(members)
    assert result.address is not None
    assert (result.address.cidr, result.address.mask) == ("10.0.0.2/24", "255.255.255.0")
    assert [each.address for each in result.own_addresses] == ["fd00::2", "10.0.0.2"]
    assert parse({})[0].address is None
    assert parse("")[0] == Result()


@pytest.mark.parametrize(
    ("prefix", "mask"), [(0, "0.0.0.0"), (8, "255.0.0.0"), (23, "255.255.254.0"), (32, "255.255.255.255")]
)
def test_masks(prefix: int, mask: str) -> None:
    """A prefix in dotted form."""
    assert Address(address="10.0.0.0", prefix=prefix).mask == mask


@pytest.mark.parametrize(
    "members",
    [
        [],
        "{",
        {"cniVersion": "9.0.0"},
        {"ips": {}},
        {"ips": [1]},
        {"ips": [{"address": "10.0.0.1"}]},
        {"ips": [{"address": "10.0.0.1/33"}]},
        {"ips": [{"address": "10.0.0.1/-1"}]},
        {"ips": [{"address": "here/24"}]},
        {"ips": [{"address": "10.0.0.1/24", "gateway": "x"}]},
        {"ips": [{"address": 7}]},
        {"ips": [{"address": "10.0.0.1/24"}] * 300},
        {"routes": [{"dst": "everywhere"}]},
        {"routes": [{"dst": "0.0.0.0/0", "gw": "x"}]},
        {"dns": {"nameservers": ["1.2.3.4\nnameserver 6.6.6.6"]}},
        {"dns": {"nameservers": ["dns.example.net"]}},
        {"dns": {"search": ["a b"]}},
        {"dns": {"domain": "a b"}},
        {"dns": {"options": "rotate"}},
        {"dns": []},
        {"interfaces": {}},
    ],
)
def test_what_is_no_result_is_refused(members: Any) -> None:
    """Text of a plugin becomes lines of files and words of tables: it is what it has to be, or an error names the plugin."""
    with pytest.raises(NetworkError, match=r'^answer of plugin "p"'):
        parse(members)

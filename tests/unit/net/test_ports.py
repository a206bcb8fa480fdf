# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.errors import InvalidManifest, PodError
from rkt.net import ports
from rkt.net.ports import Forward, forwards_of
from rkt.schema.appc import ExposedPort, Port
from rkt.values import ACName


def port(name: str, number: int, protocol: str = "tcp", count: int = 1) -> Port:
    """A port of an app."""
    return Port(name=ACName(name), protocol=protocol, port=number, count=count)


def exposed(name: str, number: int, host_ip: str = "", target: Port | None = None) -> ExposedPort:
    """A port of a pod."""
    return ExposedPort(name=ACName(name), host_port=number, host_ip=host_ip, pod_port=target)


APPS = [("web", [port("http", 80), port("dns", 53, "udp")]), ("db", [port("sql", 5432)])]


def test_ports_by_name_and_by_number() -> None:
    """A port leads to the app's port of that name, or to the number that it says itself."""
    found = forwards_of(
        [exposed("http", 8080), exposed("81-udp", 8080, target=port("81-udp", 81, "udp"))], APPS
    )
    assert found == [
        Forward(protocol="tcp", host_port=8080, pod_port=80, name="http"),
        Forward(protocol="udp", host_port=8080, pod_port=81, name="81-udp"),
    ]


def test_a_range_of_ports_is_forwarded_whole() -> None:
    """A port that stands for several leads to all of them, which rkt did for the first only."""
    found = forwards_of([exposed("rtp", 9000)], [("media", [port("rtp", 7000, "udp", 3)])])
    assert [(each.host_port, each.pod_port) for each in found] == [(9000, 7000), (9001, 7001), (9002, 7002)]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([exposed("www", 80)], 'port name "www" could not be found in any apps'),
        ([exposed("both", 80)], 'port name "both" defined multiple apps'),
        ([exposed("sctp", 80)], 'port "sctp" is of protocol "sctp"'),
        ([exposed("many", 65535)], "there are none after 65535"),
        ([exposed("http", 80, "::1")], "cannot be had at ::1"),
        ([exposed("http", 80), exposed("sql", 80)], "port tcp-0.0.0.0:80 already mapped to pod port 80"),
        (
            [exposed("http", 80, "192.0.2.1"), exposed("sql", 80)],
            "port tcp-0.0.0.0:80 already mapped to pod port 80",
        ),
        (
            [exposed("http", 80, "2001:db8::1"), exposed("sql", 80, "2001:DB8:0::1")],
            "port tcp-[2001:db8::1]:80 already mapped to pod port 80",
        ),
    ],
)
def test_ports_that_cannot_be_had(wanted: list[ExposedPort], message: str) -> None:
    """What is unknown, not unique, or wanted twice is refused in rkt's words."""
    apps = [
        *APPS,
        ("a", [port("both", 1), port("sctp", 2, "sctp"), port("many", 3, count=2)]),
        ("b", [port("both", 1)]),
    ]
    with pytest.raises(InvalidManifest) as caught:
        forwards_of(wanted, apps)
    assert message in str(caught.value)


def test_ports_that_do_not_meet() -> None:
    """The same number is had for two protocols, and for two addresses."""
    wanted = [
        exposed("http", 53, "192.0.2.1"),
        exposed("sql", 53, "192.0.2.2"),
        exposed("dns", 53),
        exposed("80-tcp", 53, "::", port("80-tcp", 80)),
    ]
    assert len(forwards_of(wanted, APPS)) == 4


def test_what_plugins_are_told() -> None:
    """A port in the form of the capability ``portMappings``."""
    assert Forward(protocol="udp", host_port=53, pod_port=5353, host_ip="192.0.2.1").to_json() == {
        "hostPort": 53,
        "containerPort": 5353,
        "protocol": "udp",
        "hostIP": "192.0.2.1",
    }


def test_every_address_of_a_port_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant NT4: of one port that is wanted at several addresses each is held against the host's listeners."""
    wanted = [
        Forward(protocol="tcp", host_port=80, pod_port=pod_port, host_ip=host_ip)
        for host_ip, pod_port in (("127.0.0.1", 80), ("192.0.2.1", 81))
    ]
    monkeypatch.setattr(ports, "listeners", lambda _: [("127.0.0.1", 80)])
    with pytest.raises(PodError, match=r"port tcp-127\.0\.0\.1:80 is in use"):
        ports.check_listeners(wanted)
    ports.check_listeners(wanted[1:])

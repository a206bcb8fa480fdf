# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.errors import UsageError
from rkt.linux.listening import Listening
from rkt.schema.activation import Expected, assign, expected
from rkt.schema.appc import App, ExposedPort, Port
from rkt.values import ACName

WEB = Expected(app="web", port="http", protocol="tcp", first=8080)


def socket(port: int, *, protocol: str = "tcp", address: str = "0.0.0.0") -> Listening:
    """A socket as it is passed."""
    return Listening(fd=3, name="web.socket", protocol=protocol, address=address, port=port)


def test_ports_are_expected_where_the_pod_exposes_them() -> None:
    """The number is the host's if the port is exposed, else the app's own; ports without the word are not expected."""
    ports = [
        Port(name=ACName("http"), protocol="tcp", port=8080, socket_activated=True),
        Port(name=ACName("range"), protocol="udp", port=53, count=3, socket_activated=True),
        Port(name=ACName("own"), protocol="tcp", port=1),
    ]
    app = App(exec=["/web"], user="0", group="0", ports=ports)
    exposed = [ExposedPort(name=ACName("http"), host_port=80, host_ip="::1")]
    assert expected([("web", app)], exposed) == [
        Expected(app="web", port="http", protocol="tcp", first=80, address="::1"),
        Expected(app="web", port="range", protocol="udp", first=53, count=3),
    ]


@pytest.mark.parametrize(
    ("wish", "given"),
    [
        (WEB, socket(8080)),
        (WEB.replace(count=3), socket(8082)),
        (WEB.replace(address="127.0.0.1"), socket(8080, address="127.0.0.1")),
        (WEB.replace(address="127.0.0.1"), socket(8080, address="::ffff:127.0.0.1")),
        (WEB.replace(address="0:0::1"), socket(8080, address="::1")),
        (WEB.replace(address="0.0.0.0"), socket(8080, address="10.0.0.1")),
        (WEB.replace(protocol="udp"), socket(8080, protocol="udp")),
    ],
)
def test_a_socket_is_its_apps(wish: Expected, given: Listening) -> None:
    """Protocol, number and, if one is given, address decide."""
    other = Expected(app="other", port="x", protocol="tcp", first=1)
    assert assign([given], [other, wish]) == [wish]


@pytest.mark.parametrize(
    ("wishes", "given", "reason"),
    [
        ([], socket(80), r"no app declares the socket .* 3 \(web.socket\) tcp 0.0.0.0:80; .* none"),
        ([WEB], socket(8081), r"0.0.0.0:8081; .* web: http tcp 8080"),
        ([WEB.replace(count=2)], socket(8080, protocol="udp"), "web: http tcp 8080-8081"),
        ([WEB], Listening(fd=3, name="x", protocol="a Unix socket"), r"3 \(x\), a Unix socket"),
        ([WEB, WEB.replace(app="db")], socket(8080), "declared by the apps web and db"),
        ([WEB.replace(address="127.0.0.1")], socket(8080, address="::1"), "another address .* 127.0.0.1"),
    ],
)
def test_a_socket_that_is_nobodys_is_refused(wishes: list[Expected], given: Listening, reason: str) -> None:
    """A socket that no app, or more than one, declares is refused with what it is and what there is."""
    with pytest.raises(UsageError, match=reason):
        assign([given], wishes)

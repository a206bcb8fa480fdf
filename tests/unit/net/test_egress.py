# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import pytest

from rkt.errors import HostError, UsageError
from rkt.net import egress
from rkt.net.egress import Rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("deny", Rule(action="deny")),
        ("allow", Rule(action="allow")),
        ("allow:192.0.2.1", Rule(action="allow", network="192.0.2.1/32")),
        ("deny:10.0.0.0/8", Rule(action="deny", network="10.0.0.0/8")),
        ("allow:2001:db8::/32", Rule(action="allow", network="2001:db8::/32")),
        (
            "allow:[2001:db8::1]:443",
            Rule(action="allow", network="2001:db8::1/128", first_port=443, last_port=443),
        ),
        (
            "allow:[2001:db8::]/32:443",
            Rule(action="allow", network="2001:db8::/32", first_port=443, last_port=443),
        ),
        (
            "allow:192.0.2.1:53/udp",
            Rule(action="allow", network="192.0.2.1/32", first_port=53, last_port=53, protocol="udp"),
        ),
        (
            "allow:example.com:8000-8010",
            Rule(action="allow", name="example.com", first_port=8000, last_port=8010),
        ),
        ("allow:registry", Rule(action="allow", name="registry")),
    ],
)
def test_a_rule(text: str, rule: Rule) -> None:
    """A rule names an address, a network or a host, perhaps a port; what is shown of it is the same rule."""
    assert egress.parse([text]) == [rule]
    assert str(rule) == text


def test_an_address_is_a_network() -> None:
    """An address stands for itself alone, a name in capitals for the name."""
    assert egress.parse(["allow:192.0.2.1", "allow:::1,allow:Example.COM."]) == [
        Rule(action="allow", network="192.0.2.1/32"),
        Rule(action="allow", network="::1/128"),
        Rule(action="allow", name="example.com"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "permit:192.0.2.1",
        "allow:",
        "allow:192.0.2.1/33",
        "allow:192.0.2.1/",
        "allow:192.0.2.1/24",
        "allow:192.0.2.256",
        "allow:1.2.3",
        "allow:192.0.2.1:0",
        "allow:192.0.2.1:65536",
        "allow:192.0.2.1:90-80",
        "allow:192.0.2.1:80/sctp",
        "allow:192.0.2.1:80/",
        "allow:[192.0.2.1]:80",
        "allow:[2001:db8::1:80",
        "allow:[2001:db8::1]80",
        "allow:2001:db8::g",
        "allow:ex ample.com",
        "allow:-x.com",
        "allow:example.com/24",
        'allow:x"; flush ruleset; "',
        "deny:example.com",
        "deny,allow:192.0.2.1",
        "allow,deny",
    ],
)
def test_a_rule_that_is_bad(text: str) -> None:
    """What is not understood, is no host, or could never count is refused, with an example."""
    with pytest.raises(UsageError, match="--egress"):
        egress.parse([text])


def test_what_no_rule_fits() -> None:
    """With something allowed the rest is denied; with something denied the rest is allowed; the last word says it outright."""
    for text, policy in (
        ("deny", "drop"),
        ("allow:192.0.2.1", "drop"),
        ("allow:192.0.2.1,deny", "drop"),
        ("deny:192.0.2.1", "accept"),
        ("deny:192.0.2.1,allow", "accept"),
        ("allow:192.0.2.1,allow", "accept"),
    ):
        assert f"policy {policy} ;" in egress.render(egress.parse([text]), {}, []), text


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that the host cannot look up is an error, not a rule that allows nothing."""
    monkeypatch.setattr(egress, "_ask", lambda _names, _fd: os._exit(0))
    with pytest.raises(HostError, match=r'finds no address for "nowhere\.invalid"'):
        egress.look_up(egress.parse(["allow:nowhere.invalid"]))


def test_a_name_is_looked_up_on_the_host() -> None:
    """What the host's hosts file says counts, in both families."""
    assert set(egress.look_up(egress.parse(["allow:localhost"]))["localhost"]) <= {"127.0.0.1", "::1"}

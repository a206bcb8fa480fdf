# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.cli.network_args import Dns, Network, parse_dns, parse_hosts, parse_nets
from rkt.errors import UsageError


def test_networks_add_up() -> None:
    """Lists and repetitions make one list in order, arguments kept as written."""
    assert parse_nets(["a:IP=10.1.2.3;X=1,b", "none"]) == [
        Network(name="a", args="IP=10.1.2.3;X=1"),
        Network(name="b"),
        Network(name="none"),
    ]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ([""], "netname must not be empty"),
        (["a,,b"], "netname must not be empty"),
        (["a", "a"], 'found duplicate netname "a"'),
        (["host:IP=1"], 'arguments are not supported by special netname "host"'),
        (["all:"], 'arguments are not supported by special netname "all"'),
        (["a:b:c"], 'network "a" provided with invalid arguments'),
    ],
)
def test_bad_networks_are_refused(values: list[str], error: str) -> None:
    """Each has rkt's message."""
    with pytest.raises(UsageError, match=error):
        parse_nets(values)


def test_dns_servers_add_up() -> None:
    """Comma lists and repetitions make one list; search, options and domain go along."""
    assert parse_dns(["8.8.8.8,::1", "8.8.4.4"], ["a"], ["debug"], "d") == Dns(
        servers=["8.8.8.8", "::1", "8.8.4.4"], search=["a"], options=["debug"], domain="d"
    )
    assert parse_dns(["host"], [], [], "") == Dns(mode="host")


@pytest.mark.parametrize(
    ("servers", "search", "error"),
    [
        (["host", "8.8.8.8"], [], "no other --dns options allowed when --dns=host is passed"),
        (["none"], ["x"], "Cannot call --dns-opt, --dns-search, or --dns-domain with --dns=none"),
        (["x"], [], "Invalid IP passed to --dns: x"),
        (["1.2.3"], [], "Invalid IP passed to --dns: 1.2.3"),
        ([], ["a\nnameserver 192.0.2.1"], "for --dns-search"),
        ([], [""], 'invalid value "" for --dns-search'),
        ([], ["two words"], "for --dns-search"),
    ],
)
def test_bad_dns_is_refused(servers: list[str], search: list[str], error: str) -> None:
    """Each has rkt's message."""
    with pytest.raises(UsageError, match=error):
        parse_dns(servers, search, [], "")


def test_hosts_entries_accumulate() -> None:
    """Several names per address add up; host may be said twice."""
    assert parse_hosts(["1.2.3.4=a,1.2.3.4=b", "::1=c"]).entries == {"1.2.3.4": ["a", "b"], "::1": ["c"]}
    assert parse_hosts(["host", "host"]).use_host


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (["host", "1.2.3.4=a"], "cannot pass --hosts-entry=host with multiple hosts-entries"),
        (["a"], "Did not understand --hosts-entry a"),
        (["1.2.3.4="], "Did not understand --hosts-entry 1.2.3.4="),
        (["1.2.3.4=a\n5.6.7.8 b"], "Did not understand --hosts-entry"),
        (["x=a"], "Invalid IP passed to --hosts-entry: x"),
    ],
)
def test_bad_hosts_entries_are_refused(values: list[str], error: str) -> None:
    """Each has rkt's message; a name cannot smuggle a second line."""
    with pytest.raises(UsageError, match=error):
        parse_hosts(values)

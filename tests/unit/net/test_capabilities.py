# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rkt.errors import NetworkError
from rkt.net.capabilities import of_arguments, of_resolver
from rkt.net.config import Network

if TYPE_CHECKING:
    from typing import Any


def network(*names: str) -> Network:
    """One whose second plugin declares capabilities."""
    plugins: list[dict[str, Any]] = [
        {"type": "one"},
        {"type": "two", "capabilities": dict.fromkeys(names, True)},
    ]
    return Network(name="lab", path="/etc/rkt/net.d/lab.conflist", version="1.0.0", plugins=plugins, raw=b"")


@pytest.mark.parametrize(
    ("declared", "args", "left", "found"),
    [
        ((), "IP=10.1.1.9;FOO=bar;ingressRate=1M", "IP=10.1.1.9;FOO=bar;ingressRate=1M", {}),
        (("ips",), "FOO=bar;IP=10.1.1.9/24;IP=fd00::9/64", "FOO=bar", {"ips": ["10.1.1.9/24", "fd00::9/64"]}),
        (("mac",), "MAC=02:00:00:00:00:01;IP=1.2.3.4", "IP=1.2.3.4", {"mac": "02:00:00:00:00:01"}),
        (
            ("bandwidth",),
            "ingressRate=8M;egressRate=1000;egressBurst=2k",
            "",
            {
                "bandwidth": {
                    "ingressRate": 8_000_000,
                    "ingressBurst": 2**31 - 1,
                    "egressRate": 1000,
                    "egressBurst": 2000,
                }
            },
        ),
        (("bandwidth",), "", "", {}),
    ],
)
def test_arguments_for_capabilities(
    declared: tuple[str, ...], args: str, left: str, found: dict[str, Any]
) -> None:
    """What a plugin declares reaches it with its type, and nobody twice; everything else stays an argument."""
    assert of_arguments(network(*declared), args) == (left, found)


def test_a_rate_that_is_none() -> None:
    """It is named, with the network."""
    with pytest.raises(NetworkError, match=r'network "lab": .*fast'):
        of_arguments(network("bandwidth"), "ingressRate=fast")


def test_name_servers_for_plugins() -> None:
    """The operator's resolv.conf in the form of the convention; an empty one is nothing to tell."""
    text = "# made by rkt\nnameserver 8.8.4.4\nnameserver ::1\nsearch a.example b.example\noptions debug\n"
    assert of_resolver(text) == {
        "dns": {"servers": ["8.8.4.4", "::1"], "searches": ["a.example", "b.example"], "options": ["debug"]}
    }
    assert of_resolver("# nothing\n") == {}

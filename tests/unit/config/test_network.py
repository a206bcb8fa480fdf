# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from rkt.config.network import TlsConfig, load_network, read_roots
from rkt.config.settings import Settings
from rkt.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def write(directory: str, name: str, **content: Any) -> None:
    """A file of ``fetch.d``."""
    os.makedirs(f"{directory}/fetch.d", exist_ok=True)
    with open(f"{directory}/fetch.d/{name}.json", "w", encoding="utf-8") as file:
        json.dump({"rktVersion": "v1", **content}, file)


def test_nothing_configured(settings: Settings) -> None:
    """Without files there is no proxy and no root."""
    assert load_network(settings).proxies == {}
    assert load_network(settings).tls == {}


def test_local_overrides_system_by_host(settings: Settings) -> None:
    """Each host by itself; an empty proxy is a value."""
    write(settings.system_config_dir, "p", rktKind="proxy", hosts=["*", "a.example"], url="http://one:1")
    write(settings.local_config_dir, "p", rktKind="proxy", hosts=["a.example"], url="")
    write(settings.local_config_dir, "t", rktKind="tls", hosts=["b.example:8443"], roots="/etc/ssl/b.pem")
    network = load_network(settings)
    assert network.proxies == {"*": "http://one:1", "a.example": ""}
    assert network.tls == {"b.example:8443": TlsConfig(roots="/etc/ssl/b.pem")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"rktKind": "proxy", "url": "http://p:1"}, "no hosts specified"),
        ({"rktKind": "proxy", "hosts": ["a"]}, "no proxy url specified"),
        ({"rktKind": "proxy", "hosts": ["a"], "url": "p:3128"}, "is not the URL of a proxy"),
        ({"rktKind": "proxy", "hosts": ["a"], "url": "socks5://p:1"}, "is not the URL of a proxy"),
        ({"rktKind": "proxy", "hosts": ["a"], "url": "http://u:p@h:1"}, "is not the URL of a proxy"),
        ({"rktKind": "proxy", "hosts": ["a", "a"], "url": "http://p:1"}, "is already specified"),
        ({"rktKind": "proxy", "hosts": ["A.example"], "url": "http://p:1"}, "is not a host"),
        ({"rktKind": "proxy", "hosts": ["*."], "url": "http://p:1"}, "is not a host"),
        ({"rktKind": "tls", "hosts": ["*"], "roots": "/x.pem"}, "is not a host"),
        ({"rktKind": "tls", "hosts": ["a"], "roots": "x.pem"}, "roots must be an absolute path"),
        ({"rktKind": "auth", "domains": ["a"]}, 'expects kinds "proxy", "registry", "tls"'),
        ({"rktKind": "tls", "hosts": ["a"]}, "neither roots nor certificate"),
        ({"rktKind": "tls", "hosts": ["a"], "certificate": "/c.pem"}, "certificate and key come together"),
        ({"rktKind": "tls", "hosts": ["a"], "certificate": "/c", "key": "k"}, "key must be an absolute path"),
    ],
)
def test_mistakes_are_named(settings: Settings, content: dict[str, Any], message: str) -> None:
    """Every mistake is an error that says what is wrong."""
    write(settings.local_config_dir, "x", **content)
    with pytest.raises(ConfigError, match=message):
        load_network(settings)


def test_roots_are_read_with_care(tmp_path: Path) -> None:
    """A file that is missing, holds no certificate, or can be written by everyone is an error."""
    path = tmp_path / "roots.pem"
    with pytest.raises(ConfigError, match="cannot read the root certificates"):
        read_roots(str(path))
    path.write_text("nothing")
    with pytest.raises(ConfigError, match="is not a file with a certificate"):
        read_roots(str(path))
    path.write_text("-----BEGIN CERTIFICATE-----\n")
    assert read_roots(str(path)).startswith("-----BEGIN")
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="may be written by everyone"):
        read_roots(str(path))

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from rkt.config.registries import RegistryConfig, load_registries, load_search, token_hosts
from rkt.config.settings import Settings
from rkt.errors import ConfigError

if TYPE_CHECKING:
    pass


def write(directory: str, name: str, **content: Any) -> None:
    """A file of ``fetch.d``."""
    os.makedirs(f"{directory}/fetch.d", exist_ok=True)
    with open(f"{directory}/fetch.d/{name}.json", "w", encoding="utf-8") as file:
        json.dump({"rktVersion": "v1", "rktKind": "registry", **content}, file)


def test_local_overrides_system_by_registry(settings: Settings) -> None:
    """Each registry by itself and as a whole; all names of Docker Hub are one."""
    write(
        settings.system_config_dir,
        "a",
        registries=["docker.io", "b.example"],
        mirrors=["https://m.example/hub"],
    )
    write(settings.local_config_dir, "a", registries=["index.docker.io"], tokenHosts=["t.example:8443"])
    write(settings.local_config_dir, "b", registries=["127.0.0.1:5000"], http=True)
    write(settings.local_config_dir, "c", registries=["c.example"], lookaside="https://s.example:8443/C_1")
    found = load_registries(settings)
    assert found == {
        "registry-1.docker.io": RegistryConfig(token_hosts=["t.example:8443"]),
        "b.example": RegistryConfig(mirrors=["https://m.example/hub"]),
        "127.0.0.1:5000": RegistryConfig(http=True),
        "c.example": RegistryConfig(lookaside="https://s.example:8443/C_1"),
    }
    hub = found["registry-1.docker.io"]
    assert token_hosts("docker.io", hub) == ["t.example:8443", "auth.docker.io"]
    assert token_hosts("b.example", found["b.example"]) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"mirrors": ["https://m"]}, "no registries specified"),
        ({"registries": ["a"]}, "none of http, mirrors, tokenHosts and lookaside"),
        ({"registries": ["a"], "http": "yes"}, "neither true nor false"),
        ({"registries": ["a"], "mirrors": ["m.example"]}, "not the URL of a mirror"),
        ({"registries": ["a"], "mirrors": ["https://u:p@m.example"]}, "not the URL of a mirror"),
        ({"registries": ["a"], "mirrors": ["https://m.example/x?y"]}, "not the URL of a mirror"),
        ({"registries": ["a"], "mirrors": ["https://m"] * 17}, "more than 16 mirrors"),
        ({"registries": ["a"], "tokenHosts": ["https://t"]}, "is not a host"),
        ({"registries": ["a"], "tokenHosts": ["*"]}, "is not a host"),
        ({"registries": ["a"], "lookaside": ["file:///x"]}, "is not a string"),
        ({"registries": ["a"], "lookaside": "/var/lib/sigstore"}, "not the URL of signatures"),
        ({"registries": ["a"], "lookaside": "file://host/x"}, "not the URL of signatures"),
        ({"registries": ["a"], "lookaside": "ftp://a/x"}, "not the URL of signatures"),
        ({"registries": ["a"], "lookaside": "https://u:p@a/x"}, "not the URL of signatures"),
        ({"registries": ["a"], "lookaside": "https://a/x?y"}, "not the URL of signatures"),
        ({"registries": ["A"], "http": True}, "is not a registry"),
        ({"registries": ["a/b"], "http": True}, "is not a registry"),
        ({"registries": ["docker.io", "index.docker.io"], "http": True}, "already specified"),
    ],
)
def test_mistakes_are_named(settings: Settings, content: dict[str, Any], message: str) -> None:
    """Every mistake is an error that says what is wrong."""
    write(settings.local_config_dir, "x", **content)
    with pytest.raises(ConfigError, match=message):
        load_registries(settings)


def test_where_to_search(settings: Settings) -> None:
    """Nowhere by default; the local directory decides alone, also that nowhere is searched; it is no registry's way."""
    assert load_search(settings) == []
    write(settings.system_config_dir, "s", search=["docker.io", "r.example:5000/team"])
    write(settings.local_config_dir, "b", registries=["127.0.0.1:5000"], http=True)
    assert load_search(settings) == ["docker.io", "r.example:5000/team"]
    assert list(load_registries(settings)) == ["127.0.0.1:5000"]
    write(settings.local_config_dir, "s", search=["localhost/x"])
    assert load_search(settings) == ["localhost/x"]
    write(settings.local_config_dir, "s", search=[])
    assert load_search(settings) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"search": "docker.io"}, "not a list"),
        ({"search": ["docker"]}, "not a registry, perhaps with a path"),
        ({"search": ["docker/library"]}, "not a registry, perhaps with a path"),
        ({"search": ["docker.io/"]}, "not a registry, perhaps with a path"),
        ({"search": ["r.example//x"]}, "not a registry, perhaps with a path"),
        ({"search": ["r.example/X"]}, "not a registry, perhaps with a path"),
        ({"search": ["https://r.example"]}, "not a registry, perhaps with a path"),
        ({"search": ["R.example"]}, "not a registry, perhaps with a path"),
        ({"search": ["r.example"] * 9}, "more than 8 registries"),
        ({"search": ["r.example"], "http": True}, '"http" needs a file of its own'),
    ],
)
def test_mistakes_in_where_to_search_are_named(
    settings: Settings, content: dict[str, Any], message: str
) -> None:
    """Every mistake is an error that says what is wrong; a word without a dot or a port is no host."""
    write(settings.local_config_dir, "x", **content)
    with pytest.raises(ConfigError, match=message):
        load_search(settings)


def test_two_files_that_say_where_to_search(settings: Settings) -> None:
    """An order cannot be in two files."""
    write(settings.local_config_dir, "a", search=["a.example"])
    write(settings.local_config_dir, "b", search=["b.example"])
    with pytest.raises(ConfigError, match="already specified"):
        load_search(settings)

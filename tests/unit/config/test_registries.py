# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from rkt.config.registries import RegistryConfig, load_registries, token_hosts
from rkt.config.settings import Installation, Settings
from rkt.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Two configuration directories."""
    return Settings(
        installation=Installation(package_path="", library_paths=[], stage1_images_path=""),
        system_config_dir=str(tmp_path / "system"),
        local_config_dir=str(tmp_path / "local"),
    )


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
    found = load_registries(settings)
    assert found == {
        "registry-1.docker.io": RegistryConfig(token_hosts=["t.example:8443"]),
        "b.example": RegistryConfig(mirrors=["https://m.example/hub"]),
        "127.0.0.1:5000": RegistryConfig(http=True),
    }
    hub = found["registry-1.docker.io"]
    assert token_hosts("docker.io", hub) == ["t.example:8443", "auth.docker.io"]
    assert token_hosts("b.example", found["b.example"]) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"mirrors": ["https://m"]}, "no registries specified"),
        ({"registries": ["a"]}, "none of http, mirrors and tokenHosts"),
        ({"registries": ["a"], "http": "yes"}, "neither true nor false"),
        ({"registries": ["a"], "mirrors": ["m.example"]}, "not the URL of a mirror"),
        ({"registries": ["a"], "mirrors": ["https://u:p@m.example"]}, "not the URL of a mirror"),
        ({"registries": ["a"], "mirrors": ["https://m.example/x?y"]}, "not the URL of a mirror"),
        ({"registries": ["a"], "mirrors": ["https://m"] * 17}, "more than 16 mirrors"),
        ({"registries": ["a"], "tokenHosts": ["https://t"]}, "is not a host"),
        ({"registries": ["a"], "tokenHosts": ["*"]}, "is not a host"),
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

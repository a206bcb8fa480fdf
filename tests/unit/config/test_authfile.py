# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from rkt.config.authfile import AuthFile, Secret, auth_files, parse_auth_file
from rkt.config.settings import Installation, Settings
from rkt.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

AUTH = base64.b64encode(b"alice:se:cret").decode()


def settings(**values: Any) -> Settings:
    """Of a command."""
    return Settings(
        installation=Installation(package_path="", library_paths=[], stage1_images_path=""), **values
    )


def parse(**members: Any) -> AuthFile:
    """The content of a file."""
    return parse_auth_file(members, "/x.json", 0)


def entry(user: str) -> dict[str, str]:
    """What is kept of one registry."""
    return {"auth": base64.b64encode(f"{user}:pw".encode()).decode()}


@pytest.mark.parametrize(
    ("registry", "repository", "user"),
    [
        ("registry-1.docker.io", "library/busybox", "hub"),
        ("quay.io", "team/app", "app"),
        ("quay.io", "team/app/part", "app"),
        ("quay.io", "team/application", "team"),
        ("quay.io", "team", "team"),
        ("quay.io", "teams/app", "quay"),
        ("quay.io:5000", "team/app", None),
        ("a.example:5000", "x", "port"),
        ("a.example", "x", None),
        ("old.example", "x", "old"),
    ],
)
def test_entries(registry: str, repository: str, user: str | None) -> None:
    """The entry for the longest path counts, component by component; names of Docker Hub and URLs are understood."""
    file = parse(
        auths={
            "https://index.docker.io/v1/": entry("hub"),
            "quay.io": entry("quay"),
            "quay.io/team": entry("team"),
            "quay.io/team/app": entry("app"),
            "a.example:5000": entry("port"),
            "http://old.example/v2/": entry("old"),
        }
    )
    found = file.entry(registry, repository)
    assert (found.user if found else None) == user


def test_kinds_of_secrets() -> None:
    """A password may have colons; identity and registry tokens are told apart; an empty entry is none."""
    file = parse(
        auths={
            "a": {"auth": AUTH},
            "b": {"username": "bob", "password": "pw"},
            "c": {"auth": AUTH, "identitytoken": "it"},
            "d": {"registrytoken": "rt"},
            "e": {},
        }
    )
    assert file.entries == {
        "a": Secret(source="/x.json", user="alice", password="se:cret"),
        "b": Secret(source="/x.json", user="bob", password="pw"),
        "c": Secret(source="/x.json", user="alice", password="se:cret", identity_token="it"),
        "d": Secret(source="/x.json", token="rt"),
    }


def test_helpers() -> None:
    """A registry's own helper, else the one for all."""
    file = parse(credHelpers={"https://quay.io": "pass", "docker.io": "hub"}, credsStore="all")
    assert [file.helper(name) for name in ("quay.io", "registry-1.docker.io", "x")] == ["pass", "hub", "all"]
    assert parse().helper("x") == ""


def test_no_repr_shows_a_secret() -> None:
    """RG6: what a debugger or a log prints has no password and no token."""
    file = parse(auths={"a": {"auth": AUTH, "identitytoken": "it-it", "registrytoken": "rt-rt"}})
    for text in (repr(file), str(file), repr(file.entries)):
        assert not any(secret in text for secret in ("se:cret", "it-it", "rt-rt", AUTH))


@pytest.mark.parametrize(
    "members",
    [
        {"auths": ["secret-x"]},
        {"auths": {"a": "secret-x"}},
        {"auths": {"a": {"auth": "secret-x!"}}},
        {"auths": {"a": {"auth": ["secret-x"]}}},
        {"auths": {"a": {"identitytoken": "secret-x\n"}}},
        {"credHelpers": {"a": "../secret-x"}},
        {"credHelpers": {"a": "-x"}},
        {"credHelpers": {"a": ""}},
        {"credsStore": ["x"]},
        {"credsStore": "a/b"},
    ],
)
def test_mistakes(members: dict[str, Any]) -> None:
    """What has another form is an error that names the file, and nothing of a value."""
    with pytest.raises(ConfigError, match=r"/x\.json") as raised:
        parse(**members)
    assert "secret-x" not in raised.value.message


class Home:
    """Files of a user."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.warnings: list[str] = []
        self.environment = {"HOME": str(base / "home"), "XDG_RUNTIME_DIR": str(base / "run")}

    def write(self, name: str, *, mode: int = 0o600, uid: int = -1) -> str:
        """A file that knows ``NAME.example``."""
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"auths": {"a": entry(name)}}))
        path.chmod(mode)
        if uid >= 0:
            os.chown(path, uid, uid)
        return str(path)

    def found(self, **values: Any) -> list[str]:
        """Users that the files know, in order."""
        files = auth_files(settings(**values), self.environment, self.warnings.append)
        return [secret.user for file in files for secret in file.entries.values()]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty one."""
    return Home(tmp_path)


def test_order(home: Home) -> None:
    """The two of podman, then Docker's; what a variable or the command names counts alone."""
    names = ["run/containers/auth.json", "home/.config/containers/auth.json", "home/.docker/config.json"]
    assert home.found() == []
    for name in names:
        home.write(name)
    assert home.found() == names
    home.environment |= {"XDG_CONFIG_HOME": str(home.base / "c"), "DOCKER_CONFIG": str(home.base / "d")}
    home.write("d/config.json")
    assert home.found() == [names[0], "d/config.json"]
    home.environment["REGISTRY_AUTH_FILE"] = home.write("named.json")
    assert home.found() == ["named.json"]
    assert home.found(authfile=home.write("flag.json")) == ["flag.json"]


@pytest.mark.root
def test_files_of_others(home: Home) -> None:
    """Another user's file is passed over, and said to be; one that a variable names is an error; the flag may name it."""
    path = home.write("home/.docker/config.json", uid=1234)
    assert home.found() == []
    assert home.warnings == [
        f"credentials in {path} belong to another user and are not used; --authfile={path} would"
    ]
    assert home.found(authfile=path) == ["home/.docker/config.json"]
    home.environment["REGISTRY_AUTH_FILE"] = path
    with pytest.raises(ConfigError, match="belongs to another user") as raised:
        home.found()
    assert raised.value.hint.startswith(f"--authfile={path}")


def test_files_that_are_not_to_be_used(home: Home) -> None:
    """RG6: one that is open to everyone, missing, no file, or no JSON is an error."""
    path = home.write("a.json", mode=0o604)
    with pytest.raises(ConfigError, match="open to everyone") as raised:
        home.found(authfile=path)
    assert raised.value.hint == f"chmod 0600 {path}"
    with pytest.raises(ConfigError, match="No such file"):
        home.found(authfile=f"{path}.no")
    with pytest.raises(ConfigError, match="not a regular file"):
        home.found(authfile=str(home.base))
    os.mkfifo(home.base / "pipe", 0o600)
    with pytest.raises(ConfigError, match="not a regular file"):
        home.found(authfile=str(home.base / "pipe"))
    (home.base / "b.json").write_text("secret-x")
    (home.base / "b.json").chmod(0o600)
    with pytest.raises(ConfigError, match="not JSON") as raised:
        home.found(authfile=str(home.base / "b.json"))
    assert "secret-x" not in raised.value.message

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rkt.config.authfile import AuthFile, Secret
from rkt.config.settings import Installation, Settings
from rkt.errors import ConfigError
from rkt.fetch import credentials
from rkt.fetch.credentials import describe, find_credentials, run_helper
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
ANSWER = 'printf \'{"ServerURL":"x","Username":"alice","Secret":"pw"}\''


class Host:
    """A user with helpers and files."""

    def __init__(self, base: Path) -> None:
        self.base = base
        base.chmod(0o755)
        self.path = str(base)
        self.settings = Settings(
            installation=Installation(package_path="", library_paths=[], stage1_images_path=""),
            system_config_dir=f"{base}/system",
            local_config_dir=f"{base}/local",
        )
        self.environment = {"HOME": f"{base}/home", "XDG_RUNTIME_DIR": f"{base}/run"}

    def helper(self, name: str, script: str, mode: int = 0o755) -> None:
        """A program ``docker-credential-NAME``."""
        path = f"{self.base}/docker-credential-{name}"
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\n{script}\n")
        os.chmod(path, mode)

    def run(self, name: str = "x", registry: str = "quay.io", uid: int = -1) -> Secret | None:
        """Ask a helper, as the user who owns the file that names it."""
        file = AuthFile(path="/x.json", uid=os.geteuid() if uid < 0 else uid)
        return run_helper(name, registry, file, self.path)

    def write(self, name: str, content: dict[str, Any]) -> None:
        """A file."""
        path = f"{self.base}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file)
        os.chmod(path, 0o600)

    def find(self, registry: str = "quay.io", repository: str = "a/b", **values: Any) -> str:
        """Whose credentials are found."""
        found = find_credentials(
            self.settings.replace(**values), registry, repository, environment=self.environment
        )
        return found.user if found else ""


@pytest.fixture
def host() -> Iterator[Host]:
    """Nothing is there yet; not below the tests' own directory, which is nobody else's."""
    with tempfile.TemporaryDirectory(prefix="rkt-helpers-") as base:
        yield Host(Path(base))


def is_alive(pid: str) -> bool:
    """Whether a process runs; one that is dead and not taken yet does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def entry(user: str) -> dict[str, str]:
    """Of one registry."""
    return {"auth": base64.b64encode(f"{user}:pw".encode()).decode()}


def test_helper_answers(host: Host) -> None:
    """It is asked by its standard input, and its answer is the credentials; ``<token>`` is an identity token."""
    host.helper("x", f'test "$1" = get || exit 1; read -r r; test "$r" = quay.io || exit 1; {ANSWER}')
    program = f"{host.path}/docker-credential-x"
    assert host.run() == Secret(source=program, user="alice", password="pw")
    host.helper("x", ANSWER.replace("alice", "<token>"))
    assert host.run() == Secret(source=program, identity_token="pw")


def test_helper_of_docker_hub(host: Host) -> None:
    """Docker Hub has the name there that Docker gives it."""
    host.helper("x", f'read -r r; test "$r" = https://index.docker.io/v1/ || exit 1; {ANSWER}')
    assert host.run(registry="registry-1.docker.io") is not None


def test_helper_that_knows_nothing(host: Host) -> None:
    """Its library's words mean that there are none; any other failure is an error without its output."""
    host.helper("x", "echo credentials not found in native keychain; exit 1")
    assert host.run() is None
    host.helper("x", "echo secret-x; exit 3")
    with pytest.raises(ConfigError, match=r"failed \(status 3\)") as raised:
        host.run()
    assert "secret-x" not in f"{raised.value.message}{raised.value.hint}"


@pytest.mark.parametrize(
    "answer",
    [
        "secret-x",
        '["secret-x"]',
        '{"Username":"u"}',
        '{"Username":"u","Secret":""}',
        '{"Username":1,"Secret":"s"}',
    ],
)
def test_helper_that_answers_nonsense(host: Host, answer: str) -> None:
    """What is not an answer is an error that does not quote it."""
    host.helper("x", f"printf '%s' '{answer}'")
    with pytest.raises(ConfigError, match="of credential helper") as raised:
        host.run()
    assert "secret-x" not in raised.value.message


def test_helper_without_end(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not answer in time, or without end, is stopped with all that it started."""
    monkeypatch.setattr(credentials, "_HELPER_SECONDS", 0.2)
    host.helper("x", f"sleep 1000 & echo $! > {host.path}/pid; wait")
    os.chmod(host.path, 0o777)
    with pytest.raises(ConfigError, match="did not answer"):
        host.run()
    with open(f"{host.path}/pid", encoding="ascii") as file:
        pid = file.read().strip()
    wait_for(lambda: not is_alive(pid), "end of what it started")
    monkeypatch.setattr(credentials, "_HELPER_SECONDS", 30.0)
    host.helper("x", "exec cat /dev/zero")
    with pytest.raises(ConfigError, match=r"failed|not JSON"):
        host.run()


@pytest.mark.root
def test_helper_runs_as_the_owner(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """HH5, RG6: as who owns the file, with that user's groups and an environment of its own, without our descriptors."""
    monkeypatch.setenv("SECRET", "x")
    host.helper(
        "x",
        'id="$(id -u):$(id -g):$(id -G):$(ls /proc/self/fd | wc -l):$(env | sed "s/=.*//" | sort | tr "\\n" ,)"\n'
        'printf \'{"Username":"%s","Secret":"s"}\' "$id"',
    )
    found = host.run(uid=NOBODY)
    assert found is not None
    uid, gid, groups, _, names = found.user.split(":")
    assert (uid, gid, groups) == ("65534", "65534", "65534")
    assert set(names.strip(",").split(",")) <= {
        *("HOME", "LC_ALL", "LOGNAME", "PATH", "PWD", "USER", "XDG_RUNTIME_DIR", "_", "SHLVL", "OLDPWD"),
    }


@pytest.mark.root
def test_helpers_that_others_may_change(host: Host) -> None:
    """HH5: a program that others own or may write, or that is missing, is not run."""
    host.helper("x", ANSWER, mode=0o775)
    with pytest.raises(ConfigError, match="may be changed by others"):
        host.run()
    host.helper("x", ANSWER)
    os.chown(f"{host.path}/docker-credential-x", 1234, 1234)
    with pytest.raises(ConfigError, match="may be changed by others"):
        host.run()
    with pytest.raises(ConfigError, match="which is not in"):
        host.run("missing")


def test_order(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag's file, then ``dockerAuth``, then the user's files; in a file a helper, but not for a path's own entry."""
    assert host.find() == ""
    host.write("run/containers/auth.json", {"auths": {"quay.io": entry("podman")}})
    assert host.find() == "podman"
    host.write(
        "local/auth.d/x.json",
        {
            "rktKind": "dockerAuth",
            "rktVersion": "v1",
            "registries": ["quay.io"],
            "credentials": {"user": "rkt", "password": "pw"},
        },
    )
    assert host.find() == "rkt"
    host.write("flag.json", {"auths": {"quay.io": entry("flag")}})
    assert host.find(authfile=f"{host.base}/flag.json") == "flag"
    assert host.find("other.example", authfile=f"{host.base}/flag.json") == ""
    assert host.find("docker.io", authfile=f"{host.base}/flag.json") == ""
    host.write("none.json", {})
    assert host.find(authfile=f"{host.base}/none.json") == "rkt"
    host.helper("x", ANSWER)
    monkeypatch.setattr(credentials.run_helper, "__defaults__", (host.path,))
    host.write(
        "flag.json", {"auths": {"quay.io": entry("flag"), "quay.io/a": entry("path")}, "credsStore": "x"}
    )
    assert host.find(authfile=f"{host.base}/flag.json") == "path"
    assert host.find(repository="b", authfile=f"{host.base}/flag.json") == "alice"


def test_what_a_worker_gets() -> None:
    """One kind of credential, and where it is from."""
    both = Secret(source="f", user="u", password="p", identity_token="i", token="t")
    assert describe(both) == {"source": "f", "token": "t"}
    assert describe(both.replace(token="")) == {"source": "f", "identity_token": "i"}
    assert describe(both.replace(token="", identity_token="")) == {
        "source": "f",
        "user": "u",
        "password": "p",
    }
    assert describe(None) == {}

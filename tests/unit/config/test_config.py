# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
from typing import Any

import pytest

from rkt.cli.command import Invocation
from rkt.cli.config import COMMAND
from rkt.cli.parse import parse
from rkt.config.auth import (
    AwsCredentials,
    BasicCredentials,
    OAuthCredentials,
    aws_region,
    load_auth,
    registry_key,
)
from rkt.config.paths import PathsConfig, load_paths
from rkt.config.settings import Installation, Settings
from rkt.config.stage1 import Stage1Config, load_stage1
from rkt.errors import ConfigError

BASIC = {
    "rktKind": "auth",
    "rktVersion": "v1",
    "domains": ["a.example.com"],
    "type": "basic",
    "credentials": {"user": "u", "password": "p"},
}
OAUTH = {**BASIC, "type": "oauth", "credentials": {"token": "t"}}
AWS = {**BASIC, "type": "aws", "credentials": {"accessKeyID": "i", "secretAccessKey": "s"}}
DOCKER = {
    "rktKind": "dockerAuth",
    "rktVersion": "v1",
    "registries": ["quay.io"],
    "credentials": {"user": "u", "password": "p"},
}
PATHS = {"rktKind": "paths", "rktVersion": "v1", "data": "/d", "stage1-images": "/s"}
STAGE1 = {
    "rktKind": "stage1",
    "rktVersion": "v1",
    "name": "example.com/s",
    "version": "1",
    "location": "/l.aci",
}


class Host:
    """Three configuration directories."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.settings = Settings(
            installation=Installation(package_path="/x", library_paths=[], stage1_images_path="/x"),
            system_config_dir=f"{root}/system",
            local_config_dir=f"{root}/local",
            user_config_dir=f"{root}/user",
        )

    def put(self, name: str, content: Any, mode: int = 0o600) -> str:
        """Write ``DIRECTORY/SUBJECT.d/FILE``."""
        path = f"{self.root}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(content if isinstance(content, str) else json.dumps(content))
        os.chmod(path, mode)
        return path

    def show(self, *words: str) -> None:
        """Run ``rkt config``."""
        parsed = parse(list(words), COMMAND)
        COMMAND.run(
            Invocation(command=COMMAND, settings=self.settings, values=parsed.values, words=parsed.words)
        )


@pytest.fixture
def host(tmp_path: os.PathLike[str]) -> Host:
    """An empty host."""
    return Host(os.fspath(tmp_path))


def without(members: dict[str, Any], *names: str) -> dict[str, Any]:
    """A copy that lacks members."""
    return {k: v for k, v in members.items() if k not in names}


def test_nothing_configured_is_empty(host: Host) -> None:
    """Missing directories are fine."""
    assert load_paths(host.settings) == PathsConfig()
    assert load_stage1(host.settings) == Stage1Config()
    assert load_auth(host.settings).domains == {}


def test_only_regular_json_files_directly_inside_count(host: Host) -> None:
    """Links, directories and other names are ignored silently."""
    target = host.put("elsewhere/x.json", {**PATHS, "data": "/wrong"})
    host.put("local/paths.d/x.conf", "not json")
    host.put("local/paths.d/sub/x.json", {**PATHS, "data": "/wrong"})
    os.mkdir(f"{host.root}/local/paths.d/dir.json")
    os.symlink(target, f"{host.root}/local/paths.d/link.json")
    assert load_paths(host.settings) == PathsConfig()


def test_a_file_in_place_of_a_directory_is_an_error(host: Host) -> None:
    """A path that is no directory is named."""
    path = host.put("local/paths.d", "")
    with pytest.raises(ConfigError, match=f'expected "{path}" to be a directory'):
        load_paths(host.settings)


def test_paths_merge_by_field(host: Host) -> None:
    """C4: the user's data directory, the system's stage1 images."""
    host.put("system/paths.d/a.json", PATHS)
    host.put("user/paths.d/a.json", {**without(PATHS, "stage1-images"), "data": "/u"})
    assert load_paths(host.settings) == PathsConfig(data="/u", stage1_images="/s")


def test_stage1_merges_name_and_version_as_a_pair(host: Host) -> None:
    """C6: name and version of one directory, location of another."""
    host.put("local/stage1.d/a.json", STAGE1)
    host.put("user/stage1.d/a.json", {**without(STAGE1, "name", "version"), "location": "https://x/y.aci"})
    assert load_stage1(host.settings) == Stage1Config(
        name="example.com/s", version="1", location="https://x/y.aci"
    )


def test_auth_merges_by_domain_and_registry(host: Host) -> None:
    """C8: overridden and untouched entries side by side."""
    host.put("local/auth.d/a.json", {**BASIC, "domains": ["a.example.com", "b.example.com:8443"]})
    host.put("local/auth.d/d.json", {**DOCKER, "registries": ["quay.io", "docker.io"]})
    host.put("user/auth.d/a.json", OAUTH)
    host.put("user/auth.d/d.json", {**DOCKER, "credentials": {"user": "v", "password": "w"}})
    auth = load_auth(host.settings)
    assert auth.domains == {
        "a.example.com": OAuthCredentials(token="t"),
        "b.example.com:8443": BasicCredentials(user="u", password="p"),
    }
    assert auth.registries == {
        "quay.io": BasicCredentials(user="v", password="w"),
        "registry-1.docker.io": BasicCredentials(user="u", password="p"),
    }


def test_aws_credentials_are_read(host: Host) -> None:
    """The region may be left out."""
    host.put("local/auth.d/a.json", AWS)
    assert load_auth(host.settings).domains["a.example.com"] == AwsCredentials(
        access_key_id="i", secret_access_key="s"
    )


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"rktKind":"auth","rktKind":"auth"}', "appears twice"),
        (without(BASIC, "rktKind"), "no rktKind specified in"),
        (without(BASIC, "rktVersion"), "no rktVersion specified in"),
        ({**BASIC, "rktKind": "foo"}, 'no parser available for configuration of kind "foo"'),
        ({**BASIC, "rktVersion": "v2"}, 'of kind "auth" and version "v2"'),
        (PATHS, 'expects kinds "auth", "dockerAuth", but the file has kind "paths"'),
        (without(BASIC, "domains"), "no domains specified"),
        ({**BASIC, "domains": []}, "no domains specified"),
        ({**BASIC, "domains": "x"}, '"domains" is not a list'),
        ({**BASIC, "domains": [""]}, '"domains" is not a list of non-empty strings'),
        ({**BASIC, "domains": ["x", "x"]}, 'auth for domain "x" is already specified'),
        (without(BASIC, "type"), "no auth type specified"),
        ({**BASIC, "type": "ntlm"}, 'unknown auth type: "ntlm"'),
        (without(BASIC, "credentials"), "user not specified"),
        ({**BASIC, "credentials": []}, "user not specified"),
        ({**BASIC, "credentials": "x"}, '"credentials" is not an object'),
        ({**BASIC, "credentials": {"user": "", "password": "p"}}, "user not specified"),
        ({**BASIC, "credentials": {"user": "u"}}, "password not specified"),
        ({**BASIC, "credentials": {"user": 5, "password": "p"}}, '"user" is not a string'),
        ({**OAUTH, "credentials": {}}, "no oauth bearer token specified"),
        ({**AWS, "credentials": {"secretAccessKey": "s"}}, "no AWS Access Key ID specified"),
        ({**AWS, "credentials": {"accessKeyID": "i"}}, "no AWS Secret Access Key specified"),
        (without(DOCKER, "registries"), "no registries specified"),
        ({**DOCKER, "credentials": {"user": "u"}}, "password not specified"),
        (
            {**DOCKER, "registries": ["docker.io", "index.docker.io"]},
            'credentials for docker registry "index.docker.io" are already specified',
        ),
    ],
)
def test_bad_credentials_files_are_refused(host: Host, content: Any, error: str) -> None:
    """Each missing, empty or misplaced member fails and names the file."""
    path = host.put("local/auth.d/a.json", content)
    with pytest.raises(ConfigError) as caught:
        load_auth(host.settings)
    assert error in caught.value.message
    assert path in caught.value.message


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({**PATHS, "data": "d"}, "data directory must be an absolute path"),
        ({**PATHS, "stage1-images": "./s"}, "stage1 images directory must be an absolute path"),
        (BASIC, 'expects kinds "paths"'),
    ],
)
def test_bad_paths_are_refused(host: Host, content: Any, error: str) -> None:
    """Only absolute paths count."""
    host.put("local/paths.d/a.json", content)
    with pytest.raises(ConfigError, match=error):
        load_paths(host.settings)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (without(STAGE1, "name"), "default stage1 image version specified, but name is missing"),
        (without(STAGE1, "version"), "default stage1 image name specified, but version is missing"),
        ({**STAGE1, "name": "Bad Name"}, "invalid default stage1 image name"),
        ({**STAGE1, "location": "x/y.aci"}, "location is either a relative path or a URL without scheme"),
        ({**STAGE1, "location": "./a:b"}, "location is either a relative path or a URL without scheme"),
        ({**STAGE1, "location": "ftp://x/y"}, 'location URL has invalid scheme "ftp", allowed schemes are'),
    ],
)
def test_bad_stage1_is_refused(host: Host, content: Any, error: str) -> None:
    """Name and version come together, a location says how to get there."""
    host.put("local/stage1.d/a.json", content)
    with pytest.raises(ConfigError, match=error):
        load_stage1(host.settings)


@pytest.mark.parametrize("location", ["/x", "file:///x", "docker://x", "http://x/y", "https://x/y"])
def test_stage1_locations_are_accepted(host: Host, location: str) -> None:
    """An absolute path or a URL of four schemes."""
    host.put("local/stage1.d/a.json", {**STAGE1, "location": location})
    assert load_stage1(host.settings).location == location


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("auth.d", BASIC, 'auth for domain "a.example.com" is already specified'),
        ("auth.d", DOCKER, 'credentials for docker registry "quay.io" are already specified'),
        ("paths.d", PATHS, "data directory is already specified"),
        ("stage1.d", STAGE1, "default stage1 image name and version are already specified"),
    ],
)
def test_two_files_of_one_directory_must_not_disagree(
    host: Host, name: str, content: Any, error: str
) -> None:
    """A repeated key inside one directory is an error, whatever the order of the files."""
    host.put(f"local/{name}/a.json", content)
    host.put(f"local/{name}/b.json", content)
    load: Any = {"auth.d": load_auth, "paths.d": load_paths, "stage1.d": load_stage1}[name]
    with pytest.raises(ConfigError, match=error):
        load(host.settings)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601])
def test_credentials_open_to_everyone_are_refused(host: Host, mode: int) -> None:
    """RG6: a file with secrets is not for everyone."""
    path = host.put("local/auth.d/a.json", BASIC, mode)
    with pytest.raises(ConfigError) as caught:
        load_auth(host.settings)
    assert path in caught.value.message
    assert "ch" in caught.value.hint


def test_configuration_that_everyone_may_write_is_refused(host: Host) -> None:
    """Nobody but the administrator decides where data goes."""
    host.put("local/paths.d/a.json", PATHS, 0o666)
    with pytest.raises(ConfigError, match="may be written by everyone"):
        load_paths(host.settings)


def test_no_repr_shows_a_secret(host: Host) -> None:
    """RG6: what ends in a traceback or a log has no secret."""
    for index, content in enumerate((BASIC, OAUTH, AWS)):
        host.put(f"local/auth.d/{index}.json", {**content, "domains": [f"{index}.example.com"]})
    auth = load_auth(host.settings)
    text = repr(auth) + "".join(repr(credentials) for credentials in auth.domains.values())
    for secret in ("'p'", "'t'", "'s'"):
        assert secret not in text


@pytest.mark.parametrize("name", ["docker.io", "index.docker.io", "registry-1.docker.io", "Docker.IO"])
def test_docker_hub_has_one_key(name: str) -> None:
    """Credentials are found under each of Docker Hub's names."""
    assert registry_key(name) == "registry-1.docker.io"


@pytest.mark.parametrize(
    ("host_name", "region"),
    [
        ("example.com", "us-east-1"),
        ("a.b.example.com", "us-east-1"),
        ("amazonaws.com", "us-east-1"),
        ("s3.amazonaws.com", "us-east-1"),
        ("bucket.s3.amazonaws.com", "us-east-1"),
        ("bucket.s3-external-1.amazonaws.com", "us-east-1"),
        ("s3-eu-west-1.amazonaws.com", "us-east-1"),
        ("bucket.s3-eu-west-1.amazonaws.com", "eu-west-1"),
        ("BUCKET.S3-EU-WEST-1.amazonaws.com:443", "eu-west-1"),
        ("bucket.s3.eu-central-1.amazonaws.com", "eu-central-1"),
        ("bucket.s3.cn-north-1.amazonaws.com", "cn-north-1"),
        ("bucket.ec2.eu-central-1.amazonaws.com", "us-east-1"),
    ],
)
def test_aws_regions_are_read_off_the_host(host_name: str, region: str) -> None:
    """The table of the specification."""
    assert aws_region(host_name) == region


def test_config_prints_the_merged_entries(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """C1 to C7: one entry per domain and registry in order, then paths and stage1; secrets hidden unless asked for."""
    host.put("local/auth.d/a.json", {**BASIC, "domains": ["b", "a"]})
    host.put("local/auth.d/d.json", {**DOCKER, "registries": ["r2", "r1"]})
    host.put("local/paths.d/p.json", PATHS)
    host.put("local/stage1.d/s.json", STAGE1)
    expected = [
        {**BASIC, "domains": ["a"]},
        {**BASIC, "domains": ["b"]},
        {**DOCKER, "registries": ["r1"]},
        {**DOCKER, "registries": ["r2"]},
        PATHS,
        STAGE1,
    ]
    host.show("--show-secrets")
    assert json.loads(capsys.readouterr().out) == {"stage0": expected}
    host.show("--pretty-print=false")
    plain = capsys.readouterr().out
    assert plain.count("\n") == 1
    assert '"password":"********"' in plain
    assert '"password":"p"' not in plain

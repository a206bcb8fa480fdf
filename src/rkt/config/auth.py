# SPDX-License-Identifier: Apache-2.0
"""Kinds ``auth`` and ``dockerAuth``: credentials for web servers and registries (spec cli §4.2, §4.3).

A file with credentials must not be readable by everyone (invariant RG6), and no ``repr`` shows a secret.
"""

from __future__ import annotations

import os

from rkt.config.files import read_directory, text_member
from rkt.errors import ConfigError
from rkt.schema.record import Record
from rkt.values import DOCKER_HUB_NAMES, DOCKER_HUB_REGISTRY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.config.files import ConfigFile
    from rkt.config.settings import Settings

_OPEN_TO_ALL = 0o007
_DEFAULT_AWS_REGION = "us-east-1"


class BasicCredentials(Record):
    """``Authorization: Basic``."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"BasicCredentials(user={self.user!r})"


class OAuthCredentials(Record):
    """``Authorization: Bearer``."""

    token: str

    def __repr__(self) -> str:
        return "OAuthCredentials()"


class AwsCredentials(Record):
    """AWS signature version 4 for service ``s3``; an empty region is derived from the host."""

    access_key_id: str
    secret_access_key: str
    region: str = ""

    def __repr__(self) -> str:
        return f"AwsCredentials(access_key_id={self.access_key_id!r}, region={self.region!r})"


class AuthConfig(Record):
    """Credentials by where they may be sent.

    Attributes:
        domains: host, with the port when the URL has one, to credentials; matched exactly, https only.
        registries: registry host to credentials.
    """

    domains: dict[str, BasicCredentials | OAuthCredentials | AwsCredentials] = {}
    registries: dict[str, BasicCredentials] = {}

    def __repr__(self) -> str:
        return f"AuthConfig(domains={sorted(self.domains)}, registries={sorted(self.registries)})"


def load_auth(settings: Settings) -> AuthConfig:
    """Merge all directories, by domain and by registry; later directories win."""
    domains: dict[str, BasicCredentials | OAuthCredentials | AwsCredentials] = {}
    registries: dict[str, BasicCredentials] = {}
    for directory in settings.config_dirs:
        own_domains: dict[str, BasicCredentials | OAuthCredentials | AwsCredentials] = {}
        own_registries: dict[str, BasicCredentials] = {}
        # A member of the group rkt fetches without the credentials that are root's alone.
        found = read_directory(f"{directory}/auth.d", ("auth", "dockerAuth"), readable_only=os.geteuid() != 0)
        for file in found:
            _check_secrecy(file.path)
            if file.kind == "auth":
                _read_auth(file, own_domains)
            else:
                _read_docker_auth(file, own_registries)
        domains |= own_domains
        registries |= own_registries
    return AuthConfig(domains=domains, registries=registries)


def registry_key(host: str) -> str:
    """The name under which credentials of a registry are kept: one for all of Docker Hub's names."""
    lowered = host.lower()
    return DOCKER_HUB_REGISTRY if lowered in DOCKER_HUB_NAMES else lowered


def aws_region(host: str) -> str:
    """The region that an S3 host name tells (spec cli §4.2); ``host`` may have a port."""
    parts = host.partition(":")[0].lower().split(".")
    if len(parts) < 3 or parts[-2] != "amazonaws":
        return _DEFAULT_AWS_REGION
    third = parts[-3]
    if third in {"s3", "s3-external-1"} and parts[-1] == "com":
        return _DEFAULT_AWS_REGION
    if len(parts) >= 4 and third.startswith("s3-"):
        return third[len("s3-") :]
    if len(parts) >= 5 and parts[-4] == "s3":
        return third
    return _DEFAULT_AWS_REGION


def _check_secrecy(path: str) -> None:
    if os.lstat(path).st_mode & _OPEN_TO_ALL:
        raise ConfigError(f'credentials in "{path}" are open to everyone', hint=f"chmod 0600 {path}")


def _read_auth(
    file: ConfigFile, found: dict[str, BasicCredentials | OAuthCredentials | AwsCredentials]
) -> None:
    domains = file.texts("domains")
    if not domains:
        raise file.error("no domains specified")
    kind = file.text("type")
    if not kind:
        raise file.error("no auth type specified")
    if kind not in _AUTH_TYPES:
        raise file.error(f'unknown auth type: "{kind}"')
    credentials = _AUTH_TYPES[kind](file)
    for domain in domains:
        if domain in found:
            raise file.error(f'auth for domain "{domain}" is already specified')
        found[domain] = credentials


def _read_docker_auth(file: ConfigFile, found: dict[str, BasicCredentials]) -> None:
    registries = file.texts("registries")
    if not registries:
        raise file.error("no registries specified")
    credentials = _basic(file)
    for registry in registries:
        key = registry_key(registry)
        if key in found:
            raise file.error(f'credentials for docker registry "{registry}" are already specified')
        found[key] = credentials


def _credential(file: ConfigFile, name: str, missing: str) -> str:
    members = file.members.get("credentials") or {}
    if not isinstance(members, dict):
        raise file.error('"credentials" is not an object')
    text = text_member(file, members, name)
    if not text and missing:
        raise file.error(missing)
    return text


def _basic(file: ConfigFile) -> BasicCredentials:
    return BasicCredentials(
        user=_credential(file, "user", "user not specified"),
        password=_credential(file, "password", "password not specified"),
    )


def _oauth(file: ConfigFile) -> OAuthCredentials:
    return OAuthCredentials(token=_credential(file, "token", "no oauth bearer token specified"))


def _aws(file: ConfigFile) -> AwsCredentials:
    return AwsCredentials(
        access_key_id=_credential(file, "accessKeyID", "no AWS Access Key ID specified"),
        secret_access_key=_credential(file, "secretAccessKey", "no AWS Secret Access Key specified"),
        region=_credential(file, "awsRegion", ""),
    )


_AUTH_TYPES: dict[str, Callable[[ConfigFile], BasicCredentials | OAuthCredentials | AwsCredentials]] = {
    "basic": _basic,
    "oauth": _oauth,
    "aws": _aws,
}

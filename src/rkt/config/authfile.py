# SPDX-License-Identifier: Apache-2.0
"""Credentials for registries as Docker and podman keep them: ``config.json`` and ``auth.json``.

Which files count, in this order, the first that knows the registry::

    --authfile=FILE                             alone, whoever owns it
    $REGISTRY_AUTH_FILE                         alone, if it is set
    $XDG_RUNTIME_DIR/containers/auth.json       /run/containers/UID/auth.json where the variable is not set
    $XDG_CONFIG_HOME/containers/auth.json       ~/.config/containers/auth.json
    $DOCKER_CONFIG/config.json                  ~/.docker/config.json

But for the first they must belong to the user who runs the command: variables may be another user's, as under sudo, and
nobody's credentials are used without being told. None may be open to everyone (invariant RG6).
"""

from __future__ import annotations

import base64
import os

from rkt.config.auth import registry_key
from rkt.errors import ConfigError, InvalidManifest, quoted
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from rkt.config.settings import Settings

MAX_FILE_BYTES = 1 << 20
_OPEN_TO_ALL = 0o007
#: Names of helpers are parts of program names.
_HELPER_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
#: Paths that only say which version of the protocol was spoken when the entry was made.
_VERSIONS = frozenset(("", "v1", "v2"))


class Secret(Record):
    """What a registry, or who issues its tokens, may be sent.

    Attributes:
        user, password: basic credentials; the user is empty where there are none.
        identity_token: exchanged for tokens.
        token: sent to the registry as it is.
        source: where it was found, for people.
    """

    source: str
    user: str = ""
    password: str = ""
    identity_token: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return f"Secret(source={self.source!r}, user={self.user!r})"


class AuthFile(Record):
    """One file that was read.

    Attributes:
        path: where it is.
        uid: who owns it; helpers run as that user.
        entries: registry, perhaps with a path below it, to what it is sent.
        helpers: registry to the name of the helper that knows its credentials.
        store: name of the helper that knows all others, or empty.
    """

    path: str
    uid: int
    entries: dict[str, Secret] = {}
    helpers: dict[str, str] = {}
    store: str = ""

    def __repr__(self) -> str:
        return f"AuthFile(path={self.path!r}, entries={sorted(self.entries)})"

    def helper(self, registry: str) -> str:
        """Name of the helper to ask about a registry; empty when there is none."""
        return self.helpers.get(registry_key(registry), self.store)

    def entry(self, registry: str, repository: str) -> Secret | None:
        """The entry for the longest path that the repository is at or below, else for the registry."""
        name = registry_key(registry)
        parts = repository.split("/") if repository else []
        for count in range(len(parts), -1, -1):
            found = self.entries.get("/".join((name, *parts[:count])))
            if found is not None:
                return found
        return None


def auth_files(
    settings: Settings, environment: Mapping[str, str], warn: Callable[[str], object]
) -> Iterator[AuthFile]:
    """The files that count for the user who runs the command.

    Args:
        settings: ``authfile`` is the one that was named, or empty.
        environment: of the command.
        warn: is told of a file that is passed over because it is somebody else's.
    Raises:
        ConfigError: a file that was named is missing or another user's; one that counts is open to everyone, or no such
            file at all.
    """
    if settings.authfile:
        yield _load(settings.authfile)
        return
    uid = os.geteuid()
    if named := environment.get("REGISTRY_AUTH_FILE"):
        file = _load(os.path.abspath(named))
        if file.uid != uid:
            raise ConfigError(
                f'the file of $REGISTRY_AUTH_FILE, "{named}", belongs to another user',
                hint=f"--authfile={named} uses it all the same",
            )
        yield file
        return
    home = environment.get("HOME") or _home(uid)
    runtime = environment.get("XDG_RUNTIME_DIR") or f"/run/containers/{uid}"
    settings_dir = environment.get("XDG_CONFIG_HOME") or f"{home}/.config"
    docker = environment.get("DOCKER_CONFIG") or f"{home}/.docker"
    for path in (
        f"{runtime}/containers/auth.json" if environment.get("XDG_RUNTIME_DIR") else f"{runtime}/auth.json",
        f"{settings_dir}/containers/auth.json",
        f"{docker}/config.json",
    ):
        try:
            owner = os.stat(path).st_uid
        except OSError:
            continue
        if owner == uid:
            yield _load(path)
        else:
            warn(f"credentials in {path} belong to another user and are not used; --authfile={path} would")


def _home(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return "/nonexistent"


def _load(path: str) -> AuthFile:
    from rkt.schema import jsontext

    try:
        # A pipe would be waited for, and its owner is whoever made it.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            data = os.pread(fd, MAX_FILE_BYTES + 1, 0) if status.st_mode & 0o170000 == 0o100000 else None
        finally:
            os.close(fd)
    except OSError as e:
        raise ConfigError(f'cannot read the credentials in "{path}": {e.strerror}') from e
    if data is None:
        raise ConfigError(f'"{path}" is not a regular file')
    if status.st_mode & _OPEN_TO_ALL:
        raise ConfigError(f'credentials in "{path}" are open to everyone', hint=f"chmod 0600 {path}")
    try:
        members = jsontext.parse(data, what=f'"{path}"', limit_bytes=MAX_FILE_BYTES)
    except InvalidManifest as e:
        raise ConfigError(e.message) from None
    return parse_auth_file(members, path, status.st_uid)


def parse_auth_file(members: Any, path: str, uid: int) -> AuthFile:
    """The decoded JSON of a file; what is in it besides credentials is no concern of ours.

    Raises:
        ConfigError: it has not the form that Docker and podman write.
    """
    fields = _object(members, path, "the file")
    entries: dict[str, Secret] = {}
    for key, value in _object(fields.get("auths") or {}, path, "auths").items():
        name = _name(key)
        secret = _secret(_object(value, path, f"auths of {quoted(key)}"), path, key)
        # Docker writes an empty entry where a helper knows the credentials.
        if name and secret is not None:
            entries[name] = secret
    helpers: dict[str, str] = {}
    for key, value in _object(fields.get("credHelpers") or {}, path, "credHelpers").items():
        helpers[_name(key)] = _helper(value, path)
    store = fields.get("credsStore") or ""
    return AuthFile(
        path=path, uid=uid, entries=entries, helpers=helpers, store=_helper(store, path) if store else ""
    )


def _name(key: str) -> str:
    """What an entry is about, in the one form in which it is looked up."""
    scheme, separator, rest = key.partition("://")
    host, _, path = (rest if separator and scheme in {"https", "http"} else key).partition("/")
    path = path.strip("/")
    # With a scheme it is Docker's, who knows no paths.
    return registry_key(host) if separator or path in _VERSIONS else f"{registry_key(host)}/{path}"


def _secret(entry: dict[str, Any], path: str, key: str) -> Secret | None:
    texts: dict[str, str] = {}
    for name in ("auth", "username", "password", "identitytoken", "registrytoken"):
        value = entry.get(name) or ""
        # Nothing of the value itself may reach a message.
        if not isinstance(value, str) or not value.isprintable():
            raise ConfigError(f'{name} of {quoted(key)} is not text (in "{path}")')
        texts[name] = value
    user, password = texts["username"], texts["password"]
    if texts["auth"]:
        try:
            user, _, password = base64.b64decode(texts["auth"], validate=True).decode().partition(":")
        except ValueError:
            raise ConfigError(
                f'auth of {quoted(key)} is not a user and a password in base64 (in "{path}")'
            ) from None
        password = password.rstrip("\0")
    if not any((user, texts["identitytoken"], texts["registrytoken"])):
        return None
    return Secret(
        source=path,
        user=user,
        password=password,
        identity_token=texts["identitytoken"],
        token=texts["registrytoken"],
    )


def _helper(value: object, path: str) -> str:
    if (
        not isinstance(value, str)
        or not value
        or value[0] in "-."
        or not _HELPER_CHARACTERS.issuperset(value)
    ):
        raise ConfigError(f'invalid name of a credential helper (in "{path}")')
    return value


def _object(value: object, path: str, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f'{what} is not an object (in "{path}")')
    return value

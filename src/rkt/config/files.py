# SPDX-License-Identifier: Apache-2.0
"""Configuration files: which count, what each must have (spec cli §4.1).

Three directories, system, local, user; in each one sub-directory per subject. Only regular files named ``*.json``
directly inside count. A file says what it is by ``rktKind`` and ``rktVersion``.
"""

from __future__ import annotations

import os

from rkt.errors import ConfigError, InvalidManifest
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Largest configuration file, in bytes.
MAX_FILE_BYTES = 1024 * 1024
#: All kinds there are; each knows version ``v1`` only.
KINDS = ("auth", "dockerAuth", "network", "paths", "privateUsers", "proxy", "registry", "stage1", "tls")
VERSION = "v1"
_WRITABLE_BY_ALL = 0o002


class ConfigFile(Record):
    """One file that was read.

    Attributes:
        path: where it is.
        kind: one of ``KINDS``.
        members: the JSON object.
    """

    path: str
    kind: str
    members: dict[str, Any]

    def error(self, text: str) -> ConfigError:
        """An error that names this file."""
        return ConfigError(f'{text} (in "{self.path}")')

    def text(self, name: str) -> str:
        """A member that is text; absent is empty."""
        return text_member(self, self.members, name)

    def texts(self, name: str) -> list[str]:
        """A member that is a list of text; absent is empty."""
        value = self.members.get(name) or []
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.error(f'"{name}" is not a list of non-empty strings')
        return value


def text_member(file: ConfigFile, members: dict[str, Any], name: str) -> str:
    """A member of an object in ``file`` that is text; absent is empty."""
    value = members.get(name, "")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise file.error(f'"{name}" is not a string')
    return value


def read_directory(
    directory: str, kinds: tuple[str, ...], *, readable_only: bool = False
) -> list[ConfigFile]:
    """The files of one configuration directory's sub-directory, by name; a missing directory is empty.

    Args:
        directory: such as ``/etc/rkt/auth.d``.
        kinds: those that may stand there.
        readable_only: pass over what this user may not read.
    Raises:
        ConfigError: the path is no directory, or a file is not what it should be.
    """
    try:
        with os.scandir(directory) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if entry.name.endswith(".json") and entry.is_file(follow_symlinks=False)
            )
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise ConfigError(f'expected "{directory}" to be a directory') from None
    except PermissionError:
        if readable_only:
            return []
        raise
    paths = [os.path.join(directory, name) for name in names]
    return [_read(path, kinds) for path in paths if not readable_only or os.access(path, os.R_OK)]


def _read(path: str, kinds: tuple[str, ...]) -> ConfigFile:
    # Most hosts have no such file, and every command looks for some.
    from rkt.linux.files import read_bounded
    from rkt.schema import jsontext

    if os.lstat(path).st_mode & _WRITABLE_BY_ALL:
        # Whoever may write this decides where root writes and whom it trusts.
        raise ConfigError(f'configuration file "{path}" may be written by everyone', hint=f"chmod o-w {path}")
    try:
        members = jsontext.parse(
            read_bounded(path, MAX_FILE_BYTES),
            what=f'configuration file "{path}"',
            limit_bytes=MAX_FILE_BYTES,
        )
    except InvalidManifest as e:
        raise ConfigError(e.message) from None
    if not isinstance(members, dict):
        raise ConfigError(f'configuration file "{path}" is not a JSON object')
    kind = members.get("rktKind") or ""
    version = members.get("rktVersion") or ""
    if not kind or not isinstance(kind, str):
        raise ConfigError(f'no rktKind specified in "{path}"')
    if not version or not isinstance(version, str):
        raise ConfigError(f'no rktVersion specified in "{path}"')
    if kind not in KINDS:
        raise ConfigError(f'no parser available for configuration of kind "{kind}" (in "{path}")')
    if version != VERSION:
        raise ConfigError(
            f'no parser available for configuration of kind "{kind}" and version "{version}" (in "{path}")'
        )
    if kind not in kinds:
        allowed = ", ".join(f'"{name}"' for name in kinds)
        raise ConfigError(
            f'the configuration directory of "{path}" expects kinds {allowed}, but the file has kind "{kind}"'
        )
    return ConfigFile(path=path, kind=kind, members=members)

# SPDX-License-Identifier: Apache-2.0
"""Kind ``stage1``: which stage1 image pods get by default (spec cli §4.5)."""

from __future__ import annotations

from rkt.config.files import read_directory
from rkt.errors import InvalidManifest
from rkt.schema.record import Record
from rkt.values import ACIdentifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.files import ConfigFile
    from rkt.config.settings import Settings


class Stage1Config(Record):
    """Name and version of the image, both or none, and where to get it; empty when not configured."""

    name: str = ""
    version: str = ""
    location: str = ""


_SCHEMES = ("docker", "file", "http", "https")
_SCHEME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.")


def load_stage1(settings: Settings) -> Stage1Config:
    """Merge all directories: name and version as a pair, location by itself; later directories win."""
    merged: dict[str, str] = {}
    for directory in settings.config_dirs:
        merged |= _directory_fields(read_directory(f"{directory}/stage1.d", ("stage1",)))
    return Stage1Config(**merged)


def _directory_fields(files: list[ConfigFile]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for file in files:
        name, version, location = file.text("name"), file.text("version"), file.text("location")
        if version and not name:
            raise file.error("default stage1 image version specified, but name is missing")
        if name and not version:
            raise file.error("default stage1 image name specified, but version is missing")
        if name:
            if "name" in fields:
                raise file.error("default stage1 image name and version are already specified")
            try:
                fields["name"] = ACIdentifier.parse(name, what="default stage1 image name")
            except InvalidManifest as e:
                raise file.error(e.message) from None
            fields["version"] = version
        if location:
            if "location" in fields:
                raise file.error("default stage1 image location is already specified")
            _check_location(file, location)
            fields["location"] = location
    return fields


def _check_location(file: ConfigFile, location: str) -> None:
    if location.startswith("/"):
        return
    scheme, colon, _ = location.partition(":")
    if not colon or not scheme or not _SCHEME_CHARACTERS.issuperset(scheme):
        raise file.error("default stage1 image location is either a relative path or a URL without scheme")
    if scheme.lower() not in _SCHEMES:
        allowed = ", ".join(f'"{name}"' for name in _SCHEMES)
        raise file.error(
            f'default stage1 image location URL has invalid scheme "{scheme}", allowed schemes are {allowed}'
        )

# SPDX-License-Identifier: Apache-2.0
"""Kind ``paths``: where the data directory and further stage1 images are (spec cli §4.4)."""

from __future__ import annotations

from rkt.config.files import read_directory
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.files import ConfigFile
    from rkt.config.settings import Settings


class PathsConfig(Record):
    """Absolute paths; empty when not configured."""

    data: str = ""
    stage1_images: str = ""


#: (member of the file, field, what it is).
_FIELDS = (
    ("data", "data", "data directory"),
    ("stage1-images", "stage1_images", "stage1 images directory"),
)


def load_paths(settings: Settings) -> PathsConfig:
    """Merge all directories, field by field; later directories win."""
    merged: dict[str, str] = {}
    for directory in settings.config_dirs:
        merged |= _directory_fields(read_directory(f"{directory}/paths.d", ("paths",)))
    return PathsConfig(**merged)


def configured_data_dir(settings: Settings) -> str:
    """The data directory that configuration names, or empty."""
    return load_paths(settings).data


def _directory_fields(files: list[ConfigFile]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for file in files:
        for member, field, what in _FIELDS:
            value = file.text(member)
            if not value:
                continue
            if field in fields:
                raise file.error(f"{what} is already specified")
            if not value.startswith("/"):
                raise file.error(f"{what} must be an absolute path")
            fields[field] = value
    return fields

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from rkt.config.settings import Settings
from rkt.config.users import load_users
from rkt.errors import ConfigError

if TYPE_CHECKING:
    pass


def write(directory: str, name: str, ranges: object) -> None:
    """A file of ``users.d``."""
    os.makedirs(f"{directory}/users.d", exist_ok=True)
    with open(f"{directory}/users.d/{name}.json", "w", encoding="utf-8") as file:
        json.dump({"rktVersion": "v1", "rktKind": "privateUsers", "ranges": ranges}, file)


def test_nothing_configured(settings: Settings) -> None:
    """Without files there are no ranges, which leaves the choice to others."""
    assert load_users(settings).ranges == []


def test_the_last_directory_with_ranges_counts(settings: Settings) -> None:
    """Files of one directory add up, in the order of their names; a later directory replaces them all."""
    write(settings.system_config_dir, "b", ["65536:65536"])
    write(settings.system_config_dir, "a", ["100000:70000", "4294901759:65536"])
    expected = [(100000, 70000), (4294901759, 65536), (65536, 65536)]
    assert load_users(settings).ranges == expected
    write(settings.local_config_dir, "c", [])
    assert load_users(settings).ranges == expected
    write(settings.local_config_dir, "c", ["200000:65536"])
    assert load_users(settings).ranges == [(200000, 65536)]


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (["65535:65536"], "is not within 65536 to 4294967294"),
        (["4294901760:65536"], "is not within 65536 to 4294967294"),
        (["0:4294967295"], "is not within"),
        (["65536"], "is not a range of ids, FIRST:COUNT"),
        (["65536:-1"], "is not a range of ids"),
        (["65536:65536:1"], "is not a range of ids"),
        (["99999999999:1"], "is not a range of ids"),
        (["²:1"], "is not a range of ids"),
        ("65536:65536", "is not a list of non-empty strings"),
        ([65536], "is not a list of non-empty strings"),
    ],
)
def test_ranges_that_cannot_be(settings: Settings, ranges: object, message: str) -> None:
    """Ids of the host's own users, ids that there are not, and what is no range are errors that name the file."""
    write(settings.local_config_dir, "pool", ranges)
    with pytest.raises(ConfigError, match=message) as failure:
        load_users(settings)
    assert "users.d/pool.json" in failure.value.message

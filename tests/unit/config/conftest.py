# SPDX-License-Identifier: Apache-2.0
"""What tests of configuration share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rkt.config.settings import Installation, Settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Two configuration directories, neither of which is there."""
    return Settings(
        installation=Installation(package_path="", library_paths=[], stage1_images_path=""),
        system_config_dir=str(tmp_path / "system"),
        local_config_dir=str(tmp_path / "local"),
    )

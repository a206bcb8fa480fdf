# SPDX-License-Identifier: Apache-2.0
"""What tests of hostile bytes share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CONTENT = b"what was there before"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory next to the target of hostile bytes; its file, ``victim``, must stay as it is."""
    directory = tmp_path / "outside"
    directory.mkdir()
    victim = directory / "victim"
    victim.write_bytes(_CONTENT)
    victim.chmod(0o600)
    before = victim.stat()
    yield directory
    after = victim.stat()
    assert victim.read_bytes() == _CONTENT
    assert (before.st_mode, before.st_uid, before.st_nlink) == (after.st_mode, after.st_uid, after.st_nlink)
    assert list(directory.iterdir()) == [victim]

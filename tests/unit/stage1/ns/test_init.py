# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.errors import Stage1Error
from rkt.stage1.ns.init import open_reaper

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.mark.parametrize("mode", [0o755, 0o4111, 0o113], ids=oct)
def test_a_pods_first_program_may_be_executed_and_nothing_else(tmp_path: Path, mode: int) -> None:
    """A first process whose program could be read or replaced is refused: its memory would be no secret."""
    path = tmp_path / "reaper"
    path.write_bytes(b"")
    path.chmod(0o111)
    fd = open_reaper(str(path))
    assert os.fstatvfs(fd).f_flag & os.ST_RDONLY
    os.close(fd)
    path.chmod(mode)
    with pytest.raises(Stage1Error, match="mode 0111"):
        open_reaper(str(path))

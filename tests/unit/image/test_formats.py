# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import os
from pathlib import Path

from tests.lib.unpacking import Unpacked, unpack

SAMPLES = Path(__file__).parents[2] / "data" / "formats" / "1"


def test_version_1_is_still_read(tmp_path: Path) -> None:
    """A tar-split file that was written by version 1 rebuilds and verifies its image today."""
    blob = (SAMPLES / "tar-split.aci.gz").read_bytes()
    image = unpack(tmp_path, blob)
    stored = Unpacked(image.tree, SAMPLES / "tar-split", image.result)
    assert stored.rebuild() == gzip.decompress(blob)
    if os.geteuid() == 0:
        assert stored.verify() == []

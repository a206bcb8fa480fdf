# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import os
from pathlib import Path

from tests.lib import layers
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


def test_layers_of_version_2_are_still_read(tmp_path: Path) -> None:
    """A tar-split file of an OCI layer that was written before rebuilds and verifies it today."""
    blob = (SAMPLES / "layer.tar.gz").read_bytes()
    layer = layers.unpack(tmp_path, blob)
    layer.split = SAMPLES / "layer-split"
    assert layer.rebuild() == gzip.decompress(blob)
    assert (layer.tree / "marks").read_bytes() == (SAMPLES / "store" / "layer-marks").read_bytes()
    if os.geteuid() == 0:
        assert layer.verify() == []

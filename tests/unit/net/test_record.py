# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rkt.net import record
from rkt.net.record import Interface

if TYPE_CHECKING:
    from pathlib import Path


def interface(name: str, file_name: str) -> Interface:
    """What is written down of one interface."""
    return Interface(
        name=name,
        network="x",
        copy=record.copy_path(file_name),
        version="1.0.0",
        args="",
        search=[],
        calls=[],
    )


@pytest.mark.parametrize("file_name", ["net1.json", "10-1.json", "eth1.json", "eth0.json", "eth07.json"])
def test_files_of_networks_are_no_records(tmp_path: Path, file_name: str) -> None:
    """Invariant NT7: whatever the file of a network is called, its copy is not taken for what there is to take back."""
    (tmp_path / "net").mkdir()
    made = interface("eth0", file_name)
    (tmp_path / made.copy).write_bytes(b"{}")
    made.write(str(tmp_path))
    assert record.names(str(tmp_path)) == ["eth0"]
    assert record.load(str(tmp_path), "eth0") == made
    made.forget(str(tmp_path))
    assert not list((tmp_path / "net").iterdir())


def test_records_in_order(tmp_path: Path) -> None:
    """Interfaces come by number, and none where there are no networks."""
    assert record.names(str(tmp_path)) == []
    (tmp_path / "net").mkdir()
    for name in ("eth10", "eth2", "eth0"):
        interface(name, "a.conf").write(str(tmp_path))
    assert record.names(str(tmp_path)) == ["eth0", "eth2", "eth10"]

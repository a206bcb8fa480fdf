# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from rkt.linux import cgroup_migration, cgroupfs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("is_dead", [True, False])
def test_who_dies_on_the_way_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_dead: bool
) -> None:
    """A process that the kernel does not move because it is ending is no failure; one that runs and is not moved is."""
    (tmp_path / "cgroup.procs").touch()
    monkeypatch.setattr(cgroupfs, "write", lambda _path, _data: None)
    hierarchy = SimpleNamespace(version=1, key="memory")
    group: Any = SimpleNamespace(places=[(hierarchy, "", str(tmp_path))], inherited=[])
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        try:
            if is_dead:
                process.kill()
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
                cgroup_migration.take(group, process.pid)
            else:
                with pytest.raises(OSError, match="born faster"):
                    cgroup_migration.take(group, process.pid)
        finally:
            process.kill()

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rkt.linux.cgroupfs import membership
from rkt.pod import processes

_PROGRAM = "import os; os.setgroups(range(4000)); print(1, flush=True); input()"


@pytest.mark.skipif(os.geteuid() != 0, reason="takes supplementary groups")
def test_a_process_cannot_hide_behind_its_groups() -> None:
    """A process with more supplementary groups than anybody needs is shown like any other."""
    words = [sys.executable, "-I", "-S", "-c", _PROGRAM]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        fd = os.open(f"/proc/{process.pid}", os.O_RDONLY | os.O_DIRECTORY)
        try:
            shown = processes._read(fd, process.pid, _group_of(process.pid), (), {}, processes._Clock(), 0)
        finally:
            os.close(fd)
        process.kill()
    assert shown is not None
    assert (shown.uid, shown.pod_pid) == (0, process.pid)


def _group_of(pid: int) -> str:
    """The last component of a cgroup that a process is in."""
    return next(path for path in membership(pid).values() if path != "/").rpartition("/")[2]

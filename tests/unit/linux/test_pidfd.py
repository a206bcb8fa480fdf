# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from rkt.linux import libc, pidfd

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing until it is killed."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def test_start_time(sleeper: subprocess.Popen[bytes]) -> None:
    """A process keeps one start time while it lives, and it is not before its parent's."""
    start = pidfd.start_time(sleeper.pid)
    assert start >= pidfd.start_time("self") > 0
    assert start == pidfd.start_time(sleeper.pid)
    assert pidfd.is_alive(sleeper.pid, start)
    assert not pidfd.is_alive(sleeper.pid, start + 1)
    assert not pidfd.is_exiting(sleeper.pid)


def test_gone(sleeper: subprocess.Popen[bytes]) -> None:
    """A zombie is not alive, and a reaped process has no start time."""
    start = pidfd.start_time(sleeper.pid)
    fd = pidfd.open_pid(sleeper.pid, start)
    try:
        assert not pidfd.wait_exit(fd, 0)
        assert pidfd.send_signal(fd, signal.SIGKILL)
        assert pidfd.wait_exit(fd, 30)
        assert not pidfd.is_alive(sleeper.pid, start)
        assert pidfd.is_exiting(sleeper.pid)
        sleeper.wait()
        assert pidfd.is_exiting(sleeper.pid)
        assert pidfd.start_time(sleeper.pid) == 0
        assert not pidfd.is_alive(sleeper.pid, start)
        assert not pidfd.send_signal(fd, signal.SIGTERM)
    finally:
        os.close(fd)


def test_reused_number(sleeper: subprocess.Popen[bytes]) -> None:
    """Invariant EN4: a number with another start time is another process, and nothing stays open."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ProcessLookupError):
        pidfd.open_pid(sleeper.pid, pidfd.start_time(sleeper.pid) - 1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_deadline(sleeper: subprocess.Popen[bytes]) -> None:
    """Waiting for a process that does not end ends at the deadline."""
    fd = pidfd.open_pid(sleeper.pid)
    begin = time.monotonic()
    try:
        assert not pidfd.wait_exit(fd, 0.05)
    finally:
        os.close(fd)
    assert 0.04 < time.monotonic() - begin < 10


def test_command_name_is_not_parsed() -> None:
    """A command with parentheses and spaces does not shift the columns of /proc/PID/stat."""
    program = "import ctypes,time; ctypes.CDLL(None).prctl(15, b') R 1 (x', 0, 0, 0); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        start = pidfd.start_time(process.pid)
        process.kill()
    assert start >= pidfd.start_time("self")


def test_clone3() -> None:
    """A process made by clone3 is an ordinary child with a descriptor."""
    pid, fd = libc.clone3(0)
    if pid == 0:
        os._exit(7)
    try:
        assert pidfd.wait_exit(fd, 30)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)

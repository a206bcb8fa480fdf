# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rkt.stage1.common import terminal

#: More than pipes and what waits for them hold together.
_MUCH = 1 << 20
_SOURCES = Path(__file__).parents[4] / "src"
_PROGRAM = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from rkt.stage1.common import terminal

command = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
pairs = [(0, command.stdin.fileno()), (command.stdout.fileno(), 1)]
terminal.relay(pairs, os.pidfd_open(command.pid))
os._exit(command.wait())
"""


def test_a_command_that_writes_while_it_is_written_to() -> None:
    """What goes in and what comes out do not wait for each other, also when there is much of both, and all of it arrives."""
    data = os.urandom(_MUCH)
    words = [sys.executable, "-I", "-c", _PROGRAM, str(_SOURCES)]
    done = subprocess.run(words, input=data, stdout=subprocess.PIPE, timeout=30, check=True)
    assert done.stdout == data


def test_a_locked_terminal_is_not_opened() -> None:
    """Whoever opens it by name is told to come back (EIO), and has it when the lock is off."""
    master, slave = os.openpty()
    try:
        name = os.ttyname(slave)
        terminal.lock(master, is_locked=True)
        with pytest.raises(OSError, match="Input/output error"):
            os.open(name, os.O_RDWR | os.O_NOCTTY)
        terminal.lock(master, is_locked=False)
        other = os.open(name, os.O_RDWR | os.O_NOCTTY)
        os.write(other, b"there")
        assert os.read(master, 16) == b"there"
        os.close(other)
    finally:
        os.close(master)
        os.close(slave)

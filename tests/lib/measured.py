# SPDX-License-Identifier: Apache-2.0
"""Runs a command and says how long it took and how much memory its largest process needed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

#: Starts the command from a small process: memory between fork and exec counts as the child's.
_STARTER = """
import json, os, sys, time
start = time.monotonic()
pid = os.fork()
if pid == 0:
    os.dup2(2, 1)
    os.execv(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(pid, 0)
times = [time.monotonic() - start, usage.ru_utime + usage.ru_stime]
print(json.dumps([os.waitstatus_to_exitcode(status), *times, usage.ru_maxrss * 1024]))
"""


@dataclass(frozen=True)
class Measured:
    """How a command ended.

    Attributes:
        status: exit status, negative for a signal.
        output: what it wrote to stdout and stderr.
        seconds: wall clock; says as much of the machine's other work as of the command.
        processor_seconds: of the command and all that it waited for.
        peak_bytes: resident memory of the largest of all processes that it waited for, itself included.
    """

    status: int
    output: str
    seconds: float
    processor_seconds: float
    peak_bytes: int


def measure(command: list[str], *, timeout_seconds: float = 60) -> Measured:
    """Run a command to its end; its input is empty."""
    done = subprocess.run(
        [sys.executable, "-IS", "-c", _STARTER, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=True,
    )
    status, seconds, processor_seconds, peak_bytes = json.loads(done.stdout)
    return Measured(status, done.stderr, seconds, processor_seconds, peak_bytes)

# SPDX-License-Identifier: Apache-2.0
"""Finds the workers of a running command and reads what /proc says of them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from tests.lib.pace import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import Callable

NAMESPACES = ("mnt", "net", "ipc", "uts", "pid")


class Seen:
    """What /proc says of a process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            self.status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        with open(f"/proc/{pid}/environ", "rb") as file:
            self.environment = set(filter(None, file.read().split(b"\0")))
        self.namespaces = {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}
        self.descriptors = {
            name: os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")
        }
        with open(f"/proc/{pid}/limits", encoding="ascii") as file:
            self.limits = {line[:26].strip(): line[26:].split()[:2] for line in file}
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
            self.mounts = [line.split() for line in file]
        self.root_entries = set(os.listdir(f"/proc/{pid}/root"))
        with open(f"/proc/{pid}/stat", "rb") as file:
            self.state = file.read().rpartition(b") ")[2][:1]

    def ids(self, name: str) -> set[int]:
        """Real, effective, saved and file system id."""
        return {int(word) for word in self.status[name].split()}

    def capabilities(self, name: str) -> int:
        """One capability set."""
        return int(self.status[name], 16)


def worker(name: str, ancestor: int, accept: Callable[[Seen], bool]) -> Seen:
    """The process of that name below an ancestor that is process 1 of a pid namespace, once it is confined."""
    deadline = time.monotonic() + 20 * SLOWNESS
    while time.monotonic() < deadline:
        for entry in os.listdir("/proc"):
            try:
                with open(f"/proc/{entry}/comm", encoding="utf-8") as file:
                    if file.read().strip() != name:
                        continue
                if not _descends(int(entry), ancestor):
                    continue
                seen = Seen(int(entry))
            except (OSError, ValueError):
                continue
            if accept(seen):
                return seen
        time.sleep(0.002)
    raise AssertionError(f"no confined {name} was seen")


def _descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        with open(f"/proc/{pid}/stat", "rb") as file:
            pid = int(file.read().rpartition(b") ")[2].split()[1])
    return False


def is_confined(seen: Seen) -> bool:
    """The last step of both workers."""
    return seen.status["Seccomp"] == "2"

# SPDX-License-Identifier: Apache-2.0
"""Faults at exact points: a command under strace(1), whose n-th call of one kind kills it or fails.

A call that changes nothing needs no point: whatever happens between two calls of ``CALLS`` leaves the same state behind.
"""

from __future__ import annotations

import collections
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator

    from tests.lib.rkt import Result, Rkt

#: What changes files, mounts, processes and locks. Names that an architecture lacks are left out by strace's ``?``.
CALLS = (
    *("mkdir", "mkdirat", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("unlink", "unlinkat", "rmdir", "write", "pwrite64", "fsync", "fdatasync", "syncfs", "ftruncate"),
    *("chown", "fchown", "fchownat", "fchmod", "fchmodat", "flock", "setns", "unshare", "sendmsg"),
    *("mount", "umount2", "move_mount", "open_tree", "mount_setattr", "fsopen", "fsconfig", "fsmount"),
    *("clone", "clone3", "vfork", "execve"),
)
KILL = "signal=KILL"
_MOST_NUMBERS = 60
#: Errors that a disk, a full table or a full memory gives, by the calls that can have them.
ERRORS = {
    "ENOSPC": ("mkdir", "mkdirat", "rename", "link", "linkat", "symlinkat", "write", "pwrite64", "ftruncate"),
    "EIO": ("write", "fsync", "fdatasync", "syncfs", "rename", "unlinkat", "rmdir"),
    "EMFILE": ("openat", "openat2", "pipe2", "socket", "socketpair", "open_tree"),
    "ENOMEM": ("mount", "move_mount", "clone3", "unshare", "mount_setattr"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One call that goes wrong.

    Attributes:
        call: its name.
        number: which one of a process, from 1.
        what: ``KILL``, or ``error=NAME``.
        everywhere: whether it happens in children of the command, too.
    """

    call: str
    number: int
    what: str = KILL
    everywhere: bool = False

    def __str__(self) -> str:
        return f"{self.what} at {self.call} {self.number}{' of any process' if self.everywhere else ''}"


class Tracer:
    """Runs commands of one engine under strace."""

    def __init__(self, rkt: Rkt) -> None:
        found = shutil.which("strace")
        if found is None:
            pytest.skip("needs strace (Debian: strace)")
        self._rkt = rkt
        self._strace = found

    def calls(self, *words: str, everywhere: bool = False, names: Iterable[str] = CALLS) -> dict[str, int]:
        """How often an undisturbed command, which must succeed, makes each call; at most in one process."""
        log = os.path.join(self._rkt.tmp, "trace")
        self._run(words, "-o", log, "-e", f"trace={_set(names)}", everywhere=everywhere, check=0)
        counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        with open(log, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                pid, text = line.split(None, 1) if everywhere else ("", line)
                name, parenthesis, _ = text.partition("(")
                if parenthesis and name.isidentifier():
                    counts[pid][name] += 1
        os.unlink(log)
        most: dict[str, int] = {}
        for counter in counts.values():
            for name, count in counter.items():
                most[name] = max(most.get(name, 0), count)
        return most

    def run(self, fault: Fault, *words: str) -> Result:
        """Run a command that meets a fault."""
        rule = f"inject={_set([fault.call])}:{fault.what}:when={fault.number}"
        trace = f"trace={_set([fault.call])}"
        return self._run(words, "-o", "/dev/null", "-e", trace, "-e", rule, everywhere=fault.everywhere)

    def _run(self, words: tuple[str, ...], *flags: str, everywhere: bool, check: int | None = None) -> Result:
        self._rkt.prefix = (self._strace, "-qq", *(["-f"] if everywhere else []), *flags, "--")
        try:
            return self._rkt.run(*words, check=check)
        finally:
            self._rkt.prefix = ()


def _set(names: Iterable[str]) -> str:
    return ",".join(f"?{name}" for name in names)


def kills(calls: dict[str, int], *, everywhere: bool = False) -> Iterator[Fault]:
    """SIGKILL before each call that was counted."""
    for call, count in sorted(calls.items()):
        for number in range(1, count + 1):
            yield Fault(call, number, everywhere=everywhere)


def errors(calls: dict[str, int]) -> Iterator[Fault]:
    """Each call that was counted fails in each way that it can, in whichever process makes it.

    Of a call that is made very often, as files are opened, every so manieth.
    """
    for error, names in ERRORS.items():
        for call in names:
            count = calls.get(call, 0)
            for number in range(1, count + 1, 1 + count // _MOST_NUMBERS):
                yield Fault(call, number, f"error={error}", everywhere=True)


def some(faults: Iterable[Fault], count: int, dice: random.Random) -> list[Fault]:
    """A random part, in order; all of them for a negative ``count``."""
    every = list(faults)
    if count < 0 or count >= len(every):
        return every
    return [every[index] for index in sorted(dice.sample(range(len(every)), count))]

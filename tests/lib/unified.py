# SPDX-License-Identifier: Apache-2.0
"""Version 2 cgroups in memory, for tests of where pods get their cgroups."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from rkt.linux import cgroup, cgroupfs

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

NAME = "rkt-6e3f2d8a"


class UnifiedKernel:
    """Version 2 cgroups in memory, with the kernel's rule that children get controllers only without processes above."""

    def __init__(self, controllers: str) -> None:
        self.controllers = {"/c": set(controllers.split())}
        self.subtree: dict[str, set[str]] = {"/c": set()}
        self.members: dict[str, set[int]] = {"/c": set()}
        #: Cgroups that nobody may move to.
        self.refused: set[str] = set()
        #: Called when the caller has moved.
        self.after_move: Callable[[], None] = lambda: None

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        """A new cgroup has what its parent's subtree_control says."""
        if path in self.controllers:
            raise FileExistsError(errno.EEXIST, "exists", path)
        self.controllers[path] = set(self.subtree[os.path.dirname(path)])
        self.subtree[path] = set()
        self.members[path] = set()

    def rmdir(self, path: str) -> None:
        """Only without processes."""
        if self.members[path]:
            raise OSError(errno.EBUSY, "processes are in it", path)
        for table in (self.controllers, self.subtree, self.members):
            del table[path]

    def read(self, path: str) -> str:
        """The three files that matter here."""
        directory, name = os.path.split(path)
        if name == "cgroup.procs":
            return "".join(f"{pid}\n" for pid in sorted(self.members[directory]))
        table = {"cgroup.controllers": self.controllers, "cgroup.subtree_control": self.subtree}[name]
        return " ".join(sorted(table[directory])) + "\n"

    def write(self, path: str, data: bytes) -> None:
        """Enabling controllers, and moving the caller."""
        directory, name = os.path.split(path)
        if name == "cgroup.procs":
            if directory in self.refused:
                raise PermissionError(errno.EACCES, "refused", path)
            for members in self.members.values():
                members.discard(os.getpid())
            self.members[directory].add(os.getpid())
            self.after_move()
            return
        assert name == "cgroup.subtree_control"
        wanted = {word.removeprefix("+") for word in data.decode().split()}
        if not wanted <= self.controllers[directory]:
            raise OSError(errno.ENOENT, "no such controller", path)
        if self.members[directory] and directory != "/c":
            raise OSError(errno.EBUSY, "processes are in the way", path)
        self.subtree[directory] |= wanted
        for child in self.controllers:
            if os.path.dirname(child) == directory and child != "/c":
                self.controllers[child].update(wanted)


def install(monkeypatch: pytest.MonkeyPatch) -> UnifiedKernel:
    """A host with the slice and scope of a login session, in place of this one."""
    kernel = UnifiedKernel("cpu memory pids io")
    kernel.mkdir("/c/user.slice")
    kernel.mkdir("/c/user.slice/session.scope")
    monkeypatch.setattr(cgroupfs, "read", kernel.read)
    monkeypatch.setattr(cgroupfs, "write", kernel.write)
    monkeypatch.setattr(os, "mkdir", kernel.mkdir)
    monkeypatch.setattr(os, "rmdir", kernel.rmdir)
    return kernel


def create(own_path: str) -> cgroup.Group:
    """A pod made by a caller in that cgroup."""
    unified = cgroupfs.Hierarchy(2, (), "/c", "/", own_path)
    return cgroup.create_pod(cgroupfs.Hierarchies([unified]), NAME, ("memory", "pids", "devices", "cpu"))

# SPDX-License-Identifier: Apache-2.0
"""Staging: one private directory per operation, named so that any later command can prove it dead and remove it.

``$DATA/cas/tmp/BOOTID-PID-STARTTIME-RANDOM/`` (0700). The owner is dead when the boot id is not the current one, or when
no process has that pid and that start time. What is in it is never part of the store; what becomes part of the store
is renamed out of it.
"""

from __future__ import annotations

import os

from rkt.errors import StoreError, reason_of
from rkt.linux.files import remove_tree
from rkt.linux.pidfd import is_alive, start_time
from rkt.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_HEX = frozenset("0123456789abcdef")


class Staging:
    """The staging directory of one operation; removed on ``close`` or at the end of ``with``.

    Attributes:
        path: absolute path of the directory.
        fd: the directory, open since before anything was written below it: syncfs(2) tells a descriptor what the device
            refused since it was opened.
    """

    __slots__ = ("_name", "_tmp_path", "fd", "path")

    def __init__(self, data_dir: str) -> None:
        self._tmp_path = f"{data_dir}/cas/tmp"
        self._name = _new_name()
        self.path = f"{self._tmp_path}/{self._name}"
        try:
            os.mkdir(self.path, 0o700)
            os.chmod(self.path, 0o700)
            self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            from rkt.linux.disk import remedy

            raise StoreError(
                f"cannot create staging directory {self.path}: {e.strerror}",
                hint=remedy(e.errno),
            ) from e

    def create(self, name: str) -> int:
        """Make a new file for reading and writing; the caller owns the descriptor."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(f"{self.path}/{name}", flags, 0o600)

    def close(self) -> None:
        """Remove the directory with all that is left in it; harmless when it is gone."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        tmp_fd = os.open(self._tmp_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(self._name, dir_fd=tmp_fd)
        finally:
            os.close(tmp_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except OSError as e:
            # The sweep of a later command takes what is left; the first failure is the one to report.
            if value is None:
                raise StoreError(f"cannot remove staging directory {self.path}: {e.strerror}") from e
            value.add_note(f"and the staging directory {self.path} could not be removed: {reason_of(e)}")


def discard(data_dir: str, path: str) -> None:
    """Remove a directory of the store at once for everybody, then file by file; absent is fine.

    It becomes a staging directory of this process, so a sweep ends what a crash interrupts. Needs no room: where even a
    rename wants some, as on a full btrfs, it is removed where it stands. So the caller first takes away what says that it
    is whole.
    """
    tmp_path = f"{data_dir}/cas/tmp"
    name = _new_name()
    try:
        os.rename(path, f"{tmp_path}/{name}")
    except FileNotFoundError:
        return
    except OSError as e:
        from rkt.linux.disk import FULL

        if e.errno not in FULL:
            raise
        remove_tree(path)
        return
    tmp_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(name, dir_fd=tmp_fd)
    finally:
        os.close(tmp_fd)


def sweep(data_dir: str) -> list[str]:
    """Remove the staging directories of dead owners; cheap when there are none.

    Returns:
        what could not be removed, one line each.
    """
    tmp_path = f"{data_dir}/cas/tmp"
    problems: list[str] = []
    try:
        tmp_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return problems
    except OSError as e:
        return [f"cannot sweep {tmp_path}: {e.strerror}"]
    try:
        for name in os.listdir(tmp_fd):
            if not _is_dead(name):
                continue
            try:
                remove_tree(name, dir_fd=tmp_fd)
            except OSError as e:
                problems.append(f"cannot remove {tmp_path}/{name}: {e.strerror}")
    finally:
        os.close(tmp_fd)
    return problems


def _new_name() -> str:
    return f"{_boot_id()}-{os.getpid()}-{start_time(os.getpid())}-{os.urandom(8).hex()}"


def _is_dead(name: str) -> bool:
    """Whether the owner is provably gone; a name that is not ours proves nothing and is left alone."""
    parts = name.split("-")
    if len(parts) != 4:
        return False
    boot_id, pid, start, _ = parts
    if len(boot_id) != 32 or not _HEX.issuperset(boot_id):
        return False
    if not (is_number(pid) and is_number(start)):
        return False
    return boot_id != _boot_id() or not is_alive(int(pid), int(start))


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return file.read().decode().strip().replace("-", "")

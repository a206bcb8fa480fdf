# SPDX-License-Identifier: Apache-2.0
"""A disk that remembers every write and every flush, and what would be on it had the power gone at any moment.

The disk is one file of a FUSE file system with a loop device on it; a process of its own serves the file and writes down,
in order, what arrives. After a power cut a disk has everything up to the last flush, and any part of what came after.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from rkt.linux import libc
from tests.lib.pace import SLOWNESS

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

_FILE = "/disk"
_RECORD = struct.Struct("<cQI")
_WRITE, _FLUSH = b"W", b"F"
#: What a disk writes at once; a longer write may be torn between two.
_SECTOR_BYTES = 4096


def missing() -> str:
    """Why there can be no such disk here; empty when there can."""
    for path in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(path):
            return f"the host has no {path}"
    try:
        import mfusepy  # noqa: F401 - whether its library is there
    except (ImportError, OSError) as e:
        return f"no FUSE library: {e}"
    return ""


class Recorder:
    """A mounted ext4 whose writes are recorded.

    Attributes:
        log: path of the record.
    """

    def __init__(self, directory: str, point: str, *, mib: int = 64) -> None:
        """Make the disk in ``directory`` and mount it on ``point``."""
        self.log = f"{directory}/log"
        self.base = f"{directory}/base"
        self._point = point
        self._mount = f"{directory}/fuse"
        os.mkdir(self._mount)
        with open(self.base, "wb") as file:
            file.truncate(mib << 20)
        _call("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0", self.base)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        words = [sys.executable, "-m", "tests.lib.powercut", self._mount, self.base, self.log]
        self._server = subprocess.Popen(words, env=environment)
        self._loop = ""
        try:
            deadline = time.monotonic() + 20 * SLOWNESS
            while not os.path.exists(self._mount + _FILE):
                assert self._server.poll() is None, "the disk's process ended"
                assert time.monotonic() < deadline, "the disk does not appear"
                time.sleep(0.01)
            self._loop = _call("losetup", "--find", "--show", self._mount + _FILE)
            _call("mount", self._loop, point)
        except BaseException:
            self._end()
            raise

    def position(self) -> int:
        """How far the record goes now, in bytes."""
        return os.path.getsize(self.log)

    def close(self) -> None:
        """Unmount; the record stays."""
        descriptor = os.open(self._point, os.O_RDONLY | os.O_DIRECTORY)
        try:
            libc.syncfs(descriptor)
        finally:
            os.close(descriptor)
        _call("umount", self._point)
        self._end()

    def _end(self) -> None:
        if self._loop:
            _call("losetup", "--detach", self._loop)
        _call("umount", "--lazy", self._mount)
        try:
            self._server.wait(2 * SLOWNESS)
        except subprocess.TimeoutExpired:
            # A mount namespace that another program made meanwhile has a copy of our mounts. It cannot want this one.
            self._server.kill()
            self._server.wait()


class Cut:
    """What a recorded disk is after a power cut."""

    def __init__(self, base: str, log: str) -> None:
        with open(base, "rb") as file:
            self._base = file.read()
        with open(log, "rb") as file:
            self._log = file.read()
        self._records = list(self._parse())

    def _parse(self) -> Iterator[tuple[int, bytes, int, bytes]]:
        at = 0
        while at + _RECORD.size <= len(self._log):
            kind, offset, size = _RECORD.unpack_from(self._log, at)
            data = self._log[at + _RECORD.size : at + _RECORD.size + size]
            at += _RECORD.size + size
            yield at, kind, offset, data

    def image(self, position: int, dice: random.Random) -> bytes:
        """The disk as a cut at a position of the record may have left it."""
        image = bytearray(self._base)
        happened = [record for record in self._records if record[0] <= position]
        flushes = [index for index, record in enumerate(happened) if record[1] == _FLUSH]
        safe = flushes[-1] if flushes else 0
        for index, (_, kind, offset, data) in enumerate(happened):
            if kind != _WRITE:
                continue
            for start in range(0, len(data), _SECTOR_BYTES):
                if index < safe or dice.random() < 0.5:
                    part = data[start : start + _SECTOR_BYTES]
                    image[offset + start : offset + start + len(part)] = part
        return bytes(image)


@contextlib.contextmanager
def mounted(image: bytes, point: str) -> Iterator[None]:
    """The disk mounted after a cut; the file system repairs itself by its journal."""
    descriptor = os.memfd_create("disk", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(image)
        _call("mount", "-o", "loop", f"/proc/{os.getpid()}/fd/{descriptor}", point)
        try:
            yield
        finally:
            _call("umount", point)
    finally:
        os.close(descriptor)


def _call(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


def serve(mount: str, base: str, log: str) -> None:
    """Be the disk until it is unmounted."""
    import mfusepy

    class Disk(mfusepy.Operations):  # type: ignore[misc] # no types of its own
        use_ns = True

        def __init__(self) -> None:
            with open(base, "rb") as file:
                self.content = bytearray(file.read())
            self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

        def getattr(self, path: str, _handle: Any = None) -> dict[str, Any]:
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
            if path == _FILE:
                return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": len(self.content)}
            raise mfusepy.FuseOSError(errno.ENOENT)

        def readdir(self, _path: str, _handle: Any) -> list[str]:
            return [".", "..", _FILE[1:]]

        def read(self, _path: str, size: int, offset: int, _handle: Any) -> bytes:
            return bytes(self.content[offset : offset + size])

        def write(self, _path: str, data: bytes, offset: int, _handle: Any) -> int:
            self.content[offset : offset + len(data)] = data
            os.write(self.log, _RECORD.pack(_WRITE, offset, len(data)) + data)
            return len(data)

        def fsync(self, _path: str, _datasync: int, _handle: Any) -> int:
            os.write(self.log, _RECORD.pack(_FLUSH, 0, 0))
            return 0

    mfusepy.FUSE(Disk(), mount, foreground=True, nothreads=True, direct_io=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])

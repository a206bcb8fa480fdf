# SPDX-License-Identifier: Apache-2.0
"""Runs a small program of the host to its end, in a network namespace if need be.

What goes in and what comes out are files in memory: no pipe that fills up, and a program that wants to read its input a
second time can.
"""

from __future__ import annotations

import os
import select

from rkt.errors import HostError
from rkt.linux import libc
from rkt.schema.record import Record

#: Where programs that administrate a host stand.
DIRECTORIES = ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin")
_ENVIRONMENT = {b"PATH": b"/usr/sbin:/usr/bin:/sbin:/bin", b"LC_ALL": b"C"}
#: A program that waits for another one's lock needs seconds at most.
_TIMEOUT_SECONDS = 60
_MAX_OUTPUT_BYTES = 16 << 20
_SIGKILL = 9
_CANNOT_EXECUTE = 127


class Ended(Record):
    """How a program ended."""

    status: int
    output: str
    errors: str


def find(name: str) -> str:
    """Path of a program of the host; empty when it has none."""
    for directory in DIRECTORIES:
        if os.access(f"{directory}/{name}", os.X_OK):
            return f"{directory}/{name}"
    return ""


def run(arguments: list[str], text: str = "", *, netns_fd: int = -1) -> Ended:
    """Run a program to its end.

    Args:
        arguments: the first is its path.
        text: its standard input.
        netns_fd: network namespace to run it in; -1 for the caller's. The caller has one thread.
    Raises:
        HostError: it did not end in time, or said too much.
        OSError: it could not be started.
    """
    files = [os.memfd_create(kind) for kind in ("input", "output", "errors")]
    try:
        view = memoryview(text.encode())
        while view:
            view = view[os.write(files[0], view) :]
        os.lseek(files[0], 0, os.SEEK_SET)
        pid = os.fork()
        if not pid:
            _become(arguments, files, netns_fd)
        status = wait(pid, arguments[0], _TIMEOUT_SECONDS)
        return Ended(status=status, output=_read(files[1]), errors=_read(files[2]))
    finally:
        for fd in files:
            os.close(fd)


def _become(arguments: list[str], files: list[int], netns_fd: int) -> None:
    try:
        if netns_fd >= 0:
            libc.setns(netns_fd, libc.CLONE_NEWNET)
        for number, fd in enumerate(files):
            os.dup2(fd, number)
        libc.close_range(3, 0xFFFFFFFF)
        os.execve(arguments[0], arguments, _ENVIRONMENT)
    finally:
        os._exit(_CANNOT_EXECUTE)


def wait(pid: int, what: str, seconds: int) -> int:
    """Exit status of a child, which is killed if it takes too long; negative for a signal.

    Raises:
        HostError: it took too long.
    """
    pidfd = os.pidfd_open(pid)
    try:
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        in_time = ended.poll(seconds * 1000)
        if not in_time:
            os.kill(pid, _SIGKILL)
    finally:
        os.close(pidfd)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not in_time:
        raise HostError(f"{what} did not end within {seconds} seconds")
    return status


def _read(fd: int) -> str:
    size = os.fstat(fd).st_size
    if size > _MAX_OUTPUT_BYTES:
        raise HostError(f"a program said more than {_MAX_OUTPUT_BYTES >> 20} MiB")
    return os.pread(fd, size, 0).decode("utf-8", "replace")

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest

from rkt.linux import libc
from rkt.privsep import confine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.root


def in_child(function: Callable[[], str]) -> str:
    """What a function finds out in a process of its own; an exception's text if it raises."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            text = function()
        except BaseException as e:  # noqa: BLE001 - reported to the test
            text = f"{type(e).__name__}: {e}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text


def errors_of(*attempts: Callable[[], object]) -> str:
    """The errors that attempts end with, ``-`` for one that works."""
    names = []
    for attempt in attempts:
        try:
            attempt()
            names.append("-")
        except OSError as e:
            names.append(errno.errorcode[e.errno or 0])
    return " ".join(names)


def test_fetch_can_do_nothing() -> None:
    """The worker for files cannot become root, mount, open, write, make sockets outside, or raise a limit."""
    import resource

    def body() -> str:
        confine.begin(b"rkt-fetch", network=False)
        confine.confine_fetch(network=False, file_size_bytes=100, uid=confine.FETCH_UID_BASE)
        return (
            errors_of(
                lambda: os.setuid(0),
                lambda: libc.unshare(libc.CLONE_NEWNS),
                lambda: os.open("/etc/passwd", os.O_RDONLY),
                lambda: os.open("/x", os.O_WRONLY | os.O_CREAT),
                lambda: os.chroot("/"),
                lambda: libc.sethostname(b"x"),
            )
            + " "
            + str(resource.getrlimit(resource.RLIMIT_FSIZE) == (100, 100))
        )

    assert in_child(body) == "EPERM EPERM ENOENT EROFS EPERM EPERM True"


def test_fetch_for_urls_reads_but_does_not_write() -> None:
    """The worker for URLs reads what everybody may read, and writes nowhere, not even where everybody may."""
    name = f"rkt-test-{os.urandom(8).hex()}"

    def body() -> str:
        confine.begin(b"rkt-fetch", network=True)
        confine.confine_fetch(network=True, file_size_bytes=100, uid=confine.FETCH_UID_BASE)
        return errors_of(
            lambda: os.close(os.open("/etc/passwd", os.O_RDONLY)),
            lambda: os.open("/etc/shadow", os.O_RDONLY),
            lambda: os.open(f"/tmp/{name}", os.O_WRONLY | os.O_CREAT),
            lambda: os.open(f"/dev/shm/{name}", os.O_WRONLY | os.O_CREAT),
            lambda: os.kill(2, 0),
        )

    assert in_child(body) == "- EACCES EROFS EROFS ESRCH"


def test_unpack_is_locked_in(tmp_path: Path) -> None:
    """The directory is the whole world; owners and capabilities can be set, devices and mounts cannot be made."""
    target = tmp_path / "target"
    target.mkdir()

    def body() -> str:
        tree = confine.take_directory(os.open(target, os.O_RDONLY | os.O_DIRECTORY))
        confine.begin(b"rkt-unpack", network=False)
        fd = confine.confine_unpack(tree, file_size_bytes=1 << 20)
        capability = b"\1\0\0\2" + b"\0\4\0\0" + b"\0" * 12
        return errors_of(
            lambda: os.close(os.open("file", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=fd)),
            lambda: os.chown("file", 1234, 1234, dir_fd=fd),
            lambda: os.chmod("file", 0o4755, dir_fd=fd),
            lambda: os.setxattr("/file", "security.capability", capability),
            lambda: os.mknod("device", 0o60600, os.makedev(8, 0), dir_fd=fd),
            lambda: os.open("../../etc/passwd", os.O_RDONLY, dir_fd=fd),
            lambda: os.open("/proc/1/root", os.O_RDONLY),
            lambda: libc.mount(b"none", b"/", b"tmpfs", 0),
            lambda: os.chroot("/"),
            lambda: os.setuid(1),
            lambda: os.setxattr("/file", "trusted.overlay.opaque", b"y"),
        )

    assert in_child(body) == "- - - - EPERM ENOENT ENOENT EPERM EPERM EPERM EPERM"
    assert os.listdir(target) == ["file"]
    status = os.stat(target / "file")
    assert (status.st_uid, status.st_mode & 0o7777) == (1234, 0o4755)


def test_whatever_it_started_dies_with_it() -> None:
    """A child of the worker that outlives it is killed before anybody waits in vain."""
    reader, writer = os.pipe()

    def body() -> str:
        confine.begin(b"rkt-fetch", network=False)
        if os.fork() == 0:
            os.setsid()
            os.close(reader)
            libc.prctl(libc.PR_SET_PDEATHSIG, 0)
            signal.pause()
        return "gone"

    assert in_child(body) == "gone"
    os.close(writer)
    # End of file: no process holds the write end any more.
    assert os.read(reader, 1) == b""
    os.close(reader)

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from rkt.errors import HostError
from rkt.linux import landlock, libc, seccomp_workers
from rkt.privsep import confine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.root
needs_landlock = pytest.mark.skipif(landlock.abi() < landlock.REFER_ABI, reason="this kernel has no Landlock")


@pytest.fixture
def unfiltered(monkeypatch: pytest.MonkeyPatch) -> None:
    """System calls reach the other walls: the filter would end the process before they could be seen to stand."""
    monkeypatch.setattr(confine, "_load", lambda _program: None)


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


@pytest.mark.usefixtures("unfiltered")
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


@needs_landlock
@pytest.mark.usefixtures("unfiltered")
def test_fetch_for_urls_reads_but_does_not_write() -> None:
    """The worker for URLs reads what name resolution needs and no other file, writes nowhere, and opens no port."""
    name = f"rkt-test-{os.urandom(8).hex()}"

    def body() -> str:
        confine.begin(b"rkt-fetch", network=True)
        confine.confine_fetch(network=True, file_size_bytes=100, uid=confine.FETCH_UID_BASE)
        return errors_of(
            lambda: os.close(os.open("/etc/hosts", os.O_RDONLY)),
            lambda: os.listdir("/etc/ssl"),
            lambda: os.open("/etc/passwd", os.O_RDONLY),
            lambda: os.listdir("/"),
            lambda: os.open("/etc/shadow", os.O_RDONLY),
            lambda: os.open(f"/tmp/{name}", os.O_WRONLY | os.O_CREAT),
            lambda: os.open(f"/dev/shm/{name}", os.O_WRONLY | os.O_CREAT),
            lambda: os.execv("/bin/true", ["true"]),
            lambda: os.kill(2, 0),
            bind,
        )

    def bind() -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))

    port = "EACCES" if landlock.abi() >= 4 else "-"
    assert in_child(body) == f"- - EACCES EACCES EACCES EROFS EROFS EACCES ESRCH {port}"


@needs_landlock
@pytest.mark.usefixtures("unfiltered")
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
            lambda: os.mknod("socket", 0o140600, dir_fd=fd),
            lambda: os.mknod("pipe", 0o10600, dir_fd=fd),
            lambda: os.unlink("pipe", dir_fd=fd),
        )

    assert in_child(body) == "- - - - EACCES ENOENT ENOENT EPERM EPERM EPERM EPERM EACCES - -"
    assert os.listdir(target) == ["file"]
    status = os.stat(target / "file")
    assert (status.st_uid, status.st_mode & 0o7777) == (1234, 0o4755)


def confined(kind: str, target: Path) -> None:
    """Become a worker of a kind."""
    if kind == "unpack":
        tree = confine.take_directory(os.open(target, os.O_RDONLY | os.O_DIRECTORY))
        confine.begin(b"rkt-unpack", network=False)
        confine.confine_unpack(tree, file_size_bytes=1 << 20)
    else:
        network = kind == "download"
        confine.begin(b"rkt-fetch", network=network)
        confine.confine_fetch(network=network, file_size_bytes=1 << 20, uid=confine.FETCH_UID_BASE)


def end_of(function: Callable[[], object]) -> int:
    """The wait status of a process that calls a function in two processes, as the workers are."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


FATAL: dict[str, Callable[[], object]] = {
    "execve": lambda: os.execv("/bin/true", ["true"]),
    "unshare": lambda: libc.unshare(libc.CLONE_NEWUSER),
    "mount": lambda: libc.mount(b"none", b"/", b"tmpfs", 0),
    "chroot": lambda: os.chroot("/"),
    "bpf": lambda: libc.bpf(0, bytes(16)),
    "keyctl": libc.join_new_session_keyring,
}


@pytest.mark.parametrize("name", FATAL)
@pytest.mark.parametrize("kind", ["copy", "download", "unpack"])
def test_dangerous_calls_end_the_worker(tmp_path: Path, kind: str, name: str) -> None:
    """A worker that makes a call that only an intruder would make is killed by the kernel at once."""

    def body() -> None:
        confined(kind, tmp_path)
        FATAL[name]()

    # The process that waits for the worker ends as it did, in eight bits.
    assert end_of(body) == 256 - signal.SIGSYS


@pytest.mark.parametrize("kind", ["copy", "download", "unpack"])
def test_other_calls_are_not_there(tmp_path: Path, kind: str) -> None:
    """No process can be made, no user changed, nobody signalled; threads work."""

    def body() -> str:
        confined(kind, tmp_path)
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        return errors_of(
            lambda: os.setuid(0),
            lambda: os.kill(1, 0),
            os.fork,
            lambda: os.mknod("/socket", 0o140600),
            lambda: libc.prctl(libc.PR_SET_DUMPABLE, 1),
            lambda: socket.socket(socket.AF_PACKET),
        )

    family = "EAFNOSUPPORT" if kind == "download" else "ENOSYS"
    assert in_child(body) == f"ENOSYS ENOSYS ENOSYS ENOSYS ENOSYS {family}"


def test_without_a_filter_there_is_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that cannot be made is an error; only a kernel without filters is let off."""

    def broken(_kind: str) -> bytes:
        raise OSError("no library")

    monkeypatch.setattr(seccomp_workers, "compile_worker", broken)
    with pytest.raises(HostError, match="filter of a worker cannot be made"):
        confine._compile("copy")
    monkeypatch.setattr(libc, "seccomp_action_available", lambda _action: False)
    assert confine._compile("copy") == b""


def test_what_a_kernel_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--debug`` names each wall that this kernel does not have."""
    monkeypatch.setattr(libc, "seccomp_action_available", lambda _action: False)
    for version, words in ((0, "no Landlock"), (1, "too old for rkt-unpack")):
        monkeypatch.setattr(landlock, "abi", lambda version=version: version)
        told = confine.missing()
        assert words in told[0]
        assert "no system call filters" in told[1]
    monkeypatch.setattr(landlock, "abi", lambda: 7)
    monkeypatch.setattr(libc, "seccomp_action_available", lambda _action: True)
    assert confine.missing() == []


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

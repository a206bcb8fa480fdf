# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from rkt.linux import libc, seccomp
from rkt.linux.seccomp_isolators import REMOVE, RETAIN, compile_isolators
from tests.lib.isolated import errno_of, run_isolated

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(libc.__file__))))

try:
    DEFAULT = seccomp.compile_filter(seccomp.default_profile())
    RESOLVE = seccomp.Library().resolve
except OSError as e:
    pytest.skip(f"libseccomp: {e}", allow_module_level=True)


def filtered(function: Callable[[], Any], program: bytes = DEFAULT) -> Any:
    """What a function returns under a filter."""

    def inner() -> Any:
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        libc.seccomp_load(program)
        return function()

    return run_isolated(inner, 0)


def call(name: str, *arguments: int) -> int:
    """Errno of a raw system call, 0 when it succeeds."""
    number = RESOLVE(name)
    assert number is not None
    library = ctypes.CDLL(None, use_errno=True)
    result = library.syscall(
        ctypes.c_long(number), *[ctypes.c_ulong(value & 2**64 - 1) for value in arguments]
    )
    return ctypes.get_errno() if result < 0 else 0


def test_status() -> None:
    """The kernel reports the filter and no_new_privs of the process."""

    def status() -> Any:
        with open("/proc/self/status", encoding="ascii") as file:
            return [line.split() for line in file if line.startswith(("Seccomp:", "NoNewPrivs:"))]

    assert filtered(status) == [["NoNewPrivs:", "1"], ["Seccomp:", "2"]]


def test_refused_calls() -> None:
    """The calls that let pods out elsewhere fail with EPERM for root with all its capabilities."""
    names = ["unshare", "mount", "umount2", "setns", "bpf", "io_uring_setup", "keyctl", "userfaultfd", "perf_event_open",
             "open_by_handle_at", "init_module", "kexec_load", "ptrace", "move_mount", "pivot_root"]  # fmt: skip
    assert filtered(lambda: {name: call(name, 0, 0, 0, 0) for name in names}) == dict.fromkeys(
        names, errno.EPERM
    )


def test_absent_calls() -> None:
    """Calls that cannot be looked into, or that nobody knows, do not exist."""

    def check() -> Any:
        library = ctypes.CDLL(None, use_errno=True)
        unknown = library.syscall(ctypes.c_long(1000))
        return call("clone3", 0, 0), unknown, ctypes.get_errno()

    assert filtered(check) == [errno.ENOSYS, -1, errno.ENOSYS]


def test_new_namespaces_by_clone() -> None:
    """Invariant RN16: clone makes no namespace, of whatever kind."""
    flags = (libc.CLONE_NEWUSER, libc.CLONE_NEWNS, libc.CLONE_NEWPID, libc.CLONE_NEWNET, libc.CLONE_NEWUTS,
             libc.CLONE_NEWIPC, libc.CLONE_NEWCGROUP)  # fmt: skip
    assert (
        filtered(lambda: [call("clone", flag | signal.SIGCHLD, 0, 0, 0, 0) for flag in flags])
        == [errno.EPERM] * 7
    )


def test_sockets() -> None:
    """Sockets of everyday families are made, all others are unsupported."""

    def check() -> Any:
        results = {}
        for family in (1, 2, 10, 16, 17, 15, 29, 33, 38, 40):
            kind = socket.SOCK_RAW if family in {15, 16, 17, 29} else socket.SOCK_STREAM
            results[family] = errno_of(lambda family=family, kind=kind: socket.socket(family, kind).close())  # type: ignore[misc]
        return results

    answers = filtered(check)
    assert {int(family) for family, number in answers.items() if number == 0} == {1, 2, 10, 16}
    assert {number for number in answers.values() if number} == {errno.EAFNOSUPPORT}


def test_terminal_injection() -> None:
    """Invariant RN23: nothing can be pushed into a terminal, whatever the high bits of the request are."""

    def check() -> Any:
        _, slave = os.openpty()
        address = ctypes.addressof(ctypes.create_string_buffer(b"x"))
        requests = (0x5412, 0x5412 | 1 << 32, 0x541C)
        return [call("ioctl", slave, request, address) for request in requests], os.isatty(slave)

    assert filtered(check) == [[errno.EPERM] * 3, True]


def test_i386_calls() -> None:
    """Invariant RN15: the 32-bit entry of the kernel is not a way around the filter."""
    if os.uname().machine != "x86_64":
        pytest.skip("int 0x80 exists on x86_64 only")
    # mov eax, 20 (getpid of i386); int 0x80; ret
    code = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"

    def check() -> Any:
        memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        memory.write(code)
        function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
        return function()

    try:
        without = run_isolated(check, 0)
    except AssertionError:
        pytest.skip("this kernel has no 32-bit entry")
    assert without > 0
    assert filtered(check) == -errno.ENOSYS


def test_threads_and_processes() -> None:
    """Programs with threads and children run."""

    def check() -> Any:
        results: list[int] = []
        threads = [threading.Thread(target=results.append, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        text = subprocess.run(
            ["/bin/sh", "-c", "echo $((6*7)) | cat"], capture_output=True, check=True
        ).stdout
        return sorted(results), text.decode()

    assert filtered(check) == [[0, 1, 2, 3], "42\n"]


def test_chroot_and_ids() -> None:
    """What the default capabilities are for is not lost to the filter."""

    def check() -> Any:
        os.chroot("/")
        os.setgroups([5])
        os.setresgid(7, 7, 7)
        os.setresuid(7, 7, 7)
        return os.getresuid(), os.getgroups()

    if os.geteuid() != 0:
        pytest.skip("needs root")
    assert filtered(check) == [[7, 7, 7], [5]]


def test_retain_kills() -> None:
    """A call outside of a retain set ends the process by SIGSYS."""
    program = compile_isolators(
        [(RETAIN, ["write", "exit_group", "mmap", "munmap", "brk", "futex"], "")], DEFAULT
    )
    pid = os.fork()
    if pid == 0:
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        libc.seccomp_load(program)
        os.getppid()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGSYS


def test_remove_answers_errno() -> None:
    """A removed call fails with the errno that was asked for (spec runtime, acceptance S2)."""
    program = compile_isolators([(REMOVE, ["getppid", "mkdir", "mkdirat"], "EXFULL")], DEFAULT)
    assert filtered(lambda: errno_of(lambda: os.mkdir("/tmp/never")), program) == errno.EXFULL


def test_filter_needs_privilege() -> None:
    """A filter that the kernel refuses to install is an error."""

    def check() -> Any:
        os.setresuid(1000, 1000, 1000)
        return errno_of(lambda: libc.seccomp_load(DEFAULT))

    if os.geteuid() != 0:
        pytest.skip("needs root")
    assert run_isolated(check, 0) == errno.EACCES


def test_build(tmp_path: object) -> None:
    """The build tool writes the very filter that is compiled here, beside the one of pods that systemd runs."""
    tool = os.path.join(os.path.dirname(SOURCE), "tools", "build_seccomp.py")
    subprocess.run([sys.executable, "-I", "-S", tool, str(tmp_path)], check=True)
    machine = os.uname().machine
    assert sorted(os.listdir(str(tmp_path))) == [
        f"seccomp-default-{machine}.bpf",
        f"seccomp-pod-{machine}.bpf",
    ]
    with open(os.path.join(str(tmp_path), f"seccomp-default-{machine}.bpf"), "rb") as file:
        assert file.read() == DEFAULT

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os

import pytest

from rkt.linux import seccomp, seccomp_profiles, seccomp_workers
from tests.lib.bpf import AUDIT_ARCH, AUDIT_ARCH_I386, run_seccomp

MACHINE = os.uname().machine
ALLOW = seccomp.SCMP_ACT_ALLOW
KILL = seccomp.SCMP_ACT_KILL_PROCESS
ENOSYS = seccomp.scmp_act_errno(errno.ENOSYS)
KINDS = ("copy", "download", "unpack")
ALL_KINDS = (*KINDS, "metadata")

try:
    LIBRARY = seccomp.Library()
    PROGRAMS = {kind: seccomp_workers.compile_worker(kind) for kind in ALL_KINDS}
except OSError as e:
    pytest.skip(f"libseccomp: {e}", allow_module_level=True)
if MACHINE not in AUDIT_ARCH:
    pytest.skip(f"no audit number for {MACHINE}", allow_module_level=True)


def answer(kind: str, name: str, *arguments: int) -> int:
    """Action for a call by name."""
    number = LIBRARY.resolve(name)
    assert number is not None
    assert number >= 0, f"{name} is not a call of {MACHINE}"
    return run_seccomp(PROGRAMS[kind], number, arguments, arch=AUDIT_ARCH[MACHINE])


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_nothing_listed_is_dangerous(kind: str) -> None:
    """No list holds a call that is refused to pods, or that starts a program or a process."""
    profile = seccomp_workers.profile(kind)
    assert not set(profile.allowed) & set(profile.refused)
    for name in (*seccomp_profiles.words(seccomp_profiles.REFUSED.values()), "execve", "execveat"):
        number = LIBRARY.resolve(name)
        if number is not None and number >= 0:
            assert answer(kind, name) == KILL, name


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_threads_but_no_processes(kind: str) -> None:
    """``clone`` makes threads; a process, and ``clone3`` that cannot be looked into, are not there."""
    assert answer(kind, "clone", 0x3D0F00) == ALLOW
    assert answer(kind, "clone", 0x1200011) == ENOSYS
    assert answer(kind, "clone3") == ENOSYS


def test_kinds_differ() -> None:
    """Sockets are for downloads, filling directories for unpacking, opening files for both and not for copies."""
    assert [answer(kind, "socket", 2) == ALLOW for kind in KINDS] == [False, True, False]
    assert [answer(kind, "mkdirat") == ALLOW for kind in KINDS] == [False, False, True]
    assert [answer(kind, "openat") == ALLOW for kind in KINDS] == [False, True, True]


def test_arguments() -> None:
    """Sockets of common families, pipes, whiteouts and no other nodes, and few questions to descriptors."""
    assert answer("download", "socket", 17) == seccomp.scmp_act_errno(errno.EAFNOSUPPORT)
    assert answer("unpack", "mknodat", 3, 0, 0o010600) == ALLOW
    assert answer("unpack", "mknodat", 3, 0, 0o020000, 0) == ALLOW
    assert answer("unpack", "mknodat", 3, 0, 0o020000, 0x103) == ENOSYS
    for kind in (0o060600, 0o140600, 0o100600, 0o600):
        assert answer("unpack", "mknodat", 3, 0, kind) == ENOSYS
    assert answer("download", "ioctl", 0, 0x5421) == ALLOW
    assert answer("download", "ioctl", 0, 0x5412) == ENOSYS


@pytest.mark.parametrize("kind", KINDS)
def test_other_abis(kind: str) -> None:
    """Calls of another ABI of this machine are not there."""
    assert run_seccomp(PROGRAMS[kind], 3, arch=AUDIT_ARCH_I386) == ENOSYS


def test_who_answers_pods_opens_nothing() -> None:
    """``rkt-metadata`` accepts connections, and opens neither sockets nor files."""
    assert answer("metadata", "accept4") == ALLOW
    for name in ("socket", "connect", "bind", "listen", "openat", "open", "unlinkat"):
        assert answer("metadata", name) == ENOSYS, name

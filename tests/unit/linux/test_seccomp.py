# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os

import pytest

from rkt.linux import seccomp, seccomp_profiles, syscalls
from rkt.linux.seccomp_isolators import REMOVE, RETAIN, compile_isolators
from tests.lib.bpf import AUDIT_ARCH, AUDIT_ARCH_I386, run_seccomp

MACHINE = os.uname().machine
ALLOW = seccomp.SCMP_ACT_ALLOW
KILL = seccomp.SCMP_ACT_KILL_PROCESS
EPERM = seccomp.scmp_act_errno(errno.EPERM)
ENOSYS = seccomp.scmp_act_errno(errno.ENOSYS)
EAFNOSUPPORT = seccomp.scmp_act_errno(errno.EAFNOSUPPORT)

try:
    LIBRARY = seccomp.Library()
    DEFAULT = seccomp.compile_filter(seccomp.default_profile())
except OSError as e:
    pytest.skip(f"libseccomp: {e}", allow_module_level=True)
if MACHINE not in AUDIT_ARCH:
    pytest.skip(f"no audit number for {MACHINE}", allow_module_level=True)


def answer(name: str, *arguments: int, program: bytes = DEFAULT) -> int:
    """Action for a call by name."""
    number = LIBRARY.resolve(name)
    assert number is not None
    assert number >= 0, f"{name} is not a call of {MACHINE}"
    return run_seccomp(program, number, arguments, arch=AUDIT_ARCH[MACHINE])


def exists(name: str) -> bool:
    """Whether this architecture has the call."""
    number = LIBRARY.resolve(name)
    return number is not None and number >= 0


@pytest.mark.parametrize(
    "name", ["read", "execve", "futex", "openat2", "rseq", "statx", "getrandom", "mseal"]
)
def test_everyday_calls(name: str) -> None:
    """What every current C library calls is allowed, calls younger than libseccomp too."""
    assert answer(name) == ALLOW


def test_every_listed_call() -> None:
    """Each call of the lists that exists here gets the answer that its list says."""
    narrowed = {name for name, _, _ in seccomp_profiles.EXCEPTIONS}
    for name in seccomp_profiles.words(seccomp_profiles.ALLOWED.values()):
        if exists(name) and name not in narrowed:
            assert answer(name) == ALLOW, name
    for name in seccomp_profiles.words(seccomp_profiles.REFUSED.values()):
        if exists(name):
            assert answer(name) == EPERM, name


def test_lists_are_disjoint() -> None:
    """No call is listed twice, neither as allowed and refused nor in two groups."""
    names = seccomp_profiles.words([*seccomp_profiles.ALLOWED.values(), *seccomp_profiles.REFUSED.values()])
    names += seccomp_profiles.NOT_THERE
    assert sorted(names) == sorted(set(names))


def test_listed_names_are_known() -> None:
    """A name that no architecture knows is a slip of the pen."""
    names = seccomp_profiles.words([*seccomp_profiles.ALLOWED.values(), *seccomp_profiles.REFUSED.values()])
    elsewhere = {name for numbers in seccomp_profiles.NUMBERS_OF.values() for name in numbers}
    assert [name for name in names if LIBRARY.resolve(name) is None and name not in elsewhere] == []


@pytest.mark.parametrize(
    "name",
    [
        "io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd", "bpf", "perf_event_open", "keyctl",
        "add_key", "request_key", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module",
        "open_by_handle_at", "mount", "umount2", "pivot_root", "move_mount", "open_tree", "mount_setattr", "fsopen",
        "unshare", "setns", "ptrace", "process_vm_writev", "reboot", "swapon", "settimeofday", "syslog",
    ],
)  # fmt: skip
def test_dangerous_calls(name: str) -> None:
    """Invariants RN14, RN16 and RN18: what has let pods out elsewhere is not permitted."""
    assert answer(name) == EPERM


@pytest.mark.parametrize("number", [470, 600, 9999, 0x3FFFFFFF])
def test_unknown_numbers(number: int) -> None:
    """Invariant RN14: a call that the list does not know does not exist."""
    assert run_seccomp(DEFAULT, number, arch=AUDIT_ARCH[MACHINE]) == ENOSYS


def test_clone3_is_not_there() -> None:
    """Invariant RN17: thread creation falls back to clone only when clone3 answers ENOSYS."""
    assert answer("clone3", 0, 0) == ENOSYS


def test_clone() -> None:
    """Threads and forks are made, new namespaces of any kind are not, whatever else is in the flags."""
    assert answer("clone", 17) == ALLOW
    assert answer("clone", 0x3D0F00) == ALLOW
    for bit in (17, 25, 26, 27, 28, 29, 30):
        assert answer("clone", 1 << bit | 17) == EPERM
        assert answer("clone", 1 << 40 | 1 << bit | 17) == EPERM


@pytest.mark.parametrize("family", [1, 2, 10, 16])
def test_sockets_of_common_families(family: int) -> None:
    """Unix, IPv4, IPv6 and netlink sockets are made."""
    assert answer("socket", family, 1, 0) == ALLOW


@pytest.mark.parametrize("high", [0, 1 << 32, 0xFFFFFFFF << 32])
@pytest.mark.parametrize("family", [0, 3, 15, 17, 33, 38, 40, 44, 0x7FFFFFFF, 0xFFFFFFFF])
def test_sockets_of_other_families(family: int, high: int) -> None:
    """Invariant RN16: AF_PACKET, AF_RXRPC, AF_ALG, AF_VSOCK and the rest are unsupported, whatever the high bits."""
    assert answer("socket", family | high, 3, 0) == EAFNOSUPPORT


def test_audit_socket() -> None:
    """The audit socket answers EINVAL, by which login programs go on without it."""
    assert answer("socket", 16, 3, 9) == seccomp.scmp_act_errno(errno.EINVAL)
    assert answer("socket", 16 | 1 << 32, 3, 9 | 1 << 35) != ALLOW


@pytest.mark.parametrize("high", [0, 1 << 32, 1 << 63])
@pytest.mark.parametrize("request_number", [0x5412, 0x541C])
def test_terminal_injection(request_number: int, high: int) -> None:
    """Invariant RN23: TIOCSTI and TIOCLINUX are refused by their low 32 bits (CVE-2019-10063)."""
    assert answer("ioctl", 0, request_number | high) == EPERM


def test_other_ioctls() -> None:
    """Every other ioctl is the driver's to judge."""
    for request_number in (0x5401, 0x5411, 0x5413, 0x541B, 0x541D, 0x8913, 0):
        assert answer("ioctl", 0, request_number) == ALLOW


def test_personality() -> None:
    """The personality can be asked for, but neither randomisation nor W^X be switched off."""
    assert answer("personality", 0xFFFFFFFF) == ALLOW
    assert answer("personality", 0) == ALLOW
    assert answer("personality", 0x0040000) == ENOSYS
    assert answer("personality", 0x0400000) == ENOSYS


def test_foreign_abis() -> None:
    """Invariant RN15: calls of i386, x32 or another architecture do not exist."""
    assert run_seccomp(DEFAULT, 4, arch=AUDIT_ARCH_I386) == ENOSYS
    assert run_seccomp(DEFAULT, 0, arch=0x12345678) == ENOSYS
    if MACHINE == "x86_64":
        for number in (0, 1, 16, 39, 56, 59):
            assert run_seccomp(DEFAULT, number | 0x40000000, arch=AUDIT_ARCH[MACHINE]) == ENOSYS


def test_no_isolator() -> None:
    """Without isolators the default filter is made, never none (CVE-2023-2431)."""
    assert compile_isolators([], DEFAULT) == DEFAULT


def test_retain() -> None:
    """A retain set allows its names and what a process cannot do without, and kills for the rest."""
    program = compile_isolators([(RETAIN, ["read", "ioctl", "clone"], "")], DEFAULT)
    assert answer("read", program=program) == ALLOW
    assert answer("execve", program=program) == ALLOW
    assert answer("exit_group", program=program) == ALLOW
    assert answer("write", program=program) == KILL
    assert answer("mount", program=program) == KILL


def test_retain_keeps_conditions() -> None:
    """A retain set does not bring back the arguments that the default filter refuses."""
    names = ["ioctl", "clone", "clone3", "socket", "personality"]
    program = compile_isolators([(RETAIN, names, "EXFULL")], DEFAULT)
    assert answer("ioctl", 0, 0x5412, program=program) == EPERM
    assert answer("clone", 1 << 28, program=program) == EPERM
    assert answer("clone3", program=program) == ENOSYS
    assert answer("socket", 38, 1, program=program) == EAFNOSUPPORT
    assert answer("personality", 0x0040000, program=program) == ENOSYS
    assert answer("write", program=program) == seccomp.scmp_act_errno(errno.EXFULL)


def test_retain_beyond_the_default() -> None:
    """A retain set may name calls that the default filter refuses; the operator decides about that."""
    names = ["@rkt/default-whitelist", "ptrace"]
    program = compile_isolators([(RETAIN, names, "EPERM")], DEFAULT)
    assert answer("ptrace", program=program) == ALLOW
    assert answer("openat", program=program) == ALLOW
    assert answer("bpf", program=program) == EPERM


def test_retain_all() -> None:
    """Retaining everything is asking for no filter."""
    assert compile_isolators([(RETAIN, ["@appc.io/all"], "")], DEFAULT) == b""


def test_remove() -> None:
    """A remove set takes its names from the default filter, which otherwise stays."""
    program = compile_isolators([(REMOVE, ["openat", "socket"], "EXFULL")], DEFAULT)
    assert answer("openat", program=program) == seccomp.scmp_act_errno(errno.EXFULL)
    assert answer("socket", 38, program=program) == seccomp.scmp_act_errno(errno.EXFULL)
    assert answer("read", program=program) == ALLOW
    assert answer("mount", program=program) == EPERM
    assert answer("ioctl", 0, 0x5412, program=program) == EPERM


def test_remove_kills() -> None:
    """Without an errno the removed calls kill, those that the default filter refuses anyway too."""
    program = compile_isolators([(REMOVE, ["openat", "reboot", "personality"], "")], DEFAULT)
    assert answer("openat", program=program) == KILL
    assert answer("reboot", program=program) == KILL
    assert answer("personality", 0, program=program) == KILL


def test_remove_nothing() -> None:
    """Removing the empty set leaves the default filter."""
    assert compile_isolators([(REMOVE, ["@appc.io/empty"], "")], DEFAULT) == DEFAULT


@pytest.mark.parametrize("name", ["@rkt/default-whitelist", "@docker/default-whitelist"])
def test_retain_default(name: str) -> None:
    """The named white lists run programs of today."""
    program = compile_isolators([(RETAIN, [name], "EPERM")], DEFAULT)
    for call in ("read", "openat", "rseq", "clock_nanosleep", "prctl", "newfstatat"):
        if exists(call):
            assert answer(call, program=program) == ALLOW


@pytest.mark.parametrize(
    "isolators",
    [
        [(RETAIN, ["@rkt/nothing"], "")],
        [(REMOVE, ["@systemd/unheard-of"], "")],
        [(REMOVE, ["sokcet"], "")],
        [(REMOVE, ["@appc.io/all"], "")],
        [(RETAIN, ["read"], "EWHATEVER")],
        [(RETAIN, ["read"], ""), (RETAIN, ["write"], "")],
        [("os/linux/seccomp", ["read"], "")],
    ],
)
def test_refused_isolators(isolators: list[tuple[str, list[str], str]]) -> None:
    """What cannot be understood is an error and not a weaker filter."""
    with pytest.raises(ValueError, match=r"seccomp|system call|errno"):
        compile_isolators(isolators, DEFAULT)


def test_numbers() -> None:
    """The table of numbers is libseccomp's, where both know a call, and every call of the lists is in it."""
    table = syscalls.numbers(MACHINE)
    assert table is not None
    assert {
        name: (number, LIBRARY.resolve(name))
        for name, number in table.items()
        if LIBRARY.resolve(name) not in {number, None}
    } == {}
    assert len(table) > 300
    lists = [*seccomp_profiles.ALLOWED.values(), *seccomp_profiles.REFUSED.values()]
    assert [name for name in seccomp_profiles.words(lists) if not syscalls.is_known(name)] == []
    assert [name for name in seccomp_profiles.words(lists) if exists(name) and name not in table] == []


def test_isolators_leave_other_abis_to_the_default_filter() -> None:
    """With isolators too, calls of i386, x32 and other architectures do not exist (RN15)."""
    program = compile_isolators([(RETAIN, ["read", "write"], "")], DEFAULT)
    assert run_seccomp(program, 4, arch=AUDIT_ARCH_I386) == ENOSYS
    assert run_seccomp(program, 0, arch=0x12345678) == ENOSYS
    if MACHINE == "x86_64":
        assert run_seccomp(program, 0x40000000, arch=AUDIT_ARCH[MACHINE]) == ENOSYS


@pytest.mark.parametrize("kind", [RETAIN, REMOVE])
def test_every_number_gets_the_verdict_of_its_set(kind: str) -> None:
    """Whatever is in a set, no number below 500 is answered otherwise than set and default filter together say."""
    names = ["read", "openat", "mount", "ptrace", "getpid", "bpf", "io_uring_setup", "mseal", "kill"]
    program = compile_isolators([(kind, names, "EXFULL")], DEFAULT)
    table = syscalls.numbers(MACHINE)
    assert table is not None
    listed = {table[name] for name in names}
    implicit = {
        table[name]
        for name in (*seccomp_profiles.words((seccomp_profiles.IMPLICIT,)), "clone3")
        if name in table
    }
    refused = seccomp.scmp_act_errno(errno.EXFULL)
    for number in range(500):
        usual = run_seccomp(DEFAULT, number, arch=AUDIT_ARCH[MACHINE])
        if kind == REMOVE:
            wanted = refused if number in listed else usual
        elif number in implicit:
            wanted = usual
        else:
            wanted = ALLOW if number in listed else refused
        assert run_seccomp(program, number, arch=AUDIT_ARCH[MACHINE]) == wanted, number


def test_size() -> None:
    """The kernel takes at most 4096 instructions."""
    assert 100 < len(DEFAULT) // 8 < 4096

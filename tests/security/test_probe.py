# SPDX-License-Identifier: Apache-2.0
"""A probe makes risky calls, opens sensitive files, and tries to write, wherever a command of a pod can run.

It runs as the app of a default pod, through ``enter``, and through ``app exec``, and likewise in a pod with a user
namespace of its own. Beside these it runs where nothing
confines it but namespaces (``--insecure-options=all-run``), to show that the same call there reaches the kernel, and
where only the filter is left (``--insecure-options=capabilities``), to show that the filter refuses by itself. Every
call is harmless where it is let through: its arguments are such that the kernel answers an errno of its own, or it
changes only a process that ends at once.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import tempfile
from typing import TYPE_CHECKING, NamedTuple

import pytest

from rkt.linux import libc
from tests.lib.flavors import pods
from tests.lib.idmap import can_map
from tests.lib.images import Images
from tests.lib.isolated import run_isolated
from tests.lib.probe import (
    BUFFER,
    EXIT_REFUSED,
    KILLED,
    MARK,
    X32,
    Result,
    Step,
    answers,
    build,
)
from tests.lib.rkt import Rkt, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = [
    pytest.mark.root,
    pods("confinement", "masks", "user namespaces"),
    pytest.mark.representative,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the probe is machine code of x86-64"),
]

NOWHERE = "/rkt-nowhere"
BAD_FD = -1
BAD_PID = 0x3FFFFFFF
#: No kernel has such flags.
BAD_FLAGS = 0xFFFFFFFF
#: An address that nobody can read.
BAD_ADDRESS = 1
#: CLONE_SIGHAND without CLONE_VM: the kernel refuses, but only after a filter had its say.
_IMPOSSIBLE_CLONE = 0x800
_NEW_NAMESPACES = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
_FAMILIES = {
    "ALG": 38,
    "PACKET": 17,
    "RXRPC": 33,
    "VSOCK": 40,
    "KEY": 15,
    "TIPC": 30,
    "BLUETOOTH": 31,
    "XDP": 44,
}


class Call(NamedTuple):
    """A call that no app may make.

    Attributes:
        name: of the call, with what is special about its arguments.
        number: of x86-64.
        i386: of i386; None where it has no such call.
        arguments: see ``Step``.
        optional: kernels may be built without it, or be told to refuse it to everybody.
        x32: its number there when it is not that of x86-64.
    """

    name: str
    number: int
    i386: int | None
    arguments: Sequence[int | str | bytes] = ()
    optional: bool = False
    x32: int = 0


#: Refused by the filter, whoever asks (invariants RN8, RN14 to RN18, RN23).
CALLS = (
    Call("mount", 165, 21, (NOWHERE, NOWHERE, "tmpfs", 0, 0)),
    Call("umount2", 166, 52, (NOWHERE, 0)),
    Call("pivot_root", 155, 217, (NOWHERE, NOWHERE)),
    Call("fsopen", 430, 430, ("rkt-nothing", 0)),
    Call("fsconfig", 431, 431, (BAD_FD, 0, 0, 0, 0)),
    Call("fsmount", 432, 432, (BAD_FD, 0, 0)),
    Call("fspick", 433, 433, (BAD_FD, "x", 0)),
    Call("open_tree", 428, 428, (BAD_FD, "x", 0)),
    Call("move_mount", 429, 429, (BAD_FD, "x", BAD_FD, "x", 0)),
    Call("mount_setattr", 442, 442, (BAD_FD, "x", 0, 0, 0), optional=True),
    Call("setns", 308, 346, (BAD_FD, 0)),
    Call("clone3", 435, 435, (0, 0)),
    *(Call(f"unshare {kind}", 272, 310, (flag,)) for kind, flag in _NEW_NAMESPACES.items()),
    Call("unshare time", 272, 310, (0x80,), optional=True),
    *(
        Call(f"clone {kind}", 56, 120, (flag | _IMPOSSIBLE_CLONE, 0, 0, 0, 0))
        for kind, flag in _NEW_NAMESPACES.items()
    ),
    Call("ptrace", 101, 26, (16, BAD_PID, 0, 0), x32=521),
    Call("process_vm_readv", 310, 347, (1, 0, 0, 0, 0, 1), x32=539),
    Call("process_vm_writev", 311, 348, (1, 0, 0, 0, 0, 1), x32=540),
    Call("process_madvise", 440, 440, (BAD_FD, 0, 0, 0, 0xFF), optional=True),
    Call("pidfd_getfd", 438, 438, (BAD_FD, BAD_FD, 0)),
    Call("kcmp", 312, 349, (BAD_PID, BAD_PID, 0, 0, 0), optional=True),
    Call("bpf", 321, 357, (9999, 0, 0), optional=True),
    Call("perf_event_open", 298, 336, (0, 0, BAD_FD, BAD_FD, 0), optional=True),
    Call("io_uring_setup", 425, 425, (0, 0), optional=True),
    Call("io_uring_enter", 426, 426, (BAD_FD, 0, 0, 0, 0, 0), optional=True),
    Call("io_uring_register", 427, 427, (BAD_FD, 0, 0, 0), optional=True),
    Call("userfaultfd", 323, 374, (BAD_FLAGS,), optional=True),
    Call("vmsplice", 278, 316, (BAD_FD, 0, 0, BAD_FLAGS), x32=532),
    Call("keyctl", 250, 288, (9999, 0, 0, 0, 0), optional=True),
    Call("add_key", 248, 286, (0, 0, 0, 0, 0), optional=True),
    Call("request_key", 249, 287, (0, 0, 0, 0), optional=True),
    # 99 segments are more than the kernel takes; none at all would unload what is loaded.
    Call("kexec_load", 246, 283, (0, 99, 0, 0), optional=True, x32=528),
    Call("kexec_file_load", 320, None, (BAD_FD, BAD_FD, 0, 0, BAD_FLAGS), optional=True),
    Call("init_module", 175, 128, (0, 0, 0), optional=True),
    Call("finit_module", 313, 350, (BAD_FD, "x", 0), optional=True),
    Call("delete_module", 176, 129, ("rkt_nothing", 0x800), optional=True),
    Call("open_by_handle_at", 304, 342, (BAD_FD, 0, 0)),
    Call("name_to_handle_at", 303, 341, (BAD_FD, "", 0, 0, 0)),
    Call("reboot", 169, 88, (0, 0, 0, 0)),
    Call("swapon", 167, 87, (NOWHERE, 0), optional=True),
    Call("swapoff", 168, 115, (NOWHERE,), optional=True),
    # The size of the kernel's log.
    Call("syslog", 103, 103, (10, 0, 0)),
    Call("acct", 163, 51, (NOWHERE,), optional=True),
    Call("quotactl", 179, 131, (0x80000500, NOWHERE, 0, 0), optional=True),
    Call("quotactl_fd", 443, 443, (BAD_FD, 0x80000500, 0, 0), optional=True),
    Call("settimeofday", 164, 79, (BAD_ADDRESS, 0)),
    Call("clock_settime", 227, 264, (0, BAD_ADDRESS)),
    Call("sethostname", 170, 74, ("x", -1)),
    Call("setdomainname", 171, 121, ("x", -1)),
    Call("iopl", 172, 110, (4,), optional=True),
    Call("ioperm", 173, 101, (0xFFFFFFFF, 1, 1), optional=True),
    Call("modify_ldt", 154, 123, (0, 0, 0), optional=True),
    Call("lookup_dcookie", 212, 253, (0, 0, 0), optional=True),
    Call("uselib", 134, 86, (NOWHERE,), optional=True),
    Call("nfsservctl", 180, 169, (0, 0, 0), optional=True),
    Call("_sysctl", 156, 149, (0,), optional=True),
    Call("sysfs", 139, 135, (9, 0, 0), optional=True),
    Call("fanotify_init", 300, 338, (0x80000000, 0), optional=True),
    Call("set_mempolicy", 238, 276, (99, 0, 0), optional=True),
    Call("personality, addresses not random", 135, 136, (0x40000,)),
    Call("ioctl TIOCSTI", 16, 54, (0, 0x5412, "x"), x32=514),
    Call("ioctl TIOCLINUX", 16, 54, (0, 0x541C, "x"), x32=514),
    # Higher bits than the kernel looks at (CVE-2019-10063).
    Call("ioctl TIOCSTI, high bits", 16, None, (0, 1 << 40 | 0x5412, "x"), x32=514),
    *(
        Call(f"socket AF_{name}", 41, 359, (family, 3 if name in {"PACKET", "XDP"} else 1, 0), optional=name != "PACKET")
        for name, family in _FAMILIES.items()
    ),
)  # fmt: skip
#: Let through by the filter, which cannot tell reading from setting: refused because the capability is not there.
BY_CAPABILITY = (
    # ADJ_TICK with a tick that no clock has.
    Call("adjtimex", 159, 124, (b"\0\x40".ljust(256, b"\0"),)),
    Call("mknod of a disk", 133, 14, (f"/{MARK}-disk", 0o060600, 0x800)),
)
#: What an app needs is there: these succeed everywhere on x86-64.
ALLOWED = {
    "getpid": [Step(39)],
    "socket AF_INET": [Step(41, (2, 1, 0))],
    "socket AF_UNIX": [Step(41, (1, 1, 0))],
    "pipe2": [Step(293, (BUFFER, 0))],
    "memfd_create": [Step(319, ("x", 1))],
    "open and read": [Step(2, ("/etc/passwd", 0)), Step(0, (Result(0), BUFFER, 1))],
    "clone and wait": [Step(56, (17, 0, 0, 0, 0)), Step(61, (Result(0), 0, 0, 0))],
    "setresuid": [Step(117, (1000, 1000, 1000))],
    "chroot": [Step(161, ("/",))],
}
#: chroot below, step out by a descriptor of the old root, go up: in a pod that ends where it began.
_ESCAPE = [
    Step(2, ("/", 0)),
    Step(83, (f"/{MARK}-jail", 0o755)),
    Step(161, (f"/{MARK}-jail",)),
    Step(81, (Result(0),)),
    *(Step(80, ("..",)) for _ in range(8)),
    Step(161, (".",)),
    Step(21, (f"/{MARK}", 0)),
]
#: Say something about the host, or hand out its memory (invariant RN7).
UNREADABLE_FILES = (
    "/dev/kmsg",
    "/dev/mem",
    "/dev/port",
    "/proc/bootconfig",
    "/proc/config.gz",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kmem",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/mem",
    "/proc/sched_debug",
    "/proc/slabinfo",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
    "/proc/1/environ",
    "/proc/1/maps",
)
UNREADABLE_DIRECTORIES = (
    "/proc/1/root/",
    "/proc/acpi",
    "/proc/asound",
    "/proc/scsi",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
    "/sys/hypervisor",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
    "/sys/module",
    "/sys/power",
)
#: Settings of the kernel, and files of the engine's (invariant RN7).
UNWRITABLE = (
    "/etc/hostname",
    "/proc/1/exe",
    "/proc/1/mem",
    "/proc/irq/default_smp_affinity",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sys/fs/suid_dumpable",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/dmesg_restrict",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/perf_event_paranoid",
    "/proc/sys/kernel/printk",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/kernel/unprivileged_bpf_disabled",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sysrq-trigger",
    "/sys/class/net/lo/mtu",
    "/sys/devices/system/cpu/cpu0/uevent",
    "/sys/kernel/mm/ksm/run",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/profiling",
    "/sys/kernel/uevent_helper",
    "/sys/power/state",
)
# <linux/keyctl.h>
_SESSION_KEYRING = -3
_O_WRONLY, _O_NONBLOCK, _O_DIRECTORY = 1, 0o4000, 0o200000
#: Two entries, "." and "..", as getdents64 writes them.
_EMPTY_DIRECTORY_BYTES = 48
ABIS = ("x86-64", "i386", "x32")
IN_PLAIN_POD = ("app", "enter", "app exec")
#: The same in a pod with ``--private-users``.
IN_USER_NAMESPACE = ("private app", "private enter", "private app exec")
CONFINED = (*IN_PLAIN_POD, *IN_USER_NAMESPACE) if can_map(tempfile.gettempdir()) else IN_PLAIN_POD
FILTER_ALONE = "filter alone"
UNCONFINED = "unconfined"
INSECURE = "--insecure-options=image"
#: What the filter answers; nothing in ``CALLS`` is answered so by a kernel that is reached, but where it has no such thing.
_DENIED = frozenset((-errno.EPERM, -errno.ENOSYS, -errno.EAFNOSUPPORT))


def _steps(call: Call, abi: str) -> list[Step] | None:
    if abi == "x86-64":
        return [Step(call.number, call.arguments)]
    if abi == "x32":
        return [Step(X32 | (call.x32 or call.number), call.arguments)]
    return None if call.i386 is None else [Step(call.i386, call.arguments, compat=True)]


def _probes() -> dict[str, list[Step]]:
    """Name -> steps of everything that is tried."""
    probes: dict[str, list[Step]] = {}
    for abi in ABIS:
        for call in (*CALLS, *BY_CAPABILITY):
            steps = _steps(call, abi)
            if steps is not None:
                probes[f"{abi}: {call.name}"] = steps
    probes["i386: getpid"] = [Step(20, compat=True)]
    probes["x32: getpid"] = [Step(X32 | 39)]
    # By i386's multiplexer the family is in memory, where no filter can look (RN15).
    probes["i386: socketcall AF_VSOCK"] = [Step(102, (1, b"\x28\0\0\0\1\0\0\0\0\0\0\0"), compat=True)]
    probes |= {f"allowed: {name}": steps for name, steps in ALLOWED.items()}
    probes["escape"] = _ESCAPE
    # The number of the session's keyring; the filter keeps it from confined apps.
    probes["keyring"] = [Step(250, (0, _SESSION_KEYRING, 0))]
    for path in UNREADABLE_FILES:
        probes[f"read {path}"] = [Step(2, (path, _O_NONBLOCK)), Step(0, (Result(0), BUFFER, 1))]
    for path in UNREADABLE_DIRECTORIES:
        probes[f"list {path}"] = [Step(2, (path, _O_DIRECTORY)), Step(217, (Result(0), BUFFER, 1024))]
    for path in UNWRITABLE:
        probes[f"write {path}"] = [Step(2, (path, _O_WRONLY | _O_NONBLOCK))]
    return probes


PROBES = _probes()


@pytest.fixture(scope="module")
def program() -> bytes:
    """The probe."""
    return build(list(PROBES.values()))


def _wait_for_pod(engine: Rkt, name: str) -> None:
    wait_for(lambda: not engine.run("enter", name, "/bin/true").status, f"pod {name}")


@pytest.fixture(scope="module")
def seen(rkt_binary: str, flavor: str, program: bytes) -> Iterator[dict[str, dict[str, int]]]:
    """Place -> what was tried there -> the answer; each place is one run of the probe."""
    engine = Rkt(tempfile.mkdtemp(prefix="rkt-test-"), rkt_binary, flavor=flavor)
    try:
        with tempfile.TemporaryDirectory() as directory:
            image = Images(directory).busybox(
                "example.com/prober", ("/probe",), files={"probe": (program, 0o755), MARK: b""}
            )
            texts = {}
            for prefix, name, flags in (("", "prober", ()), ("private ", "private", ("--private-users",))):
                if f"{prefix}app" not in CONFINED:
                    continue
                texts[f"{prefix}app"] = engine.run(INSECURE, "run", *flags, image, check=0).stdout
                engine.popen(
                    INSECURE, "run", *flags, f"--name={name}", image, "--exec=/bin/sleep", "--", "600"
                )
                _wait_for_pod(engine, name)
                for place in ("enter", "app exec"):
                    texts[prefix + place] = engine.run(*place.split(), name, "/probe", check=0).stdout
            for place, words in ((FILTER_ALONE, ",capabilities"), (UNCONFINED, ",all-run")):
                texts[place] = engine.run(INSECURE + words, "run", image, check=0).stdout
        yield {place: dict(zip(PROBES, answers(text), strict=True)) for place, text in texts.items()}
    finally:
        engine.close()


confined = pytest.mark.parametrize("place", CONFINED)
everywhere = pytest.mark.parametrize("place", [*CONFINED, FILTER_ALONE])
each_abi = pytest.mark.parametrize("abi", ABIS)


def _answers(seen: dict[str, dict[str, int]], place: str, calls: Sequence[Call], abi: str) -> dict[str, int]:
    """Name of a call -> answer."""
    found = {}
    for call in calls:
        name = f"{abi}: {call.name}"
        if name in PROBES:
            found[call.name] = seen[place][name]
    return found


def test_enough_is_tried() -> None:
    """At least forty different calls by each way into the kernel, 22 files and 20 writes."""
    for abi in ABIS:
        names = {call.name.partition(" ")[0] for call in CALLS if f"{abi}: {call.name}" in PROBES}
        assert len(names) >= 40, abi
    assert len(UNREADABLE_FILES) + len(UNREADABLE_DIRECTORIES) >= 22
    assert len(UNWRITABLE) >= 20


@each_abi
@everywhere
def test_risky_calls_are_denied(seen: dict[str, dict[str, int]], flavor: str, place: str, abi: str) -> None:
    """No risky call is made by an app, by any way into the kernel; the filter sees to that, not capabilities (RN14 to RN18)."""
    answers_here = _answers(seen, place, CALLS, abi)
    assert {name: value for name, value in answers_here.items() if value not in _DENIED} == {}
    if abi != "x86-64":
        # The whole ABI does not exist (RN15). systemd refuses what it knows by name with that ABI's numbers too.
        assert flavor == "nspawn" or set(answers_here.values()) == {-errno.ENOSYS}
        assert seen[place][f"{abi}: getpid"] == -errno.ENOSYS


@each_abi
def test_the_same_calls_reach_the_kernel_without_a_filter(seen: dict[str, dict[str, int]], abi: str) -> None:
    """What a pod is denied is not denied by the kernel itself: without confinement each call gets another answer."""
    if seen[UNCONFINED].get(f"{abi}: getpid") == -errno.ENOSYS:
        pytest.skip(f"this kernel has no {abi} calls at all")
    without = _answers(seen, UNCONFINED, CALLS, abi)
    same = {
        name: value
        for name, value in _answers(seen, "app", CALLS, abi).items()
        if without[name] == value or without[name] == KILLED
    }
    optional = {call.name for call in CALLS if call.optional}
    assert set(same) <= optional, same
    assert len(without) - len(same) >= 40, same


@confined
def test_capabilities_deny_what_the_filter_cannot(seen: dict[str, dict[str, int]], place: str) -> None:
    """Setting the clock and making device nodes fail for want of a capability; the calls themselves are let through (RN10)."""
    assert set(_answers(seen, place, BY_CAPABILITY, "x86-64").values()) == {-errno.EPERM}
    assert set(_answers(seen, UNCONFINED, BY_CAPABILITY, "x86-64").values()).isdisjoint(_DENIED)


def test_the_multiplexer_of_i386_makes_no_socket(seen: dict[str, dict[str, int]]) -> None:
    """Socketcall, whose arguments no filter sees, makes none of the sockets that socket refuses (RN15)."""
    for place in (*CONFINED, FILTER_ALONE):
        assert seen[place]["i386: socketcall AF_VSOCK"] == -errno.ENOSYS
    if seen[UNCONFINED]["i386: getpid"] != -errno.ENOSYS:
        assert seen[UNCONFINED]["i386: socketcall AF_VSOCK"] not in {-errno.ENOSYS, -errno.EPERM}


@everywhere
def test_ordinary_calls_are_made(seen: dict[str, dict[str, int]], place: str) -> None:
    """What programs live on works, so that denial of the rest says something."""
    failed = {
        name: seen[place][f"allowed: {name}"] for name in ALLOWED if seen[place][f"allowed: {name}"] < 0
    }
    assert failed == {}


@pytest.mark.parametrize("place", [*CONFINED, FILTER_ALONE, UNCONFINED])
def test_the_way_out_of_a_chroot_ends_in_the_app(seen: dict[str, dict[str, int]], place: str) -> None:
    """The old way out of a chroot leads an app to its own root, since nothing of the host's tree is mounted there."""
    assert seen[place]["escape"] == 0


@confined
def test_sensitive_files_cannot_be_read(seen: dict[str, dict[str, int]], place: str) -> None:
    """Files that speak of the host are absent, empty or refused, directories show nothing (RN7)."""
    readable = [path for path in UNREADABLE_FILES if seen[place][f"read {path}"] > 0]
    listed = [path for path in UNREADABLE_DIRECTORIES if seen[place][f"list {path}"] > _EMPTY_DIRECTORY_BYTES]
    assert readable + listed == []


@confined
def test_kernel_settings_cannot_be_written(seen: dict[str, dict[str, int]], place: str) -> None:
    """Nothing below ``/proc/sys`` and ``/sys``, nor what the engine shows, can be opened for writing by root (RN7)."""
    assert [path for path in UNWRITABLE if seen[place][f"write {path}"] >= 0] == []


def test_the_same_files_are_there_without_masks(seen: dict[str, dict[str, int]]) -> None:
    """What is hidden and read-only in a pod is neither with ``--insecure-options=paths`` (runtime A1, A2)."""
    answers_here = seen[UNCONFINED]
    assert sum(answers_here[f"read {path}"] > 0 for path in UNREADABLE_FILES) >= 3
    assert sum(answers_here[f"list {path}"] > _EMPTY_DIRECTORY_BYTES for path in UNREADABLE_DIRECTORIES) >= 2
    assert sum(answers_here[f"write {path}"] >= 0 for path in UNWRITABLE) >= 12


def test_the_keyring_is_not_that_of_the_hosts_root(seen: dict[str, dict[str, int]]) -> None:
    """An app has a session keyring of its own, which shows where nothing keeps it from asking (RN18)."""
    number = seen[UNCONFINED]["keyring"]
    if number == -errno.ENOSYS:
        pytest.skip("this kernel has no keyrings")
    own = ctypes.CDLL(None).syscall(ctypes.c_long(250), 0, _SESSION_KEYRING, 0)
    assert number > 0
    assert number != own
    assert seen["app"]["keyring"] == -errno.EPERM


def test_the_probe_refuses_to_run_elsewhere(program: bytes, tmp_path: os.PathLike[str]) -> None:
    """The probe runs neither on the bare host, nor in the host's pid namespace, though its mark is there."""
    root = os.fspath(tmp_path)
    path = os.path.join(root, "probe")
    with open(path, "wb") as file:
        file.write(program)
    os.chmod(path, 0o755)
    result = subprocess.run([path], capture_output=True, check=False)
    assert (result.returncode, result.stdout) == (EXIT_REFUSED, b"")
    with open(os.path.join(root, MARK), "wb"):
        pass
    os.mkdir(os.path.join(root, "proc"))

    def below_a_chroot() -> int:
        libc.mount(b"/proc", os.fsencode(f"{root}/proc"), None, libc.MS_BIND)
        pid = os.fork()
        if pid == 0:
            os.chroot(root)
            os.execv("/probe", ["/probe"])
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    if os.readlink("/proc/self/ns/pid") != "pid:[4026531836]":
        pytest.skip("these tests run in a container themselves")
    assert run_isolated(below_a_chroot) == EXIT_REFUSED

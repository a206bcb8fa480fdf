# SPDX-License-Identifier: Apache-2.0
"""What the kernel lets this caller do. Each function is for a child of its own (``attempt``) and says what was learnt."""

from __future__ import annotations

import errno
import os
import select
import signal
import struct

from rkt.linux import cgroup_devices, interpreter, landlock, libc, mount, pidfd
from rkt.linux.namespaces import FLAGS
from rkt.linux.syscalls import AUDIT_ARCH, numbers
from rkt.linux.userns import IdRange, UserNamespace
from rkt.stage0.host.attempt import CannotTry, become_root, in_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Kinds that every pod of ``ns`` and ``nspawn`` has of its own.
NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup")
#: File systems of an app's root, each with the namespaces that it needs to be the pod's.
FILE_SYSTEMS = ("proc", "sysfs", "tmpfs", "devpts", "mqueue")
#: Words of ``/proc/sys/kernel/seccomp/actions_avail`` for what filters of ours answer.
_ACTIONS = ("kill_process", "trap", "errno", "log", "allow")
#: As many as a pod has with ``--private-users``, where hardly anybody has any.
_IDS = IdRange(0x52000000, 65536)
# <linux/bpf_common.h>, <linux/seccomp.h>: offsets in struct seccomp_data.
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _ARCHITECTURE = 0, 4
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# <linux/kvm.h>, <linux/if_tun.h>
KVM_GET_API_VERSION = 0xAE00
KVM_API_VERSION = 12
#: The place of attempts in a mount namespace of their own: in every system, and what is below it is needed by none of them.
_PLACE = "/mnt"


def own_mounts() -> str:
    """Get a mount namespace, and an empty directory of memory in it; returns its path."""
    become_root()
    libc.unshare(libc.CLONE_NEWNS)
    mount.make_private_recursive()
    place = _PLACE if os.path.isdir(_PLACE) else "/tmp"
    libc.mount(b"tmpfs", place.encode(), b"tmpfs", libc.MS_NOSUID | libc.MS_NODEV, b"mode=755")
    return place


def namespace(kind: str) -> Callable[[], str]:
    """Whether a process can have a namespace of a kind."""

    def act() -> str:
        become_root()
        libc.unshare(FLAGS[kind])
        return ""

    return act


def user_namespace() -> str:
    """Whether a pod can have ids of its own; returns how many such namespaces there may be."""
    # Before there is one: in it another number holds.
    with open("/proc/sys/user/max_user_namespaces", encoding="ascii") as stream:
        most = stream.read().strip()
    if os.geteuid() == 0:
        UserNamespace.create(_IDS).close()
    else:
        become_root()
    return most


def mounts() -> str:
    """Detached mounts: made, restricted, copied, put in place; and read-only means read-only."""
    place = own_mounts()
    for name in ("one", "two"):
        os.mkdir(f"{place}/{name}")
    mount.attach(mount.create(b"tmpfs", [(b"mode", b"755")]), f"{place}/one")
    mount.bind(f"{place}/one", f"{place}/two", attributes=mount.READ_ONLY)
    os.mkdir(f"{place}/one/there")
    try:
        os.mkdir(f"{place}/two/more")
    except OSError as e:
        if e.errno != errno.EROFS:
            raise
    else:
        raise OSError(0, "a mount that was made read-only can be written to")
    return ""


def paths() -> str:
    """openat2: a path that stays below a directory whatever links lie on the way."""
    fd = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
    try:
        os.close(libc.openat2(fd, b"../../../status", os.O_RDONLY, libc.RESOLVE_IN_ROOT))
        try:
            os.close(libc.openat2(fd, b"..", os.O_PATH, libc.RESOLVE_BENEATH))
        except OSError as e:
            if e.errno != errno.EXDEV:
                raise
        else:
            raise OSError(0, "a path left the directory that it was to stay below")
    finally:
        os.close(fd)
    return ""


def processes() -> str:
    """clone3, descriptors of processes, signals by them, closing all other descriptors."""
    pid, fd = libc.clone3(0)
    if not pid:
        signal.pause()
    other = os.pidfd_open(pid)
    pidfd.send_signal(other, signal.SIGKILL)
    if not pidfd.wait_exit(fd, 10.0):
        raise OSError(0, "the end of a process is not seen by its descriptor")
    os.waitpid(pid, 0)
    libc.close_range(other, other)
    return ""


def file_system(kind: str) -> Callable[[], str]:
    """Whether an app can have a file system of a kind."""

    def act() -> str:
        become_root()
        libc.unshare(libc.CLONE_NEWNET | libc.CLONE_NEWIPC | libc.CLONE_NEWPID)
        place = own_mounts()
        # Those of a process that is in the new pid namespace.
        return in_child(lambda: _mount_new(kind, place))

    return act


def _mount_new(kind: str, place: str) -> str:
    data = b"newinstance,ptmxmode=0666" if kind == "devpts" else None
    flags = libc.MS_NOSUID | libc.MS_NODEV * (kind != "devpts") | libc.MS_NOEXEC
    libc.mount(kind.encode(), place.encode(), kind.encode(), flags, data)
    return ""


def device() -> str:
    """Whether an app can have device nodes of its own that work."""
    place = own_mounts()
    libc.mount(b"tmpfs", place.encode(), b"tmpfs", libc.MS_NOSUID, b"mode=755")
    os.mknod(f"{place}/null", 0o020666, os.makedev(1, 3))
    with open(f"{place}/null", "wb", buffering=0) as stream:
        stream.write(b"x")
    return ""


def read_only_interpreter() -> str:
    """Whether the interpreter can be kept from being written to by a pod (CVE-2019-5736)."""
    become_root()
    interpreter.seal_in_own_namespace()
    return ""


def seccomp() -> str:
    """A filter of our own making is loaded, and answers; returns the actions that the kernel lacks."""
    machine = os.uname().machine
    table = numbers(machine)
    if table is None or machine not in AUDIT_ARCH:
        raise OSError(0, f"filters cannot be made for {machine}")
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    # One call that nobody needs here, with an answer that nobody else gives.
    program = b"".join(
        struct.pack("=HBBI", *step)
        for step in (
            (_LOAD, 0, 0, _ARCHITECTURE),
            (_JUMP_IF_EQUAL, 0, 3, AUDIT_ARCH[machine]),
            (_LOAD, 0, 0, _NUMBER),
            (_JUMP_IF_EQUAL, 0, 1, table["getpriority"]),
            (_RETURN, 0, 0, _ERRNO | errno.EXDEV),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    libc.seccomp_load(program)
    try:
        os.getpriority(os.PRIO_PROCESS, 0)
    except OSError as e:
        if e.errno != errno.EXDEV:
            raise
    else:
        raise OSError(0, "a filter was loaded and does not answer")
    with open("/proc/sys/kernel/seccomp/actions_avail", encoding="ascii") as stream:
        have = stream.read().split()
    return " ".join(each for each in _ACTIONS if each not in have)


def landlock_version() -> str:
    """A process that gave up all files can open none; returns the version of the interface."""
    version = landlock.abi()
    if not version:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    landlock.restrict([])
    try:
        os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY))
    except OSError as e:
        if e.errno != errno.EACCES:
            raise
    else:
        raise OSError(0, "a process that gave up all files can open one")
    return str(version)


def device_program() -> str:
    """Whether the kernel takes the program that says which devices a version 2 cgroup may use."""
    if os.geteuid() != 0:
        raise CannotTry
    os.close(cgroup_devices.load(cgroup_devices.assemble([])))
    return ""


def kvm() -> str:
    """Whether the device of virtual machines answers."""
    import fcntl

    fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    try:
        version = fcntl.ioctl(fd, KVM_GET_API_VERSION, 0)
    finally:
        os.close(fd)
    if version != KVM_API_VERSION:
        raise OSError(0, f"it speaks version {version}")
    return ""


def tpm() -> str:
    """Whether there is a TPM 2.0 that can be asked: it is, for its properties."""
    fd = os.open("/dev/tpmrm0", os.O_RDWR | os.O_CLOEXEC)
    try:
        # TPM2_GetCapability of one fixed property; TCG, TPM 2.0 Library, part 3.
        os.write(fd, struct.pack(">HIIIII", 0x8001, 22, 0x17A, 6, 0x100, 1))
        if not select.select([fd], [], [], 5)[0]:
            raise OSError(0, "it does not answer")
        status = struct.unpack(">HII", os.read(fd, 4096)[:10])[2]
    finally:
        os.close(fd)
    if status:
        raise OSError(0, f"it answers with error {status:#x}")
    return ""

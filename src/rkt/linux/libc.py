# SPDX-License-Identifier: Apache-2.0
"""System calls that ``os`` does not offer, by ctypes.

Each function raises ``OSError`` with errno, the name of the call and what it was applied to. Constants keep the names
of the kernel headers they come from. Arguments are ``bytes`` for paths, so that nothing is encoded between fork and
exec; ctypes keeps the buffers of a call alive for the duration of that call, which is all that these calls need.
"""

# ruff: noqa: D402 - a wrapper is best described by the manual page it wraps, such as "umount2(2)"

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_get_errno = ctypes.get_errno
_c_int = ctypes.c_int
_c_long = ctypes.c_long
_c_ulong = ctypes.c_ulong

# <linux/mount.h>
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOSYMFOLLOW = 256
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_IDMAP = 0x00100000
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

# <linux/sched.h>
CLONE_NEWTIME = 0x80
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PIDFD = 0x00001000
CLONE_INTO_CGROUP = 0x200000000

# <linux/fcntl.h>
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_REMOVEDIR = 0x200
AT_RECURSIVE = 0x8000
AT_EMPTY_PATH = 0x1000

# <linux/openat2.h>
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# <linux/prctl.h>
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

# <linux/close_range.h>
CLOSE_RANGE_UNSHARE = 2
CLOSE_RANGE_CLOEXEC = 4

# <linux/memfd.h>, <linux/fcntl.h>
F_ADD_SEALS = 1033
F_SEAL_SEAL = 0x1
F_SEAL_SHRINK = 0x2
F_SEAL_GROW = 0x4
F_SEAL_WRITE = 0x8

# <asm/unistd.h>; the numbers from 424 on are the same on every architecture.
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_CLONE3 = 435
SYS_CLOSE_RANGE = 436
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442
_MACHINE = os.uname().machine
_SYSCALLS = {
    # By machine, in the order of the names they are assigned to below.
    "x86_64": (155, 125, 126, 317, 250, 321),
    "aarch64": (41, 90, 91, 277, 219, 280),
    "ppc64le": (203, 183, 184, 358, 271, 361),
    "s390x": (217, 184, 185, 348, 280, 351),
    "riscv64": (41, 90, 91, 277, 219, 280),
}
SYS_PIVOT_ROOT, SYS_CAPGET, SYS_CAPSET, SYS_SECCOMP, SYS_KEYCTL, SYS_BPF = _SYSCALLS.get(
    _MACHINE, _SYSCALLS["aarch64"]
)

# <linux/seccomp.h>
SECCOMP_SET_MODE_FILTER = 1
# <linux/keyctl.h>
KEYCTL_JOIN_SESSION_KEYRING = 1


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


class _SockFilter(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint),
    )


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _fail(call: str, subject: object = None) -> OSError:
    number = _get_errno()
    text = f"{call}: {os.strerror(number)}"
    if isinstance(subject, bytes):
        return OSError(number, text, os.fsdecode(subject))
    return OSError(number, text if subject is None else f"{text} ({subject})")


def mount(
    source: bytes | None, target: bytes, fstype: bytes | None, flags: int, data: bytes | None = None
) -> None:
    """mount(2)."""
    if _libc.mount(source, target, fstype, _c_ulong(flags), data) != 0:
        raise _fail(f"mount {os.fsdecode(fstype or source or b'none')}", target)


def umount2(target: bytes, flags: int) -> None:
    """umount2(2)."""
    if _libc.umount2(target, flags) != 0:
        raise _fail("umount", target)


def unshare(flags: int) -> None:
    """unshare(2)."""
    if _libc.unshare(flags) != 0:
        raise _fail("unshare", hex(flags))


def setns(fd: int, kind: int) -> None:
    """setns(2)."""
    if _libc.setns(fd, kind) != 0:
        raise _fail("setns", hex(kind))


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """pivot_root(2)."""
    if _libc.syscall(_c_long(SYS_PIVOT_ROOT), new_root, put_old) != 0:
        raise _fail("pivot_root", new_root)


def sethostname(name: bytes) -> None:
    """sethostname(2)."""
    if _libc.sethostname(name, len(name)) != 0:
        raise _fail("sethostname", name)


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2) with integer arguments."""
    result: int = _libc.prctl(option, _c_ulong(arg2), _c_ulong(arg3), _c_ulong(arg4), _c_ulong(arg5))
    if result < 0:
        raise _fail("prctl", option)
    return result


def openat2(dirfd: int, path: bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2), always with ``O_CLOEXEC``; returns a descriptor that the caller owns."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    fd: int = _libc.syscall(
        _c_long(SYS_OPENAT2), dirfd, path, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
    )
    if fd < 0:
        raise _fail("openat2", path)
    return fd


def open_tree(dirfd: int, path: bytes, flags: int) -> int:
    """open_tree(2), always with ``O_CLOEXEC``; returns a descriptor that the caller owns."""
    fd: int = _libc.syscall(_c_long(SYS_OPEN_TREE), dirfd, path, flags | os.O_CLOEXEC)
    if fd < 0:
        raise _fail("open_tree", path)
    return fd


def move_mount(from_fd: int, from_path: bytes, to_fd: int, to_path: bytes, flags: int) -> None:
    """move_mount(2)."""
    if _libc.syscall(_c_long(SYS_MOVE_MOUNT), from_fd, from_path, to_fd, to_path, flags) != 0:
        raise _fail("move_mount", to_path)


def mount_setattr(
    dirfd: int,
    path: bytes,
    flags: int,
    *,
    set_: int = 0,
    clear: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """mount_setattr(2)."""
    attr = _MountAttr(set_, clear, propagation, userns_fd)
    if (
        _libc.syscall(
            _c_long(SYS_MOUNT_SETATTR),
            dirfd,
            path,
            flags,
            ctypes.byref(attr),
            ctypes.c_size_t(ctypes.sizeof(attr)),
        )
        != 0
    ):
        raise _fail("mount_setattr", path)


def fsopen(fstype: bytes) -> int:
    """fsopen(2), always close-on-exec; returns a descriptor that the caller owns."""
    fd: int = _libc.syscall(_c_long(SYS_FSOPEN), fstype, 1)  # FSOPEN_CLOEXEC
    if fd < 0:
        raise _fail(f"fsopen {os.fsdecode(fstype)}")
    return fd


def fsconfig(fd: int, command: int, key: bytes | None = None, value: bytes | None = None) -> None:
    """fsconfig(2) for the commands whose auxiliary argument is 0; a value is at most 255 bytes long."""
    if _libc.syscall(_c_long(SYS_FSCONFIG), fd, command, key, value, 0) != 0:
        raise _fail("fsconfig", os.fsdecode(key or b"create"))


def fsmount(fd: int, attributes: int) -> int:
    """fsmount(2), always close-on-exec; ``attributes`` are ``MOUNT_ATTR_*``. Returns a detached mount."""
    mount_fd: int = _libc.syscall(_c_long(SYS_FSMOUNT), fd, 1, attributes)  # FSMOUNT_CLOEXEC
    if mount_fd < 0:
        raise _fail("fsmount")
    return mount_fd


def clone3(flags: int, *, cgroup_fd: int = -1) -> tuple[int, int]:
    """Fork with namespaces, straight into a cgroup v2, by clone3(2).

    Joining at birth costs nothing, where moving a process later waits for every CPU (10 ms and more). Only for a
    process with one thread: Python's own fork handlers do not run in the child, which must soon exec or exit.

    Args:
        flags: ``CLONE_NEW*`` bits; ``CLONE_PIDFD`` is always added.
        cgroup_fd: directory of a cgroup v2 to start in, -1 to stay in the caller's.
    Returns:
        (pid, pidfd) in the parent, the pidfd close-on-exec; (0, -1) in the child.
    """
    pidfd = ctypes.c_int(-1)
    args = _CloneArgs(
        flags=flags | CLONE_PIDFD,
        pidfd=ctypes.addressof(pidfd),
        exit_signal=17,  # SIGCHLD on every architecture that is listed above
    )
    if cgroup_fd >= 0:
        args.flags |= CLONE_INTO_CGROUP
        args.cgroup = cgroup_fd
    # ``pidfd`` and ``args`` are local names, so they outlive the call.
    pid: int = _libc.syscall(_c_long(SYS_CLONE3), ctypes.byref(args), ctypes.c_size_t(ctypes.sizeof(args)))
    if pid < 0:
        raise _fail("clone3", hex(args.flags))
    return pid, pidfd.value if pid else -1


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2); ``attributes`` is a packed ``union bpf_attr``, whose pointers the caller keeps alive."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result: int = _libc.syscall(_c_long(SYS_BPF), command, buffer, ctypes.c_uint(len(attributes)))
    if result < 0:
        raise _fail("bpf", command)
    return result


def address_of(buffer: bytearray) -> int:
    """Address of a buffer's first byte; valid while the caller holds the buffer and does not resize it."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def close_range(first: int, last: int, flags: int = 0) -> None:
    """close_range(2); ``flags`` may be ``CLOSE_RANGE_CLOEXEC``."""
    if _libc.syscall(_c_long(SYS_CLOSE_RANGE), ctypes.c_uint(first), ctypes.c_uint(last), flags) != 0:
        raise _fail("close_range", first)


def capget() -> tuple[int, int, int]:
    """capget(2) of the calling thread: (effective, permitted, inheritable) masks."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, <linux/capability.h>
    data = (ctypes.c_uint32 * 6)()
    if _libc.syscall(_c_long(SYS_CAPGET), header, data) != 0:
        raise _fail("capget")
    return data[0] | data[3] << 32, data[1] | data[4] << 32, data[2] | data[5] << 32


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) on the calling thread; each set is a 64-bit mask by capability number."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, <linux/capability.h>
    low, high = 0xFFFFFFFF, 32
    data = (ctypes.c_uint32 * 6)(
        effective & low,
        permitted & low,
        inheritable & low,
        effective >> high,
        permitted >> high,
        inheritable >> high,
    )
    if _libc.syscall(_c_long(SYS_CAPSET), header, data) != 0:
        raise _fail("capset")


def seccomp_load(program: bytes, flags: int = 0) -> None:
    """Install a compiled filter: an array of ``struct sock_filter`` (8 bytes each) on the calling thread."""
    buffer = ctypes.create_string_buffer(program, len(program))
    prog = _SockFprog(len(program) // ctypes.sizeof(_SockFilter), ctypes.cast(buffer, ctypes.c_void_p))
    if _libc.syscall(_c_long(SYS_SECCOMP), SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(prog)) != 0:
        raise _fail("seccomp")


def join_new_session_keyring() -> None:
    """Give the process an anonymous session keyring of its own (invariant RN18)."""
    if _libc.syscall(_c_long(SYS_KEYCTL), KEYCTL_JOIN_SESSION_KEYRING, None) < 0:
        raise _fail("keyctl")


def syncfs(fd: int) -> None:
    """syncfs(2)."""
    if _libc.syncfs(fd) != 0:
        raise _fail("syncfs")


def statfs_type(fd: int) -> int:
    """The ``f_type`` of the file system a descriptor is on, such as ``0x9fa0`` for procfs."""
    buffer = (ctypes.c_long * 32)()
    if _libc.fstatfs(fd, buffer) != 0:
        raise _fail("fstatfs")
    return int(buffer[0])


def renameat2(old_dirfd: int, old: bytes, new_dirfd: int, new: bytes, flags: int) -> None:
    """renameat2(2); flag 1 is ``RENAME_NOREPLACE``, 2 ``RENAME_EXCHANGE``."""
    if _libc.renameat2(old_dirfd, old, new_dirfd, new, flags) != 0:
        raise _fail("renameat2", new)

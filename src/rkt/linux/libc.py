# SPDX-License-Identifier: Apache-2.0
"""System calls that ``os`` does not offer, by ``_ctypes``.

Each function raises ``OSError`` with errno, the name of the call and what it was applied to. Constants keep the names
of the kernel headers they come from. Arguments are ``bytes`` for paths, so that nothing is encoded between fork and
exec.

The extension module ``_ctypes`` is used without the package ``ctypes`` around it, whose dozens of types cost 3 ms at
each start. Integers go as machine words, which is what system calls take; structures are packed bytes. Objects passed
to a call are referenced by its argument tuple, so their buffers outlive it; an address inside another structure is kept
alive by a local name.
"""

# ruff: noqa: D402 - a wrapper is best described by the manual page it wraps, such as "umount2(2)"

from __future__ import annotations

import _ctypes
import errno
import os
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Word(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001 - see the module's text
    _type_ = "l"


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001 - likewise
    _type_ = "i"


class _Byte(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001 - likewise
    _type_ = "c"


class _WordFunction(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Word


class _IntFunction(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Int


_self = _ctypes.dlopen(None, os.RTLD_NOW)  # type: ignore[arg-type] # None is the program itself
_syscall_function = _WordFunction(_ctypes.dlsym(_self, "syscall"))
_functions: dict[str, Any] = {}

# <linux/mount.h>
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
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
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

# <linux/ptrace.h>
PTRACE_CONT = 7
PTRACE_DETACH = 17
PTRACE_SEIZE = 0x4206
PTRACE_LISTEN = 0x4208
PTRACE_O_TRACEEXEC = 0x10
PTRACE_O_EXITKILL = 0x100000
PTRACE_EVENT_EXEC = 4
PTRACE_EVENT_STOP = 128

# <linux/close_range.h>
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
SYS_LANDLOCK_CREATE_RULESET = 444
SYS_LANDLOCK_ADD_RULE = 445
SYS_LANDLOCK_RESTRICT_SELF = 446
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
SECCOMP_GET_ACTION_AVAIL = 2
# <linux/landlock.h>
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1
# <linux/keyctl.h>
KEYCTL_JOIN_SESSION_KEYRING = 1


_OPEN_HOW = struct.Struct("QQQ")
_OPENAT2_ATTEMPTS = 1000
_MOUNT_ATTR = struct.Struct("QQQQ")
_CLONE_ARGS = struct.Struct("11Q")
_SOCK_FILTER_BYTES = 8
_SOCK_FPROG = struct.Struct("HP")
_LANDLOCK_RULESET_ATTR = struct.Struct("3Q")
#: Packed, as the header says.
_LANDLOCK_PATH_BENEATH_ATTR = struct.Struct("=Qi")
_CAP_HEADER = struct.Struct("Ii")
_CAP_DATA = struct.Struct("6I")
# <linux/inotify.h>
IN_MODIFY = 0x2
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_ONLYDIR = 0x1000000
#: _LINUX_CAPABILITY_VERSION_3, <linux/capability.h>.
_CAP_VERSION = 0x20080522
_STATFS_BYTES = 256
#: SIGCHLD on every architecture that is listed above.
_SIGCHLD = 17


def _words(arguments: tuple[int | bytes | None, ...]) -> list[Any]:
    return [_Word(item) if isinstance(item, int) else item for item in arguments]


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    result: int = _syscall_function(*_words((number, *arguments)))
    return result


def _call(name: str, *arguments: int | bytes | None) -> int:
    function = _functions.get(name)
    if function is None:
        function = _functions[name] = _IntFunction(_ctypes.dlsym(_self, name))
    result: int = function(*_words(arguments))
    return result


def _fail(call: str, subject: object = None) -> OSError:
    number = _ctypes.get_errno()
    text = f"{call}: {os.strerror(number)}"
    if isinstance(subject, bytes):
        return OSError(number, text, os.fsdecode(subject))
    return OSError(number, text if subject is None else f"{text} ({subject})")


def mount(
    source: bytes | None, target: bytes, fstype: bytes | None, flags: int, data: bytes | None = None
) -> None:
    """mount(2)."""
    if _call("mount", source, target, fstype, flags, data) != 0:
        raise _fail(f"mount {os.fsdecode(fstype or source or b'none')}", target)


def umount2(target: bytes, flags: int) -> None:
    """umount2(2)."""
    if _call("umount2", target, flags) != 0:
        raise _fail("umount", target)


def unshare(flags: int) -> None:
    """unshare(2)."""
    if _call("unshare", flags) != 0:
        raise _fail("unshare", hex(flags))


def setns(fd: int, kind: int) -> None:
    """setns(2)."""
    if _call("setns", fd, kind) != 0:
        raise _fail("setns", hex(kind))


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """pivot_root(2)."""
    if _syscall(SYS_PIVOT_ROOT, new_root, put_old) != 0:
        raise _fail("pivot_root", new_root)


def sethostname(name: bytes) -> None:
    """sethostname(2)."""
    if _call("sethostname", name, len(name)) != 0:
        raise _fail("sethostname", name)


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2) with integer arguments."""
    result = _call("prctl", option, arg2, arg3, arg4, arg5)
    if result < 0:
        raise _fail("prctl", option)
    return result


def ptrace(request: int, pid: int, data: int = 0) -> None:
    """ptrace(2), of requests that take no address."""
    if _call("ptrace", request, pid, 0, data) != 0:
        raise _fail("ptrace", pid)


def die_with(parent: int) -> None:
    """Have the calling process, a child, killed when its parent dies, also by execve(2); end if it is dead already."""
    prctl(PR_SET_PDEATHSIG, 9)
    if os.getppid() != parent:
        os._exit(1)


def openat2(dirfd: int, path: bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2), always with ``O_CLOEXEC``; returns a descriptor that the caller owns.

    A ``..`` below a root that is to hold is uncertain while somebody, anywhere, renames or mounts: the call is made again then.
    """
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_OPENAT2_ATTEMPTS):
        fd = _syscall(SYS_OPENAT2, dirfd, path, how, len(how))
        if fd >= 0:
            return fd
        error = _fail("openat2", path)
        if error.errno != errno.EAGAIN:
            break
    raise error


def open_tree(dirfd: int, path: bytes, flags: int) -> int:
    """open_tree(2), always with ``O_CLOEXEC``; returns a descriptor that the caller owns."""
    fd = _syscall(SYS_OPEN_TREE, dirfd, path, flags | os.O_CLOEXEC)
    if fd < 0:
        raise _fail("open_tree", path)
    return fd


def move_mount(from_fd: int, from_path: bytes, to_fd: int, to_path: bytes, flags: int) -> None:
    """move_mount(2)."""
    if _syscall(SYS_MOVE_MOUNT, from_fd, from_path, to_fd, to_path, flags) != 0:
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
    attr = _MOUNT_ATTR.pack(set_, clear, propagation, userns_fd)
    if _syscall(SYS_MOUNT_SETATTR, dirfd, path, flags, attr, len(attr)) != 0:
        raise _fail("mount_setattr", path)


def fsopen(fstype: bytes) -> int:
    """fsopen(2), always close-on-exec; returns a descriptor that the caller owns."""
    fd = _syscall(SYS_FSOPEN, fstype, 1)  # FSOPEN_CLOEXEC
    if fd < 0:
        raise _fail(f"fsopen {os.fsdecode(fstype)}")
    return fd


def fsconfig(fd: int, command: int, key: bytes | None = None, value: bytes | None = None) -> None:
    """fsconfig(2) for the commands whose auxiliary argument is 0; a value is at most 255 bytes long."""
    if _syscall(SYS_FSCONFIG, fd, command, key, value, 0) != 0:
        raise _fail("fsconfig", os.fsdecode(key or b"create"))


def fsmount(fd: int, attributes: int) -> int:
    """fsmount(2), always close-on-exec; ``attributes`` are ``MOUNT_ATTR_*``. Returns a detached mount."""
    mount_fd = _syscall(SYS_FSMOUNT, fd, 1, attributes)  # FSMOUNT_CLOEXEC
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
    flags |= CLONE_PIDFD
    if cgroup_fd >= 0:
        flags |= CLONE_INTO_CGROUP
    # A local name, so it outlives the call that writes to it.
    pidfd = bytearray(4)
    args = _CLONE_ARGS.pack(flags, address_of(pidfd), 0, 0, _SIGCHLD, 0, 0, 0, 0, 0, max(cgroup_fd, 0))
    pid = _syscall(SYS_CLONE3, args, len(args))
    if pid < 0:
        raise _fail("clone3", hex(flags))
    return pid, int.from_bytes(pidfd, sys.byteorder) if pid else -1


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2); ``attributes`` is a packed ``union bpf_attr``, whose pointers the caller keeps alive."""
    # The kernel may write back, which the caller's immutable bytes must not see.
    buffer = bytearray(attributes)
    result = _syscall(SYS_BPF, command, address_of(buffer), len(attributes))
    if result < 0:
        raise _fail("bpf", command)
    return result


def address_of(buffer: bytearray) -> int:
    """Address of a buffer's first byte; valid while the caller holds the buffer and does not resize it."""
    return _ctypes.addressof(_Byte.from_buffer(buffer))


def close_range(first: int, last: int, flags: int = 0) -> None:
    """close_range(2); ``flags`` may be ``CLOSE_RANGE_CLOEXEC``."""
    if _syscall(SYS_CLOSE_RANGE, first, last, flags) != 0:
        raise _fail("close_range", first)


def capget() -> tuple[int, int, int]:
    """capget(2) of the calling thread: (effective, permitted, inheritable) masks."""
    header = bytearray(_CAP_HEADER.pack(_CAP_VERSION, 0))
    data = bytearray(_CAP_DATA.size)
    if _syscall(SYS_CAPGET, address_of(header), address_of(data)) != 0:
        raise _fail("capget")
    low = _CAP_DATA.unpack(data)
    return low[0] | low[3] << 32, low[1] | low[4] << 32, low[2] | low[5] << 32


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) on the calling thread; each set is a 64-bit mask by capability number."""
    low, high = 0xFFFFFFFF, 32
    data = _CAP_DATA.pack(
        effective & low,
        permitted & low,
        inheritable & low,
        effective >> high,
        permitted >> high,
        inheritable >> high,
    )
    if _syscall(SYS_CAPSET, _CAP_HEADER.pack(_CAP_VERSION, 0), data) != 0:
        raise _fail("capset")


def seccomp_load(program: bytes, flags: int = 0) -> None:
    """Install a compiled filter: an array of ``struct sock_filter`` (8 bytes each) on the calling thread."""
    # A local name keeps the program alive for the pointer to it.
    buffer = bytearray(program)
    prog = _SOCK_FPROG.pack(len(program) // _SOCK_FILTER_BYTES, address_of(buffer))
    if _syscall(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, flags, prog) != 0:
        raise _fail("seccomp")


def seccomp_action_available(action: int) -> bool:
    """Whether the kernel has system call filters that can answer with an action."""
    # A local name, so it outlives the call.
    buffer = bytearray(action.to_bytes(4, sys.byteorder))
    return _syscall(SYS_SECCOMP, SECCOMP_GET_ACTION_AVAIL, 0, address_of(buffer)) == 0


def landlock_abi() -> int:
    """landlock_create_ruleset(2), asked for the version of the interface."""
    version = _syscall(SYS_LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    if version < 0:
        raise _fail("landlock_create_ruleset")
    return version


def landlock_create_ruleset(files: int, network: int = 0, scoped: int = 0) -> int:
    """landlock_create_ruleset(2), always close-on-exec; returns a descriptor that the caller owns.

    Older kernels know fewer fields; they take a longer structure as long as what they do not know is 0.
    """
    attributes = _LANDLOCK_RULESET_ATTR.pack(files, network, scoped)
    fd = _syscall(SYS_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    if fd < 0:
        raise _fail("landlock_create_ruleset", hex(files))
    return fd


def landlock_add_path(ruleset_fd: int, parent_fd: int, rights: int) -> None:
    """landlock_add_rule(2): allow rights in and below what ``parent_fd`` stands for."""
    attributes = _LANDLOCK_PATH_BENEATH_ATTR.pack(rights, parent_fd)
    if _syscall(SYS_LANDLOCK_ADD_RULE, ruleset_fd, LANDLOCK_RULE_PATH_BENEATH, attributes, 0) != 0:
        raise _fail("landlock_add_rule", hex(rights))


def landlock_restrict_self(ruleset_fd: int) -> None:
    """landlock_restrict_self(2) on the calling thread."""
    if _syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset_fd, 0) != 0:
        raise _fail("landlock_restrict_self")


def set_file_system_ids(uid: int, gid: int) -> None:
    """setfsgid(2) and setfsuid(2) of the calling thread: as whom it acts on files, with that user's rights alone.

    Signals and tracing go by the other ids, so nobody gets hold of the process by this. Capabilities that concern files are
    in force only while the user is 0.
    """
    for name, value in (("setfsgid", gid), ("setfsuid", uid)):
        _call(name, value)
        # Neither call says whether it worked; -1 is no id, changes nothing, and is answered with the present one.
        if _call(name, -1) & 0xFFFFFFFF != value:
            raise OSError(errno.EPERM, f"{name}: {os.strerror(errno.EPERM)} ({value})")


def join_new_session_keyring() -> None:
    """Give the process an anonymous session keyring of its own (invariant RN18)."""
    if _syscall(SYS_KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, None) < 0:
        raise _fail("keyctl")


def syncfs(fd: int) -> None:
    """syncfs(2)."""
    if _call("syncfs", fd) != 0:
        raise _fail("syncfs")


def statfs_type(fd: int) -> int:
    """The ``f_type`` of the file system a descriptor is on, such as ``0x9fa0`` for procfs."""
    buffer = bytearray(_STATFS_BYTES)
    if _call("fstatfs", fd, address_of(buffer)) != 0:
        raise _fail("fstatfs")
    return int.from_bytes(buffer[: struct.calcsize("l")], sys.byteorder)


def renameat2(old_dirfd: int, old: bytes, new_dirfd: int, new: bytes, flags: int) -> None:
    """renameat2(2); flag 1 is ``RENAME_NOREPLACE``, 2 ``RENAME_EXCHANGE``."""
    if _call("renameat2", old_dirfd, old, new_dirfd, new, flags) != 0:
        raise _fail("renameat2", new)


def inotify_init1(flags: int) -> int:
    """inotify_init1(2); flags are ``os.O_CLOEXEC`` and ``os.O_NONBLOCK``."""
    fd = _call("inotify_init1", flags)
    if fd < 0:
        raise _fail("inotify_init1")
    return fd


def inotify_add_watch(fd: int, path: bytes, mask: int) -> int:
    """inotify_add_watch(2)."""
    watch = _call("inotify_add_watch", fd, path, mask)
    if watch < 0:
        raise _fail("inotify_add_watch", path)
    return watch

# SPDX-License-Identifier: Apache-2.0
"""Which system calls the workers may make once they are confined: lists found by tracing them, kept short.

What is not listed answers ENOSYS, so that a C library that tries a newer call falls back. What only somebody who has
taken the worker over would call ends it: programs, namespaces, mounts, modules, other processes. A new process cannot be
made, a thread can.

Filters are compiled when a worker starts. That takes 5 ms, a tenth of what its interpreter takes to start, and there is no
file that could be missing, stale, or written by somebody else.
"""

from __future__ import annotations

import errno

from rkt.linux import seccomp
from rkt.linux import seccomp_profiles as profiles

_CLONE_THREAD = 0x00010000
_LOW_32 = 0xFFFFFFFF
_FORMAT, _FIFO, _CHARACTER_DEVICE = 0o170000, 0o010000, 0o020000
_PR_SET_NAME = 15
# <asm-generic/ioctls.h>: non-blocking, close-on-exec and its opposite, the question whether a file is a terminal, and how
# long the next answer of a name server is.
_IOCTLS = (0x5421, 0x5451, 0x5450, 0x5401, 0x541B)

#: The interpreter, its threads and its memory; reading, writing and sizing descriptors that are there already.
_EVERY = """
    brk close clock_getres clock_gettime clock_nanosleep copy_file_range dup dup3 eventfd2 exit exit_group fadvise64
    fallocate fcntl fdatasync flock fstat fstatfs fsync ftruncate futex getcpu getegid geteuid getgid getpid getppid
    getrandom getrusage gettid gettimeofday getuid lseek madvise mmap mprotect mremap munmap nanosleep newfstatat pipe2
    poll ppoll pread64 preadv prlimit64 pwrite64 pwritev read readv recvfrom recvmsg restart_syscall rseq rt_sigaction
    rt_sigprocmask rt_sigreturn rt_sigtimedwait sched_getaffinity sched_yield sendfile sendmsg sendto set_robust_list
    set_tid_address setitimer sigaltstack splice statx sync_file_range sysinfo tgkill time uname write writev
"""
#: Names, certificates and resolver settings are read; sockets are opened. Landlock and the mount say which files.
_DOWNLOAD = """
    access bind connect epoll_create1 epoll_ctl epoll_pwait epoll_wait faccessat faccessat2 getdents64 getpeername
    getsockname getsockopt lstat open openat pselect6 readlink readlinkat recvmmsg select sendmmsg setsockopt shutdown
    socket stat
"""
#: A directory is filled.
_UNPACK = """
    fchmod fchmodat fchmodat2 fchown fchownat fsetxattr linkat mkdirat openat openat2 symlinkat utimensat
"""
#: Trees that somebody may be changing are read, and filled, from one directory.
_PACK = "getdents64 openat openat2 readlinkat"
_FILL = """
    fchmod fchmodat fchmodat2 fchown fchownat linkat mkdirat openat openat2 symlinkat unlinkat utimensat
"""
#: Connections are accepted on sockets that are there.
_METADATA = "accept accept4 getpeername getsockname getsockopt select setsockopt shutdown"
_ENDS = "chroot execve execveat fork vfork"

_LISTS = {
    "copy": _EVERY,
    "download": _EVERY + _DOWNLOAD,
    "download-user": _EVERY + _DOWNLOAD,
    "fill": _EVERY + _FILL,
    "metadata": _EVERY + _METADATA,
    "pack": _EVERY + _PACK,
    "unpack": _EVERY + _UNPACK,
}
_AF_UNIX = 1
#: With a user's own id, a Unix socket leads to services that obey that user. Name services are asked by DNS then.
_NO_UNIX_SOCKETS = ("socket", errno.EAFNOSUPPORT, ((0, profiles.MASKED, _AF_UNIX, _LOW_32),))


def profile(kind: str) -> seccomp.Profile:
    """What a kind of worker may call: ``copy``, ``download``, ``download-user``, ``fill``, ``metadata``, ``pack`` or ``unpack``."""
    conditional: list[tuple[str, tuple[seccomp.Comparison, ...]]] = [
        ("clone", ((profiles.CLONE_FLAGS, profiles.MASKED, _CLONE_THREAD, _CLONE_THREAD),)),
        ("prctl", ((0, profiles.MASKED, _PR_SET_NAME, _LOW_32),)),
        *(("ioctl", ((1, profiles.MASKED, number, _LOW_32),)) for number in _IOCTLS),
    ]
    if kind == "unpack":
        conditional.append(("mknodat", ((2, profiles.MASKED, _FIFO, _FORMAT),)))
        # A whiteout of overlayfs: the device 0:0, behind which there is nothing.
        conditional.append(
            ("mknodat", ((2, profiles.MASKED, _CHARACTER_DEVICE, _FORMAT), (3, profiles.MASKED, 0, _LOW_32)))
        )
    allowed = _LISTS[kind].split()
    exceptions = [item for item in profiles.EXCEPTIONS if item[0] == "socket" and item[0] in allowed]
    if kind == "download-user":
        exceptions.append(_NO_UNIX_SOCKETS)
    return seccomp.Profile(
        seccomp.scmp_act_errno(errno.ENOSYS),
        allowed,
        dict.fromkeys(profiles.words((*profiles.REFUSED.values(), _ENDS)), seccomp.SCMP_ACT_KILL_PROCESS),
        conditional,
        exceptions,
    )


def compile_worker(kind: str) -> bytes:
    """The filter of a kind of worker for ``libc.seccomp_load``.

    Raises:
        OSError: libseccomp is not installed, or refuses.
    """
    return seccomp.compile_filter(profile(kind))

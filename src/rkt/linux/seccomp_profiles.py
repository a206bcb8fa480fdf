# SPDX-License-Identifier: Apache-2.0
"""Which system calls a pod may make: the default filter, group by group, and the named sets of images and flags.

The default filter allows by list. What it does not know answers ENOSYS, so that a program built for a newer kernel falls
back as on an older one (invariants RN14, RN17). Known calls that are refused answer EPERM, which programs report as what
it is. ``docs/devel/confinement.md`` tells the same to people; a test compares the two.

Cold: used when the filter is compiled at build time, or for an app that asks for another one.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: Allowed whatever the arguments, by who needs them.
ALLOWED = {
    # Every program.
    "memory": """
        brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2
        mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages
    """,
    # Every program; fchmodat2, *xattrat, file_getattr and statx are what newer C libraries ask for first.
    "files": """
        access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
        fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync
        fgetxattr file_getattr file_setattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs
        fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch
        inotify_init inotify_init1 inotify_rm_watch ioctl lchown lchown32 lgetxattr link linkat listxattr listxattrat
        llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat newfstatat open openat
        openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr
        removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs
        statfs64 statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs tee truncate truncate64 umask unlink
        unlinkat utime utimensat utimensat_time64 utimes write writev
    """,
    # Event loops.
    "waiting": """
        epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
        eventfd2 _newselect pause pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4
        timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
    """,
    # Shells, servers, thread libraries, supervisors. clone is narrowed by EXCEPTIONS, clone3 is not here: see NOT_THERE.
    "processes": """
        clone execve execveat exit exit_group fork getcpu getpgid getpgrp getpid getppid getpriority getrlimit getrusage
        getsid gettid kill pidfd_open pidfd_send_signal prctl prlimit64 process_mrelease restart_syscall rseq
        sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
        sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
        sched_setscheduler sched_yield set_robust_list get_robust_list set_tid_address setpgid setpriority setrlimit setsid
        sysinfo tgkill times tkill ugetrlimit uname uretprobe uprobe vfork wait4 waitid waitpid ioprio_get ioprio_set
    """,
    "signals": """
        rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
        rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn
    """,
    "locks between threads": """
        futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake
    """,
    # adjtimex and clock_adjtime read the clock's state; setting it takes CAP_SYS_TIME, which no pod has by default.
    "time": """
        adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
        clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete
        timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
    """,
    # Servers that give up root themselves, package managers, sandboxes within the pod (chroot, seccomp, landlock).
    "identity and giving up privilege": """
        capget capset chroot getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid
        getresgid32 getresuid getresuid32 getuid getuid32 landlock_add_rule landlock_create_ruleset landlock_restrict_self
        seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32
        setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32
    """,
    # socket and socketpair are narrowed by EXCEPTIONS. No socketcall: its arguments are in memory (RN15).
    "network": """
        accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64
        recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socket socketpair
    """,
    # Databases (shared memory, semaphores) and POSIX message queues, all inside the pod's IPC namespace.
    "System V and POSIX IPC": """
        mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
        msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
    """,
    # Databases and web servers with Linux AIO. Not io_uring.
    "asynchronous I/O": """
        io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit
    """,
    "random numbers": "getrandom",
    # Thread-local storage and hardware features; each exists on one architecture only.
    "architecture": """
        arch_prctl arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush riscv_flush_icache riscv_hwprobe
        s390_guarded_storage s390_runtime_instr s390_sthyi set_tls swapcontext
    """,
}

#: Refused with EPERM, by why.
REFUSED = {
    # Kernel code that fails often: each was the way out of containers more than once (RN16).
    "fast-moving kernel surface": """
        bpf io_uring_enter io_uring_register io_uring_setup perf_event_open userfaultfd vmsplice
    """,
    # Mounts, and namespaces in which the pod would have every capability (RN8, RN16).
    "mounts and namespaces": """
        fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree open_tree_attr pivot_root setns umount
        umount2 unshare
    """,
    # The keyrings of the host's root (RN18).
    "keyrings": "add_key keyctl request_key",
    # A file by its number, whatever the mount namespace hides.
    "handles of files": "name_to_handle_at open_by_handle_at",
    "kernel and modules": """
        create_module delete_module finit_module get_kernel_syms init_module kexec_file_load kexec_load query_module
    """,
    # Other processes' memory and descriptors; debuggers are started with a filter of their own.
    "other processes": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "the host": """
        acct clock_settime clock_settime64 fanotify_init fanotify_mark ioperm iopl lookup_dcookie modify_ldt nfsservctl
        quotactl quotactl_fd reboot setdomainname sethostname settimeofday stime swapoff swapon sysfs _sysctl syslog uselib
        ustat vhangup vm86 vm86old s390_pci_mmio_read s390_pci_mmio_write
    """,
    "placement of memory": """
        get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node
    """,
}

#: Answer ENOSYS though the kernel has them: the arguments of clone3 are in memory, so its flags cannot be looked at, and
#: C libraries fall back to clone only on ENOSYS (RN17).
NOT_THERE = ("clone3",)

# <linux/sched.h>; CLONE_NEWTIME shares its bit with the exit signal of clone and is unknown to it.
_CLONE_NEW = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
#: Which argument of clone(2) the flags are (CLONE_BACKWARDS2).
CLONE_FLAGS = 1 if os.uname().machine == "s390x" else 0
# <linux/socket.h>: AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. Everything else, AF_PACKET, AF_ALG, AF_RXRPC and AF_VSOCK above
# all, is kernel code that common programs never need (RN16).
_FAMILIES = (1, 2, 10, 16)
_AF_NETLINK, _NETLINK_AUDIT = 16, 9
_LOW_32 = 0xFFFFFFFF

#: Comparisons of a rule: (argument index, operator, value, mask); the mask counts for MASKED only. The operators are
#: libseccomp's, <seccomp.h>. MASKED looks at the low 32 bits where the kernel takes an int (CVE-2019-10063).
GREATER = 6
MASKED = 7

#: Calls that are allowed above but not with these arguments: (call, errno, comparisons that must all hold).
EXCEPTIONS: tuple[tuple[str, int, tuple[tuple[int, int, int, int], ...]], ...] = (
    # Characters pushed into, or pasted to, the terminal of whoever started the pod (CVE-2017-5226, CVE-2016-10124, RN23).
    ("ioctl", errno.EPERM, ((1, MASKED, 0x5412, _LOW_32),)),  # TIOCSTI
    ("ioctl", errno.EPERM, ((1, MASKED, 0x541C, _LOW_32),)),  # TIOCLINUX
    *[("clone", errno.EPERM, ((CLONE_FLAGS, MASKED, flag, flag),)) for flag in _CLONE_NEW],
    # "No such family" is what programs know how to deal with.
    *[
        ("socket", errno.EAFNOSUPPORT, ((0, MASKED, family, _LOW_32),))
        for family in range(max(_FAMILIES))
        if family not in _FAMILIES
    ],
    ("socket", errno.EAFNOSUPPORT, ((0, GREATER, max(_FAMILIES), 0),)),
    # login, sshd and sudo take EINVAL for a kernel without audit and go on; with EPERM they fail.
    ("socket", errno.EINVAL, ((0, MASKED, _AF_NETLINK, _LOW_32), (2, MASKED, _NETLINK_AUDIT, _LOW_32))),
    ("socketpair", errno.EAFNOSUPPORT, ((0, GREATER, 1, 0),)),
)

#: ``personality`` only to ask (-1) and for Linux with or without the two harmless flags that build tools set: 32-bit
#: machine name (8) and UNAME26 (0x20000). ADDR_NO_RANDOMIZE and READ_IMPLIES_EXEC weaken the process.
CONDITIONAL: tuple[tuple[str, tuple[tuple[int, int, int, int], ...]], ...] = tuple(
    ("personality", ((0, MASKED, value, _LOW_32),)) for value in (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
)

#: Always allowed beside a retain set, as systemd does: without them nothing can be executed, return from a signal
#: handler, look at the clock, sleep or end.
IMPLICIT = """
    clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 execve exit
    exit_group getrlimit gettimeofday nanosleep pause restart_syscall rt_sigreturn sigreturn time ugetrlimit
"""

#: Numbers of calls younger than the libseccomp that compiles; from 424 on they are the same on every architecture.
NUMBERS = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}
#: Likewise of one architecture. The kernel itself makes a probed process call the first two; refusing them kills it.
NUMBERS_OF = {"x86_64": {"uretprobe": 335, "uprobe": 336}, "riscv64": {"riscv_hwprobe": 258}}

_DEFAULT_BLACKLIST = """
    acct add_key adjtimex bpf clock_adjtime clock_settime create_module delete_module finit_module get_kernel_syms
    get_mempolicy init_module ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind mount move_pages
    name_to_handle_at nfsservctl open_by_handle_at perf_event_open pivot_root process_vm_readv process_vm_writev ptrace
    query_module quotactl reboot request_key set_mempolicy setns settimeofday stime swapoff swapon sysfs _sysctl umount
    umount2 unshare uselib userfaultfd ustat vm86 vm86old
"""


def words(groups: Iterable[str]) -> list[str]:
    """Names in blocks of text."""
    return [name for text in groups for name in text.split()]


def default_names() -> list[str]:
    """Every call of the default filter, those with conditions included."""
    return sorted({*words(ALLOWED.values()), *(name for name, _ in CONDITIONAL)})


def wildcard(name: str) -> list[str]:
    """Calls that a named set stands for; ``@appc.io/all`` and ``@appc.io/empty`` are the caller's to handle.

    The white lists of rkt and Docker are today's default filter. Theirs of 2016 would stop every current C library.

    Raises:
        ValueError: there is no such set.
    """
    if name in {"@rkt/default-whitelist", "@docker/default-whitelist"}:
        return default_names()
    if name in {"@rkt/default-blacklist", "@docker/default-blacklist"}:
        return sorted(
            {*words((_DEFAULT_BLACKLIST,)), *words(REFUSED.values())} - set(words(ALLOWED.values()))
        )
    if name in _SYSTEMD:
        return _SYSTEMD[name].split()
    raise ValueError(f"unknown seccomp wildcard {name}")


def expand(names: Iterable[str]) -> list[str]:
    """Names with wildcards replaced by what they stand for."""
    found: set[str] = set()
    for name in names:
        if name.startswith("@"):
            found.update(wildcard(name))
        else:
            found.add(name)
    return sorted(found)


def narrow(names: Iterable[str]) -> list[str]:
    """Of a retain set of an image, what the default filter allows too (design §9.4); wildcards are expanded."""
    known = set(default_names())
    return [name for name in expand(name for name in names if name != "@appc.io/empty") if name in known]


#: systemd's groups as of version 231, frozen: systemd.exec(5), SystemCallFilter=.
_SYSTEMD = {
    "@systemd/clock": "adjtimex clock_adjtime clock_settime settimeofday stime",
    "@systemd/default-whitelist": IMPLICIT,
    "@systemd/mount": "chroot mount pivot_root umount umount2",
    "@systemd/network-io": """
        accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmsg send sendmmsg
        sendmsg sendto setsockopt shutdown socket socketcall socketpair
    """,
    "@systemd/obsolete": """
        _sysctl afs_syscall break create_module ftime get_kernel_syms getpmsg gtty lock mpx prof profil putpmsg query_module
        security sgetmask ssetmask stty sysfs tuxcall ulimit uselib ustat vserver
    """,
    "@systemd/privileged": """
        _sysctl acct adjtimex bpf capset chown chown32 chroot clock_adjtime clock_settime delete_module fchown fchown32
        fchownat finit_module init_module ioperm iopl kexec_file_load kexec_load keyctl lchown lchown32 mount nfsservctl
        open_by_handle_at pciconfig_iobase pciconfig_read pciconfig_write perf_event_open pivot_root quotactl reboot
        setdomainname setfsuid setfsuid32 setgroups setgroups32 sethostname setns setresuid setresuid32 setreuid setreuid32
        settimeofday setuid setuid32 stime swapoff swapon umount umount2 unshare userfaultfd vhangup
    """,
    "@systemd/process": "arch_prctl clone execve execveat fork kill prctl setns tgkill tkill unshare vfork",
    "@systemd/raw-io": """
        ioperm iopl pciconfig_iobase pciconfig_read pciconfig_write s390_pci_mmio_read s390_pci_mmio_write
    """,
}

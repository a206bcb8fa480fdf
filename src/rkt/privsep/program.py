# SPDX-License-Identifier: Apache-2.0
"""Gives up what ``gpgv`` does not need, then becomes it; of root by way of the programs that take root's rights.

It reads its libraries and what it was handed. It writes to the descriptors it was handed, makes and changes no other file,
opens no socket, sends no signal, and starts no other process.
"""

from __future__ import annotations

import os
import sys

from rkt.linux import landlock, libc, seccomp
from rkt.linux import seccomp_profiles as profiles

_SECCOMP_RET_KILL_PROCESS = 0x80000000
_EXECUTABLE = landlock.READ | landlock.EXECUTE
_PATHS = (
    (b"/bin", _EXECUTABLE),
    (b"/lib", _EXECUTABLE),
    (b"/lib64", _EXECUTABLE),
    (b"/usr", _EXECUTABLE),
    (b"/etc/ld.so.cache", landlock.READ),
    (b"/etc/gcrypt", landlock.READ),
    (b"/dev/null", landlock.READ | landlock.WRITE_FILE),
    (b"/dev/urandom", landlock.READ),
)
#: Taken from what an app may call: what makes or changes files, waits for others, or starts or steers processes. Programs
#: are still executed: this one becomes another.
_NOT_NEEDED = profiles.words(
    (
        profiles.ALLOWED["network"],
        profiles.ALLOWED["asynchronous I/O"],
        profiles.ALLOWED["System V and POSIX IPC"],
        """
        chmod chown chown32 copy_file_range creat fallocate fchmod fchmodat fchmodat2 fchown fchown32 fchownat
        file_setattr fremovexattr fsetxattr ftruncate ftruncate64 futimesat inotify_add_watch inotify_init inotify_init1
        inotify_rm_watch lchown lchown32 link linkat lremovexattr lsetxattr mkdir mkdirat mknod mknodat removexattr
        removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice symlink symlinkat
        sync syncfs tee truncate truncate64 unlink unlinkat utime utimensat utimensat_time64 utimes
        """,
        """
        chroot clone fork ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self memfd_create
        memfd_secret personality pidfd_getfd pidfd_open pidfd_send_signal prlimit64 process_mrelease
        process_vm_readv process_vm_writev ptrace rt_sigqueueinfo rt_tgsigqueueinfo sched_setaffinity sched_setattr sched_setparam
        sched_setscheduler seccomp setpgid setpriority setsid signalfd signalfd4 tgkill timer_create timerfd_create tkill
        vfork
        """,
    )
)

_LOW_32 = 0xFFFFFFFF
#: Not those of other processes of the same user.
_OWN_LIMITS = ("prlimit64", ((0, profiles.MASKED, 0, _LOW_32),))


def profile() -> seccomp.Profile:
    """What the program may call."""
    base = seccomp.default_profile()
    return seccomp.Profile(
        base.default,
        [name for name in base.allowed if name not in _NOT_NEEDED],
        base.refused,
        [*(item for item in base.conditional if item[0] not in _NOT_NEEDED), _OWN_LIMITS],
        [item for item in base.exceptions if item[0] not in _NOT_NEEDED],
    )


def main() -> None:
    """Run ``python -IS -c … PACKAGE-PATH PROGRAM WORD…``."""
    words = sys.argv[2:]
    filter_program = seccomp.compile_filter(profile())
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    # Root's program gets a user of its own; without root these are all the walls there are.
    is_root = os.geteuid() == 0
    if not landlock.restrict(_PATHS) and not is_root:
        raise SystemExit("no Landlock")
    if libc.seccomp_action_available(_SECCOMP_RET_KILL_PROCESS) or not is_root:
        libc.seccomp_load(filter_program)
    os.execv(words[0], words)

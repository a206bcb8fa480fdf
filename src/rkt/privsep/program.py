# SPDX-License-Identifier: Apache-2.0
"""Gives up what ``gpgv`` does not need, then becomes it; of root by way of the programs that take root's rights.

It reads its libraries and what it was handed. It writes to the descriptors it was handed, opens no socket, sends no
signal, and starts no other process.
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
#: Taken from what an app may call. Programs are still started: this one becomes another.
_NOT_NEEDED = profiles.words(
    (
        profiles.ALLOWED["network"],
        profiles.ALLOWED["asynchronous I/O"],
        profiles.ALLOWED["System V and POSIX IPC"],
        "kill tkill tgkill pidfd_send_signal rt_sigqueueinfo rt_tgsigqueueinfo fork vfork ptrace process_vm_readv",
        "process_vm_writev pidfd_getfd",
    )
)


def profile() -> seccomp.Profile:
    """What the program may call."""
    base = seccomp.default_profile()
    return seccomp.Profile(
        base.default,
        [name for name in base.allowed if name not in _NOT_NEEDED],
        base.refused,
        [item for item in base.conditional if item[0] not in _NOT_NEEDED],
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

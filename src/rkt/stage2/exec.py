# SPDX-License-Identifier: Apache-2.0
"""The last steps as the app's own process: ids, capabilities, no_new_privs, seccomp, execve.

Runs in a forked child that is already in the app's namespaces, root and cgroup. Everything it needs was imported and
encoded before the fork; from here on nothing can be imported, since the interpreter's files are out of sight.
"""

from __future__ import annotations

import _signal
import errno
import os

from rkt.linux import capabilities, libc
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Status of an app whose program could not be executed; systemd's EXIT_EXEC, which rkt's users know.
EXIT_EXEC_FAILED = 203
_NSIG = 65
#: Behind the standard streams.
_FIRST_FD = 3
_HEAD_BYTES = 4096
#: Interpreters of interpreters that execve(2) follows before it gives up with ELOOP.
MAX_INTERPRETERS = 5
_EM_PT_INTERP = 3


class ExecPlan(Record):
    """What the app's process becomes.

    Attributes:
        argv: the program as written and its arguments; not empty.
        environment: the whole environment, built from empty (invariant RN25).
        uid, gid, groups: numeric, in the app's user namespace; ``groups`` replaces all supplementary groups.
        working_directory: absolute, inside the app's root.
        capabilities: bounding set as a mask by capability number.
        no_new_privileges: execve never gains privileges.
        seccomp: compiled filter (array of ``struct sock_filter``), empty for none.
        sockets: descriptors, ascending and each at least as large as its place will be, that become 3 and so on in the program,
            with ``LISTEN_PID`` (sd_listen_fds(3)); nothing but others of them is open at these places.
        rlimits: number, soft and hard limit of each that is not the caller's; whoever sets them has imported
            ``resource``, and has raised what was to be raised.
        lock_fd: a descriptor that stays open in the program, behind its sockets; -1 for none.
        instead: what the process does, without a descriptor but the standard ones, instead of executing a program; it ends
            with the status that is returned.
    """

    argv: list[bytes]
    environment: dict[bytes, bytes]
    uid: int
    gid: int
    groups: list[int]
    working_directory: bytes
    capabilities: int
    no_new_privileges: bool
    seccomp: bytes
    rlimits: list[tuple[int, int, int]] = []
    instead: Callable[[], int] | None = None
    sockets: list[int] = []
    lock_fd: int = -1


def become(plan: ExecPlan) -> None:
    """Turn the calling process into the app; never returns.

    A program that cannot be executed is explained on stderr, and the process ends with ``EXIT_EXEC_FAILED``.

    Raises:
        OSError: an earlier step was refused; the caller must end the process.
    """
    # From the moment in which this process has no more capabilities than another app of the pod, that one could look into
    # it, and descriptors of the host are still open here (CVE-2016-9962). Execution makes it an ordinary process again.
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    if plan.sockets:
        _place_sockets(plan)
    enter_directory(plan.working_directory)
    capabilities.drop_bounding(plan.capabilities)
    if plan.rlimits:
        # As late as the filter allows: from here on the engine itself lives with the app's limits.
        import resource

        for number, soft, hard in plan.rlimits:
            resource.setrlimit(number, (soft, hard))
    os.setgroups(plan.groups)
    os.setresgid(plan.gid, plan.gid, plan.gid)
    if plan.seccomp and not plan.no_new_privileges:
        # Only CAP_SYS_ADMIN may install a filter without no_new_privs, so it must come before ids and capabilities go.
        libc.seccomp_load(plan.seccomp)
    os.setresuid(plan.uid, plan.uid, plan.uid)
    # The pod's processes of the same user may not look in here until the program is executed, which makes it as any other
    # (CVE-2016-9962). Changing ids has set this to what ``fs.suid_dumpable`` says, and that may be 1.
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    kept = plan.capabilities if plan.uid == 0 else 0
    libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)
    libc.capset(kept, kept, 0)
    reset_signals()
    os.umask(0o022)
    program = None if plan.instead is not None else _find_program(plan)
    if program is None and plan.instead is None:
        os._exit(EXIT_EXEC_FAILED)
    if plan.no_new_privileges:
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    first = _FIRST_FD + len(plan.sockets)
    if plan.lock_fd >= 0:
        libc.close_range(first, plan.lock_fd - 1, libc.CLOSE_RANGE_CLOEXEC)
        first = plan.lock_fd + 1
    libc.close_range(first, 0xFFFFFFFF, 0 if program is None else libc.CLOSE_RANGE_CLOEXEC)
    if plan.seccomp and plan.no_new_privileges:
        libc.seccomp_load(plan.seccomp)
    if program is None:
        os._exit(plan.instead())  # type: ignore[misc]
    try:
        os.execve(program, plan.argv, plan.environment)
    except OSError as e:
        _explain(program, e)
        os._exit(EXIT_EXEC_FAILED)


def _place_sockets(plan: ExecPlan) -> None:
    """Put them where the program looks for them, before a filter that may not know dup2(2) is loaded."""
    for place, fd in enumerate(plan.sockets, _FIRST_FD):
        os.dup2(fd, place)
        os.set_inheritable(place, True)
    plan.environment[b"LISTEN_PID"] = b"%d" % os.getpid()


def enter_directory(path: bytes) -> None:
    """Chdir, then make sure that the directory is inside the root (CVE-2024-21626).

    Raises:
        OSError: naming the directory.
    """
    try:
        os.chdir(path)
    except OSError as e:
        reason = os.strerror(e.errno or 0)
        raise OSError(e.errno, f"working directory {os.fsdecode(path)}: {reason}") from e
    if not os.getcwdb().startswith(b"/"):
        raise OSError(errno.EXDEV, f"working directory {os.fsdecode(path)} is outside the root")


def reset_signals() -> None:
    """Default dispositions and an empty mask: Python ignores SIGPIPE and SIGXFSZ, and ignored signals survive execve."""
    for number in range(1, _NSIG):
        if _signal.getsignal(number) not in {_signal.SIG_DFL, None}:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _find_program(plan: ExecPlan) -> bytes | None:
    """The program's path as execve needs it: absolute, beside the working directory, or found in ``PATH``."""
    name = plan.argv[0]
    if b"/" in name:
        return name
    search = plan.environment.get(b"PATH", b"")
    denied = b""
    for directory in search.split(b":"):
        candidate = (
            (directory.rstrip(b"/") if directory != b"/" else b"") + b"/" + name if directory else name
        )
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
        if not denied and os.access(candidate, os.F_OK):
            denied = candidate
    if denied:
        _say(f'Error: Unable to execute "{os.fsdecode(denied)}": {os.strerror(errno.EACCES)}')
    else:
        _say(f'Error: unable to find "{os.fsdecode(name)}" in "{os.fsdecode(search)}"')
    return None


def _explain(program: bytes, failure: OSError) -> None:
    """Say on the app's stderr why execve failed: the file itself, its script interpreter, or its dynamic loader."""
    missing = program
    if failure.errno == errno.ENOENT:
        # A script's interpreter may be a script, or lack its loader; the kernel follows five.
        for _ in range(MAX_INTERPRETERS):
            if not os.path.exists(missing):
                break
            missing = _interpreter(missing) or missing
    verb = "open" if failure.errno == errno.ENOENT else "execute"
    _say(f'Error: Unable to {verb} "{os.fsdecode(missing)}": {os.strerror(failure.errno or 0)}')


def _interpreter(program: bytes) -> bytes:
    """The interpreter that a program asks for; empty when there is none to be found."""
    try:
        fd = os.open(program, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return read_interpreter(fd) or b""
    finally:
        os.close(fd)


def read_interpreter(fd: int) -> bytes | None:
    """What the ``#!`` line or the ELF PT_INTERP segment of an open file asks for; empty where it cannot be found.

    ``None`` of a file that is neither.
    """
    try:
        head = os.read(fd, _HEAD_BYTES)
        if head.startswith(b"#!"):
            words = head[2:].split(b"\n", 1)[0].split()
            return words[0] if words else b""
        if not head.startswith(b"\x7fELF"):
            return None
        if head[4:6] != b"\x02\x01":
            return b""
        table = int.from_bytes(head[32:40], "little")
        size = int.from_bytes(head[54:56], "little")
        for index in range(int.from_bytes(head[56:58], "little")):
            entry = head[table + index * size : table + (index + 1) * size]
            if int.from_bytes(entry[:4], "little") == _EM_PT_INTERP:
                offset = int.from_bytes(entry[8:16], "little")
                return os.pread(fd, _HEAD_BYTES, offset).split(b"\0", 1)[0]
    except OSError:
        return b""
    return b""


def _say(text: str) -> None:
    """One line on the app's stderr; the app's streams are all that is left to speak through."""
    try:
        os.write(2, os.fsencode(text) + b"\n")
    except OSError:
        pass

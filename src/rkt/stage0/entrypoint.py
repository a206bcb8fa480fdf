# SPDX-License-Identifier: Apache-2.0
"""Run a stage1 program as a child and wait for it, with a deadline (spec runtime §1.5: ``gc``, ``stop``)."""

from __future__ import annotations

import os
import sys

from rkt.errors import Stage1Error
from rkt.linux import libc
from rkt.stage0 import contract
from rkt.stage0.run import stage1_environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SIGKILL = 9
#: What a child exits with when the program could not be started; it has said why, unless its directory is gone.
_NOT_STARTED = 254


def run_entrypoint(
    program: str,
    arguments: list[str],
    directory: str,
    *,
    timeout_seconds: float,
    quiet_stdout: bool,
    before: Callable[[], None] | None = None,
) -> int:
    """Run a program and wait.

    Args:
        program: absolute path.
        arguments: words after the program's name.
        directory: its working directory.
        timeout_seconds: it is killed after that.
        quiet_stdout: whether only standard error is inherited.
        before: called in the child, in the working directory, before the program is executed; raises ``OSError`` or
            ``RktError`` to refuse.
    Returns:
        its exit status, 128 and the signal's number when a signal ended it.
    Raises:
        Stage1Error: it did not end in time.
    """
    environment = stage1_environment()
    # Where the caller is, whatever the child does before: networks are taken back there.
    mounts_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    environment[contract.ENV_HOST_MOUNTS] = str(mounts_fd)
    environment[contract.ENV_HOST_ROOT] = str(root_fd)
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        libc.die_with(parent)
        for fd in (mounts_fd, root_fd):
            os.set_inheritable(fd, True)
        _child(program, arguments, directory, environment, quiet_stdout, before)
    for fd in (mounts_fd, root_fd):
        os.close(fd)
    return _wait(child, program, timeout_seconds)


def _child(
    program: str,
    arguments: list[str],
    directory: str,
    environment: dict[str, str],
    quiet_stdout: bool,
    before: Callable[[], None] | None,
) -> None:
    from _signal import SIG_DFL, SIGPIPE, SIGXFSZ, signal

    try:
        try:
            os.chdir(directory)
        except FileNotFoundError:
            # A pod that was removed a moment ago, which is for the caller to find and to say.
            os._exit(_NOT_STARTED)
        if before is not None:
            before()
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        if quiet_stdout:
            os.dup2(null, 1)
        signal(SIGPIPE, SIG_DFL)
        signal(SIGXFSZ, SIG_DFL)
        os.execve(program, [program, *arguments], environment)
    except BaseException as e:  # noqa: BLE001 - nothing of the parent's may run in the child
        reason = e.strerror if isinstance(e, OSError) else str(e)
        try:
            os.write(2, f"stage1: cannot execute {program}: {reason}\n".encode(errors="backslashreplace"))
        finally:
            os._exit(_NOT_STARTED)


def _wait(child: int, program: str, timeout_seconds: float) -> int:
    import select

    # The child cannot be reaped by anybody else, so its number cannot be given to another process meanwhile.
    pidfd = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        in_time = bool(poll.poll(timeout_seconds * 1000))
        if not in_time:
            os.kill(child, _SIGKILL)
    finally:
        os.close(pidfd)
        _, status = os.waitpid(child, 0)
    if not in_time:
        raise Stage1Error(f"{program} did not end within {timeout_seconds:g} seconds and was killed")
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code

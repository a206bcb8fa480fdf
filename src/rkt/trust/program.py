# SPDX-License-Identifier: Apache-2.0
"""Runs OpenPGP programs: found by absolute path, owned by root, and, for foreign data, without rights.

When root calls, a program that reads foreign data gets an unused uid and gid of its own and no groups, no capabilities, no_new_privs,
no network, lowered limits, an empty environment, no home directory, and exactly the descriptors that are passed to it.

Landlock and a system call filter come on top (``privsep.program``); when somebody else than root calls, there is no uid
and no namespace to give, and they are the only walls.

``unshare``, ``setpriv`` and ``prlimit`` of util-linux give the rights up, one after the other, each by exec. Doing it
here between fork and exec would run Python code in a copy of a process that may have more threads than one (``fetch``
hashes meanwhile).
"""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import sys

from rkt.errors import CannotVerify, HostError
from rkt.linux import libc
from rkt.privsep.confine import VERIFY_UID_BASE
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CONFINE = "import sys; sys.path.insert(0, sys.argv[1]); from rkt.privsep.program import main; main()"
#: What a confined program may write to its descriptors, in bytes.
OUTPUT_LIMIT_BYTES = 1 << 20

_DIRECTORIES = ("/usr/bin", "/bin")
#: Upper bounds by the name of the option; one that is lower already stays (raising one needs a capability we may lack).
_LIMITS = (
    ("core", resource.RLIMIT_CORE, 0),
    ("fsize", resource.RLIMIT_FSIZE, OUTPUT_LIMIT_BYTES),
    ("nproc", resource.RLIMIT_NPROC, 0),
    ("nofile", resource.RLIMIT_NOFILE, 64),
    ("as", resource.RLIMIT_AS, 1 << 30),
)


class Outcome(Record):
    """How a confined program ended; the exit status is negative for a signal."""

    exit_status: int
    status_output: bytes
    error_output: bytes


def find_program(name: str, *, package: str) -> str:
    """Absolute path of a program that nobody but root can replace (invariant HH5).

    Args:
        name: the program.
        package: the Debian package to name when it is missing.

    Raises:
        HostError: it is missing, or somebody else could have changed it.
    """
    for directory in _DIRECTORIES:
        path = os.path.realpath(f"{directory}/{name}")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            break
    else:
        raise HostError(
            f"the program {name} is not installed in {' or '.join(_DIRECTORIES)}",
            hint=f"apt-get install {package}",
        )
    step = path
    while True:
        status = os.stat(step)
        if status.st_uid != 0 or status.st_mode & 0o022:
            raise HostError(
                f"{path} cannot be trusted: {step} can be changed by others than root",
                hint=f"chown root {step} && chmod go-w {step}",
            )
        if step == "/":
            return path
        step = os.path.dirname(step)


def sealed_memory(name: str, content: bytes) -> int:
    """A descriptor of memory that holds ``content`` and can no longer be changed; the caller owns it."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        # The program opens it by its name in /proc, with another uid.
        os.fchmod(fd, 0o444)
        fcntl.fcntl(
            fd, libc.F_ADD_SEALS, libc.F_SEAL_WRITE | libc.F_SEAL_GROW | libc.F_SEAL_SHRINK | libc.F_SEAL_SEAL
        )
    except BaseException:
        os.close(fd)
        raise
    return fd


def run_confined(
    argv: Callable[[int], list[str]],
    *,
    stdin: int,
    descriptors: list[int],
    timeout_seconds: float,
    package_path: str = "",
) -> Outcome:
    """Run a program that reads foreign data, and wait for it.

    Args:
        argv: gets the number of the status descriptor and returns the words of the command.
        stdin: descriptor that becomes standard input.
        descriptors: others that stay open under the same numbers.
        timeout_seconds: after that long it is killed.
        package_path: directory that holds the ``rkt`` package, for ``privsep.program``; without it there is neither
            Landlock nor a filter.

    Raises:
        HostError: a program that takes rights away is missing.
        CannotVerify: it cannot be started, or does not end in time.
    """
    confine = [sys.executable, "-I", "-S", "-c", _CONFINE, package_path] if package_path else []
    # Root's own files are read before the rights to read them go.
    prefix = _without_rights(confine) if os.geteuid() == 0 else [*_without_rights([]), *confine]
    status = os.memfd_create("status", os.MFD_CLOEXEC)
    errors = os.memfd_create("errors", os.MFD_CLOEXEC)
    words = argv(status)
    try:
        try:
            process = subprocess.Popen(
                [*prefix, *words],
                stdin=stdin,
                stdout=errors,
                stderr=errors,
                pass_fds=[*descriptors, status],
                env={"PATH": "/nonexistent", "HOME": "/nonexistent", "LC_ALL": "C"},
                cwd="/",
                start_new_session=True,
                umask=0o077,
            )
        except OSError as e:
            raise CannotVerify(f"cannot start {words[0]} without rights: {e.strerror}") from e
        try:
            exit_status = process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise CannotVerify(f"{words[0]} did not end within {timeout_seconds:.0f} seconds") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        return Outcome(
            exit_status=exit_status,
            status_output=os.pread(status, OUTPUT_LIMIT_BYTES, 0),
            error_output=os.pread(errors, OUTPUT_LIMIT_BYTES, 0),
        )
    finally:
        os.close(status)
        os.close(errors)


def _without_rights(confine: list[str]) -> list[str]:
    """The words before a command that make it run without rights; ``confine`` come before rights and limits go."""
    words = []
    identity = []
    if os.geteuid() == 0:
        # Namespaces first: they need the rights that the next program gives up.
        words = [find_program("unshare", package="util-linux"), "--net", "--ipc", "--"]
        # Not one of rkt-fetch: whoever brought a signature must not reach who judges it.
        uid = VERIFY_UID_BASE + (os.getpid() & 0xFFFF)
        identity = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    words += [
        *confine,
        find_program("setpriv", package="util-linux"),
        *identity,
        "--inh-caps=-all",
        "--no-new-privs",
        "--pdeathsig=KILL",
        "--",
        find_program("prlimit", package="util-linux"),
    ]
    for name, number, bound in _LIMITS:
        soft, hard = (
            bound if old == resource.RLIM_INFINITY else min(old, bound) for old in resource.getrlimit(number)
        )
        words.append(f"--{name}={soft}:{hard}")
    return [*words, "--"]

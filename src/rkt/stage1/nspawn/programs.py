# SPDX-License-Identifier: Apache-2.0
"""The program of an app below its root, which systemd wants to know by an absolute path, and why it cannot be executed."""

from __future__ import annotations

import errno
import os
import stat

from rkt.linux import libc
from rkt.stage2.exec import MAX_INTERPRETERS, read_interpreter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage2.exec import ExecPlan

_MAY_EXECUTE = 0o111


def find_program(root_fd: int, execute: ExecPlan) -> tuple[bytes, str]:
    """Where an app's program is.

    Args:
        root_fd: the app's root, with its volumes.
        execute: what is to be executed; a name without a slash is looked for in ``PATH``, one with is relative to the working directory.
    Returns:
        an absolute path below the root, and what the app would say if there is nothing to execute there, else empty.
    """
    name = execute.argv[0]
    if b"/" in name:
        path = _join(execute.working_directory, name)
        return path, explain(root_fd, path)
    search = execute.environment.get(b"PATH", b"")
    denied = b""
    for element in search.split(b":"):
        path = _join(execute.working_directory, element + b"/" + name if element else name)
        mode = _mode(root_fd, path)
        if stat.S_ISREG(mode) and mode & _MAY_EXECUTE:
            return path, ""
        if mode and not denied:
            denied = path
    if denied:
        return denied, f'Error: Unable to execute "{os.fsdecode(denied)}": {os.strerror(errno.EACCES)}'
    first = search.split(b":")[0]
    path = _join(execute.working_directory, first + b"/" + name if first else name)
    return path, f'Error: unable to find "{os.fsdecode(name)}" in "{os.fsdecode(search)}"'


def explain(root_fd: int, path: bytes) -> str:
    """Why a program cannot be executed: the file itself, its script interpreter, or its dynamic loader; empty if it can."""
    missing = path
    for _ in range(MAX_INTERPRETERS):
        mode = _mode(root_fd, missing)
        if not mode:
            return f'Error: Unable to open "{os.fsdecode(missing)}": {os.strerror(errno.ENOENT)}'
        if not stat.S_ISREG(mode) or not mode & _MAY_EXECUTE:
            return f'Error: Unable to execute "{os.fsdecode(missing)}": {os.strerror(errno.EACCES)}'
        interpreter = _interpreter(root_fd, missing)
        if interpreter is None:
            return f'Error: Unable to execute "{os.fsdecode(missing)}": {os.strerror(errno.ENOEXEC)}'
        if not interpreter.startswith(b"/"):
            return ""
        missing = interpreter
    return ""


def _join(directory: bytes, name: bytes) -> bytes:
    return name if name.startswith(b"/") else directory.rstrip(b"/") + b"/" + name


def _mode(root_fd: int, path: bytes) -> int:
    """Type and permissions of a file below the root, wherever links lead there; 0 for none."""
    try:
        fd = libc.openat2(root_fd, path.lstrip(b"/") or b".", os.O_PATH, libc.RESOLVE_IN_ROOT)
    except OSError:
        return 0
    try:
        return os.fstat(fd).st_mode
    finally:
        os.close(fd)


def _interpreter(root_fd: int, path: bytes) -> bytes | None:
    """The interpreter that a program asks for, as ``read_interpreter``; empty where it cannot be opened."""
    try:
        fd = libc.openat2(
            root_fd,
            path.lstrip(b"/"),
            os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY,
            libc.RESOLVE_IN_ROOT,
        )
    except OSError:
        return b""
    try:
        return read_interpreter(fd)
    finally:
        os.close(fd)

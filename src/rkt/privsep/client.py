# SPDX-License-Identifier: Apache-2.0
"""The command's side: start a worker, send the request, hand on its events, take its answer.

A worker is a fresh interpreter with a minimal environment and no descriptor but those it is given. It dies with this
process, at its deadline, or when its answer has been taken; in all cases before ``run_worker`` returns. What it says is
foreign: texts are made printable and bounded, and the caller checks every value (invariant HH2).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time

from rkt.errors import (
    FetchError,
    HostError,
    ImageError,
    InvalidManifest,
    NotFound,
    PodError,
    RktError,
    StoreError,
)
from rkt.privsep import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from rkt.config.settings import Installation

_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from rkt.privsep.worker import main; main()"
_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    # mallopt(3): glibc gives the memory of each chunk back and takes it anew, a page fault for every 4 KiB that are
    # unpacked, an eighth of the whole time. Within these bounds it keeps it.
    "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(32 << 20),
}
#: What a worker's error may become here; anything else is a failure of the worker itself.
_ERRORS: dict[str, type[RktError]] = {
    error.code: error
    for error in (FetchError, ImageError, InvalidManifest, HostError, NotFound, PodError, StoreError)
}
_END_SECONDS = 10.0
_MAX_STATUS = 255 - 64


def run_worker(
    kind: str,
    request: dict[str, Any],
    fds: Mapping[str, int],
    installation: Installation,
    *,
    deadline_seconds: float,
    on_event: Callable[[dict[str, Any]], object] | None = None,
    on_start: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Let a worker do one job.

    Args:
        kind: ``fetch``, ``unpack``, ``verify``, ``pack`` or ``fill``.
        request: JSON values.
        fds: descriptors the worker gets, by the names it knows them by; they stay the caller's.
        installation: where package and libraries are.
        deadline_seconds: the worker is killed after this time.
        on_event: is given each event; what is in it is foreign.
        on_start: is called once the worker has its descriptors.
    Returns:
        the worker's result, not checked.
    Raises:
        FetchError, ImageError, InvalidManifest, HostError, NotFound, PodError, StoreError: what the worker reports.
        RktError: it died, was killed at the deadline, or broke the protocol.
    """
    if not sys.executable:
        raise HostError("cannot start a worker: the path of the Python interpreter is not known")
    deadline = time.monotonic() + deadline_seconds
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            arguments = [installation.package_path, kind, str(theirs.fileno()), str(os.getpid())]
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BOOT, *arguments],
                env=_ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *fds.values()),
            )
        finished = False
        try:
            if on_start is not None:
                on_start()
            message = {
                "request": request,
                "fds": dict(fds),
                "library_paths": list(installation.library_paths),
            }
            try:
                wire.send(ours, message)
                answer = _converse(ours, kind, deadline, deadline_seconds, on_event)
            except (BrokenPipeError, ConnectionResetError):
                answer = None
            finished = answer is not None
        finally:
            status = _end(process, ours, kill=not finished)
    if answer is None:
        raise RktError(f"rkt-{kind} ended without an answer ({_describe(status)})")
    if "error" in answer:
        _raise(kind, answer["error"])
    result = answer.get("result")
    if not isinstance(result, dict):
        raise wire.WireError(f"rkt-{kind} sent no result")
    return result


def _converse(
    connection: socket.socket,
    kind: str,
    deadline: float,
    deadline_seconds: float,
    on_event: Callable[[dict[str, Any]], object] | None,
) -> dict[str, Any] | None:
    """Hand on events until the answer comes; None when the worker ends without one."""
    receiver = wire.Receiver(connection)
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise FetchError(f"rkt-{kind} was stopped: it took longer than {deadline_seconds:.0f} seconds")
        message = receiver.take()
        if message is None:
            # One read at a time, so that a worker that never ends its sentence meets the deadline too.
            if poll.poll(left * 1000) and not receiver.fill():
                return None
        elif "event" not in message:
            return message
        elif on_event is not None and isinstance(message["event"], dict):
            on_event(message["event"])


def _end(process: subprocess.Popen[bytes], connection: socket.socket, *, kill: bool) -> int:
    """Wait until the worker is gone, the process that works as well as the one that waits for it."""
    if kill:
        process.kill()
    try:
        status = process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    # Killed with the waiting process by PR_SET_PDEATHSIG; the end of the stream says that it is over.
    connection.settimeout(_END_SECONDS)
    with contextlib.suppress(OSError):
        while connection.recv(1 << 16):
            pass
    return status


def _raise(kind: str, error: Any) -> None:
    if not isinstance(error, dict):
        raise wire.WireError(f"rkt-{kind} sent an unreadable error")
    message = wire.foreign_text(error.get("message"))
    hint = wire.foreign_text(error.get("hint", ""))
    error_type = _ERRORS.get(str(error.get("code")))
    if error_type is None:
        raise RktError(f"rkt-{kind} failed: {message}", hint=hint)
    raise error_type(message, hint=hint)


def _describe(status: int) -> str:
    # The process that waited for the worker ends as it did, in the eight bits that an exit status has.
    number = -status if status < 0 else 256 - status if status > _MAX_STATUS else 0
    if number == signal.SIGSYS:
        return "killed: it made a system call that it must not make"
    return f"killed by signal {number}" if number else f"status {status}"

# SPDX-License-Identifier: Apache-2.0
"""The worker's side: a fresh interpreter reads its request, imports what it needs, confines itself, works, answers.

A kind of worker is a module with two functions::

    prepare(request) -> Work     may import and read trusted files; sees no foreign byte
    Work.confine(fds) -> None    gives everything up (privsep.confine)
    Work.run(fds, emit) -> dict  does it; ``emit`` sends events
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from rkt.errors import RktError
from rkt.linux import disk
from rkt.privsep import confine, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    Emit = Callable[[dict[str, Any]], None]

    class Work(Protocol):
        """One job of a worker."""

        def confine(self, fds: dict[str, int]) -> None:
            """Give up everything that the job does not need; may replace descriptors."""

        def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
            """Do the job and return the result."""


def _kinds(kind: str) -> Callable[[dict[str, Any]], Work]:
    """The closed list of workers."""
    if kind == "fetch":
        from rkt.fetch import worker

        return worker.prepare
    if kind == "unpack":
        from rkt.store import unpack_worker

        return unpack_worker.prepare
    if kind == "verify":
        from rkt.trust import verify_worker

        return verify_worker.prepare
    if kind in {"pack", "fill"}:
        from rkt.image import copy_worker

        return copy_worker.preparer(kind)
    raise SystemExit(f"unknown worker {kind!r}")


def main() -> None:
    """Run one job: ``python -IS -c … PACKAGE-PATH KIND SOCKET-FD PARENT-PID``."""
    kind, fd, parent = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    # A worker that is interrupted just ends; whoever started it cleans up.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    confine.die_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    connection = socket.socket(fileno=fd)
    # What errors.quoted shows foreign text by: a codec is a module, and none can be found once the worker is confined.
    "".encode("unicode_escape")
    message = wire.Receiver(connection).receive()
    if message is None:
        os._exit(1)
    try:
        sys.path.extend(message["library_paths"])
        work = _kinds(kind)(message["request"])
        fds = message["fds"]
        work.confine(fds)
        answer = {"result": work.run(fds, lambda event: wire.send(connection, {"event": event}))}
    except RktError as e:
        answer = {"error": {"code": e.code, "message": _chain(e), "hint": e.hint}}
    except OSError as e:
        where = f": {e.filename}" if e.filename else ""
        code = "store" if disk.is_disk(e) else "host"
        text = f"rkt-{kind}: {e.strerror or e}{where}"
        answer = {"error": {"code": code, "message": text, "hint": disk.remedy(e.errno)}}
    except MemoryError:
        answer = {"error": {"code": "image", "message": "not enough memory", "hint": ""}}
    except Exception as e:  # noqa: BLE001 - whatever it is, the other side must learn that there is no result
        answer = {"error": {"code": "privsep", "message": f"{type(e).__name__}: {e}", "hint": ""}}
    try:
        wire.send(connection, answer)
        status = 0
    except OSError:
        status = 1
    # Nothing of an interpreter that has read foreign bytes needs to run any more.
    os._exit(status)


def _chain(error: RktError) -> str:
    """Message and causes on one line."""
    texts = [error.message]
    cause = error.__cause__
    while cause is not None:
        text = (isinstance(cause, OSError) and cause.strerror) or str(cause)
        # The library's errors name its own objects; whoever raised the outer error has said what they mean.
        if not type(cause).__module__.startswith("urllib3") and not any(text in said for said in texts):
            texts.append(text)
        cause = cause.__cause__
    return ": ".join(texts)

# SPDX-License-Identifier: Apache-2.0
"""How a forked child that fails tells its parent why: words, and what to type next, through a pipe."""

from __future__ import annotations

import os

from rkt.errors import RktError, Stage1Error
from rkt.linux import disk
from rkt.stage1.common import steps

_MOST_BYTES = 4096


def send(fd: int, e: BaseException, step: steps.Step | None = None) -> None:
    """Say why this process, or one of its steps, failed; imports nothing."""
    hint = ""
    if isinstance(e, RktError):
        text, hint = e.message, e.hint
    elif isinstance(e, OSError):
        # Here the app's own limits and file systems answer: what refuses or is read-only need not be the host's.
        text, hint = steps.failure(step, e), disk.remedy(e.errno) if disk.is_want(e.errno) else ""
    else:
        text = f"{type(e).__name__}: {e}"
    tail = f"\0{hint}".encode(errors="replace")
    os.write(fd, text.encode(errors="replace")[: _MOST_BYTES - len(tail)] + tail)


def receive(fd: int) -> bytes:
    """All that was said until the other end was closed; closes this one."""
    data = b""
    while chunk := os.read(fd, _MOST_BYTES):
        data += chunk
    os.close(fd)
    return data


def error(data: bytes, *, what: str = "") -> Stage1Error:
    """The error that ``send`` told of; ``what`` says of what, in front of its words."""
    text, _, hint = data.decode(errors="replace").partition("\0")
    return Stage1Error(f"{what}{text}", hint=hint)

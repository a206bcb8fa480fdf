# SPDX-License-Identifier: Apache-2.0
"""Runs a piece of a test in a forked child, in namespaces of its own, and hands back what it returns."""

from __future__ import annotations

import json
import os
import select
import signal
import traceback
from typing import TYPE_CHECKING, Any

from rkt.linux import libc, mount

if TYPE_CHECKING:
    from collections.abc import Callable


def run_isolated(
    function: Callable[[], Any], flags: int = libc.CLONE_NEWNS, *, timeout_seconds: float = 60
) -> Any:
    """What ``function`` returns (as JSON carries it), computed in a child that has left the namespaces of ``flags``.

    Raises:
        AssertionError: the function raised; the message is its traceback.
    """
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read_fd)
            if flags:
                libc.unshare(flags)
            if flags & libc.CLONE_NEWNS:
                mount.make_private_recursive()
            text = json.dumps({"result": function()})
            status = 0
        except BaseException:  # noqa: BLE001 - everything is reported to the test
            text = json.dumps({"error": traceback.format_exc()})
        data = text.encode()
        while data:
            data = data[os.write(write_fd, data) :]
        os._exit(status)
    os.close(write_fd)
    answer_bytes = b""
    try:
        while True:
            ready, _, _ = select.select([read_fd], [], [], timeout_seconds)
            if not ready:
                os.kill(pid, signal.SIGKILL)
                raise AssertionError(f"the child did not end within {timeout_seconds} seconds")
            chunk = os.read(read_fd, 65536)
            if not chunk:
                break
            answer_bytes += chunk
    finally:
        os.close(read_fd)
        os.waitpid(pid, 0)
    answer = json.loads(answer_bytes or '{"error": "the child ended without an answer"}')
    if "error" in answer:
        raise AssertionError(answer["error"])
    return answer["result"]


def errno_of(function: Callable[[], Any]) -> int:
    """The errno with which a function fails, 0 when it does not."""
    try:
        function()
    except OSError as e:
        return e.errno or -1
    return 0

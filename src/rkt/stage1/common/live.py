# SPDX-License-Identifier: Apache-2.0
"""What supervisors of pods whose apps come and go have in common: how requests are answered, and the files that tell of apps.

stage0 has written the manifest and mounted the app's root before it asks for anything, and serialises requests by the pod's
lock; what is asked is checked anyway. The files ``rkt/status/APP-created``, ``APP-started`` and ``APP`` tell of an app's
state (spec runtime §2.4).
"""

from __future__ import annotations

import os

from rkt.errors import RktError
from rkt.linux import files
from rkt.stage1.common import control
from rkt.stage1.common.pod import load_pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any

CREATED, STARTED, HEALTH, ENDED = "-created", "-started", "-health", ""


def perform(
    operation: Callable[[_socket.socket, str], dict[str, Any] | None],
    client: _socket.socket,
    name: str,
    *,
    is_stopping: bool,
) -> dict[str, Any] | None:
    """Do what a client asks for one app; the answer, ``None`` when it is given later."""
    if is_stopping:
        return {"ok": False, "error": "the pod is being stopped"}
    try:
        # An app's name is a path component: checked where the manifest is read.
        load_pod().app(name)
        return operation(client, name)
    except RktError as e:
        return {"ok": False, "error": e.message, "hint": e.hint}
    except OSError as e:
        where = f": {os.fsdecode(e.filename)}" if e.filename else ""
        return {"ok": False, "error": f"app {name!r}: {e.strerror}{where}"}


def tell(clients: list[_socket.socket], answer: dict[str, Any], report: Callable[[str], None]) -> None:
    """Give the same answer to all who wait for it; what fails is reported."""
    for client in clients:
        if client.fileno() < 0:
            continue  # it did not wait
        try:
            control.send(client, answer)
        except OSError as e:
            report(f"control socket: {e}")


def check_root(name: str) -> None:
    """Look whether the root that stage0 has made for an app is there.

    Raises:
        OSError: it is not.
    """
    os.close(os.open(load_pod().app(name).rootfs_path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW))


def mark(status_directory: str, name: str, which: str) -> None:
    """Make one of the files."""
    files.replace_file(f"{status_directory}/{name}{which}", b"", 0o644, sync=False)


def unmark(status_directory: str, name: str, *which: str) -> None:
    """Remove some of them."""
    for each in which:
        try:
            os.unlink(f"{status_directory}/{name}{each}")
        except FileNotFoundError:
            continue

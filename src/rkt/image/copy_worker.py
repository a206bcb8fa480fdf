# SPDX-License-Identifier: Apache-2.0
"""``rkt-pack`` and ``rkt-fill``: one reads a tree and writes a tar to a pipe, the other reads a tar and fills a directory."""

from __future__ import annotations

import os

from rkt.image.fill import LIMITS, Filler
from rkt.image.pack import Packer
from rkt.privsep import confine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rkt.privsep.worker import Emit


def preparer(kind: str) -> Callable[[dict[str, Any]], Copy]:
    """Takes a request: paths, which are bytes of a file system, are text as ``os.fsdecode`` makes it."""
    return lambda request: Copy(kind == "fill", request)


class Copy:
    """One half of a copy."""

    def __init__(self, writable: bool, request: dict[str, Any]) -> None:
        self._writable = writable
        self._request = request

    def confine(self, fds: dict[str, int]) -> None:
        """Keep ``stream`` and ``world``, which becomes ``/``."""
        tree_fd = confine.take_world(fds["world"], fds.pop("namespace", -1), writable=self._writable)
        confine.begin(b"rkt-fill" if self._writable else b"rkt-pack", network=False)
        fds["world"] = confine.confine_copy(
            tree_fd, fds.pop("users", -1), writable=self._writable, file_size_bytes=LIMITS.tar_bytes
        )

    def run(self, fds: dict[str, int], _emit: Emit) -> dict[str, Any]:
        """Copy."""
        request = self._request
        path = os.fsencode(request["path"])
        name = os.fsencode(request["name"])
        if not self._writable:
            packed = Packer(fds["world"], fds["stream"]).run(path, name, follow=request["follow"])
            return {"left_out": packed.left_out, "names": packed.names, "broken": packed.broken}
        filler = Filler(
            fds["world"], fds["stream"], keep_owners=request["keep_owners"], follow=request["follow"]
        )
        filled = filler.copy(path, name, contents=request["contents"]) if name else filler.archive(path)
        return {"left_out": filled.left_out, "names": filled.names}

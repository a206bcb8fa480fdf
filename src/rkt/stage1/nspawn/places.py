# SPDX-License-Identifier: Apache-2.0
"""What the unit of an app names as its standard streams; ``streams`` has the other ends of those that are not the usual ones."""

from __future__ import annotations

import os

from rkt.schema import appc
from rkt.stage1.nspawn import root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.pod import PodApp

_NULL, _STREAM, _TTY = "null", "stream", "tty"
#: ``root.STREAMS`` as the pod sees it.
_SEEN = "/rkt/streams"


class Places:
    """What the unit of an app says of its standard streams.

    Attributes:
        stdin, stdout, stderr: values of ``StandardInput=`` and so on.
        tty: value of ``TTYPath=``, empty without terminal.
        has_fifo: whether its standard input is a FIFO.
    """

    __slots__ = ("has_fifo", "stderr", "stdin", "stdout", "tty")

    def __init__(self, app: PodApp, arguments: RunArguments) -> None:
        modes: tuple[str, str, str] = (_NULL, "log", "log")
        if appc.has_streams(app.runtime.annotations):
            from rkt.schema.streams import parse_streams

            modes = parse_streams(app.runtime.annotations).modes
        if arguments.interactive:
            modes = (_TTY,) * 3 if os.isatty(0) else (_STREAM, *modes[1:])
        self.has_fifo = modes[0] == _STREAM
        self.tty = f"{_SEEN}/{app.name}-tty" if _TTY in modes else ""
        self.stdin = {_TTY: "tty-force", _STREAM: f"file:{_SEEN}/{app.name}-stdin"}.get(modes[0], _NULL)
        self.stdout, self.stderr = (
            mode if mode in {_NULL, _TTY} else f"file:{_SEEN}/{app.name}-{name}"
            for name, mode in (("stdout", modes[1]), ("stderr", modes[2]))
        )


def fifo_path(name: str) -> str:
    """The FIFO that an app reads, below the pod directory."""
    return f"{root.STREAMS}/{name}-stdin"

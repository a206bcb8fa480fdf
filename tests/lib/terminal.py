# SPDX-License-Identifier: Apache-2.0
"""Somebody at a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import time
from typing import TYPE_CHECKING

from tests.lib.pace import SLOWNESS

if TYPE_CHECKING:
    from typing import Self

    from tests.lib.rkt import Rkt


class Operator:
    """Somebody at a terminal, typing into a command and reading what it shows."""

    def __init__(self, rkt: Rkt, *args: str, size: tuple[int, int] | None = None) -> None:
        self._start(rkt, rkt.command(*args), size)

    @classmethod
    def of(cls, rkt: Rkt, *command: str) -> Self:
        """The same with a command that is not the engine's own."""
        operator = cls.__new__(cls)
        operator._start(rkt, list(command), None)
        return operator

    def _start(self, rkt: Rkt, command: list[str], size: tuple[int, int] | None) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            if size is not None:
                self._set_size(0, *size)
            os.chdir(rkt.base)
            os.execve(command[0], command, rkt.environment({"TERM": "xterm"}))
        self.shown = b""

    @staticmethod
    def _set_size(fd: int, rows: int, columns: int) -> None:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, rows: int, columns: int) -> None:
        """Pull at the corner of the window."""
        self._set_size(self.master, rows, columns)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def until(self, text: str, seconds: float = 20.0) -> None:
        """Read until ``text`` is on the screen."""
        deadline = time.monotonic() + seconds * SLOWNESS
        while text.encode() not in self.shown:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} never came: {self.shown[-2000:]!r}"
            if select.select([self.master], [], [], left)[0]:
                try:
                    self.shown += os.read(self.master, 4096)
                except OSError:
                    raise AssertionError(f"ended without {text!r}: {self.shown[-2000:]!r}") from None

    def is_raw(self) -> bool:
        """Whether keys go to the command as they are."""
        return not termios.tcgetattr(self.master)[3] & termios.ICANON

    def status(self) -> int:
        """Wait for the end."""
        while True:
            try:
                data = os.read(self.master, 4096)
            except OSError:
                break
            if not data:
                break
            self.shown += data
        os.close(self.master)
        _, raw = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(raw)

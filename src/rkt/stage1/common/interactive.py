# SPDX-License-Identifier: Apache-2.0
"""``--interactive``: the app has a terminal of its own, and the supervisor carries it to the operator's.

The operator's terminal is raw meanwhile: every key goes to the app. ``^]`` three times within a second stops the pod, as
with systemd-nspawn.
"""

from __future__ import annotations

import _signal
import _socket
import os
import time

from rkt.errors import Stage1Error
from rkt.stage0 import contract
from rkt.stage1.common import terminal
from rkt.stage1.common.steps import Step
from rkt.stage1.common.streams import READ_BYTES, Outlet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.stage1.common.pod import LoadedPod

_ESCAPE = 0x1D
_ESCAPE_SECONDS = 1.0


def open_terminal(pod: LoadedPod) -> Interactive | None:
    """The operator's terminal, if there is one, for an app that is to have it.

    Raises:
        Stage1Error: the pod's apps cannot.
    """
    if any(app.runtime.annotations.get(contract.ANNOTATION_RESTART, "no") != "no" for app in pod.apps):
        raise Stage1Error("an interactive app cannot have a restart policy")
    if len(pod.apps) > 1:
        raise Stage1Error("interactive option only supports pods with one app")
    return Interactive() if os.isatty(0) else None


class TakeTerminal(Step):
    """Open a terminal in the app's devpts, make it the app's, and hand the other side to the supervisor."""

    __slots__ = ("channel", "uid")

    def __init__(self, channel: _socket.socket, uid: int) -> None:
        self.channel = channel
        self.uid = uid

    def describe(self) -> str:
        """See ``Step``."""
        return "take a terminal"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        master, slave = terminal.open_pty(self.uid)
        terminal.send_descriptor(self.channel, master)
        terminal.take_terminal(slave)


class Interactive:
    """The operator's terminal for the time of one pod."""

    __slots__ = ("_channel", "_escapes", "_raw", "_terminal", "input", "master")

    def __init__(self) -> None:
        self._channel = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self._escapes: list[float] = []
        self._raw = terminal.RawTerminal(0)
        self.master = self._terminal = -1
        self.input = Outlet(-1)

    def step(self, uid: int) -> Step:
        """The last step of the app's plan."""
        return TakeTerminal(self._channel[1], uid)

    def connect(self) -> None:
        """Receive the app's terminal, and see ``take``.

        Raises:
            Stage1Error: the app sent none.
        """
        self._channel[1].close()
        master = terminal.receive_descriptor(self._channel[0])
        if master is None:
            raise Stage1Error("the app has no terminal")
        self.take(master)

    def take(self, master: int) -> None:
        """Carry the terminal of this controlling side and make the operator's raw; from here on ``restore`` is due."""
        self.master = master
        # An app that does not read must not stop the supervisor.
        os.set_blocking(master, False)
        # Of our own: the supervisor closes the other one when the app has ended.
        self._terminal = os.dup(master)
        self.input = Outlet(self._terminal)
        self.resize()
        self._raw.__enter__()
        _signal.signal(_signal.SIGWINCH, lambda _number, _frame: None)

    def resize(self) -> None:
        """Give the app's terminal the operator's window size."""
        terminal.copy_window_size(0, self._terminal)

    def type(self, stop: Callable[[], None]) -> None:
        """Take what the operator typed to the app; ``stop`` is called for three escapes."""
        try:
            data = os.read(0, READ_BYTES)
        except OSError:
            data = b""  # a terminal that is gone
        if not data:
            self.input.is_closed = True
            stop()
            return
        now = time.monotonic()
        for key in data:
            self._escapes = [*self._escapes, now] if key == _ESCAPE else []
        self._escapes = [at for at in self._escapes if now - at < _ESCAPE_SECONDS]
        if len(self._escapes) >= 3:
            stop()
            return
        self.input.add(data)

    def restore(self) -> None:
        """Give the operator's terminal its modes back."""
        if self.master >= 0:
            self._raw.__exit__()
            os.close(self._terminal)
            self.master = -1

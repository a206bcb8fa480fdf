# SPDX-License-Identifier: Apache-2.0
"""How an app of this flavour comes to its standard streams, where they are not the usual ones (``common/app_streams``).

Made with the plan of the app's program and asked along its way: ``open`` before the fork, ``TakeStreams`` in the child,
``opened`` and ``connect`` in the supervisor.
"""

from __future__ import annotations

import _socket
import os

from rkt.linux import libc
from rkt.schema.streams import NULL, STREAM, TTY
from rkt.stage1.common.app_streams import AppStreams
from rkt.stage1.common.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from rkt.stage1.common.interactive import Interactive
    from rkt.stage1.common.pod import LoadedPod, PodApp
    from rkt.stage1.ns.plan import AppPlan

_BENEATH = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS


class TakeStreams(Step):
    """In the child: nothing, or a terminal of the app's devpts, in place of some of the pipes."""

    __slots__ = ("channel", "modes", "terminal", "uid")

    def __init__(self, modes: tuple[str, ...], uid: int, terminal: ModuleType | None) -> None:
        self.modes = modes
        self.uid = uid
        #: ``stage1.common.terminal``, if needed; nothing can be imported any more when this is done.
        self.terminal = terminal
        self.channel: _socket.socket | None = None

    def describe(self) -> str:
        """See ``Step``."""
        return f"standard streams are {', '.join(self.modes)}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        silent = [number for number in (1, 2) if self.modes[number] == NULL]
        if silent:
            here = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            fd = libc.openat2(here, b"dev/null", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK, _BENEATH)
            status = os.fstat(fd)
            if status.st_mode & 0o170000 != 0o020000 or status.st_rdev != os.makedev(1, 3):
                raise OSError("/dev/null of the app is something else, so its output cannot go there")
            for number in silent:
                os.dup2(fd, number)
        if self.terminal is not None and self.channel is not None:
            master, slave = self.terminal.open_pty(self.uid)
            self.terminal.send_descriptor(self.channel, master)
            chosen = tuple(number for number, mode in enumerate(self.modes) if mode == TTY)
            self.terminal.take_terminal(slave, chosen)


class ForkedStreams(AppStreams):
    """The streams of one start of one app: pipes, or a terminal that the child opens and sends."""

    def __init__(self, pod: LoadedPod, app: PodApp, uid: int, owner: int, shared: Interactive | None) -> None:
        """See ``AppStreams``; the program is ``uid`` in the pod and ``owner`` on the host."""
        super().__init__(pod, app, shared)
        self._owner = owner
        self._child_stdin = -1
        self._channel: tuple[_socket.socket, _socket.socket] | None = None
        self._step = TakeStreams(self._streams.modes, uid, self._terminal if self._has_own_terminal else None)

    def add_to(self, plan: AppPlan) -> AppPlan:
        """The plan with what the child has to do."""
        plan.steps.append(self._step)
        if self._terminal is not None:
            # Whoever attaches has one that understands this; docker and podman say the same.
            plan.execute.environment.setdefault(b"TERM", b"xterm")
        return plan.replace(streams=self)

    def open(self, stdin_fd: int) -> int:
        """Make what the child inherits; returns its standard input, ``stdin_fd`` where there is nothing to be said.

        Raises:
            Stage1Error: the plain log cannot be written.
        """
        self.open_log()
        if self._shared is not None:
            return stdin_fd
        if self._step.terminal is not None:
            self._channel = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
            self._step.channel = self._channel[1]
        if self._streams.stdin == STREAM:
            self._child_stdin, self._stdin = os.pipe()
            os.fchown(self._child_stdin, self._owner, -1)
            os.set_blocking(self._stdin, False)
        elif self._streams.stdin == TTY:
            # Until the terminal takes its place.
            self._child_stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        return self._child_stdin if self._child_stdin >= 0 else stdin_fd

    def opened(self) -> None:
        """After the fork: let go of what is the child's."""
        if self._child_stdin >= 0:
            os.close(self._child_stdin)
            self._child_stdin = -1
        if self._channel is not None:
            self._channel[1].close()

    def _take_master(self) -> int | None:
        if self._channel is None or self._terminal is None:
            return None
        received: int | None = self._terminal.receive_descriptor(self._channel[0])
        self._channel[0].close()
        return received

    def close(self) -> None:
        """See ``common/app_streams``."""
        super().close()
        if self._channel is not None:
            self._channel[0].close()

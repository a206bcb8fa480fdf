# SPDX-License-Identifier: Apache-2.0
"""Standard streams of apps that are not the usual ones, by what a unit can name: FIFOs, and a terminal of the app's own devpts.

What clients of ``rkt attach`` and the operator say goes through a FIFO, which both sides open by name, or into the terminal.
Its name is known only when it is open, so the unit names a link that the supervisor makes before it starts the unit. The
terminal is opened from outside, by a path on which nothing of the image is followed.
"""

from __future__ import annotations

import os

from rkt.errors import Stage1Error
from rkt.stage1.common.app_streams import AppStreams
from rkt.stage1.common.arguments import ids_of
from rkt.stage1.common.streams import Outlet, Prefixer
from rkt.stage1.nspawn import root
from rkt.stage1.nspawn.places import Places, fifo_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage1.common.app_streams import App
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.interactive import Interactive
    from rkt.stage1.common.pod import LoadedPod, PodApp


class UnitStreams(AppStreams):
    """The streams of one start of one app."""

    def __init__(
        self, pod: LoadedPod, app: PodApp, arguments: RunArguments, shared: Interactive | None
    ) -> None:
        """See ``AppStreams``."""
        super().__init__(pod, app, shared)
        self._places = Places(app, arguments)
        ids = ids_of(arguments)
        self._root_uid = 0 if ids is None else ids.first
        self._is_fed = arguments.interactive and self._places.has_fifo
        #: Both ends of the FIFO, until the app has opened it.
        self._held = -1
        self._master = self._slave = -1

    def open(self, *, is_gated: bool) -> None:
        """Make what the unit opens, before it is started.

        Args:
            is_gated: whether its first process is to wait until ``admit``.
        Raises:
            RktError: there is no terminal, or the plain log cannot be written.
        """
        self.open_log()
        if self._places.has_fifo:
            path = fifo_path(self._name)
            self._held = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            self._stdin = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        if self._is_fed:
            from rkt.stage1.common.feed import feed_to

            os.set_blocking(self._stdin, True)
            feed_to(0, self._stdin)
            self._stdin = -1
        if self._places.tty:
            self._open_terminal()
            if is_gated:
                self._lock(is_locked=True)

    def _open_terminal(self) -> None:
        from rkt.stage1.common import terminal

        try:
            # systemd gives it to the app's user, if it belongs to an id that the pod has.
            self._master, self._slave = terminal.open_pty(
                self._root_uid, f"{root.POD_ROOT}/{root.APPS}/{self._name}/rootfs"
            )
        except OSError as e:
            raise Stage1Error(f"app {self._name!r} cannot have a terminal: {e.strerror}") from e
        link = f"{root.STREAMS}/{self._name}-tty"
        try:
            os.unlink(link)
        except FileNotFoundError:
            pass
        os.symlink(f"/{root.APPS}/{self._name}/rootfs/dev/pts/{terminal.number_of(self._master)}", link)

    def admit(self) -> None:
        """Let the first process have its terminal."""
        if self._master >= 0:
            self._lock(is_locked=False)

    def _lock(self, *, is_locked: bool) -> None:
        """Have systemd wait for the terminal: it tries for a second to open one that is locked."""
        from rkt.stage1.common import terminal

        terminal.lock(self._master, is_locked=is_locked)

    def _take_master(self) -> int | None:
        master, self._master = self._master, -1
        return master if master >= 0 else None

    def connect(self, app: App, outputs: dict[str, int], console: tuple[Outlet, Outlet]) -> str:
        """See ``AppStreams``; the app's first process is there."""
        if self._shared is not None and self._master >= 0:
            self._shared.take(self._master)
            self._master = -1
            app.outlets[self._shared.master] = (b"stdout", Prefixer(b""), console[0])
        return super().connect(app, outputs, console)

    def let_go(self) -> None:
        """Of what only had to be there until the app had opened it.

        Not of the terminal: between the program and a handler that comes after it nobody else has it open.
        """
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def close(self) -> None:
        """See ``AppStreams``."""
        super().close()
        self.let_go()
        for fd in (self._master, self._slave):
            if fd >= 0:
                os.close(fd)
        self._master = self._slave = -1

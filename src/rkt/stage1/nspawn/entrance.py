# SPDX-License-Identifier: Apache-2.0
"""What happens to a process of an app between its fork by the pod's systemd and the execution of its program.

systemd waits with the execution until somebody has opened the FIFOs of the app's output. The supervisor uses that: it puts
the process into the app's cgroups where they are version 1, has a witness look at it, and ends what the process before left
running. A unit's processes come one after the other, and each is to wait anew; so behind the one that is let in its FIFO
is replaced by another (the barrier).
"""

from __future__ import annotations

import os
import stat
import time

from rkt.errors import RktError
from rkt.linux import pidfd
from rkt.stage1.common.streams import Prefixer
from rkt.stage1.nspawn import units, witness
from rkt.stage1.nspawn.places import Places
from rkt.stage1.nspawn.root import STREAMS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.linux.cgroup import Group
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.streams import Outlet
    from rkt.stage1.nspawn.app_state import App
    from rkt.stage1.nspawn.machine import Machine
    from rkt.stage2.exec import ExecPlan

#: How long a handler may take to open its output and what it left to be gone, in seconds.
_HANDLER_SECONDS = 5.0
_POLL_SECONDS = 0.001
_STREAMS = ("stdout", "stderr")


class Entrance:
    """By which the processes of one pod's apps come."""

    __slots__ = ("_arguments", "_console", "_fail", "_machine")

    def __init__(
        self,
        machine: Machine,
        arguments: RunArguments,
        console: tuple[Outlet, Outlet],
        fail: Callable[[str], None],
    ) -> None:
        """Prepare.

        Args:
            machine: the pod.
            arguments: of ``run``.
            console: where what apps say goes.
            fail: ends the pod for a reason.
        """
        self._machine = machine
        self._arguments = arguments
        self._console = console
        self._fail = fail

    def receive(self, app: App, pid: int, execute: ExecPlan, *, is_wanted: bool) -> None:
        """See to a process that has just been forked, and waits for its output to be opened.

        Args:
            app: whose it is.
            pid: of it, -1 when it is gone already.
            execute: what it is to become.
            is_wanted: whether nobody has asked the app to end.
        """
        if pid <= 0:
            if witness.is_needed(execute) and is_wanted:
                self._fail(f"app {app.name!r}: it cannot be seen where its process starts: it is gone")
            return
        if app.cgroup is not None:
            self._take(app, app.cgroup, pid)
        if witness.is_needed(execute):
            try:
                app.witnesses.append(witness.Witness(pid, self._machine.leader))
            except ProcessLookupError:
                return
            except (OSError, RktError) as e:
                self._fail(f"app {app.name!r}: {e}")

    def _take(self, app: App, group: Group, pid: int) -> None:
        """Put a process into the app's cgroups."""
        from rkt.linux import cgroup_migration

        try:
            cgroup_migration.take(group, pid)
        except FileNotFoundError:
            return  # it is gone, and its own group too
        except OSError as e:
            self._fail(f"app {app.name!r}: its limits cannot be set: {e.strerror}")

    def hear_witnesses(self, app: App) -> bool:
        """Whether a process of the app was found outside of its root; it is as good as dead by then, and did nothing."""
        is_astray = any([each.hear() for each in app.witnesses])  # noqa: C419 - all have their say
        app.witnesses = [each for each in app.witnesses if not each.is_over]
        if is_astray:
            self._fail(units.astray(app.name, app.launch.execute).message)
        return is_astray

    def end_leftovers(self, app: App, pid: int) -> None:
        """Kill what a pre-start handler left running: nothing of it goes on beside the program.

        Where the program waits for its output all of its unit's other processes are meant, else those that are older.
        """
        from rkt.stage1.nspawn.unit_group import kill_others

        try:
            if pid <= 0 or kill_others(
                pid, app.unit, all_of_them=bool(app.barrier), seconds=_HANDLER_SECONDS
            ):
                return
            reason = "it does not end"
        except OSError as e:
            reason = e.strerror or str(e)
        self._fail(f"app {app.name!r}: what its pre-start handler left running cannot be ended: {reason}")

    # FIFOs ---------------------------------------------------------------------------------------------------------

    def open_outlets(self, app: App, streams: tuple[str, ...] = _STREAMS) -> None:
        """Open those FIFOs of an app's output that are not open; before that systemd waits, and does not execute anything.

        Both ends, so that they do not end before the app's unit does; they are read when the app's number is known.
        """
        there = {stream.decode() for stream, _, _ in app.outlets.values()}
        for stream, outlet in zip(_STREAMS, self._console, strict=True):
            if stream in there or stream not in streams:
                continue
            fd = os.open(
                f"{STREAMS}/{app.name}-{stream}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
            )
            app.outlets[fd] = (stream.encode(), Prefixer(b""), outlet)

    def let_in(self, app: App, pid: int) -> None:
        """Open the output of a process, and have the next one of its unit wait for an opening of its own.

        The process is let into its first FIFO and waits for the next one. Meanwhile another FIFO takes the place of the first.
        """
        streams = self._fifos(app)
        if streams and pid > 0 and not app.outlets:
            self.open_outlets(app, streams[:1])
            (fd,) = app.outlets
            if _has_opened(pid, 1 if streams[0] == "stdout" else 2, fd):
                _renew_fifo(app.name, streams[0])
                app.barrier = streams[0]
        self.open_outlets(app)

    def lift_barrier(self, app: App) -> None:
        """The next process waits for the first FIFO of its own; put others in the place of the rest, too."""
        for stream in self._fifos(app):
            if stream != app.barrier:
                _renew_fifo(app.name, stream)
        app.barrier = ""

    def _fifos(self, app: App) -> tuple[str, ...]:
        """Which of an app's outputs are FIFOs."""
        places = Places(app.launch.app, self._arguments)
        both = zip(_STREAMS, (places.stdout, places.stderr), strict=True)
        return tuple(stream for stream, value in both if value.startswith("file:"))


def _has_opened(pid: int, number: int, fd: int) -> bool:
    """Wait until a process that is being set up has a FIFO as one of its standard streams; false if that never comes."""
    wanted = os.fstat(fd)
    deadline = time.monotonic() + _HANDLER_SECONDS
    while time.monotonic() < deadline:
        try:
            there = os.stat(f"/proc/{pid}/fd/{number}")
        except OSError:
            if not pidfd.is_alive(pid, pidfd.start_time(pid)):
                return False
        else:
            if (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
        time.sleep(_POLL_SECONDS)
    return False


def _renew_fifo(app: str, stream: str) -> None:
    """Put another FIFO in the place of one: who has the old one open keeps it."""
    path = f"{STREAMS}/{app}-{stream}"
    there = os.lstat(path)
    os.mkfifo(f"{path}.new", stat.S_IMODE(there.st_mode))
    os.chown(f"{path}.new", there.st_uid, there.st_gid)
    os.rename(f"{path}.new", path)

# SPDX-License-Identifier: Apache-2.0
"""The pod's systemd as the supervisor has it: below systemd-nspawn, and at the other end of a connection that may have to be made again."""

from __future__ import annotations

import time

from rkt.errors import RktError, Stage1Error
from rkt.linux import pidfd
from rkt.stage1.nspawn import dbus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.stage1.nspawn.dbus import Manager
    from rkt.stage1.nspawn.machine import Machine

#: How long it may take to answer, in seconds.
ANSWER_SECONDS = 30.0
#: How long it may take to be back after it has hung up, and how long its end may take to show, in seconds.
_RETURN_SECONDS = 15.0
_PAUSE_SECONDS = 0.05


class PodSystemd:
    """The systemd of a pod that has been started.

    Attributes:
        machine: systemd-nspawn.
        uid: of the pod's root on the host.
        is_connected: whether there is a ``bus``.
    """

    __slots__ = ("_bus", "machine", "uid")

    def __init__(self, machine: Machine, uid: int) -> None:
        self.machine = machine
        self.uid = uid
        self._bus: Manager | None = None

    @property
    def is_connected(self) -> bool:
        """See above."""
        return self._bus is not None

    @property
    def bus(self) -> Manager:
        """The connection.

        Raises:
            ConnectionError: there is none.
        """
        if self._bus is None:
            raise ConnectionError("the pod's systemd is not connected")
        return self._bus

    def connect(self, deadline: float) -> None:
        """Connect, and ask to be told of units.

        Args:
            deadline: by the monotonic clock.
        Raises:
            RktError, OSError: it does not answer.
        """
        machine = self.machine
        self._bus = dbus.connect(machine.leader, machine.leader_pidfd, uid=self.uid, deadline=deadline)
        self._bus.subscribe()

    def connect_again(self, catch_up: Callable[[], None]) -> None:
        """After it has hung up: it has ended, which that of systemd-nspawn will show, or somebody had it execute itself anew.

        root in an app can do that, by a signal.

        Args:
            catch_up: asks what it would have told meanwhile.
        Raises:
            Stage1Error: it cannot be reached any more.
        """
        self.close()
        deadline = time.monotonic() + _RETURN_SECONDS
        while not pidfd.wait_exit(self.machine.leader_pidfd, _PAUSE_SECONDS):
            try:
                self.connect(deadline)
                catch_up()
            except (OSError, RktError) as e:
                self.close()
                if time.monotonic() < deadline:
                    continue
                raise Stage1Error(f"the pod's systemd cannot be reached any more: {e}") from e
            return

    def close(self) -> None:
        """Hang up."""
        if self._bus is not None:
            self._bus.close()
            self._bus = None

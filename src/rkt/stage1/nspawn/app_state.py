# SPDX-License-Identifier: Apache-2.0
"""What the supervisor knows of an app: what systemd has said of its unit, and how far its processes are."""

from __future__ import annotations

from rkt.schema.appc import EVENT_POST_STOP
from rkt.stage1.common.app_state import AppState, find_restarts
from rkt.stage1.common.log import find_driver, open_log
from rkt.stage1.nspawn import units, witness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.linux.cgroup import Group
    from rkt.stage1.nspawn.prepare import Launch
    from rkt.stage1.nspawn.streams import UnitStreams
    from rkt.stage1.nspawn.witness import Witness


class App(AppState):
    """An app of a running pod.

    Attributes:
        launch: what was planned of it.
        unit: name of its unit.
        handler: number of its last handler in the pod, 0 before there is one.
        barrier: the stream whose FIFO the next process of the unit is to open anew, since the one before has another; else empty.
        job: of systemd's, that starts its unit.
        cgroup: where it is to be in version 1, ``None`` where systemd sets its limits.
        pid: of its program on the host, 0 before there is one, -1 when it was gone before it was seen.
        has_begun: whether systemd has said that something of it runs.
        was_active: whether systemd has said so of its unit.
        was_executed: whether its program has been executed.
        known: what systemd has said of its unit so far.
        was_told: whether it was asked to end.
        witnesses: of processes that were not executed when they were last looked at.
        due_streams: those of a start whose program is not there yet.
    """

    __slots__ = (
        "_invocation",
        "barrier",
        "cgroup",
        "due_streams",
        "handler",
        "has_begun",
        "job",
        "known",
        "launch",
        "unit",
        "was_active",
        "was_executed",
        "was_told",
        "witnesses",
    )

    def __init__(self, launch: Launch, cgroup: Group | None) -> None:
        log = open_log(launch.app, find_driver(launch.app))
        super().__init__(launch.app.name, log, find_restarts(launch.app))
        self.launch = launch
        self.cgroup = cgroup
        self.unit = units.unit_name(self.name)
        self.was_told = False
        self.known: dict[str, Any] = {}
        self.due_streams: UnitStreams | None = None
        self.witnesses: list[Witness] = []
        self.renew()

    def renew(self) -> None:
        """It is about to start."""
        self._invocation = self.known.get("InvocationID", ())
        self.pid = self.handler = 0
        self.barrier = self.job = ""
        self.is_running = True
        self.has_begun = self.was_active = self.was_executed = False
        self.known = {}

    @property
    def is_gated(self) -> bool:
        """Whether its first process is to wait: it is to get into cgroups, comes after or before others, or needs a witness."""
        return self.cgroup is not None or bool(self.launch.handlers) or witness.is_needed(self.launch.execute)

    @property
    def has_later(self) -> bool:
        """Whether a handler comes after its program, which is to wait likewise."""
        return EVENT_POST_STOP in self.launch.handlers

    @property
    def is_under_way(self) -> bool:
        """Whether its program was executed, or its handler runs, or it is over."""
        return self.was_executed or not self.is_running or (self.has_begun and not self.pid)

    @property
    def has_result(self) -> bool:
        """Whether what systemd has said is of this start: first it says how things are before it."""
        if self.known.get("InvocationID", self._invocation) == self._invocation:
            return False
        return bool(self.known.get("ExecMainCode")) or self.known.get("Result", "success") != "success"

    @property
    def runs_program(self) -> bool:
        """See ``AppState``."""
        return self.is_running and self.was_executed

    @property
    def has_been_executed(self) -> bool:
        """The same, now that its unit is over: of what is soon over systemd may never say that it is active."""
        entered = int(self.known.get("ActiveEnterTimestampMonotonic", 0))
        began = int(self.known.get("ExecMainStartTimestampMonotonic", 0))
        return self.was_executed or (entered > 0 and entered >= began)

    @property
    def is_read(self) -> bool:
        """See ``AppState``: when its process is known, and has its streams."""
        return self.has_begun and not (self.pid and self.due_streams is not None)

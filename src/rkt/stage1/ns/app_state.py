# SPDX-License-Identifier: Apache-2.0
"""What the supervisor knows of an app: which of its stages runs, and as which process."""

from __future__ import annotations

from rkt.stage1.common.app_state import AppState
from rkt.stage1.ns.launch import MAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage1.ns.launch import Launch


class App(AppState):
    """A started app.

    Attributes:
        launch: what it was started by.
        stage: what runs of it now, see ``launch``.
        pid, pidfd: of the first process of that stage.
        deadline: when a post-stop handler is killed, by the monotonic clock; 0 for never.
    """

    __slots__ = ("deadline", "launch", "pidfd", "stage")

    def __init__(self, launch: Launch) -> None:
        super().__init__(launch.name, launch.open_log(), launch.restarts)
        self.launch = launch
        self.stage = launch.first
        self.pidfd = -1
        self.deadline = 0.0

    @property
    def runs_program(self) -> bool:
        """See ``AppState``."""
        return self.is_running and self.stage == MAIN

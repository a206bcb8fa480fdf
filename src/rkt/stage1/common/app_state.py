# SPDX-License-Identifier: Apache-2.0
"""What a supervisor of any flavour knows of an app."""

from __future__ import annotations

from rkt.stage0 import contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage1.common.app_streams import AppStreams
    from rkt.stage1.common.log import LogFile
    from rkt.stage1.common.pod import PodApp
    from rkt.stage1.common.restart import Restarts
    from rkt.stage1.common.streams import Outlet, Prefixer


class AppState:
    """An app of a running pod.

    Attributes:
        name: of the app.
        pid: of its process on the host.
        is_running: whether something of it runs.
        status: its exit status.
        log: where what it says is kept.
        outlets: what its output comes from -> (stream name, marker of lines, where it goes).
        streams: its standard streams, where they are not the usual ones.
        restarts: of an app that may be started again.
    """

    __slots__ = ("is_running", "log", "name", "outlets", "pid", "restarts", "status", "streams")

    def __init__(self, name: str, log: LogFile, restarts: Restarts | None) -> None:
        self.name = name
        self.log = log
        self.restarts = restarts
        self.pid = -1
        self.is_running = True
        self.status = 0
        self.outlets: dict[int, tuple[bytes, Prefixer, Outlet]] = {}
        self.streams: AppStreams | None = None

    @property
    def goes_on(self) -> bool:
        """Whether something of it runs, or is to run again."""
        return self.is_running or (self.restarts is not None and self.restarts.at > 0)

    @property
    def runs_program(self) -> bool:
        """Whether its program runs, not a handler."""
        raise NotImplementedError

    @property
    def is_read(self) -> bool:
        """Whether what it says may be taken already."""
        return True


def find_restarts(app: PodApp) -> Restarts | None:
    """How an app that is about to start is started again, if it may be."""
    policy = app.runtime.annotations.get(contract.ANNOTATION_RESTART)
    if policy is None:
        return None
    from rkt.stage1.common.restart import Restarts

    return Restarts(app.name, policy)

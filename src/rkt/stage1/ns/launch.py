# SPDX-License-Identifier: Apache-2.0
"""What the supervisor starts for one app, in this order: its pre-start handler, its program, its post-stop handler.

Handlers run in the app's root, namespaces and cgroup, confined as the app, but as 0:0 of the image (spec runtime §3.4).
The first two are planned before anything of the pod runs, so that what is wrong with the app is noticed then; the last
one when its turn comes, because a plan holds the volumes' mounts.
"""

from __future__ import annotations

from rkt.schema.appc import EVENT_POST_STOP, EVENT_PRE_START
from rkt.stage1.common import signals
from rkt.stage1.common.app_state import find_restarts
from rkt.stage1.common.log import find_driver, open_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from rkt.linux.cgroup import Group
    from rkt.stage1.common.log import LogFile
    from rkt.stage1.common.pod import PodApp
    from rkt.stage1.common.restart import Restarts
    from rkt.stage1.ns.plan import AppPlan

    class PlanMaker(Protocol):
        """What ``Launch`` is given."""

        def __call__(self, app: PodApp, group: Group, *, handler: str, is_first: bool) -> AppPlan:
            """The plan of one process of an app; keywords as for ``build_app_plan``."""


PRE_START = EVENT_PRE_START
MAIN = ""
POST_STOP = EVENT_POST_STOP


class Launch:
    """One app that is to be started.

    Attributes:
        name: of the app.
        cgroup: the app's.
        first: ``PRE_START`` or ``MAIN``.
        has_post_stop: whether something is due when the app has ended.
        restarts: of an app that may be started again, else ``None``.
        stop_signal: what the app is asked to end by: SIGTERM, or what a Docker image wants instead.
    """

    __slots__ = (
        "_app",
        "_is_fresh",
        "_log_driver",
        "_make_plan",
        "_plans",
        "cgroup",
        "first",
        "has_post_stop",
        "name",
        "restarts",
        "stop_signal",
    )

    def __init__(self, app: PodApp, cgroup: Group, make_plan: PlanMaker) -> None:
        self.name = app.name
        self.cgroup = cgroup
        self._app = app
        self._make_plan = make_plan
        self._log_driver = find_driver(app)
        self.first = PRE_START if PRE_START in app.app.event_handlers else MAIN
        self.has_post_stop = POST_STOP in app.app.event_handlers
        self.restarts: Restarts | None = find_restarts(app)
        #: Nothing of the app has run in its cgroup.
        self._is_fresh = True
        self.stop_signal = signals.stop_signal(app)
        self._plans = {self.first: self._make(self.first)}
        if self.first != MAIN:
            try:
                self._plans[MAIN] = self._make(MAIN)
            except BaseException:
                self.release()
                raise
        self._is_fresh = False

    def open_log(self) -> LogFile:
        """Where what the app says goes."""
        return open_log(self._app, self._log_driver)

    @property
    def has_more(self) -> bool:
        """Whether something may have to be planned once the app has started."""
        return self.has_post_stop or self.restarts is not None

    def plan(self, stage: str) -> AppPlan:
        """The plan of one stage; ask once."""
        if stage in self._plans:
            return self._plans.pop(stage)
        return self._make(stage)

    def release(self) -> None:
        """Let go of what the stages that were never reached would have needed."""
        for plan in self._plans.values():
            plan.release()
        self._plans.clear()

    def _make(self, stage: str) -> AppPlan:
        return self._make_plan(
            self._app, self.cgroup, handler=stage, is_first=self._is_fresh and stage == self.first
        )

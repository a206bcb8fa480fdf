# SPDX-License-Identifier: Apache-2.0
"""Word of apps that the kernel killed for want of memory: the status alone looks like anybody's SIGKILL."""

from __future__ import annotations

import _signal

from rkt.linux import cgroup_limits, files
from rkt.schema.quantity import bytes_text
from rkt.stage0 import contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.linux.cgroup import Group
    from rkt.stage1.common.app_state import AppState


class MemoryKills:
    """What was told already; apps without a limit share the pod's counter."""

    __slots__ = ("_report", "_seen")

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        #: Directory of a memory cgroup -> processes that were killed there.
        self._seen: dict[str, int] = {}

    def look(self, app: AppState, group: Group) -> None:
        """Say so if an app that has failed lost processes of its cgroup since somebody looked."""
        counter, kills = cgroup_limits.out_of_memory_kills(group)
        new = kills - self._seen.get(counter, 0)
        if new:
            self._seen[counter] = kills
            self.tell(app, new, cgroup_limits.memory_limit(group))

    def tell(self, app: AppState, kills: int, limit_bytes: int) -> None:
        """Say that an app lost processes; a limit of 0 is the pod's."""
        path = f"appsinfo/{app.name}/{contract.OOM_KILLS}"
        files.replace_file(path, b"%d\n" % kills, 0o640, sync=False)
        what = "was killed" if app.status == 128 + _signal.SIGKILL else f"lost {kills} of its processes"
        bound = f"limit {bytes_text(limit_bytes)}" if limit_bytes else "limit of the pod"
        self._report(f"app {app.name!r} {what}: out of memory ({bound})")

# SPDX-License-Identifier: Apache-2.0
"""Apps that are started again when they have ended; imported when a pod has one.

The first time after a tenth of a second, then after twice as long each time, up to a minute; an app that ran for ten
seconds is well again and starts anew at a tenth. How often it was, and how the app ended last, is in
``appsinfo/APP/restarts``: two numbers, written when the app has ended. The app has no exit status while it is to run again.
"""

from __future__ import annotations

import os
import time

from rkt.linux import files
from rkt.schema import restart
from rkt.stage0 import contract

#: In seconds.
FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
WELL_AFTER = 10.0


class Restarts:
    """Those of one app.

    Attributes:
        at: when it is to be started, by the monotonic clock; 0 while it runs, or is over.
        count: how often it was, or is to be.
    """

    __slots__ = ("_delay", "_path", "_policy", "_started", "at", "count")

    def __init__(self, name: str, text: str) -> None:
        """Take note of a policy; the app is about to start.

        Raises:
            InvalidManifest: there is no such policy.
        """
        self._path = f"appsinfo/{name}/{contract.RESTARTS}"
        self._policy = restart.parse_policy(text)
        self._delay = FIRST_DELAY
        self._started = time.monotonic()
        self.at = 0.0
        self.count = 0
        try:
            os.unlink(self._path)  # of an earlier time
        except FileNotFoundError:
            pass

    def plan(self, status: int) -> float:
        """The app has ended: in how many seconds it is to run again, which is then recorded; 0 for never."""
        policy = self._policy
        if policy.kind == restart.NO or (policy.kind == restart.ON_FAILURE and not status):
            return 0.0
        if policy.limit is not None and self.count >= policy.limit:
            return 0.0
        now = time.monotonic()
        if now - self._started >= WELL_AFTER:
            self._delay = FIRST_DELAY
        self.count += 1
        pause = self._delay
        self.at = now + pause
        self._delay = min(pause * 2, LONGEST_DELAY)
        data = b"%d %d\n" % (self.count, status)
        files.replace_file(self._path, data, 0o640, sync=False)
        return pause

    def begin(self) -> None:
        """The app is about to start again."""
        self.at = 0.0
        self._started = time.monotonic()

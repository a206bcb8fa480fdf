# SPDX-License-Identifier: Apache-2.0
"""A pod that does not run is held while somebody reads it, so that it is neither deleted nor started meanwhile."""

from __future__ import annotations

from rkt.errors import NotFound, PodError
from rkt.pod import lifecycle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.pod.lifecycle import Pod


def hold(pod: Pod) -> bool:
    """Hold the pod until its descriptor is closed; false for one that runs.

    Raises:
        PodError: it is being deleted.
        NotFound: it was removed since it was opened.
    """
    while not pod.is_running:
        try:
            if pod.share():
                return True
        except lifecycle.Moved:
            pass  # marked, started or removed a moment ago
        if not pod.refresh():
            raise NotFound(f'pod "{pod.uuid}" was removed', hint="rkt list")
        if pod.place == lifecycle.GARBAGE or (pod.place == lifecycle.EXITED_GARBAGE and pod.locked):
            raise PodError(f'pod "{pod.uuid}" is being deleted')
    return False

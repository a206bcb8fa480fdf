# SPDX-License-Identifier: Apache-2.0
"""How a pod and an app are asked to end, and how long they may take."""

from __future__ import annotations

import _signal

from rkt.schema.appc import ANNOTATION_DOCKER_STOP_SIGNAL
from rkt.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage1.common.pod import PodApp

#: Stop time of an app: between the signal that asks it and SIGKILL.
STOP_SECONDS = 10.0
#: What ends a pod.
STOP_SIGNALS = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT)
_MAX_SIGNAL = 64


def stop_signal(app: PodApp) -> int:
    """SIGTERM, or what a Docker image wants instead."""
    text = app.image.annotations.get(ANNOTATION_DOCKER_STOP_SIGNAL, "")
    number = int(text) if is_number(text, most_digits=2) else 0
    return number if 0 < number <= _MAX_SIGNAL else _signal.SIGTERM

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from rkt.stage1.common import interactive


def test_a_terminal_that_is_gone_stops_the_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the operator's terminal cannot be read any more the pod is stopped, and its supervisor lives to see to it."""
    stops: list[bool] = []

    def refuse(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    terminal = interactive.Interactive()
    monkeypatch.setattr(interactive, "os", SimpleNamespace(read=refuse))
    terminal.type(lambda: stops.append(True))
    for end in terminal._channel:
        end.close()
    assert stops == [True]
    assert terminal.input.is_closed

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rkt.stage1.common.restart import Restarts

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_back_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause doubles from a tenth of a second to a minute, and begins anew after a run of ten seconds."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "appsinfo" / "a").mkdir(parents=True)
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    each = Restarts("a", "always")
    pauses = []
    for number in range(14):
        clock[0] += 10.0 if number == 12 else 9.9
        assert each.plan(number % 2)
        pauses.append(round(each.at - clock[0], 1))
        clock[0] = each.at
        each.begin()
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0, 0.1, 0.2]
    assert (tmp_path / "appsinfo/a/restarts").read_text() == "14 1\n"

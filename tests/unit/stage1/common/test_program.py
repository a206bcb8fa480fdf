# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

import pytest

from rkt.errors import Stage1Error
from rkt.stage1.common.program import run_program

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Stage1Error("no room", hint="make some"), "stage1: no room\nhint: make some\n"),
        (Stage1Error("it ended", hint="rkt logs UUID"), "stage1: it ended\nhint: rkt logs aaaaaaaa\n"),
        (OSError(errno.ENOENT, "No such file or directory", "/x"), "stage1: No such file or directory: /x\n"),
        (ImportError("no file left"), "stage1: a part of the program cannot be loaded: no file left\n"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--debug"]])
def test_what_fails_is_said_and_the_status_is_254(
    error: Exception,
    said: str,
    flags: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """With --debug as without, which adds where the error came from; UUID in a hint is the pod's own (spec runtime §1.5)."""

    def fail(_arguments: list[str]) -> int:
        raise error

    pod = tmp_path / "aaaaaaaa-0000-4000-8000-000000000001"
    pod.mkdir()
    monkeypatch.chdir(pod)
    monkeypatch.setattr(sys, "argv", ["gc", *flags, "uuid"])
    assert run_program(lambda name: fail if name == "gc" else None) == 254
    text = capsys.readouterr().err
    assert text.startswith(said)
    assert ("Traceback" in text) == bool(flags)

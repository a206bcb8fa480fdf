# SPDX-License-Identifier: Apache-2.0
"""Entrypoints of stage1 as children of a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rkt.stage0.entrypoint import run_entrypoint

if TYPE_CHECKING:
    from pathlib import Path


def run(program: str, directory: Path) -> int:
    """Run a program without arguments there."""
    return run_entrypoint(program, [], str(directory), timeout_seconds=30, quiet_stdout=True)


def test_a_pod_that_went_meanwhile(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A pod directory that is gone is the caller's to explain: nothing is said of a program that is there."""
    assert run("/bin/true", tmp_path / "gone") != 0
    assert capfd.readouterr() == ("", "")


def test_a_program_that_is_missing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A program that is not there is named."""
    assert run(f"{tmp_path}/stop", tmp_path) != 0
    assert f"cannot execute {tmp_path}/stop: No such file" in capfd.readouterr().err

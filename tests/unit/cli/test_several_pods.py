# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from rkt.cli.command import Invocation
from rkt.cli.pod_flags import for_each_pod
from rkt.cli.rm import COMMAND
from rkt.config.settings import Installation, Settings
from rkt.errors import PodError
from rkt.pod import lifecycle

if TYPE_CHECKING:
    from pathlib import Path

    from rkt.pod.lifecycle import Pod

INSTALLATION = Installation(package_path="/x", library_paths=[], stage1_images_path="/x")


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            ["/x: No space left on device", "hint: make room: rkt gc"],
        ),
        (PodError("it is in use", hint="rkt status"), ["it is in use", "hint: rkt status"]),
    ],
)
def test_one_pod_does_not_keep_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refusal: Exception, words: list[str]
) -> None:
    """Whatever a command of several pods meets at one, it says so, with what to type, and goes on with the next."""
    lifecycle.ensure_directories(str(tmp_path))
    made = []
    for _ in range(2):
        with lifecycle.create(str(tmp_path)) as pod:
            made.append(str(pod.uuid))
    settings = Settings(installation=INSTALLATION, data_dir=str(tmp_path), command="rm")
    seen: list[str] = []

    def act(pod: Pod) -> None:
        seen.append(str(pod.uuid))
        if len(seen) == 1:
            raise refusal

    with pytest.raises(PodError, match="failed to do 1"):
        for_each_pod(
            Invocation(command=COMMAND, settings=settings, values={}, words=made),
            act,
            failed="failed to do {}",
        )
    assert seen == made
    said = capsys.readouterr().err
    assert [word for word in words if f"rm: {word}" not in said] == []


def test_nobody_reads_any_more(tmp_path: Path) -> None:
    """A standard output that nobody reads ends a command of several pods at once."""
    lifecycle.ensure_directories(str(tmp_path))
    with lifecycle.create(str(tmp_path)) as pod:
        uuid = str(pod.uuid)

    def act(_pod: Pod) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    invocation = Invocation(
        command=COMMAND,
        settings=Settings(installation=INSTALLATION, data_dir=str(tmp_path), command="rm"),
        values={},
        words=[uuid, uuid],
    )
    with pytest.raises(BrokenPipeError):
        for_each_pod(invocation, act, failed="failed to do {}")

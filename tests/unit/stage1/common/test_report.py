# SPDX-License-Identifier: Apache-2.0
"""What a child that fails tells its parent."""

from __future__ import annotations

import errno
import os

import pytest

from rkt.errors import Stage1Error
from rkt.stage1.common import report
from rkt.stage1.common.steps import Step


class Mount(Step):
    """A step that fails."""

    def describe(self) -> str:
        """See ``Step``."""
        return "mount proc at /proc"


def told(e: BaseException, step: Step | None = None) -> Stage1Error:
    """What the parent makes of it."""
    read_fd, write_fd = os.pipe()
    report.send(write_fd, e, step)
    os.close(write_fd)
    return report.error(report.receive(read_fd), what="app 'web': ")


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOMEM, "see what has the memory"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENOSPC, "make room"),
        (errno.EROFS, ""),
        (errno.EACCES, ""),
        (errno.ENOENT, ""),
    ],
)
def test_a_step_that_the_host_has_nothing_for_has_a_hint(number: int, hint: str) -> None:
    """What the host is short of is said with what helps; what is the app's own affair has no advice about the host."""
    e = told(OSError(number, os.strerror(number)), Mount())
    assert e.message == f"app 'web': mount proc at /proc: {os.strerror(number)}"
    assert hint in e.hint
    assert bool(hint) == bool(e.hint)


def test_an_error_of_ours_keeps_its_hint() -> None:
    """The parent raises what the child raised, however long its words are."""
    e = told(Stage1Error("no\n" * 4000, hint="rkt gc"))
    assert e.hint == "rkt gc"
    assert e.message.startswith("app 'web': no")
    assert told(KeyError("x")).message == "app 'web': KeyError: 'x'"

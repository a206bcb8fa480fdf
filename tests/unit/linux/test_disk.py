# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os

import pytest

from rkt.linux import disk


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (errno.ENOSPC, "rkt gc"),
        (errno.EDQUOT, "rkt image gc"),
        (errno.EIO, "dmesg"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "fs.file-max"),
        (errno.ENOMEM, "free -m"),
    ],
)
def test_remedy(number: int, word: str) -> None:
    """What is the disk's or the host's fault comes with what to type next."""
    assert word in disk.remedy(number)


def test_remedy_of_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who is root is told to be root, nor whose error has nothing to do with it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert disk.remedy(errno.EACCES) == "run the command as root"
    assert disk.remedy(errno.ELOOP) == ""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert disk.remedy(errno.EACCES) == ""

# SPDX-License-Identifier: Apache-2.0
"""The README's first command."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.lib import host
from tests.lib.rkt import ROOT

pytestmark = pytest.mark.root


def test_demo_says_hello_and_leaves_nothing(rkt_binary: str) -> None:
    """The demo refuses the unsigned image, runs the signed one, and the host is as before."""
    directory = os.path.join(ROOT, "build", "demo")
    before = host.snapshot(directory)
    done = subprocess.run(
        [os.path.join(ROOT, "tools", "demo.sh")],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Hello from hello" in done.stdout
    assert "NoNewPrivs:\t1" in done.stdout
    assert "Seccomp:\t2" in done.stdout
    refused, _, _ = done.stderr.partition("signed")
    assert "fetch" in refused
    assert not os.path.exists(directory)
    left = [
        line
        for line in host.wait_until_gone(before, directory)
        if directory in line or line.startswith("process ")
    ]
    assert not left

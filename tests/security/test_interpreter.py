# SPDX-License-Identifier: Apache-2.0
"""The interpreter that makes pods is a file of the host, and out of their reach (invariant RN1, CVE-2019-5736)."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the image names the loader of x86-64"),
    pods(),
]


def _read_only(path: str) -> bool:
    """Whether what a magic link of procfs leads to is on a read-only mount."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def test_the_interpreter_cannot_be_written_from_a_pod(rkt: Rkt, images: Images) -> None:
    """Supervisor and entering process run from a read-only mount, and an image that has them executed in the pod holds no other (RN1)."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    with open(busybox, "rb") as stream:
        program = (stream.read(), 0o755)
    # A program of the image as the loader of ours: it runs, and our interpreter is its /proc/self/exe.
    path = images.busybox(
        "example.com/takes-exe",
        ("/taken/sh", "-c", "chmod 755 /proc/$$/exe; echo $?; while :; do /bin/sleep 1; done"),
        files={"lib64/ld-linux-x86-64.so.2": program},
        links={"taken/sh": "/proc/self/exe"},
    )
    process = rkt.popen("run", "--insecure-options=image", path)
    uuid = rkt.wait_for_pod()
    with open(f"{rkt.pod_path(uuid)}/appsinfo/takes-exe/pid", encoding="ascii") as stream:
        taken = int(stream.read().split()[0])
    ours = f"/proc/{process.pid}/exe"
    assert _read_only(ours)
    assert os.path.samefile(f"/proc/{taken}/exe", ours)
    assert _read_only(f"/proc/{taken}/exe")
    wait_for(lambda: "Read-only file system" in process.stderr_text, "refusal")
    wait_for(lambda: process.stdout_text == "1\n", "the status of chmod")
    entering = rkt.popen("enter", uuid, "/bin/sleep", "600")
    wait_for(lambda: "rootfs/enter\0" in _command_line(entering.pid), "entering process")
    assert _read_only(f"/proc/{entering.pid}/exe")
    rkt.run("stop", "--force", uuid, check=0)
    process.wait(10)
    entering.wait(10)


def test_stage1_sees_to_it_where_stage0_has_not(rkt: Rkt, images: Images) -> None:
    """Its programs start again from a read-only mount, once; where that does not help nothing of a pod is made (RN1)."""
    rkt.run("run", "--insecure-options=image", images.busybox(), "--exec=/bin/true", check=0)
    (program,) = glob.glob(f"{rkt.data}/cas/layer/*/rootfs/run")
    for name, message in (("run", "unknown argument '--nonsense'"), ("enter", "no command to run")):
        words = [f"{os.path.dirname(program)}/{name}", "--nonsense", "x"]
        again = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        assert (again.returncode, again.stderr) == (254, f"stage1: {message}\n")
        marked = {**os.environ, "RKT_STAGE1_SEALED": "1"}
        refused = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, env=marked)
        assert refused.returncode == 254
        assert "cannot be made read-only for the pod" in refused.stderr


def _command_line(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline", encoding="utf-8") as stream:
        return stream.read()

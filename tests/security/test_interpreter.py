# SPDX-License-Identifier: Apache-2.0
"""The interpreter that makes pods is a file of the host, and out of their reach (invariant RN1, CVE-2019-5736)."""

from __future__ import annotations

import glob
import os
import struct
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


#: Position-independent: chmod("/proc/self/exe", 0755), "refused" if that is EROFS, then pause(2) for good. Without a C library,
#: which would look for itself in the file whose loader it is.
_LOADER = bytes.fromhex(
    "488d3d32000000 beed010000 b85a000000 0f05"  # lea rdi, path; mov esi, 0755; mov eax, chmod; syscall
    "83f8e2 7518"  # cmp eax, -EROFS; jne wait
    "bf01000000 488d3524000000 ba08000000 b801000000 0f05"  # write(1, text, 8)
    "b822000000 0f05 ebf7"  # wait: pause; jmp wait
)
_PATH, _TEXT = b"/proc/self/exe\0", b"refused\n"


def _loader() -> bytes:
    """The program as an ELF file of one page: older kernels clear the rest of a loader's last page, which nobody may write here."""
    head_bytes, program_bytes = 64, 56
    size = 4096
    head = struct.pack(
        "=16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01", 3, 62, 1, head_bytes + program_bytes, head_bytes, 0, 0, head_bytes, program_bytes, 1, 0, 0, 0,
    )  # fmt: skip
    load = struct.pack("=IIQQQQQQ", 1, 5, 0, 0, 0, size, size, 0x1000)
    return (head + load + _LOADER + _PATH + _TEXT).ljust(size, b"\0")


def test_the_interpreter_cannot_be_written_from_a_pod(rkt: Rkt, images: Images, flavor: str) -> None:
    """Supervisor and entering process run from a read-only mount, and an image that has the host's program executed that becomes its own gets hold of no other (RN1)."""
    # A program of the image as the loader of that one: it runs, and the host's program is its /proc/self/exe.
    path = images.busybox(
        "example.com/takes-exe",
        ("/taken/sh",),
        files={"lib64/ld-linux-x86-64.so.2": (_loader(), 0o755)},
        links={"taken/sh": "/proc/self/exe"},
    )
    process = rkt.popen("run", "--insecure-options=image", path)
    uuid = rkt.wait_for_pod()
    wait_for(lambda: process.stdout_text == "refused\n", "refusal")
    with open(f"{rkt.pod_path(uuid)}/appsinfo/takes-exe/pid", encoding="ascii") as stream:
        taken = f"/proc/{int(stream.read().split()[0])}/exe"
    ours = f"/proc/{process.pid}/exe"
    assert _read_only(ours)
    assert _read_only(taken)
    if flavor == "nspawn":
        assert os.readlink(taken).startswith("/usr/lib/systemd/systemd")
    else:
        assert os.path.samefile(taken, ours)
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

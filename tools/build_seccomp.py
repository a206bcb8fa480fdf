# SPDX-License-Identifier: Apache-2.0
"""Compiles the system call filters, ``seccomp-default-MACHINE.bpf`` and ``seccomp-pod-MACHINE.bpf``, in the directory that is given."""

from __future__ import annotations

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "src"))

from rkt.linux import seccomp  # noqa: E402 - isolated, so the path comes first


def main(directory: str) -> int:
    """Write each filter beside its final name, then rename it."""
    os.makedirs(directory, exist_ok=True)
    for name, program in (
        ("default", seccomp.compile_filter(seccomp.default_profile())),
        ("pod", seccomp.compile_pod_filter()),
    ):
        path = os.path.join(directory, f"seccomp-{name}-{os.uname().machine}.bpf")
        with open(path + ".new", "wb") as file:
            file.write(program)
        os.rename(path + ".new", path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

# SPDX-License-Identifier: Apache-2.0
"""The ``gc`` entrypoint: as of any flavour, and what a killed systemd-nspawn has left of its machine on the host."""

from __future__ import annotations

from rkt.stage1.common.gc import main as collect
from rkt.stage1.nspawn.command import machine_name
from rkt.stage1.nspawn.machine import sweep
from rkt.values import PodUUID


def main(argv: list[str]) -> int:
    """Take back what the pod left; may be run again.

    Raises:
        Stage1Error: the record of the cgroups is damaged.
    """
    status = collect(argv)
    sweep(machine_name(PodUUID.parse(argv[-1])))
    return status

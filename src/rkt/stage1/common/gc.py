# SPDX-License-Identifier: Apache-2.0
"""The ``gc`` entrypoint: take back what a pod that is over may have left on the host (spec runtime §2.7)."""

from __future__ import annotations

import os

from rkt.errors import EXIT_FAILURE
from rkt.linux import cgroup_processes
from rkt.stage0 import contract
from rkt.stage1.common.groups import find_groups
from rkt.stage1.common.say import say
from rkt.values import PodUUID


def main(argv: list[str]) -> int:
    """Kill what is left in the pod's cgroups and remove them; may be run again.

    Raises:
        Stage1Error: the record of the cgroups is damaged.
    """
    uuid = PodUUID.parse(argv[-1] if argv else "")
    group = find_groups(uuid)
    cgroup_processes.kill(group)
    # Its processes first: nothing of the pod is to use a network that is being taken back.
    if os.path.lexists(contract.NETNS) or os.path.lexists(contract.NET):
        from rkt.stage1.common.networks import release_left

        release_left(os.getcwd(), hold_fd=-1)
    left = group.remove()
    for problem in left:
        say(f"cannot remove cgroup {problem}")
    return EXIT_FAILURE if left else 0

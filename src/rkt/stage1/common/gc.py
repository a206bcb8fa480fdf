# SPDX-License-Identifier: Apache-2.0
"""The ``gc`` entrypoint: take back what a pod that is over may have left on the host (spec runtime §2.7)."""

from __future__ import annotations

import os

from rkt.errors import EXIT_FAILURE, Stage1Error
from rkt.linux import cgroup, files
from rkt.stage0 import contract
from rkt.stage1.common.limits import group_name
from rkt.stage1.common.say import say
from rkt.values import PodUUID

_LIMIT_BYTES = 64 << 10


def main(argv: list[str]) -> int:
    """Kill what is left in the pod's cgroups and remove them; may be run again.

    Raises:
        Stage1Error: the record of the cgroups is damaged.
    """
    uuid = PodUUID.parse(argv[-1] if argv else "")
    name = group_name(uuid)
    host = cgroup.Cgroups.detect()
    try:
        record = files.read_bounded(contract.SUBCGROUP, _LIMIT_BYTES).decode()
        group = host.open_pod(record, name)
    except FileNotFoundError:
        # Killed between making its cgroups and writing down where they are, or before either.
        group = host.search_pod(name)
    except ValueError as e:
        raise Stage1Error(f"{contract.SUBCGROUP} of pod {uuid} is damaged: {e}") from e
    group.kill()
    # Its processes first: nothing of the pod is to use a network that is being taken back.
    if os.path.lexists(contract.NETNS) or os.path.lexists(contract.NET):
        from rkt.stage1.common.networks import release_left

        release_left(os.getcwd(), hold_fd=-1)
    left = group.remove()
    for problem in left:
        say(f"cannot remove cgroup {problem}")
    return EXIT_FAILURE if left else 0

# SPDX-License-Identifier: Apache-2.0
"""``--cpuprofile`` and ``--memprofile``: where a command spends time and memory, for those who work on rkt."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run_profiled(invocation: Invocation) -> int:
    """Run the command and write what was asked for; nothing is written when the process becomes a pod.

    The first file is for ``pstats``, the second lists the lines that allocated most.
    """
    import cProfile
    import tracemalloc

    cpu_path, memory_path = invocation.values["cpuprofile"], invocation.values["memprofile"]
    profile = cProfile.Profile() if cpu_path else None
    if memory_path:
        tracemalloc.start()
    try:
        if profile is None:
            return invocation.command.run(invocation)
        return profile.runcall(invocation.command.run, invocation)
    finally:
        if profile is not None:
            profile.dump_stats(cpu_path)
        if memory_path:
            statistics = tracemalloc.take_snapshot().statistics("lineno")
            tracemalloc.stop()
            with open(memory_path, "w", encoding="utf-8") as stream:
                stream.writelines(f"{statistic}\n" for statistic in statistics)

# SPDX-License-Identifier: Apache-2.0
"""``rkt net gc``: take back what pods that are over left of their networks."""

from __future__ import annotations

from rkt.cli.command import Command
from rkt.errors import EXIT_FAILURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Collect; what is left is told, and the status says so."""
    from rkt.stage0.net_gc import collect

    return 0 if collect(invocation.settings) else EXIT_FAILURE


COMMAND = Command(
    name="net gc",
    summary="take back networks of pods that are over",
    description=(
        "Takes back what pods left that were killed, or whose plugins refused to: names of namespaces, interfaces, rules of "
        "the firewall, addresses. The pods themselves, with their logs, stay for rkt-gc(1), which does this too. Plugins of "
        "CNI 1.1.0 are asked to look for what nobody wrote down (GC); networks of such a configuration must be rkt's alone. "
        "Running pods, other engines and pods of another --dir are left alone."
    ),
    run=run,
    needs_root=True,
    examples=(("rkt net gc", "free addresses and ports of pods that were killed, and keep the pods"),),
)

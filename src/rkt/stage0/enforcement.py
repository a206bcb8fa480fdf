# SPDX-License-Identifier: Apache-2.0
"""What a stage1 does not enforce, by its own word (docs/stage1-contract.md); imported for those that say something."""

from __future__ import annotations

from rkt.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage0.run import RunOptions
    from rkt.stage0.stage1 import Program

#: The pod has the host's network.
NETWORK = "network"
_HOST = ["host"]


def settle(program: Program, options: RunOptions) -> RunOptions:
    """The options of a run as this stage1 can have them.

    Raises:
        UsageError: one was asked for and cannot be had.
    """
    words = program.not_enforced
    if NETWORK in words and options.networks != _HOST:
        if not options.usual_networks:
            raise UsageError(
                f"{program.name} has no networks of its own: --net={','.join(options.networks)} is not possible",
                hint="--net=host, or leave --stage1-… out",
            )
        return options.replace(networks=_HOST)
    return options

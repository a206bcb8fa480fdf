# SPDX-License-Identifier: Apache-2.0
"""``rkt net list``: the networks that pods can ask for, and who is on them."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.format_flag import FORMAT_FLAG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.cli.command import Invocation

_HEADINGS = ["NAME", "TYPE", "SUBNET", "PODS", "FILE"]


def run(invocation: Invocation) -> int:
    """Print a table or JSON; a configuration that cannot be used is an error, as it is for every pod."""
    from rkt.cli.output import print_json, print_table
    from rkt.stage0.net_report import listing

    rows = listing(invocation.settings)
    if invocation.values["format"]:
        print_json(rows, pretty=invocation.values["format"] == "json-pretty")
        return 0
    table = [] if invocation.values["no-legend"] else [_HEADINGS]
    for row in rows:
        table += _lines(row)
    print_table(table)
    return 0


def _lines(row: dict[str, Any]) -> list[list[str]]:
    """A line for each pod, the network on the first of them."""
    pods = [f"{each['uuid'][:8]} {' '.join(each['ips'])}".rstrip() for each in row["pods"]] or ["-"]
    first = [row["name"], ",".join(row["plugins"]) or "-", ", ".join(row["subnets"]) or "-", pods[0]]
    return [
        [*first, row["file"] or "(not configured any more)"],
        *(["", "", "", pod, ""] for pod in pods[1:]),
    ]


COMMAND = Command(
    name="net list",
    summary="list networks and the pods on them",
    description=(
        "Every network that --net of rkt-run(1) can name, in the order in which a pod of several gets its interfaces: the "
        "plugins that make it, the subnet of its addresses, running pods with the addresses that they have there, and the "
        "file that defines it. Those of stage1: come with rkt; a file of the same network in net.d of a configuration "
        "directory takes their place."
    ),
    run=run,
    flags=(
        FORMAT_FLAG,
        Flag(name="no-legend", kind=BOOL, default=False, help="leave out the line of column names"),
    ),
    needs_root=True,
    examples=(
        ("rkt net list", "see what --net can name, and who is there"),
        ("rkt net list --format=json-pretty", "with everything that programs may want"),
    ),
)

# SPDX-License-Identifier: Apache-2.0
"""``--progress`` of the commands that transfer images."""

from __future__ import annotations

from rkt.cli.command import Flag

PROGRESS_FLAG = Flag(
    name="progress",
    default="auto",
    help="how to show progress on standard error: auto, plain, json, none",
    metavar="WORD",
    choices=("auto", "plain", "json", "none"),
)

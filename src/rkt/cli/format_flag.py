# SPDX-License-Identifier: Apache-2.0
"""``--format`` of commands that print text or JSON; a module of its own because ``list`` must import little."""

from __future__ import annotations

from rkt.cli.command import Flag

FORMAT_FLAG = Flag(
    name="format",
    default="",
    help="json or json-pretty instead of text",
    metavar="FORMAT",
    choices=("json", "json-pretty"),
)

# SPDX-License-Identifier: Apache-2.0
"""``rkt app exec``: ``rkt enter`` by the name that clients of pods with changing apps use (spec cli §2.25)."""

from __future__ import annotations

from rkt.cli import enter

COMMAND = enter.COMMAND.replace(
    name="app exec",
    usage="[--app=APP] UUID [CMD [ARG…]]",
    flags=tuple(flag for flag in enter.COMMAND.flags if flag.name != "pod"),
    description=(
        "The same as rkt enter: runs a command, a shell by default, confined like the app: the same namespaces, cgroup, "
        "capabilities, system call filter, user and environment. Ends with the command's status."
    ),
    examples=(("rkt app exec --app=web 5bc080ca /bin/sh", "a shell in one of several apps"),),
)
